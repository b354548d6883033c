"""A released model from a run: proposed to its sites, then written once all of them have countersigned."""

from collections.abc import Sequence
from pathlib import Path

from esn_core.errors import ConfigError, StudyError
from esn_core.protocol.signature import load_signed
from esn_core.protocol.study_package import INPUTS
from esn_core.released_model.archive import ReleasedModel
from esn_core.released_model.numbers import ModelNumbers
from esn_core.released_model.signatures import Countersignature
from esn_core.system.files import write_new
from esn_server.enrolment.centre_keys import load_centre_key
from esn_server.release.card import card_of
from esn_server.release.contents import content_of
from esn_server.release.missing import missing_controls
from esn_server.report.result import read_result
from esn_server.run.directory import PROTOCOL
from esn_server.run.learned import LEARNED, read_learned

_RESULT = "result.json"


def release(
    run: Path, out: Path, *, centre: Path, countersignatures: Sequence[Path], propose: bool
) -> ReleasedModel:
    """Write a run's model, or a proposal of it for the sites to countersign.

    The same run gives the same model to the byte, so that what the sites countersigned is what is released.

    Parameters
    ----------
    run : Path
        Directory of the run.
    out : Path
        The file to write; one that is there is not replaced.
    centre : Path
        The centre's directory, whose key signs.
    countersignatures : sequence of Path
        Files that the sites sent.
    propose : bool

    Raises
    ------
    ConfigError
        `out` exists, the run's directory is not one, or a proposal is given countersignatures.
    StudyError
        The run is not finished, a required control is absent, or a site has not countersigned; the message
        lists all of it.
    ProtocolError
        The protocol is not this centre's, or a countersignature is not of this model.

    """
    if out.exists():
        raise ConfigError(f"{out} exists; a model is never overwritten")
    if propose and countersignatures:
        raise ConfigError(
            "a proposal is what the sites countersign: leave out --propose, or the countersignatures"
        )
    if not (run / PROTOCOL).is_file():
        raise ConfigError(f"{run}: is no directory of a run; it holds no {PROTOCOL}")
    if not (run / _RESULT).is_file():
        raise StudyError(f"{run}: the run is not finished; 'esn-server run --resume' finishes it")
    key = load_centre_key(centre)
    protocol = load_signed(run / PROTOCOL, key.public_key()).protocol
    result = read_result(run / _RESULT)
    missing = missing_controls(protocol, result)
    given = [Countersignature.read(_read(path), name=str(path)) for path in countersignatures]
    signed = {one.site for one in given}
    if not propose:
        absent = [site.name for site in result.sites if site.name not in signed]
        missing += [f"countersignature of {site}: 'esn-client countersign' makes it" for site in absent]
    if missing:
        raise StudyError(f"{run}: not released; missing: {'; '.join(missing)}")
    learned = read_learned(run)
    parts = {
        LEARNED: learned,
        "protocol.toml": (run / PROTOCOL).read_bytes(),
        _RESULT: (run / _RESULT).read_bytes(),
        "README.md": card_of(protocol, result).encode(),
    }
    parts |= {f"{INPUTS}/{name}": part for name, part in protocol.own_files.items()}
    content = content_of(protocol, result, ModelNumbers.from_bytes(learned), parts=parts)
    model = ReleasedModel.of(content, parts, countersignatures=() if propose else tuple(given), key=key)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_new(out, model.file, mode=0o644)
    return model


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
