"""The Flower app bundle of a study: two names and no code, the same bytes everywhere."""

import hashlib
import io
import zipfile
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "flower_app"
_FILES = ("pyproject.toml", "LICENSE", "README.md")
_DATE = (2024, 10, 1, 0, 0, 0)


def build_bundle() -> bytes:
    """Return the bundle that a run is submitted with.

    Stored without compression, dates or modes of the files on disk, so that every machine builds
    the same bytes and a site can agree to them by their hash. The manifest, one line
    ``path,sha256,bits`` per file, is the one that Flower's own builder writes.

    Returns
    -------
    bytes
        A zip archive.

    """
    buffer = io.BytesIO()
    manifest = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _FILES:
            content = (_DIRECTORY / name).read_bytes()
            _add(archive, name, content)
            manifest.append(f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}")
        _add(archive, ".info/CONTENT", "\n".join(manifest).encode())
    return buffer.getvalue()


def bundle_sha256() -> str:
    """Return the hash that a site has to agree to, as 64 hexadecimal digits."""
    return hashlib.sha256(build_bundle()).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file with nothing but its name and content."""
    entry = zipfile.ZipInfo(name, date_time=_DATE)
    entry.create_system = 3
    archive.writestr(entry, content)
