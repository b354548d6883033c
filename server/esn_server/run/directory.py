"""The directory of one run: the protocol, the finished steps, what it is doing now, and the outcome."""

from pathlib import Path

from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.errors import ConfigError
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.public_inputs import shipped
from esn_core.protocol.study_package import read_study, write_inputs
from esn_core.system.files import write_new

PROTOCOL = "protocol.toml"
STORE = "run.sqlite"
PROGRESS = "progress.json"


def open_directory(directory: Path, protocol_path: Path, protocol: Protocol, *, resume: bool) -> None:
    """Take a directory for a new run, or accept one for a run that goes on.

    The protocol and its own inputs are kept in it, so that a copy of the directory says what it belongs to.

    Parameters
    ----------
    directory : Path
        Made where it is missing.
    protocol_path : Path
        The file of `protocol`.
    protocol : Protocol
    resume : bool
        Whether the run was started before.

    Raises
    ------
    ConfigError
        Something is in the directory already and `resume` was not asked for; or no run of this
        protocol is in it, and it was.

    """
    kept = directory / PROTOCOL
    if resume:
        if not kept.exists():
            raise ConfigError(
                f"{directory}: holds no run that could go on. If its directory was moved, name the new one: "
                "sites that answered it refuse one begun anew. If there was none, leave '--resume' out"
            )
        found = load_protocol(kept)
        if found.sha256 != protocol.sha256:
            raise ConfigError(
                f"{directory}: holds a run of protocol {found.sha256[:16]} (study {found.study}), not of "
                f"{protocol.sha256[:16]}"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    if kept.exists():
        raise ConfigError(
            f"{directory}: holds a run already; '--resume' goes on with it, another run needs a directory of "
            "its own"
        )
    if any(directory.iterdir()):
        raise ConfigError(f"{directory}: is not empty; a run needs a directory of its own")
    text, given = read_study(protocol_path)
    try:
        # Of two starts at once, one makes the file.
        write_new(kept, text, mode=0o644)
        write_inputs(directory, given)
    except FileExistsError as cause:
        raise ConfigError(f"{directory}: another process has just started a run there") from cause


def atlas_of(name: str, directory: Path) -> Atlas:
    """Return the atlas that a result names: one that ships, or that of the run's protocol.

    Parameters
    ----------
    name : str
    directory : Path
        With the result; an own atlas is among the inputs of the protocol that is kept there.

    Raises
    ------
    ConfigError
        It does not ship, and the directory is none of a run that used it.

    """
    if ("atlas", name) in shipped():
        return load_atlas(name)
    if not (directory / PROTOCOL).is_file():
        raise ConfigError(f"{directory}: the atlas {name} is the study's own; its {PROTOCOL} is not here")
    return load_protocol(directory / PROTOCOL).atlas
