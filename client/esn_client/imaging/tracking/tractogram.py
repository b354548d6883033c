"""Tractograms on disk: streamlines written as they come, in the TRX format."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.tracking.streamlines import Streamlines


def write_tractogram(
    batches: Iterable[Streamlines], path: Path, *, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> Iterator[Streamlines]:
    """Pass streamlines on and keep a copy; the file appears when the last batch was taken.

    The arrays of the format (tee-ar-ex/trx-spec) are appended to files beside `path` and packed uncompressed
    at the end: memory holds a batch, and nothing half-written bears the name of the whole.

    Parameters
    ----------
    batches : iterable of Streamlines
    path : Path
        Ends in ``.trx``; replaced if it is there.
    affine : (4, 4) float64
        From voxels to RAS+ mm.
    shape : (X, Y, Z)
        Of the grid.

    Yields
    ------
    Streamlines
        Unchanged.

    """
    from trx.trx_file_memmap import zip_from_folder

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
        folder = Path(work, "arrays")
        folder.mkdir()
        points, streamlines = 0, 0
        with (
            (folder / "positions.3.float32").open("wb") as positions,
            (folder / "offsets.uint64").open("wb") as places,
        ):
            for batch in batches:
                in_mm = batch.points @ affine[:3, :3].T + affine[:3, 3]
                positions.write(in_mm.astype("<f4").tobytes())
                places.write((batch.offsets[:-1] + points).astype("<u8").tobytes())
                points += len(batch.points)
                streamlines += len(batch)
                yield batch
            places.write(np.array([points], dtype="<u8").tobytes())
        header = {
            "DIMENSIONS": list(shape),
            "VOXEL_TO_RASMM": affine.tolist(),
            "NB_VERTICES": points,
            "NB_STREAMLINES": streamlines,
        }
        (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")
        whole = Path(work, path.name)
        zip_from_folder(str(folder), str(whole))
        with whole.open("rb") as written:
            os.fsync(written.fileno())
        whole.replace(path)
