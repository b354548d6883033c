"""NIfTI files of simulated scans, stored the way a scanner would."""

import gzip
import io
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from esn_core.simulation.diffusion import Phantom, Scheme

Orientation = Literal["LAS", "RAS"]
GZIP_TIME = 0
"""The modification time in every gzip header: equal seeds give equal bytes."""


def write_scan_files(stem: Path, phantom: Phantom, scheme: Scheme, *, orientation: Orientation) -> None:
    """Write ``stem.nii.gz``, ``stem.bval`` and ``stem.bvec`` by the conventions of NIfTI and FSL.

    Parameters
    ----------
    stem : Path
        Without suffix.
    phantom : Phantom
    scheme : Scheme
    orientation : 'LAS' or 'RAS'
        RAS images are stored as the phantom is; LAS ones run from right to left.

    """
    signal = np.clip(np.rint(phantom.signal), 0, np.iinfo(np.int16).max).astype(np.int16)
    write_image(stem.with_suffix(".nii.gz"), signal, phantom.affine, orientation=orientation)
    # FSL negates x where the affine's determinant is positive. Stored LAS, x along the voxel axis is
    # negative already: both files hold -x of the RAS direction.
    vectors = scheme.directions * np.array([-1.0, 1.0, 1.0])
    b = " ".join(f"{value:g}" for value in scheme.b_values_s_per_mm2)
    stem.with_suffix(".bval").write_text(b + "\n", encoding="utf-8")
    text = io.StringIO()
    np.savetxt(text, vectors.T + 0.0, fmt="%.6f")
    stem.with_suffix(".bvec").write_text(text.getvalue(), encoding="utf-8")


def write_image(
    path: Path, data: NDArray[np.int16], affine: NDArray[np.float64], *, orientation: Orientation
) -> None:
    """Write a NIfTI image whose bytes depend on nothing but its content."""
    if orientation == "LAS":
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = data.shape[0] - 1
        data, affine = data[::-1], affine @ flip
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_qform(affine, code=1)
    image.header.set_sform(affine, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=GZIP_TIME))
