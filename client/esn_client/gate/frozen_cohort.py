"""The cohort of a run, as it was at roll call: what the ledger keeps of it, and what has changed since.

A price, a split and a reference hold for the children who were there when a study began. So the ledger keeps
keyed digests of every participant's line and scans for each run, and a site answers with that cohort or not
at all. The same digests tell that a scan which was charged under one label came back under another.

What is said here names participants: it is for the site's own log.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from esn_client.gate.patients import patient_hashes
from esn_core.errors import GateError
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.statistics.matching import COHORT

_DIGEST_BYTES = 16
_NAMED = 5


@dataclass(frozen=True)
class Person:
    """A participant as a study sees them.

    Attributes
    ----------
    label : str
    standing : str
        'training' or 'held-out'; of everybody else what they count as.
    line : str
        Their line of the table: the columns that the study reads, in one form.
    scans : tuple of str
        SHA-256 of each scan that stands behind their scores; of the connectome, where there is no scan.

    """

    label: str
    standing: str
    line: str = ""
    scans: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What the ledger keeps of a participant: the standing, and keyed digests of line and scans."""

    standing: str
    line: str
    scans: tuple[str, ...]


@dataclass(frozen=True)
class FrozenCohort:
    """Everybody of a cohort, by the ledger's identifier."""

    people: Mapping[str, Kept]

    @classmethod
    def of(cls, people: Sequence[Person], *, salt: bytes, simulated: bool) -> Self:
        """Digest a cohort, with the site's secret."""
        names = patient_hashes([p.label for p in people], salt=salt, simulated=simulated)
        kept = (
            Kept(
                standing=p.standing,
                line=_keyed(p.line, salt, "line"),
                scans=keyed_scans(p.scans, salt=salt, simulated=simulated),
            )
            for p in people
        )
        return cls(dict(zip(names, kept, strict=True)))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `facts` wrote."""
        return cls(
            {who: Kept(standing, line, tuple(scans)) for who, (standing, line, scans) in facts.items()}
        )

    @property
    def facts(self) -> dict[str, list[object]]:
        """The same, as an entry of the ledger holds it."""
        return {who: [k.standing, k.line, list(k.scans)] for who, k in sorted(self.people.items())}

    @property
    def owners(self) -> dict[str, frozenset[str]]:
        """Whose each scan is."""
        found: dict[str, set[str]] = defaultdict(set)
        for who, kept in self.people.items():
            for scan in kept.scans:
                found[scan].add(who)
        return {scan: frozenset(who) for scan, who in found.items()}


def frozen(people: Sequence[Person], *, salt: bytes, simulated: bool) -> tuple[dict[str, str], FrozenCohort]:
    """Return everybody's label by identifier, and what the ledger keeps of them."""
    labels = [person.label for person in people]
    names = patient_hashes(labels, salt=salt, simulated=simulated)
    return dict(zip(names, labels, strict=True)), FrozenCohort.of(people, salt=salt, simulated=simulated)


def keyed_scans(scans: Iterable[str], *, salt: bytes, simulated: bool) -> tuple[str, ...]:
    """Return what the ledger keeps of scans: digests that nobody without the site's secret can compare."""
    return tuple(sorted({_keyed(scan, salt, "simulated scan" if simulated else "scan") for scan in scans}))


def require_same(
    before: FrozenCohort, now: FrozenCohort, names: Mapping[str, str], *, withdrawn: Collection[str] = ()
) -> None:
    """Refuse another cohort than the one that a run began with.

    Parameters
    ----------
    before, now : FrozenCohort
    names : mapping of str to str
        Today's labels, by identifier.
    withdrawn : collection of str
        Who may be missing.

    Raises
    ------
    GateError
        Somebody was added or removed, counts as something else, or has another line or other scans; all of it
        is named.

    """
    said = [f"{names[who]} was added" for who in now.people if who not in before.people]
    for who, kept in now.people.items():
        if who in before.people:
            said += [f"{names[who]}: {words}" for words in _differences(before.people[who], kept)]
    away = sum(who not in now.people and who not in withdrawn for who in before.people)
    if away:
        said.append(f"{away} of those who were there {'is' if away == 1 else 'are'} missing")
    if said:
        raise GateError(
            f"the cohort is not the one of the roll call: {_some(said, '; ')}. Put table and connectomes "
            "back as they were; a changed cohort needs a protocol of its own"
        )


def require_known_scans(
    now: FrozenCohort, names: Mapping[str, str], elsewhere: Mapping[str, frozenset[str]]
) -> None:
    """Refuse a scan that stands under two labels, now or in what was charged before.

    Parameters
    ----------
    now : FrozenCohort
    names : mapping of str to str
        Today's labels, by identifier.
    elsewhere : mapping of str to frozenset of str
        Who was charged for each scan before.

    Raises
    ------
    GateError
        One patient would have several budgets.

    """
    for _, who in sorted(now.owners.items()):
        if len(who) > 1:
            raise GateError(
                f"{' and '.join(sorted(names[one] for one in who))} have the same scan: one patient has one "
                "label; remove the other"
            )
    seen = {one for scan, who in now.owners.items() for one in who if elsewhere.get(scan, frozenset()) - who}
    if seen:
        labels = sorted(names[one] for one in seen)
        raise GateError(
            f"scans were charged under other labels than {_some(labels)}, or consent to them was withdrawn: "
            "a patient's budget follows the patient; give each its earlier label again, or leave it out"
        )


def require_charged(
    charged: Mapping[str, frozenset[str]],
    people: Sequence[Person],
    *,
    salt: bytes,
    withdrawn: Collection[str] = (),
) -> None:
    """Refuse a cohort that a run cannot have begun with, which an earlier release began and kept none of.

    Parameters
    ----------
    charged : mapping of str to frozenset of str
        Whom each release of the protocol charged, so far.
    people : sequence of Person
    salt : bytes
    withdrawn : collection of str
        Who may be missing.

    Raises
    ------
    GateError
        A release charged others than those whom it would charge today.

    """
    for release, patients in charged.items():
        phase = PHASES[cast("PhaseName", release)]
        if release == COHORT.name:  # which charges nearly everybody
            continue
        standing = "control" if phase.children == "controls" else phase.children
        today = [p.label for p in people if p.standing == standing]
        # Simulated people had the names of patients before.
        expected = (set(patient_hashes(today, salt=salt, simulated=s)) for s in (True, False))
        if not any(patients.difference(withdrawn) == names for names in expected):
            raise GateError(
                f"the cohort is not the one that this study began with: its release {release} was of "
                f"{len(patients)} people, of whom some are missing today, or others were added"
            )


def _some(words: Sequence[str], between: str = ", ") -> str:
    """Return the first of some words, and how many more there are."""
    more = f"{between}and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return between.join(words[:_NAMED]) + more


def _differences(before: Kept, now: Kept) -> list[str]:
    said = []
    if before.standing != now.standing:
        said.append(f"counted as {before.standing}, now as {now.standing}")
    if before.line != now.line:
        said.append("its line of the table has changed")
    if before.scans != now.scans:
        said.append("its scans have changed")
    return said


def _keyed(text: str, salt: bytes, purpose: str) -> str:
    """Digest a text under the site's secret, each purpose in a name space of its own."""
    key, person = salt[:64], purpose.encode()
    return hashlib.blake2b(text.encode(), key=key, digest_size=_DIGEST_BYTES, person=person).hexdigest()


def canonical_line(fields: Mapping[str, str]) -> str:
    """Return a line of the table in one form."""
    return json.dumps(fields, sort_keys=True, ensure_ascii=False)
