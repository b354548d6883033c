"""The gate: everything that leaves a site passes here, in one order.

* protocol and site policy;
* minimum count;
* clip, and rounding to the grid;
* noise;
* the charge in the ledger, together with the noised sum;
* mask;
* audit line;
* bytes.

The noised sum is kept under the question's id; masks are computed from it again, so the same question
is answered with the same bytes and charged once.

Between the minimum count and the charge nothing is refused for what is in the
rows: a refusal costs no privacy, so it must not depend on a child's data.

Begin with `Gate.release`. What it takes are `Rows`: one for each scan, with the child whose scan it is, and
the kind of release that says how long a row may be.

>>> kind = ReleaseKind("centre", "training", dimension=2, l2_bound=2.0)
>>> Rows(kind, np.array([[1.0, 0.5]]), ("sub-01",)).participants
('sub-01',)
>>> Rows(kind, np.array([[1.0, 0.5]]), ("sub-01", "sub-02"))
Traceback (most recent call last):
esn_core.errors.GateError: release centre needs rows of shape (2, 2), not (1, 2)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from esn_client.gate.approved import ApprovedProtocol
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.charge import Charge
from esn_client.gate.frozen_cohort import (
    FrozenCohort,
    Person,
    frozen,
    require_charged,
    require_known_scans,
    require_same,
)
from esn_client.gate.ledger import Ledger
from esn_client.gate.ledger_store import Paid
from esn_client.gate.limits import Limits
from esn_client.gate.noise import Noise
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.gate.policy import consent_violations, fewest, size_violations, trust_violations
from esn_core.errors import EsnError, GateError, ProtocolError
from esn_core.identity.public_keys import mask_key
from esn_core.messages.answer import Answer, Refusal
from esn_core.messages.envelope import sha256_of
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.accounting import NO_NOISE
from esn_core.privacy.fixed_point import add_noise, noise_units, sum_rows
from esn_core.privacy.release import Children, People, ReleaseKind, clip_rows
from esn_core.privacy.secure_sum import Attempt, mask, self_seed
from esn_core.protocol.price import Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.centring import ADJUSTED, LEVELS, without_small_levels
from esn_core.statistics.matching import COHORT, REASONS, Standing


@dataclass(frozen=True)
class Rows:
    """What one release sums: a row per scan, and whose it is.

    Attributes
    ----------
    kind : ReleaseKind
    values : (n, d) float64
    participants : tuple of n str
        Participant label of each row; several rows of one participant are added before the clip.
    standing : tuple of n str
        What each participant counts as, where a release is of several groups of people: the minimum holds
        for each group by itself. Empty where all are children of one split.

    """

    kind: ReleaseKind
    values: NDArray[np.float64]
    participants: tuple[str, ...]
    standing: tuple[Standing, ...] = ()

    def __post_init__(self) -> None:
        if len(self.standing) != (len(self.participants) if self.kind.name == COHORT.name else 0):
            raise GateError(f"release {self.kind.name} has {len(self.standing)} standings, which do not fit")
        expected = (len(self.participants), self.kind.dimension)
        if self.values.shape != expected:
            found = self.values.shape
            raise GateError(f"release {self.kind.name} needs rows of shape {expected}, not {found}")


class Gate:
    """The only way out of a site.

    Parameters
    ----------
    site : str
    limits : Limits
        The site's own policy.
    ledger : Ledger
    audit : AuditLog
    salt : bytes
        Secret that turns participant labels into the ledger's identifiers.
    identity_key : Ed25519PrivateKey
        By which every answer is signed.
    mask_key : X25519PrivateKey
        From which this site's masks are made.
    noise : Noise
        `discrete_gaussian` outside tests.

    """

    def __init__(
        self,
        *,
        site: str,
        limits: Limits,
        ledger: Ledger,
        audit: AuditLog,
        salt: bytes,
        identity_key: Ed25519PrivateKey,
        mask_key: X25519PrivateKey,
        noise: Noise,
    ) -> None:
        self._site = site
        self._limits = limits
        self._ledger = ledger
        self._audit = audit
        self._salt = salt
        self._identity_key = identity_key
        self._mask_key = mask_key
        self._noise = noise

    def answered(self, question: Question, approved: ApprovedProtocol) -> bytes | None:
        """Return the answer that was already paid for, when this question was asked before.

        Raises
        ------
        ProtocolError
            It was asked before after other sums, or with a set of sites that cannot be.

        """
        self._ledger.require_open(approved.protocol.sha256)
        paid = self._ledger.paid(str(question.id))
        if paid is None:
            return None
        if paid.content_sha256 != question.content_sha256:
            raise ProtocolError("a question was asked again with other content")
        return self._send_sum(question, paid, approved.protocol)

    def reveal(self, question: Question, approved: ApprovedProtocol) -> bytes:
        """Reveal the seed of this site's own mask, for one set of sites and never for another.

        Parameters
        ----------
        question : Question
            Whose `participants` have all answered, says the centre.
        approved : ApprovedProtocol

        Raises
        ------
        ProtocolError
            The seed was revealed for another set of sites, or that of another exact sum was; the question
            was never answered, or after other sums; or the protocol has no such masks.

        """
        protocol = approved.protocol
        if not protocol.self_masked:
            raise ProtocolError("a seed was asked for; this protocol's masks have none to reveal")
        self._ledger.require_open(protocol.sha256)
        attempt = self._attempt(question, protocol)
        paid = self._ledger.paid(attempt.question)
        if paid is not None and paid.content_sha256 != question.content_sha256:
            raise ProtocolError("a seed was asked for after other sums than the answer was made from")
        one_set = _exact_questions(question, protocol)
        mark = self._ledger.reveal(attempt.question, attempt.participants, one_set=one_set)
        seed = self_seed(self._mask_key, attempt)
        return self._send(
            question, Answer(question.id, self._site, seed=seed, charged=mark, after=question.after), mark
        )

    def release(self, question: Question, rows: Rows, approved: ApprovedProtocol) -> bytes:
        """Protect, charge and hand out one sum.

        Parameters
        ----------
        question : Question
            Of the phase that the sum answers.
        rows : Rows
            What is to be summed.
        approved : ApprovedProtocol

        Returns
        -------
        bytes
            The answer, ready to leave.

        Raises
        ------
        GateError
            The rows are not what the question asks for, there are too few children, no consent to
            exact sums, or more trust is asked for than the site has.
        ProtocolError
            The set of sites to be summed cannot be.
        PrivacyBudgetError
            The site's cap, or a second run of the protocol.

        """
        kind, protocol = rows.kind, approved.protocol
        if question.id.protocol_sha256 != protocol.sha256:
            raise GateError("the question belongs to another protocol")
        price = price_of(protocol).of(question.id.phase)
        if (kind.name, kind.children) != (price.phase, price.children):
            raise GateError(f"release {kind.name} is no answer to a question of the phase {price.phase}")
        self._check_trust(protocol)
        self._check_consent(Price((price,), protocol.privacy.delta))
        if protocol.masked:
            self._attempt(question, protocol)
            self._check_one_set(question, protocol)
        noise_sd = noise_units(kind, price.noise_multiplier, share=protocol.noise_share)
        self._check_groups(rows, protocol)
        if rows.standing and price.noise_multiplier == NO_NOISE:
            rows = self._without_small_groups(rows, protocol)
        if kind in (LEVELS, ADJUSTED) and price.noise_multiplier == NO_NOISE:
            held = without_small_levels(rows.values, fewest=self._fewest(protocol))
            rows = replace(rows, values=held)
        patients, values = _one_row_each(rows)
        total = sum_rows(clip_rows(values, kind.l2_bound), kind)
        if price.noise_multiplier != NO_NOISE:
            total = add_noise(total, self._noise(kind.dimension, noise_sd))
        paid = self._ledger.charge(
            Charge(
                question=str(question.id),
                protocol_sha256=protocol.sha256,
                run=question.id.run,
                release=kind.name,
                trust=protocol.privacy.trust,
                noise_multiplier=price.noise_multiplier,
                noise_share=protocol.noise_share,
                l2_bound=kind.l2_bound,
                dimension=kind.dimension,
                patients=self._hashes(patients, protocol),
                salt_sha256=salt_fingerprint(self._salt),
                software=_software(),
            ),
            total,
            content_sha256=question.content_sha256,
            epsilon_cap=self._limits.epsilon_cap,
            delta=self._limits.delta,
            exact_again=protocol.sha256 in self._limits.exact_again,
        )
        return self._send_sum(question, paid, protocol)

    def disclose(
        self,
        question: Question,
        facts: SiteFacts,
        approved: ApprovedProtocol,
        *,
        children: Mapping[Children, Sequence[str]],
        others: Mapping[Standing, Sequence[str]],
        cohort: Sequence[Person],
    ) -> bytes:
        """Hand out the facts of a roll call, if this site can answer the protocol to its end.

        A refusal that is bound to come is given here, before any site has spent anything.

        Parameters
        ----------
        question : Question
        facts : SiteFacts
            Nothing in them is computed from a child's scan or score.
        approved : ApprovedProtocol
        children : dict of {'training', 'held-out'} to sequence of str
            Participant labels of each split.
        others : dict of str to sequence of str
            Participant labels of the controls, and of all who are left out, by what they count as.
        cohort : sequence of Person
            All of them, with their lines and scans.

        Raises
        ------
        GateError
            See `require_answerable`.
        PrivacyBudgetError
            The site's cap, or a second run of the protocol.
        LedgerError
            Patients of the ledger were hashed with another key.

        """
        self.require_answerable(question, approved, children=children, others=others, cohort=cohort)
        return self._send(question, Answer(question.id, self._site, facts=facts))

    def require_answerable(
        self,
        question: Question,
        approved: ApprovedProtocol,
        *,
        children: Mapping[Children, Sequence[str]],
        others: Mapping[Standing, Sequence[str]],
        cohort: Sequence[Person],
    ) -> None:
        """Refuse a protocol that this site cannot answer to its end; nothing is spent.

        The cohort is frozen for the run: from here on it answers with these people, lines and scans alone.

        Parameters
        ----------
        question : Question
            Whichever of the protocol comes first.
        approved : ApprovedProtocol
        children : dict of {'training', 'held-out'} to sequence of str
            Participant labels of each split.
        others : dict of str to sequence of str
            Participant labels of the controls, and of all who are left out, by what they count as.
        cohort : sequence of Person
            All of them, with their lines and scans.

        Raises
        ------
        GateError
            Too few children in a split, or controls in a summary of the cohort, no consent to exact sums,
            more trust is asked for than the site has, or a sum that no message holds; another cohort than the
            run began with, or a scan that was charged under another label.
        PrivacyBudgetError
            The site's cap, or a second run of the protocol.
        LedgerError
            Patients of the ledger were hashed with another key.

        """
        protocol = approved.protocol
        price = price_of(protocol)
        self._check_trust(protocol)
        self._check_consent(price)
        unfit = size_violations(protocol)
        if unfit:
            raise GateError("; ".join(unfit))
        for split, participants in children.items():
            if self._adds_nobody(split, protocol):
                continue
            if any(phase.children == split for phase in price.phases):
                what = f"the {split} children's releases"
                self._check_minimum(participants, split, protocol, what=what)
        for phase in price.about_controls:
            controls = others.get("control", ())
            self._check_minimum(controls, "controls", protocol, what=f"release {phase.phase}")
        if protocol.analyses.cohort and protocol.trains(self._site):
            self._check_controls(others.get("control", ()), protocol)
        check_budget(
            self._ledger,
            protocol,
            limits=self._limits,
            salt=self._salt,
            run=question.id.run,
            children=children,
            others=[label for labels in others.values() for label in labels],
        )
        names, now = self._frozen(cohort, protocol)
        scans = [scan for kept in now.people.values() for scan in kept.scans]
        require_known_scans(now, names, self._ledger.charged_for(scans))
        before = self._ledger.freeze(
            now,
            protocol_sha256=protocol.sha256,
            run=question.id.run,
            salt_sha256=salt_fingerprint(self._salt),
        )
        require_same(before, now, names, withdrawn=self._ledger.withdrawn)

    def require_same_cohort(
        self, question: Question, approved: ApprovedProtocol, cohort: Sequence[Person]
    ) -> None:
        """Refuse another cohort than the one with which the question's run began; before it began, none.

        A run that an earlier release began, which kept no cohort, goes on with whom it charged.

        Raises
        ------
        GateError
            It has changed; the words name what did.

        """
        digest = approved.protocol.sha256
        names, now = self._frozen(cohort, approved.protocol)
        before = self._ledger.cohort_of(digest, question.id.run)
        withdrawn, begun = self._ledger.withdrawn, self._ledger.run_of(digest) == question.id.run
        if before is not None:
            require_same(before, now, names, withdrawn=withdrawn)
            people = frozenset(before.people)
        else:
            charged = self._ledger.charged_in(digest) if begun else {}
            require_charged(charged, cohort, salt=self._salt, withdrawn=withdrawn)
            people = frozenset().union(*charged.values())
        if begun and withdrawn & people:
            self._check_going_on(approved.protocol)

    def _check_going_on(self, protocol: Protocol) -> None:
        """Refuse to go on without somebody whose consent was withdrawn, where the study ends with that."""
        if protocol.cohort.after_withdrawal == "stop":
            raise GateError(
                "consent was withdrawn, and this site's part ends with that: cohort.after_withdrawal = 'stop'"
            )
        if self._ledger.has_exact(protocol.sha256):
            raise GateError(
                "consent was withdrawn after sums without noise had left: others, subtracted, would be of "
                "that person alone; this site's part ends here"
            )

    def sums_left(self, approved: ApprovedProtocol) -> tuple[int, int]:
        """Return how many sums of a protocol have left, and how many can: some rounds may not be needed."""
        protocol = approved.protocol
        return self._ledger.sums_of(protocol.sha256), sum(p.releases for p in price_of(protocol).phases)

    def withdrawals(self) -> int:
        """Return how many people's consent was withdrawn: with each, a cohort is read again."""
        return len(self._ledger.withdrawn)

    def _frozen(self, cohort: Sequence[Person], protocol: Protocol) -> tuple[dict[str, str], FrozenCohort]:
        return frozen(cohort, salt=self._salt, simulated=protocol.simulated)

    def note(self, question: Question, received: int) -> bytes:
        """Say how many bytes of the transcript are here; nothing of it is about a child."""
        return self._send(question, Answer(question.id, self._site, noted=received))

    def begun(self, approved: ApprovedProtocol) -> bool:
        """Tell whether a sum of the protocol was ever paid for."""
        return self._ledger.begun(approved.protocol.sha256)

    def ledger_marks(self, entries_seen: int) -> tuple[LedgerMark, LedgerMark]:
        """Return the end of the ledger, and the entry up to which the centre says that it knows it.

        Raises
        ------
        LedgerError
            The ledger is shorter than that.

        """
        return self._ledger.mark, self._ledger.mark_at(entries_seen)

    def refuse(self, question: Question, error: EsnError) -> bytes:
        """Answer with the class of `error`; its text stays in the site's own log."""
        refusal = Refusal(error=type(error).__name__)
        body = Answer(question.id, self._site, refusal=refusal).to_bytes(self._identity_key)
        self._audit.write(
            "refused",
            question=str(question.id),
            attempt=question.id.attempt,
            error=refusal.error,
            bytes=len(body),
            sha256=sha256_of(body),
        )
        return body

    def receive(self, question: Question, body: bytes) -> None:
        """Note that a question of the centre's came, before anything is made of it."""
        self._audit.write(
            "received",
            question=str(question.id),
            attempt=question.id.attempt,
            bytes=len(body),
            sha256=sha256_of(body),
        )

    def turn_away(self, body: bytes, error: EsnError) -> None:
        """Note a message that is no question of the centre's, and has no id to be answered under."""
        self._audit.write("turned-away", error=type(error).__name__, sha256=sha256_of(body))

    def _attempt(self, question: Question, protocol: Protocol) -> Attempt:
        """Accept the set of sites that are to be summed, or refuse it."""
        named = question.participants
        allowed = tuple(site for site in protocol.sites if site in named)
        if named != allowed or self._site not in named:
            raise ProtocolError(
                "a sum is formed of sites of the roster, in its order, this one among them; "
                f"{', '.join(named) or 'none'} were named"
            )
        # The quorum is three or more; a smaller sum would also have too little noise.
        fewest = protocol.rounds.quorum
        if len(named) < fewest:
            raise ProtocolError(
                f"a sum of {len(named)} sites was asked for; the protocol allows {fewest} or more"
            )
        return Attempt(protocol.sha256, str(question.id), named, question.after.head)

    def _check_one_set(self, question: Question, protocol: Protocol) -> None:
        """Refuse an exact sum over other sites than the protocol's first one; its seed would stay here."""
        exact = _exact_questions(question, protocol)
        first = self._ledger.set_of(exact) if exact else None
        if first is not None and first != question.participants:
            raise ProtocolError(
                f"the first sum without noise of this protocol was of {', '.join(first)}, and all others are "
                f"of these sites; one of {', '.join(question.participants)} was asked for"
            )

    def _check_trust(self, protocol: Protocol) -> None:
        forbidden = trust_violations(self._limits, protocol)
        if forbidden:
            raise GateError("; ".join(forbidden))

    def _check_consent(self, price: Price) -> None:
        forbidden = consent_violations(self._limits, price)
        if forbidden:
            raise GateError("; ".join(forbidden))

    def _check_minimum(
        self, labels: Collection[str], people: People, protocol: Protocol, *, what: str
    ) -> None:
        """Refuse a sum over so few people that it would be about each of them."""
        needed = fewest(self._limits, protocol, people)
        if len(set(labels)) < needed:
            kind = "controls" if people == "controls" else "children"
            raise GateError(f"{what} would sum fewer than the minimum of {needed} {kind}")

    def _adds_nobody(self, people: People, protocol: Protocol) -> bool:
        """Tell whether this site answers for nobody: the protocol says that it trains nothing."""
        return people == "training" and not protocol.trains(self._site)

    def _check_controls(self, controls: Collection[str], protocol: Protocol) -> None:
        """Refuse a few controls; of none at all there is nobody to tell of."""
        needed = self._fewest(protocol)
        if 0 < len(set(controls)) < needed:
            raise GateError(f"release {COHORT.name} would sum fewer than the minimum of {needed} controls")

    def _check_groups(self, rows: Rows, protocol: Protocol) -> None:
        """Hold each group of a release to the minimum by itself; `_without_small_groups` sees to the rest."""
        children, what = rows.participants, f"release {rows.kind.name}"
        if self._adds_nobody(rows.kind.children, protocol):
            if children:
                raise GateError(
                    f"{what} would sum children whom the protocol judges by other sites' controls"
                )
            return
        if rows.standing:
            children = _standing_as("child", rows)
            self._check_controls(_standing_as("control", rows), protocol)
        self._check_minimum(children, rows.kind.children, protocol, what=what)

    def _without_small_groups(self, rows: Rows, protocol: Protocol) -> Rows:
        """Return rows with zeros for those who are left out for a reason that few share.

        They are charged all the same. This is for exact sums alone: with noise, each of them is covered by
        it, and one person more or less would move the rows of the others across the minimum.
        """
        needed = self._fewest(protocol)
        few = [reason for reason in REASONS if len(set(_standing_as(reason, rows))) < needed]
        hidden = np.isin(np.array(rows.standing, dtype=str), few)
        return replace(rows, values=np.where(hidden[:, None], 0.0, rows.values))

    def _fewest(self, protocol: Protocol) -> int:
        return max(self._limits.minimum_children, protocol.cohort.minimum_children)

    def _hashes(self, patients: Sequence[str], protocol: Protocol) -> tuple[str, ...]:
        return tuple(sorted(patient_hashes(patients, salt=self._salt, simulated=protocol.simulated)))

    def _send_sum(self, question: Question, paid: Paid, protocol: Protocol) -> bytes:
        total = paid.total
        if protocol.masked:
            attempt = self._attempt(question, protocol)
            total = mask(
                total,
                attempt,
                site=self._site,
                private_key=self._mask_key,
                public_keys={entry.site: mask_key(entry.mask_key) for entry in protocol.roster},
                self_masked=protocol.self_masked,
            )
        elif question.participants:
            raise ProtocolError("a set of sites was named; this protocol uses no masks")
        answer = Answer(question.id, self._site, total=total, charged=paid.mark, after=question.after)
        return self._send(question, answer, paid.mark)

    def _send(self, question: Question, answer: Answer, charged: LedgerMark | None = None) -> bytes:
        body = answer.to_bytes(self._identity_key)
        entry: dict[str, str | int] = (
            {"entry": charged.entries, "entry_hash": charged.head} if charged else {}
        )
        self._audit.write(
            "revealed" if answer.seed else "sent",
            question=str(question.id),
            attempt=question.id.attempt,
            bytes=len(body),
            sha256=sha256_of(body),
            **entry,
        )
        return body


def check_cohort(ledger: Ledger, protocol: Protocol, *, salt: bytes, cohort: Sequence[Person]) -> None:
    """Refuse a cohort that is not the one with which a study began, or whose scans have other labels.

    Raises
    ------
    GateError
        The words name whom it is about, and what changed.

    """
    names, now = frozen(cohort, salt=salt, simulated=protocol.simulated)
    scans = [scan for kept in now.people.values() for scan in kept.scans]
    require_known_scans(now, names, ledger.charged_for(scans))
    run = ledger.run_of(protocol.sha256)
    before = None if run is None else ledger.cohort_of(protocol.sha256, run)
    if before is not None:
        require_same(before, now, names, withdrawn=ledger.withdrawn)


def check_budget(
    ledger: Ledger,
    protocol: Protocol,
    *,
    limits: Limits,
    salt: bytes,
    run: str | None,
    children: Mapping[Children, Sequence[str]],
    others: Sequence[str],
) -> None:
    """Refuse a protocol that could not be answered to its end; nothing is spent.

    Parameters
    ----------
    ledger : Ledger
    protocol : Protocol
    limits : Limits
        The site's own policy.
    salt : bytes
        Secret that turns participant labels into the ledger's identifiers.
    run : str or None
        Which run asks; None where it has no name yet.
    children : dict of {'training', 'held-out'} to sequence of str
        Participant labels of each split.
    others : sequence of str
        Of the controls and all who are left out: a summary of the cohort, where there is one, charges them.

    Raises
    ------
    PrivacyBudgetError
        The site's cap, or a second run of the protocol.
    LedgerError
        Patients of the ledger were hashed with another key.

    """
    price = price_of(protocol)
    planned = [(participants, price.mechanisms(split)) for split, participants in children.items()]
    # A site that trains nothing adds nobody to the summary.
    if protocol.analyses.cohort and children.get("training"):
        planned.append((others, price.of(COHORT.name).mechanisms))
    for phase in price.about_controls:
        planned.append((others, phase.mechanisms))
    for participants, mechanisms in planned:
        ledger.check_plan(
            protocol_sha256=protocol.sha256,
            run=run,
            patients=patient_hashes(participants, salt=salt, simulated=protocol.simulated),
            salt_sha256=salt_fingerprint(salt),
            planned=mechanisms,
            epsilon_cap=limits.epsilon_cap,
            delta=limits.delta,
            exact_again=protocol.sha256 in limits.exact_again,
        )


def _exact_questions(question: Question, protocol: Protocol) -> tuple[str, ...]:
    """Return the ids of all questions of a run whose sums have no noise, if the question is one of them."""
    exact = [phase for phase in price_of(protocol).exact if protocol.self_masked]
    if question.id.phase not in {phase.phase for phase in exact}:
        return ()
    return tuple(
        str(question.id.model_copy(update={"phase": phase.phase, "round": round_}))
        for phase in exact
        for round_ in range(phase.releases)
    )


def _standing_as(standing: Standing, rows: Rows) -> tuple[str, ...]:
    """Return the participants of one group."""
    return tuple(p for p, of in zip(rows.participants, rows.standing, strict=True) if of == standing)


@cache
def _software() -> str:
    """Return our own version; looking it up reads a file and parses it."""
    return version("esn-federated")


def _one_row_each(rows: Rows) -> tuple[Sequence[str], NDArray[np.float64]]:
    patients, index = np.unique(np.array(rows.participants, dtype=str), return_inverse=True)
    values = np.zeros((len(patients), rows.kind.dimension))
    # A number that is not finite is the clip's business: infinities of two scans may add up to none.
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(values, index, rows.values)
    return [str(p) for p in patients], values
