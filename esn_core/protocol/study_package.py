"""The study package: a protocol and the public inputs of its own that it names, in one file.

| in the file | what it is |
|---|---|
| `protocol.toml` | the study, as the centre signed it; it names the hash of every input |
| `inputs/NAME` | a table (TSV), a label volume (NIfTI), weights (safetensors) |

It is a zip without compression, which standard tools open; nothing in it is code. Unpacked, it is the same
study: a protocol finds its inputs in the folder `inputs` beside it. A protocol whose inputs all ship with the
software needs no package.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from esn_core.errors import ConfigError, ProtocolError
from esn_core.protocol.public_inputs import LARGEST_BYTES, shipped
from esn_core.system.files import write_whole
from esn_core.system.plain_zip import LARGEST_BYTES as LARGEST_PACKAGE_BYTES
from esn_core.system.plain_zip import unzipped, zipped

PROTOCOL = "protocol.toml"
INPUTS = "inputs"
SUFFIX = ".zip"
LARGEST_PROTOCOL_BYTES = 2**23
"""Of its text. A list of 24,000 of the edges of 400 regions takes a quarter of it."""
_ZIP = b"PK\x03\x04"


def read_study(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """Read a protocol's text and the files of its own inputs: from a package, or from beside it.

    Parameters
    ----------
    path : Path
        A package, or a protocol with the folder `inputs` beside it.

    Returns
    -------
    text : bytes
    given : dict of str to bytes
        By name. `Protocol` compares them with the hashes that it names.

    Raises
    ------
    ProtocolError
        There is no such file, or it is a zip that is no study package.

    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_PACKAGE_BYTES + 1)
    except FileNotFoundError as cause:
        raise ProtocolError(f"{path}: there is no such file") from cause
    except OSError as cause:
        raise ProtocolError(f"{path}: cannot be read as a text file") from cause
    if len(content) > LARGEST_PACKAGE_BYTES:
        raise ProtocolError(f"{path}: has more than {LARGEST_PACKAGE_BYTES // 2**20} MiB, and is no study")
    if not content.startswith(_ZIP):
        _require_short(path, content)
        return content, dict(_beside(path, content))
    entries = unzipped(content)
    if entries is None or PROTOCOL not in entries:
        raise ProtocolError(f"{path}: is no study package, or was damaged on its way; get it again")
    text = entries[PROTOCOL]
    _require_short(path, text)
    given = {name.removeprefix(f"{INPUTS}/"): part for name, part in entries.items() if name != PROTOCOL}
    if packed(text, given) != content:
        raise ProtocolError(f"{path}: a byte of it was changed; get it again")
    return text, given


def packed(text: bytes, given: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a study package."""
    return zipped({PROTOCOL: text} | {f"{INPUTS}/{name}": given[name] for name in sorted(given)})


def file_of(text: bytes, given: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return the ending and the bytes of one file with all of a study: a package where it has own inputs."""
    return (SUFFIX, packed(text, given)) if given else (".toml", text)


def write_inputs(directory: Path, given: Mapping[str, bytes]) -> None:
    """Write the files of a study's own inputs into the folder `inputs` of a directory.

    Raises
    ------
    ConfigError
        Another file of that name is there, which may be another study's.

    """
    for name, content in given.items():
        path = directory / INPUTS / name
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(f"{path} is another file; write the study into a directory of its own")
        write_whole(path, content)


def kept_studies(directory: Path) -> list[Path]:
    """List the protocols and packages in a directory whose names are their hashes."""
    return sorted([*directory.glob("*.toml"), *directory.glob(f"*{SUFFIX}")], key=lambda path: path.stem)


def kept_study(directory: Path, digest: str) -> Path:
    """Name the file of a protocol in such a directory, whether it is there or not."""
    package = directory / f"{digest}{SUFFIX}"
    return package if package.is_file() else directory / f"{digest}.toml"


def _require_short(path: Path, text: bytes) -> None:
    """Refuse a text whose tables, once read, would fill the memory: they take a hundred times its bytes."""
    if len(text) > LARGEST_PROTOCOL_BYTES:
        most = LARGEST_PROTOCOL_BYTES // 2**20
        raise ProtocolError(f"{path}: its protocol has {len(text)} bytes; {most} MiB at most are read")


def _beside(path: Path, text: bytes) -> Iterator[tuple[str, bytes]]:
    """Read the files that a protocol names, as far as they are beside it."""
    try:
        listed = tomllib.loads(text.decode()).get("inputs", [])
    except (ValueError, RecursionError):
        return  # which whoever reads the protocol says in its words
    ships = {name for known in shipped().values() for name in known}
    for one in listed if isinstance(listed, list) else []:
        named = one.get("files") if isinstance(one, dict) else None
        for name in named if isinstance(named, dict) else ():
            if "/" in name or "\0" in name or name in ships or not name.endswith(tuple(LARGEST_BYTES)):
                continue
            try:
                with (path.parent / INPUTS / name).open("rb") as file:
                    yield name, file.read(max(LARGEST_BYTES.values()) + 1)
            except OSError:
                continue
