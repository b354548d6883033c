"""What a hospital keeps of a study, for its own patients: its personal model, and predictions beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esn_client.answers.study import Study
from esn_client.answers.training import device_for
from esn_client.cohort.cohort import load_cohort
from esn_client.cohort.participants import read_participants
from esn_client.cohort.withdrawn import by_ledger, remaining
from esn_client.gate.audit_log import AuditLog, check_against_audit_log
from esn_client.gate.frozen_cohort import frozen, require_same
from esn_client.gate.ledger import Ledger
from esn_client.prediction.command import Wanted, predictions, took_part
from esn_client.prediction.findings import OwnPrediction, Prediction
from esn_client.prediction.page import personal_page
from esn_client.prediction.personal import judge, own_predictor, require_personal
from esn_client.prediction.personal_findings import PersonalFindings
from esn_client.site.keys import load_identity_key
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger, read_salt
from esn_client.site.transcripts import Transcripts
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import ConfigError, EsnError, ProtocolError, StudyError
from esn_core.protocol.protocol import Protocol
from esn_core.released_model.archive import ReleasedModel
from esn_core.system.files import write_new
from esn_core.transcript.course import Course


@contextmanager
def finished_study(settings: SiteSettings, protocol: Protocol) -> Iterator[tuple[Study, Course, str]]:
    """Open a study as this site answered it: the cohort of its run, and the sums that were released.

    Raises
    ------
    ProtocolError
        This site answered no question of the protocol.
    ConfigError, GateError
        The site keeps no cohort of the run, or has another one today.

    """
    digest = protocol.sha256
    audit = AuditLog(settings.audit_path, site=settings.site)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        check_against_audit_log(ledger, audit)
        salt, run = read_salt(settings), ledger.run_of(digest)
        before = None if run is None else ledger.cohort_of(digest, run)
        if run is None or before is None:
            raise ProtocolError(
                f"this site keeps no cohort of a run of the protocol {digest[:16]}: it has not answered "
                "one, or did so with an earlier release"
            )
        cohort = load_cohort(
            remaining(read_participants(settings.dataset), ledger, salt=salt),
            site=settings.site,
            derivatives=settings.derivatives,
            protocol=protocol,
        )
        names, now = frozen(cohort.enrolled, salt=salt, simulated=protocol.simulated)
        if ledger.withdrawn.intersection(before.people):
            raise ConfigError(
                "somebody of this study's cohort has withdrawn consent: what they added to the released sums "
                "cannot be taken off, so that there is no personal model of it"
            )
        require_same(before, now, names)
        course = Transcripts(settings.transcripts_path, salt=salt).of(protocol, run).course
        study = Study(settings.site, protocol, cohort, device_for(settings.compute.device))
        yield study, course, run


def personal_findings(settings: SiteSettings, protocol: Protocol) -> PersonalFindings:
    """Fit and judge a site's personal model of a study.

    Raises
    ------
    EsnError
        There is none, or not yet; it says why.

    """
    with finished_study(settings, protocol) as (study, course, run):
        require_personal(study)
        try:
            return judge(study, course, run=run)
        except StudyError as cause:
            raise StudyError(f"study {protocol.study} is not at its end here: {cause}") from cause


def personal_for(settings: SiteSettings, protocol: Protocol) -> Callable[[Floats], OwnPrediction]:
    """Return what a site's personal model of a study says of (d,) candidate scores of one of its patients.

    Raises
    ------
    EsnError
        There is none, or not yet; it says why.

    """
    with finished_study(settings, protocol) as (study, course, _):
        require_personal(study)
        return own_predictor(study, course)


def predictions_at(
    settings: SiteSettings, model: ReleasedModel, wanted: Wanted, *, say: Callable[[str], None]
) -> list[Prediction]:
    """Predict children at a hospital that has a site: by its ledger of who withdrew, and its personal model.

    Parameters
    ----------
    settings : SiteSettings
    model : ReleasedModel
    wanted : Wanted
    say : callable
        Told why there is no personal model, where there is none.

    """
    own, member = None, took_part(settings, model)
    if member:
        try:
            own = personal_for(settings, model.protocol)
        except EsnError as cause:
            say(f"without this hospital's personal model: {cause}")
    with open_ledger(settings) as ledger:
        return predictions(
            model,
            wanted,
            site=settings.site if member else None,
            personal=own,
            withdrew=by_ledger(ledger, salt=read_salt(settings)),
        )


def write_personal(found: PersonalFindings, out: Path, *, atlas: Atlas) -> list[Path]:
    """Write a page and its JSON, for the hospital's own people alone.

    Raises
    ------
    ConfigError
        One of them is there already.

    """
    files = {
        out / "personal-model.html": personal_page(found, atlas),
        out / "personal-model.json": found.model_dump_json(indent=2) + "\n",
    }
    present = [path.name for path in files if path.exists()]
    if present:
        raise ConfigError(f"{out}: {', '.join(present)} would be overwritten; choose another directory")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_new(path, text.encode(), mode=0o600)
    return list(files)
