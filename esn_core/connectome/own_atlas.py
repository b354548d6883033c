"""Atlases of a consortium's own: a table of regions and a label volume that others wrote, read with care."""

import gzip
import io
import struct
import zlib
from functools import lru_cache

import numpy as np

from esn_core.connectome.atlas import Atlas, parse_atlas
from esn_core.errors import DataError

LARGEST_REGIONS = 400
"""Of the parcellations in use the finest has as many in the cortex; their edges grow with the square."""
LARGEST_TABLE_BYTES = 2**18
LARGEST_VOLUME_BYTES = 2**24
"""As the file is. An atlas at 1 mm takes a hundredth of it."""
LARGEST_UNPACKED_BYTES = 2**26
"""What it unpacks to: 1 mm in MNI space take 7 million voxels, of four bytes at most."""
LARGEST_VOXELS = 2**24
_LARGEST_INDEX = 2**16 - 1
_LONGEST_NAME = 100
_FARTHEST_MM = 1000.0
# NIfTI-1 (nifti1.h): size of the header at 0, numbers of voxels at 40, where the voxels begin at 108, the
# magic at 344.
_HEADER_BYTES = 348


@lru_cache(maxsize=8)
def parse_own_atlas(name: str, table: bytes) -> Atlas:
    """Read the table of an atlas that others wrote.

    Parameters
    ----------
    name : str
    table : bytes
        As `parse_atlas` takes it, in UTF-8.

    Returns
    -------
    Atlas

    Raises
    ------
    DataError
        It does not describe an atlas, or one with more regions, larger indices, longer names or stranger
        characters in them than anything here is made for.

    """
    if len(table) > LARGEST_TABLE_BYTES:
        raise DataError(f"atlas {name!r}: a table has {LARGEST_TABLE_BYTES // 2**10} KiB at most")
    try:
        text = table.decode()
    except UnicodeDecodeError:
        raise DataError(f"atlas {name!r}: its table is not UTF-8 text") from None
    atlas = parse_atlas(name, text)
    if len(atlas.regions) > LARGEST_REGIONS:
        raise DataError(f"atlas {name!r} has {len(atlas.regions)} regions; {LARGEST_REGIONS} at most fit")
    for region in atlas.regions:
        if region.index > _LARGEST_INDEX:
            raise DataError(f"atlas {name!r}: an index is {_LARGEST_INDEX} at most, not {region.index}")
        for word in (region.name, region.module):
            if not word or len(word) > _LONGEST_NAME or not word.isprintable():
                raise DataError(
                    f"atlas {name!r}: names have 1 to {_LONGEST_NAME} printable characters, not {word!r:.40}"
                )
        if max(abs(region.x_mm), abs(region.y_mm), abs(region.z_mm)) > _FARTHEST_MM:
            raise DataError(f"atlas {name!r}: region {region.name!r} lies outside of any head")
    return atlas


def check_volume(name: str, volume: bytes) -> None:
    """Look at a label volume before anything unpacks it whole.

    Parameters
    ----------
    name : str
        Of the file, for words.
    volume : bytes
        A gzipped NIfTI-1 file.

    Raises
    ------
    DataError
        It is none, or larger than an atlas in MNI space can be.

    """
    if len(volume) > LARGEST_VOLUME_BYTES:
        raise DataError(f"{name}: has more than {LARGEST_VOLUME_BYTES // 2**20} MiB, and is no label volume")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(volume)) as file:
            header, unpacked = file.read(_HEADER_BYTES), 0
            while part := file.read(2**20):
                unpacked += len(part)
                if unpacked > LARGEST_UNPACKED_BYTES:
                    raise DataError(f"{name}: unpacks to more than {LARGEST_UNPACKED_BYTES // 2**20} MiB")
    except (OSError, EOFError, zlib.error):
        raise DataError(f"{name}: is not a whole gzip file") from None
    order = {b"\x5c\x01\x00\x00": "<", b"\x00\x00\x01\x5c": ">"}.get(header[:4])
    if order is None or header[344:348] != b"n+1\0":
        raise DataError(f"{name}: is not a NIfTI-1 image in one file")
    rank, *shape = struct.unpack(f"{order}8h", header[40:56])
    if not 3 <= rank <= 7 or min(shape[:rank]) < 1 or any(side != 1 for side in shape[3:rank]):
        raise DataError(f"{name}: a 3-D label volume is needed")
    if np.prod(shape[:3], dtype=np.int64) > LARGEST_VOXELS:
        raise DataError(f"{name}: has more than {LARGEST_VOXELS // 2**20} million voxels")
