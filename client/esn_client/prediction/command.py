"""The command 'predict': everything is read and judged before the first file is written."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esn_client.cohort.participants import read_participants
from esn_client.cohort.withdrawn import Withdrew
from esn_client.imaging.bids.simulated_mark import is_simulated
from esn_client.prediction.children import child_in_file, children_in, controls_of, nobody_known
from esn_client.prediction.findings import Prediction
from esn_client.prediction.page import page_of, table_of
from esn_client.prediction.predict import Personal, Predictor
from esn_client.site.centre_kit import centre_key
from esn_client.site.settings import SiteSettings
from esn_core.errors import ConfigError, DataError, ProtocolError
from esn_core.identity.public_keys import identity_text
from esn_core.identity.signing import fingerprint
from esn_core.released_model.archive import ReleasedModel, read_model
from esn_core.system.files import write_all

_COLUMNS = ("participant_id", "predicted_gase", "low", "high", "prediction_z", "quality")


@dataclass(frozen=True)
class Wanted:
    """Who is to be predicted, and by whose controls.

    Attributes
    ----------
    subject : Path
        A BIDS dataset, or one matrix.
    derivatives : Path
        Connectomes of the dataset, or of the controls.
    controls : Path or None
        For one matrix: the BIDS dataset with the controls.
    labels : sequence of str
    age_years : float or None
        For one matrix.
    pooled : bool
        Whether the study's pooled reference judges, in the place of own controls.

    """

    subject: Path
    derivatives: Path
    controls: Path | None = None
    labels: Sequence[str] = ()
    age_years: float | None = None
    pooled: bool = False


def trusted_model(path: Path, *, centre: Ed25519PublicKey | None) -> ReleasedModel:
    """Read a model that may be predicted with.

    Parameters
    ----------
    path : Path
    centre : Ed25519PublicKey or None
        The key that a member hospital's kit names; None elsewhere, where its fingerprint is compared.

    Raises
    ------
    ProtocolError
        It cannot be read, is a proposal, or another centre signed it.

    """
    model = read_model(path)
    if not model.released:
        raise ProtocolError(f"{path}: is a proposal to the sites; it is predicted with once it is released")
    if centre is not None and identity_text(centre) != identity_text(model.centre_key):
        raise ProtocolError(
            f"{path}: is signed by {fingerprint(model.centre_key)}, not by this hospital's centre, "
            f"{fingerprint(centre)}"
        )
    return model


def took_part(settings: SiteSettings, model: ReleasedModel) -> bool:
    """Tell whether a site is one of the study's: its name alone may be another consortium's, too."""
    if not settings.kit_path.exists() or settings.site not in model.content.sites:
        return False
    return identity_text(centre_key(settings)) == identity_text(model.centre_key)


def predictions(
    model: ReleasedModel,
    wanted: Wanted,
    *,
    site: str | None,
    personal: Personal | None = None,
    withdrew: Withdrew = nobody_known,
) -> list[Prediction]:
    """Predict everybody who is wanted, or nobody; `DataError` names every fault."""
    if not wanted.subject.exists():
        raise DataError(f"{wanted.subject}: there is no such dataset or connectome")
    if not wanted.derivatives.is_dir():
        raise DataError(f"{wanted.derivatives}: there is no such directory of connectomes")
    if wanted.subject.is_dir():
        if wanted.controls is not None or wanted.age_years is not None:
            raise ConfigError(
                "--controls and --age-years belong to a single connectome; a dataset has its own"
            )
        children, controls = children_in(
            wanted.subject,
            wanted.derivatives,
            model,
            labels=wanted.labels,
            pooled=wanted.pooled,
            withdrew=withdrew,
        )
    else:
        if (wanted.controls is None) != wanted.pooled or wanted.labels:
            raise ConfigError(
                "a single connectome needs --controls, the BIDS dataset with this hospital's own controls, "
                "or --pooled-reference, and takes no --participant-label"
            )
        listed = None if wanted.controls is None else read_participants(wanted.controls)
        controls = [] if listed is None else controls_of(listed, wanted.derivatives, model, withdrew=withdrew)
        child = child_in_file(
            wanted.subject,
            model,
            age_years=wanted.age_years,
            simulated=is_simulated(wanted.controls or wanted.derivatives),
            withdrew=withdrew,
        )
        children = [child]
    predictor = Predictor(model, controls, site=site, personal=personal, pooled=wanted.pooled)
    return [predictor.prediction(child) for child in children]


def write_predictions(found: Sequence[Prediction], model: ReleasedModel, out: Path) -> list[Path]:
    """Write a page and a JSON file for each child, and a table where there are several; all of it or nothing.

    Raises
    ------
    ConfigError
        One of the files is there already.

    """
    files: dict[Path, str] = {}
    for one in found:
        files[out / f"{one.participant}_prediction.html"] = page_of(one, model)
        files[out / f"{one.participant}_prediction.json"] = one.model_dump_json(indent=2) + "\n"
    if len(found) > 1:
        files[out / "predictions.html"] = table_of(found, model)
        files[out / "predictions.tsv"] = _table(found)
    present = [path.name for path in files if path.exists()]
    if present:
        raise ConfigError(f"{out}: {', '.join(present)} would be overwritten; choose another directory")
    write_all({path: content.encode() for path, content in files.items()})
    return list(files)


def _table(found: Sequence[Prediction]) -> str:
    outcomes = list(dict.fromkeys(risk.outcome for one in found for risk in one.risks))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"risk_{name}" for name in outcomes)])
    for one in found:
        first = {risk.outcome: risk.risk for risk in reversed(one.risks)}
        writer.writerow(
            [
                one.participant,
                f"{one.predicted_gase:.2f}",
                *(f"{end:.2f}" for end in one.interval),
                _cell(one.unlike.prediction_z),
                one.quality,
                *(_cell(first.get(name)) for name in outcomes),
            ]
        )
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
