"""The hospital in a process of its own: reads questions from its guard, and answers each through the gate.

It ends when no question came for a while, and is started again by the next one: what a study loaded (torch,
the children, a model) is some hundred MB, which a hospital need not hold between two studies. Before it ends,
it makes the personal models of studies that have come to their end.
"""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from esn_client.approval.approvals import Approvals
from esn_client.cohort.cohort import load_cohort
from esn_client.cohort.participants import read_participants
from esn_client.cohort.withdrawn import remaining
from esn_client.gate.audit_log import AuditLog, check_against_audit_log
from esn_client.gate.gate import Gate
from esn_client.gate.ledger import Ledger
from esn_client.gate.noise import discrete_gaussian
from esn_client.site.centre_kit import centre_key
from esn_client.site.cohort_bands import CohortBands
from esn_client.site.keys import load_identity_key, load_mask_key
from esn_client.site.settings import SiteSettings
from esn_client.site.state import read_salt
from esn_client.worker.executor import STALE
from esn_core.errors import ConfigError, DataError, EsnError, GateError, ProtocolError
from esn_core.messages.envelope import LARGEST_MESSAGE_BYTES
from esn_core.protocol.protocol import Protocol
from esn_core.system.logs import set_up

if TYPE_CHECKING:
    from esn_client.answers.hospital import Hospital
    from esn_client.answers.study import Study

_log = logging.getLogger(__name__)

_IDLE_S = 300.0


def serve(
    pipe: Connection,
    reply: Callable[[bytes], bytes],
    *,
    stale: Callable[[], bool] = lambda: False,
    at_rest: Callable[[], None] = lambda: None,
    idle_s: float = _IDLE_S,
) -> None:
    """Answer until the guard closes its end, or asks nothing for so long.

    Parameters
    ----------
    pipe : Connection
        To the guard.
    reply : callable
        Takes a question's bytes and returns the answer's. Of an exception, the guard learns the class.
    stale : callable
        Tells whether what this process was started with has changed: then it ends before the next answer, and
        the question is put to a new one.
    at_rest : callable
        Called when nothing was asked for so long, before the end; a question that comes meanwhile is
        answered. An exception is logged, and ends nothing.
    idle_s : float
        Longest wait for a question.

    """
    pipe.send_bytes(b"R")
    while True:
        if not pipe.poll(idle_s):
            try:
                at_rest()
            except Exception as error:
                _note("at rest", error)
            if not pipe.poll(0):
                return
        try:
            body = pipe.recv_bytes()
        except EOFError:
            return
        if stale():
            pipe.send_bytes(STALE)
            return
        try:
            said = b"A" + _bounded(reply(body))
        except Exception as error:
            _note("no answer", error)
            said = b"E" + type(error).__name__.encode()
        pipe.send_bytes(said)


def _note(what: str, error: Exception) -> None:
    """Log an error without its text, which may name a patient; with it where debugging was asked for."""
    _log.warning("%s: %s", what, type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))


def _bounded(answer: bytes) -> bytes:
    """Return an answer that the centre can take; a longer one would be on its way for ever."""
    if len(answer) > LARGEST_MESSAGE_BYTES:
        raise GateError(f"an answer may hold {LARGEST_MESSAGE_BYTES} bytes at most, not {len(answer)}")
    return answer


def main() -> None:
    """Serve a site: ``python -m esn_client.worker.process SITE.TOML DESCRIPTOR``."""
    set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the guard ends us, after the last answer
    pipe = Connection(int(sys.argv[2]))
    try:
        from esn_client.site.settings import load_site
        from esn_client.worker.process import open_hospital
        from esn_client.worker.study_end import make_personal_models

        path = Path(sys.argv[1])
        content = path.read_bytes()
        settings = load_site(path)
        with open_hospital(settings) as (hospital, approvals):
            serve(
                pipe,
                hospital.reply,
                stale=lambda: path.read_bytes() != content,
                at_rest=lambda: make_personal_models(settings, approvals.readable()),
            )
    except EsnError as error:
        pipe.send_bytes(b"F" + f"{type(error).__name__}\n{error}".encode())


if __name__ == "__main__":
    main()


@contextmanager
def open_hospital(settings: SiteSettings) -> Iterator[tuple["Hospital", Approvals]]:
    """Open the ledger and stand ready to answer the approved protocols, those of later included.

    Yields
    ------
    Hospital
        Answers questions.
    Approvals
        What it answers questions of, at each moment.

    Raises
    ------
    ConfigError
        The site was not initialised, or has no kit of the centre.
    ProtocolError
        An approved protocol was changed since.
    LedgerError
        The ledger is not the one that this site wrote, or older than its audit log.

    """
    if not settings.salt_path.exists():
        raise ConfigError(f"{settings.state}: this site has no state; run 'esn-client init' first")
    audit = AuditLog(settings.audit_path, site=settings.site)
    key = centre_key(settings)
    approvals = Approvals(settings, centre_key=key, audit=audit)
    for digest in approvals.digests():
        try:
            approvals.recorded(digest)
        except ProtocolError:
            if approvals.is_of_this_release(digest):  # and so somebody changed it
                raise
            _log.warning(
                "site %s: approval %s is of another release: its questions are refused ('esn-client check')",
                settings.site,
                digest[:16],
            )
    participants = read_participants(settings.dataset)
    if not settings.derivatives.is_dir():
        raise DataError(f"{settings.derivatives}: there is no such directory; run 'esn-client prepare' first")

    identity = load_identity_key(settings.identity_key_path)
    with Ledger(settings.ledger_path, identity) as ledger:
        check_against_audit_log(ledger, audit)
        salt, mask_key = read_salt(settings), load_mask_key(settings.mask_key_path)
        # Imported when nothing is amiss: torch takes seconds to load, and a site's mistake is told at once.
        from esn_client.answers.hospital import Hospital
        from esn_client.answers.study import Study
        from esn_client.answers.training import device_for
        from esn_client.site.transcripts import Transcripts

        device = device_for(settings.compute.device)

        def load(protocol: Protocol) -> "Study":
            cohort = load_cohort(
                remaining(participants, ledger, salt=salt),
                site=settings.site,
                derivatives=settings.derivatives,
                protocol=protocol,
            )
            return Study(settings.site, protocol, cohort, device)

        gate = Gate(
            site=settings.site,
            limits=settings.limits,
            ledger=ledger,
            audit=audit,
            salt=salt,
            identity_key=identity,
            mask_key=mask_key,
            noise=discrete_gaussian,
        )
        bands = CohortBands(settings.bands_path, salt=salt)
        hospital = Hospital(
            gate=gate,
            bands=bands,
            transcripts=Transcripts(settings.transcripts_path, salt=salt),
            centre_key=key,
            approved=approvals.protocol,
            load=load,
        )
        yield hospital, approvals
