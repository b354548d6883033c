"""What a Flower app bundle may hold: names, and no code."""

import hashlib
import io
import tomllib
import zipfile

from esn_core.errors import ProtocolError

_MAX_BUNDLE_BYTES = 256 * 1024
_MAX_FILE_BYTES = 64 * 1024
_ALLOWED_FILES = frozenset({"pyproject.toml", "LICENSE", "README.md", ".info/CONTENT"})
_COMPONENTS = {"serverapp": "esn_server.app:app", "clientapp": "esn_client.app:app"}


def check_bundle(content: bytes, *, allowed_sha256: frozenset[str]) -> None:
    """Refuse a bundle that this site has not agreed to, or that could hold code.

    The hash alone would do. The rest is for the day on which somebody agrees to a hash
    without looking at what it stands for. Nothing is written to disk or imported.

    Parameters
    ----------
    content : bytes
        The bundle as the centre sent it.
    allowed_sha256 : frozenset of str
        Hashes that this site has agreed to.

    Raises
    ------
    ProtocolError
        The hash is unknown, or the bundle holds anything but the four expected files, the two
        installed apps' names, and sizes that fit. The message repeats nothing from the bundle
        except its hash.

    """
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in allowed_sha256:
        raise ProtocolError(f"bundle {sha256} is not one that this site has agreed to")
    if len(content) > _MAX_BUNDLE_BYTES:
        raise ProtocolError(
            f"bundle {sha256} has {len(content)} bytes; at most {_MAX_BUNDLE_BYTES} are allowed"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_files(archive, sha256)
            settings = tomllib.loads(archive.read("pyproject.toml").decode())
        components = settings["tool"]["flwr"]["app"]["components"]
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError):
        raise ProtocolError(f"bundle {sha256} is no Flower app bundle") from None
    if components != _COMPONENTS:
        raise ProtocolError(f"bundle {sha256} names other apps than the installed ones")


def _check_files(archive: zipfile.ZipFile, sha256: str) -> None:
    """Compare the archive's table of contents with the closed list, before a byte is unpacked."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(names) != len(set(names)) or not set(names) <= _ALLOWED_FILES:
        raise ProtocolError(f"bundle {sha256} holds files beside {', '.join(sorted(_ALLOWED_FILES))}")
    if any(entry.file_size > _MAX_FILE_BYTES for entry in entries):
        raise ProtocolError(f"bundle {sha256} holds a file of more than {_MAX_FILE_BYTES} bytes")
