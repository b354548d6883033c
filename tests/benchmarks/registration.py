"""How the rim that is left out, and a T1w image of the same child, bear on a real subject's registration.

Usage: python tests/benchmarks/registration.py DIRECTORY

DIRECTORY keeps the subject. The scan is taken as it is, not denoised or aligned. The T1w image is compared
with the b0 once cut out by the scan's mask, as labels in T1 space would allow, and once with skull and face.
"""

import argparse
from pathlib import Path

import numpy as np
import real_subject
from nibabel.affines import apply_affine
from scipy.ndimage import affine_transform, distance_transform_edt

from esn_client.imaging.bids.dataset import Dataset
from esn_client.imaging.bids.images import read_image
from esn_client.imaging.bids.scans import load_scan
from esn_client.imaging.fibres.tensor import fit_tensor
from esn_client.imaging.regions import registration
from esn_client.imaging.regions.sides import compare_sides
from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

ATLAS = "desikan-killiany-83"
RIMS = ((4.5, 0.0), (10.0, 0.0), (4.5, 5.0))
"""Millimetres left out of the subject's FA, and of the template's."""


def lay(maps, affine, atlas, *, subject_mm, template_mm):
    """Register with a rim left out; give labelled mL, their share outside of the mask, the correlation."""
    read = registration.read_image

    def without_rim(path):
        image, grid = read(path)
        if path.name == registration.TEMPLATE and template_mm:
            depth_mm = distance_transform_edt(image > 0.01, sampling=np.linalg.norm(grid[:3, :3], axis=0))
            image = np.where(depth_mm > template_mm, image, 0.0)
        return image, grid

    kept, registration.RIM_MM, registration.read_image = registration.RIM_MM, subject_mm, without_rim
    try:
        found = registration.register_atlas(maps.fa, maps.mask, affine, atlas=atlas)
    finally:
        registration.RIM_MM, registration.read_image = kept, read
    labelled = found.labels > 0
    ml = labelled.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    return ml, 100 * (labelled & ~maps.mask).sum() / labelled.sum(), found.correlation


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    subject = real_subject.fetch(parser.parse_args().directory)
    atlas, recipe = load_atlas(ATLAS), ImagingRecipe(**recipe_settings(ATLAS))
    dataset = Dataset(subject.bids)
    (visit,) = dataset.visits(None, None)
    scan = load_scan(dataset.files(visit, segmentation="none"), atlas=atlas, recipe=recipe)
    maps = fit_tensor(scan.signal, scan.gradients)
    t1w = read_image(subject.t1w)
    brain = affine_transform(
        maps.mask.astype(np.float64),
        *_matrix(np.linalg.inv(scan.affine) @ t1w.affine),
        output_shape=t1w.voxels.shape,
        order=0,
    )
    for words, image in (("cut out by the mask", np.where(brain > 0, t1w.voxels, 0)), ("whole", t1w.voxels)):
        found = compare_sides(image.astype(np.float64), t1w.affine, maps.b0, maps.mask, scan.affine)
        centre = apply_affine(scan.affine, np.argwhere(maps.mask).mean(axis=0))
        moved = np.linalg.norm(apply_affine(found.linear, centre) - centre)
        print(
            f"T1w image, {words}: {found.as_it_is:.3f} as it is, {found.mirrored:.3f} mirrored, "
            f"{found.margin_percent:.1f} %; moved by {moved:.1f} mm",
            flush=True,
        )
    for subject_mm, template_mm in RIMS:
        ml, outside, r = lay(maps, scan.affine, atlas, subject_mm=subject_mm, template_mm=template_mm)
        print(
            f"rim of {subject_mm:g} mm, of the template {template_mm:g} mm: {ml:.0f} mL labelled, "
            f"{outside:.1f} % outside of the mask, correlation {r:.3f}",
            flush=True,
        )


def _matrix(at):
    return at[:3, :3], at[:3, 3]


if __name__ == "__main__":
    main()
