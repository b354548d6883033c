"""A hospital ready to answer: its approved protocols, its children, and the gate over its ledger."""

from collections.abc import Iterator
from contextlib import contextmanager

from esn_client.answers import Hospital
from esn_client.audit import AuditLog
from esn_client.cohort import load_cohort, read_participants
from esn_client.config import SiteSettings
from esn_client.egress import Gate, discrete_gaussian
from esn_client.identity import load_identity_key, load_mask_key
from esn_client.ledger import Ledger
from esn_client.state import SALT_BYTES, approved_protocols
from esn_client.study import Study
from esn_client.training import device_for
from esn_core.errors import ConfigError, DataError, LedgerError, ProtocolError


@contextmanager
def open_hospital(settings: SiteSettings) -> Iterator[tuple[Hospital, frozenset[str]]]:
    """Open the ledger and stand ready to answer the approved protocols.

    Yields
    ------
    Hospital
        Answers questions.
    frozenset of str
        Hashes of the Flower bundles that the approved protocols name.

    Raises
    ------
    ConfigError
        The site was not initialised, or has approved nothing.
    LedgerError
        The ledger is not the one that this site wrote, or older than its audit log.

    """
    if not settings.salt_path.exists():
        raise ConfigError(f"{settings.state}: this site has no state; run 'esn-client init' first")
    protocols = approved_protocols(settings)
    if not protocols:
        raise ConfigError(f"site {settings.site} has approved no protocol; run 'esn-client approve' first")
    device = device_for(settings.compute.device)
    participants = read_participants(settings.dataset)
    if not settings.derivatives.is_dir():
        raise DataError(f"{settings.derivatives}: there is no such directory; run 'esn-client prepare' first")

    def load(digest: str) -> Study:
        if digest not in protocols:
            raise ProtocolError("a question of a protocol that this site has not approved")
        protocol = protocols[digest]
        cohort = load_cohort(
            participants, site=settings.site, derivatives=settings.derivatives, protocol=protocol
        )
        return Study(settings.site, protocol, cohort, device)

    audit = AuditLog(settings.audit_path, site=settings.site)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        check_against_audit(ledger, audit)
        gate = Gate(
            site=settings.site,
            limits=settings.limits,
            ledger=ledger,
            audit=audit,
            salt=_salt(settings),
            mask_key=load_mask_key(settings.mask_key_path),
            noise=discrete_gaussian,
        )
        bundles = frozenset(protocol.bundle_sha256 for protocol in protocols.values())
        yield Hospital(gate=gate, load=load), bundles


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


def _salt(settings: SiteSettings) -> bytes:
    salt = settings.salt_path.read_bytes()
    # With a shorter key the ledger's identifiers could be guessed.
    if len(salt) != SALT_BYTES:
        raise ConfigError(f"{settings.salt_path}: holds {len(salt)} bytes, not {SALT_BYTES}: it was damaged")
    return salt
