"""A ledger that was lost, or came back from an old backup: what logs know of it, and how it is counted again.

Every sum that left has a line in the site's audit log, and one in the centre's log of messages. They name
questions, not patients. So what the ledger lacks is counted for everybody of the site, known or not, unless a
person lists who can have been in it; and the protocols that it belongs to are closed, because a sum that is
lost would be made again with other noise under the same masks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from esn_client.gate.audit_log import REBUILT, AuditLog
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.site.keys import load_identity_key
from esn_client.site.settings import SiteSettings
from esn_client.site.state import read_salt
from esn_core.errors import AuditError, ConfigError, LedgerError
from esn_core.messages.facts import LedgerMark
from esn_core.privacy.accounting import GaussianRelease, compose
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.study_package import kept_studies
from esn_core.system.chained_log import BrokenChainError, ChainedLog, read_chain


@dataclass(frozen=True)
class Lost:
    """What a ledger lacks.

    Attributes
    ----------
    releases : dict of str to Counter of str
        By protocol, how many sums of each phase.
    protocols : dict of str to Protocol
        By hash.
    withdrawals : int
        How many notes of consent that was withdrawn; the logs do not say whose.

    """

    releases: Mapping[str, Counter[str]]
    protocols: Mapping[str, Protocol]
    withdrawals: int

    @property
    def anything(self) -> bool:
        """Whether anything is missing."""
        return bool(self.releases) or self.withdrawals > 0

    @property
    def facts(self) -> dict[str, Any]:
        """What is missing, as JSON can hold it."""
        return {"releases": {d: dict(c) for d, c in self.releases.items()}, "withdrawals": self.withdrawals}

    @property
    def in_words(self) -> str:
        """What is missing, a line for each protocol."""
        said = [
            f"{self.protocols[digest].study} ({digest[:16]}): "
            + ", ".join(f"{times} of {phase}" for phase, times in sorted(counts.items()))
            for digest, counts in self.releases.items()
        ]
        if self.withdrawals:
            said.append(
                f"{self.withdrawals} withdrawals of consent: the logs do not say whose; repeat 'esn-client "
                "withdraw-child' for each"
            )
        return "\n".join(said)


def find_lost(
    settings: SiteSettings, ledger: Ledger, *, centre_log: Path | None, protocols: Sequence[Path]
) -> Lost:
    """Compare a ledger with the logs.

    Parameters
    ----------
    settings : SiteSettings
    ledger : Ledger
        What there is of it; an empty one where it is gone.
    centre_log : Path or None
        The centre's log of messages, where the site's own is incomplete as well. It also names questions that
        this site refused, which are then counted like sums.
    protocols : sequence of Path
        Protocols that the site has not kept.

    Raises
    ------
    AuditError
        A log was changed.
    LedgerError
        The protocol of a sum is not here: nobody can say what it cost.

    """
    since = _since_rebuilt(_lines(settings.audit_path))
    missing = [facts for facts in since if "entry" in facts and not _holds(ledger, facts)]
    questions = {facts["question"] for facts in missing if facts["event"] == "sent"}
    if centre_log is not None:
        answered = [facts for facts in _lines(centre_log) if facts.get("event") == "answered"]
        said = {facts["question"] for facts in answered if facts.get("site") == settings.site}
        questions |= {question for question in said if ledger.paid(question) is None}
    known = _protocols(settings, protocols)
    counts: dict[str, Counter[str]] = {}
    for question in sorted(questions):
        beginning, _, phase, _ = question.split("/")
        if phase == "roll-call":
            continue
        found = [digest for digest in known if digest.startswith(beginning)]
        if len(found) != 1:
            raise LedgerError(
                f"the protocol {beginning} of a sum that left is not in {settings.state}: give its file with "
                "--protocol"
            )
        counts.setdefault(found[0], Counter())[phase] += 1
    withdrawals = sum(facts["event"] == "consent-withdrawn" for facts in missing)
    return Lost(counts, {digest: known[digest] for digest in counts}, withdrawals)


def rebuild(
    settings: SiteSettings, lost: Lost, ledger: Ledger, *, people: Iterable[str] | None
) -> LedgerMark:
    """Count what a ledger lacks, close its protocols, and let the ledger begin anew from there.

    Parameters
    ----------
    settings : SiteSettings
    lost : Lost
    ledger : Ledger
        Open to be written to.
    people : iterable of str or None
        Labels of all who can have been in the lost sums; None for everybody, who may come yet as well.

    Returns
    -------
    LedgerMark
        The ledger's new end, which the centre has to accept.

    """
    salt = read_salt(settings)
    labels = None if people is None else sorted(people)
    for digest, counts in lost.releases.items():
        protocol = lost.protocols[digest]
        # Who does not exist needs no protection: a rehearsal's sums count for nobody, unless a list asks.
        names = labels if labels is not None or not protocol.simulated else []
        patients = None if names is None else patient_hashes(names, salt=salt, simulated=protocol.simulated)
        ledger.count_lost(
            _worst(protocol, counts),
            protocol_sha256=digest,
            patients=patients,
            salt_sha256=salt_fingerprint(salt),
        )
    mark = ledger.mark
    AuditLog(settings.audit_path, site=settings.site).write(REBUILT, entry=mark.entries, entry_hash=mark.head)
    return mark


def read_labels(path: Path) -> frozenset[str]:
    """Read labels, one a line, with or without 'sub-'; `ConfigError` where there are none."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: cannot be read as a text file") from cause
    if not lines:
        raise ConfigError(f"{path}: lists nobody")
    return frozenset(f"sub-{line.removeprefix('sub-')}" for line in lines)


def open_to_rebuild(settings: SiteSettings) -> Ledger:
    """Open what there is of a site's ledger; where the file is gone, an empty one is begun."""
    return Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path))


def _worst(protocol: Protocol, counts: Counter[str]) -> list[tuple[str, GaussianRelease, int]]:
    """Return the releases of the kind of people whom they cost most: nobody is of two kinds."""
    price = price_of(protocol)
    by_people: dict[str, list[tuple[str, GaussianRelease, int]]] = {}
    for phase, times in counts.items():
        found = price.of(cast("PhaseName", phase))
        release = (phase, GaussianRelease(found.noise_multiplier), times)
        by_people.setdefault(found.children, []).append(release)
    return max(
        by_people.values(), key=lambda some: compose([r for _, r, times in some for _ in range(times)])
    )


def _holds(ledger: Ledger, facts: Mapping[str, Any]) -> bool:
    """Tell whether a ledger has the entry that a line of the audit log names."""
    if facts["entry"] > ledger.mark.entries:
        return False
    return ledger.mark_at(facts["entry"]).head == str(facts["entry_hash"])


def _since_rebuilt(lines: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the lines after the newest rebuilding: what was lost before is counted already."""
    last = max((i for i, facts in enumerate(lines) if facts.get("event") == REBUILT), default=-1)
    return lines[last + 1 :]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [line.facts for line in read_chain(list(ChainedLog(path).lines()))]
    except (OSError, BrokenChainError) as cause:
        raise AuditError(f"{path}: {cause}") from cause


def _protocols(settings: SiteSettings, others: Sequence[Path]) -> dict[str, Protocol]:
    """Read every protocol that the site approved or was given, by hash."""
    kept = [*kept_studies(settings.approved_path), *kept_studies(settings.withdrawn_path)]
    return {protocol.sha256: protocol for protocol in map(load_protocol, [*kept, *others])}
