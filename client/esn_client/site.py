"""A hospital ready to answer: its approvals, its children, and the gate over its ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from esn_client.approvals import Approvals
from esn_client.audit import AuditLog
from esn_client.cohort import load_cohort
from esn_client.config import SiteSettings
from esn_client.egress import Gate, discrete_gaussian
from esn_client.identity import load_identity_key, load_mask_key
from esn_client.kit import centre_key
from esn_client.ledger import Ledger
from esn_client.participants import read_participants
from esn_client.state import SALT_BYTES
from esn_core.errors import ConfigError, DataError, LedgerError
from esn_core.protocol import Protocol

if TYPE_CHECKING:
    from esn_client.answers import Hospital
    from esn_client.study import Study


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
        approvals.recorded(digest)
    participants = read_participants(settings.dataset)
    if not settings.derivatives.is_dir():
        raise DataError(f"{settings.derivatives}: there is no such directory; run 'esn-client prepare' first")

    identity = load_identity_key(settings.identity_key_path)
    with Ledger(settings.ledger_path, identity) as ledger:
        check_against_audit(ledger, audit)
        salt, mask_key = read_salt(settings), load_mask_key(settings.mask_key_path)
        # Imported when nothing is amiss: torch takes seconds to load, and a site's mistake is told at once.
        from esn_client.answers import Hospital
        from esn_client.study import Study
        from esn_client.training import device_for

        device = device_for(settings.compute.device)

        def load(protocol: Protocol) -> "Study":
            cohort = load_cohort(
                participants, site=settings.site, derivatives=settings.derivatives, protocol=protocol
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
        yield Hospital(gate=gate, centre_key=key, approved=approvals.protocol, load=load), approvals


def check_against_audit(ledger: Ledger, audit: AuditLog) -> None:
    """Refuse a ledger that lacks what the audit log saw leave.

    Raises
    ------
    LedgerError
        It was replaced, cut short, or restored from a backup.

    """
    seen = audit.last_charge()
    if seen is not None and ledger.mark_at(seen.entries) != seen:
        raise LedgerError(
            f"entry {seen.entries} of the ledger is not the one that the audit log saw: the ledger was "
            "replaced or restored from a backup"
        )


def read_salt(settings: SiteSettings) -> bytes:
    """Return the secret that turns participant labels into the ledger's identifiers.

    Raises
    ------
    ConfigError
        The file is not there, or was damaged.

    """
    if not settings.salt_path.exists():
        raise ConfigError(f"{settings.state}: this site has no state; run 'esn-client init' first")
    salt = settings.salt_path.read_bytes()
    # With a shorter key the ledger's identifiers could be guessed.
    if len(salt) != SALT_BYTES:
        raise ConfigError(f"{settings.salt_path}: holds {len(salt)} bytes, not {SALT_BYTES}: it was damaged")
    return salt
