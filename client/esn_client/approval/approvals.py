"""The protocols that a site approved: their files are looked at again for every question.

So an approval, a withdrawal or the end of a protocol's validity counts from the
next question on, and a file that was changed is never acted on.
"""

import datetime
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esn_client.approval.own_inputs import check_inputs
from esn_client.gate.approved import ApprovedProtocol, approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.policy import violations
from esn_client.imaging.bids.simulated_mark import is_simulated, misfit
from esn_client.site.settings import SiteSettings
from esn_client.site.state import own_entry
from esn_core.errors import ProtocolError
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.signature import load_signed, require_current, today_utc
from esn_core.protocol.study_package import file_of, kept_studies, kept_study, read_study
from esn_core.system.files import write_whole


class Approvals:
    """The approved protocols of one site, each a file under its hash.

    Parameters
    ----------
    settings : SiteSettings
    centre_key : Ed25519PublicKey
        Only what this key signed is approved, or answered.
    audit : AuditLog
    today : callable
        Tests bring their own.

    """

    def __init__(
        self,
        settings: SiteSettings,
        *,
        centre_key: Ed25519PublicKey,
        audit: AuditLog,
        today: Callable[[], datetime.date] = today_utc,
    ) -> None:
        self._settings = settings
        self._key = centre_key
        self._audit = audit
        self._today = today
        self._known: dict[str, tuple[bytes, ApprovedProtocol]] = {}

    def approve(self, path: Path) -> ApprovedProtocol:
        """Approve a protocol: from the next question on, this site answers it.

        Raises
        ------
        ProtocolError
            The protocol cannot be used, is not signed by the centre, has expired, asks for more than this
            site allows, does not list the site with the keys it has, or is a rehearsal and the site's dataset
            is not, or the other way round.
        ConfigError
            This version ships no such atlas, or own weights are not those of the model.
        DataError
            An own label volume does not show the regions of its table.

        """
        signed = load_signed(path, self._key)
        protocol = signed.protocol
        require_current(protocol, self._today())
        check_inputs(protocol)
        _check_roster(self._settings, protocol)
        forbidden = violations(self._settings.limits, protocol)
        if forbidden:
            raise ProtocolError(f"this site's settings forbid it: {'; '.join(forbidden)}")
        dataset = self._settings.dataset
        wrong_people = dataset.is_dir() and misfit(is_simulated(dataset), protocol.simulated)
        if wrong_people:
            raise ProtocolError(wrong_people)
        self._audit.write("approved", protocol=protocol.sha256)
        text, given = read_study(path)
        ending, content = file_of(text, given)
        write_whole(self._settings.approved_path / f"{protocol.sha256}{ending}", content)
        return approved_as(protocol.sha256, signed)

    def withdraw(self, beginning: str) -> str:
        """Take an approval back: from the next question on, this site refuses the protocol's questions.

        Parameters
        ----------
        beginning : str
            Of the protocol's hash, eight digits or more.

        Returns
        -------
        str
            The whole hash.

        Raises
        ------
        ProtocolError
            No approved protocol has a hash that begins so, or more than one has.

        """
        if not re.fullmatch(r"[0-9a-f]{8,64}", beginning):
            raise ProtocolError(f"8 digits or more of a protocol's hash are needed, not {beginning!r}")
        found = [digest for digest in self.digests() if digest.startswith(beginning)]
        if len(found) != 1:
            known = ", ".join(digest[:16] for digest in self.digests()) or "none"
            raise ProtocolError(f"{len(found)} approved protocols begin with {beginning}; approved: {known}")
        (digest,) = found
        self._settings.withdrawn_path.mkdir(parents=True, exist_ok=True)
        kept = self._path(digest)
        kept.replace(self._settings.withdrawn_path / kept.name)
        self._audit.write("withdrawn", protocol=digest)
        return digest

    def digests(self) -> tuple[str, ...]:
        """Return the hashes of the approved protocols, expired ones among them."""
        return tuple(path.stem for path in kept_studies(self._settings.approved_path))

    def protocol(self, digest: str) -> ApprovedProtocol:
        """Return an approved protocol whose questions may be answered today.

        Raises
        ------
        ProtocolError
            It is not approved, has expired, or its file was changed since.

        """
        approved = self.recorded(digest)
        require_current(approved.protocol, self._today())
        return approved

    def recorded(self, digest: str) -> ApprovedProtocol:
        """Return an approved protocol, expired or not; `ProtocolError` when it is not approved or changed."""
        path = self._path(digest)
        if not path.is_file():
            raise ProtocolError("a question of a protocol that this site has not approved, or has withdrawn")
        try:
            content = path.read_bytes()
        except OSError as cause:
            raise ProtocolError(f"{path}: cannot be read: {cause.strerror}") from cause
        known = self._known.get(digest)
        if known is None or known[0] != content:  # parsed and checked again where a byte has changed
            signed = load_signed(path, self._key)
            try:
                known = self._known[digest] = (content, approved_as(digest, signed))
            except ProtocolError as fault:
                raise ProtocolError(f"{path}: {fault}") from fault
        return known[1]

    def is_of_this_release(self, digest: str) -> bool:
        """Tell whether an approved protocol's file is one that this release reads, whoever signed it."""
        try:
            load_protocol(self._path(digest))
        except ProtocolError:
            return False
        return True

    def bundles(self) -> frozenset[str]:
        """Return the hashes of the Flower bundles that the approved protocols name."""
        return frozenset(protocol.bundle_sha256 for protocol in self.readable())

    def readable(self) -> tuple[Protocol, ...]:
        """Return the approved protocols, expired ones among them, without those that cannot be read."""
        found = []
        for digest in self.digests():
            # A file that was changed is refused under its own name, when it is asked about.
            with suppress(ProtocolError):
                found.append(self.recorded(digest).protocol)
        return tuple(found)

    def _path(self, digest: str) -> Path:
        return kept_study(self._settings.approved_path, digest)


def _check_roster(settings: SiteSettings, protocol: Protocol) -> None:
    entries = {entry.site: entry for entry in protocol.roster}
    if settings.site not in entries:
        raise ProtocolError(f"site {settings.site} is not on the roster: {', '.join(entries)}")
    own, listed = own_entry(settings).model_dump(), entries[settings.site].model_dump()
    differing = [name.replace("_", " ") for name, value in own.items() if listed[name] != value]
    if differing:
        raise ProtocolError(
            f"the roster lists another {' and '.join(differing)} for {settings.site} than the one in "
            f"{settings.state}"
        )
