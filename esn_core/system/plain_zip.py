"""Zips without compression, whose every byte follows from what is in them; standard tools open them."""

import io
import zipfile
from collections.abc import Mapping

LARGEST_BYTES = 64 * 2**20
MOST_ENTRIES = 1000
"""More than sites can sign. Python makes an object of each before anything else of a zip can be looked at."""
_OF_ENTRY = b"PK\x01\x02"
# A zip knows no date before it; ours have none of their own, so that equal contents are equal files.
_DATE = (1980, 1, 1, 0, 0, 0)
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError)


def zipped(entries: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a zip of these files, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def unzipped(content: bytes) -> dict[str, bytes] | None:
    """Read all files of a zip that `zipped` could have written; nothing is unpacked to disk.

    Nothing in it is compressed: what it holds is no larger than the zip.

    Returns
    -------
    dict of str to bytes, or None
        None where it is none of ours: damaged, compressed, of too many files, or one name twice.

    """
    if len(content) > LARGEST_BYTES or content.count(_OF_ENTRY) > MOST_ENTRIES:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.infolist()
            if (
                sum(entry.file_size for entry in found) > LARGEST_BYTES
                or len({entry.filename for entry in found}) < len(found)
                or any(entry.compress_type != zipfile.ZIP_STORED for entry in found)
            ):
                return None
            return {entry.filename: archive.read(entry) for entry in found}
    except _DAMAGED:
        return None
