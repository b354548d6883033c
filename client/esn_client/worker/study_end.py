"""The end of a study at a hospital: its personal model of it is made, for its own people alone."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from esn_client.prediction.personal_command import personal_findings, write_personal
from esn_client.prediction.personal_findings import PersonalFindings
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger
from esn_core.connectome.atlas import Atlas
from esn_core.protocol.protocol import Protocol
from esn_core.system.logs import said_of

_log = logging.getLogger(__name__)


def make_personal_models(settings: SiteSettings, protocols: Iterable[Protocol]) -> None:
    """Make the personal model of each study whose evaluation was answered, where none is there yet.

    By then a site has all sums that it takes, and the cohort is still that of the study. Page and JSON lie in
    the site's state; nothing is sent or charged (decision 0211). What stands in a model's way is logged, and
    ends nothing.

    Parameters
    ----------
    settings : SiteSettings
    protocols : iterable of Protocol
        The approved ones.

    """
    for protocol in protocols:
        place = settings.personal_model_path(protocol.study, protocol.sha256)
        try:
            if place.exists() or not protocol.gives_personal_model(settings.site):
                continue
            with open_ledger(settings) as ledger:
                answered = ledger.charged_in(protocol.sha256)
            if "evaluation" not in answered:
                continue
            _write_whole(personal_findings(settings, protocol), place, atlas=protocol.atlas)
        except Exception as error:
            _log.warning(
                "%s: this hospital's personal model was not made ('esn-client personal-model' makes it): %s",
                protocol.study,
                said_of(error),
                exc_info=_log.isEnabledFor(logging.DEBUG),
            )
        else:
            _log.info(
                "%s: this hospital's personal model was made, and stays here; 'esn-client status' says where",
                protocol.study,
            )


def _write_whole(found: PersonalFindings, place: Path, *, atlas: Atlas) -> None:
    """Write page and JSON so that the directory is there with both of them, or not at all."""
    beside = place.with_name(f".{place.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        write_personal(found, beside, atlas=atlas)
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
