"""A rehearsed release: a site's rows through real gates, and what an attacker is left with.

Gates, noise, masks and clip are those of a study. Ledgers live in memory, the
audit logs in a scratch directory, and the keys of the roster are made up, so
that nothing is charged, kept or sent.

Under trust `secure-sum` the other sites of the roster are played: each answers
with its share of the noise and rows of zeros. The attacker is the centre
together with as many sites as the protocol's noise withstands: it opens the sum
and subtracts what these sites contributed, their noise included.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from esn_client.answers.hospital import Hospital, rows_of
from esn_client.answers.study import Study
from esn_client.gate.approved import approved_as
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.gate import Gate, Rows
from esn_client.gate.ledger import Ledger
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_client.gate.policy import fewest
from esn_client.privacy_audit.arguments import arguments_of
from esn_client.site.cohort_bands import CohortBands
from esn_client.site.transcripts import SiteTranscript, Transcripts
from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import ProtocolError
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.privacy.fixed_point import leave_grid
from esn_core.privacy.release import Children, ReleaseKind
from esn_core.privacy.secure_sum import Attempt, unmask
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signed_with
from esn_core.statistics.matching import COHORT, Standing
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.relay import relayed_sum
from esn_core.transcript.transcript import Transcript

# SQLite keeps a ledger of this name in memory, a new one for each connection.
_IN_MEMORY = Path(":memory:")
_RUN = "rehearsal"
_NOWHERE = Path(os.devnull) / "none"
_SALT = bytes(32)
_MEMORY = Path("/dev/shm")  # noqa: S108 (a directory of random name is made in it)


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory that is gone afterwards; in memory, where the system has room for files there.

    The gates of a rehearsal write thousands of lines of audit log, each to disk before the next step.
    """
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="esn-rehearsal-", dir=place) as directory:
        yield Path(directory)


@dataclass(frozen=True)
class _Keys:
    identity: Ed25519PrivateKey
    mask: X25519PrivateKey


class _Rehearsed(Transcripts):
    """Transcripts of a study of which nothing was released: its questions have invented numbers.

    What is shown as released is looked at as in a study.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(_NOWHERE, salt=_SALT)
        self._study = study

    def of(self, protocol: Protocol, run: str) -> SiteTranscript:
        """Return a transcript that nothing is added to."""
        return _RehearsedTranscript(protocol, run, self._study)


class _RehearsedTranscript(SiteTranscript):
    def __init__(self, protocol: Protocol, run: str, study: Study) -> None:
        super().__init__(Transcript(protocol, run), _NOWHERE, _SALT)
        self._study = study

    def arguments(self, phase: PhaseName, round_: int) -> Arguments:  # noqa: ARG002 (all rounds are alike)
        """Return numbers that could be asked with."""
        return arguments_of(phase, self._study)


class Rehearsal:
    """A protocol, with a site that tries out its releases.

    Parameters
    ----------
    protocol : Protocol
    site : str
        On the protocol's roster.
    limits : Limits
        The site's own policy; a protocol that it forbids is refused here as well.
    scratch : Path
        A directory for the gates' audit logs; see `scratch_directory`.

    Raises
    ------
    ProtocolError
        The site is not on the roster.

    """

    def __init__(self, protocol: Protocol, *, site: str, limits: Limits, scratch: Path) -> None:
        if site not in protocol.sites:
            raise ProtocolError(f"site {site} is not on the roster: {', '.join(protocol.sites)}")
        self._keys = {
            name: _Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate()) for name in protocol.sites
        }
        roster = tuple(
            entry.model_copy(
                update={
                    "identity_key": identity_text(self._keys[entry.site].identity.public_key()),
                    "mask_key": mask_text(self._keys[entry.site].mask.public_key()),
                }
            )
            for entry in protocol.roster
        )
        self.protocol = protocol.model_copy(update={"roster": roster})
        # Signed with a key that is made up as well, and approved by nobody but the rehearsal.
        self.centre_key = Ed25519PrivateKey.generate()
        self.signed = signed_with(self.centre_key, self.protocol)
        self._approved = approved_as(self.protocol.sha256, self.signed)
        self._site = site
        self._limits = limits
        self._scratch = scratch
        others = [name for name in protocol.sites if name != site]
        # The fewest sites that may be summed, with the least noise.
        taking_part = {site, *others[: protocol.rounds.quorum - 1]} if protocol.masked else {site}
        self._sites = tuple(name for name in protocol.sites if name in taking_part)
        # Under masks these are the same.
        self._quorum = tuple(
            name for name in protocol.sites if name in {site, *others[: protocol.rounds.quorum - 1]}
        )
        played = [name for name in self._sites if name != site]
        self._colluding = frozenset(played[len(played) - protocol.privacy.colluding_sites :])

    def minimum(self, children: Children) -> int:
        """Return how many children of a split a sum needs."""
        return fewest(self._limits, self.protocol, children)

    @property
    def sites_in_a_sum(self) -> int:
        """How many gates each `view` goes through."""
        return len(self._sites)

    @property
    def minimum_controls(self) -> int:
        """How many controls a summary of the cohort needs, where there are any."""
        return max(self._limits.minimum_children, self.protocol.cohort.minimum_children)

    def question(self, phase: PhaseName) -> Question:
        """Return a question of the rehearsed protocol."""
        number = QuestionId(protocol_sha256=self.protocol.sha256, run=_RUN, phase=phase, round=0, attempt=0)
        return Question(number, participants=self._sites if self.protocol.masked else ())

    def signed_sum(self, *, run: str = _RUN, sites: int | None = None, twice: bool = False) -> bytes:
        """Return the first sum of the protocol over nobody, as sites sign it and the centre shows it.

        Parameters
        ----------
        run : str
            Which the answers are of.
        sites : int, optional
            Of how many sites the answers are shown; by default of all that a sum needs.
        twice : bool
            Whether one of the answers is shown twice.

        """
        protocol = self.protocol
        phase = protocol.phases[0].phase
        asked = self.question(phase)
        asked = replace(asked, id=asked.id.model_copy(update={"run": run}))
        kind = kind_of(phase, protocol)
        answers, seeds = [], []
        for name in self._quorum:
            rows = self._zeros(kind, name)
            place = protocol.sites.index(name)
            with Ledger(_IN_MEMORY, self._keys[name].identity) as ledger:
                gate = self._gate(name, ledger)
                answers.append((place, gate.release(asked, rows, self._approved)))
                if protocol.self_masked:
                    seeds.append((place, gate.reveal(asked, self._approved)))
        return relayed_sum([*answers[: int(twice)], *answers[:sites], *seeds[:sites]])

    @contextmanager
    def hospital(self, study: Study) -> Iterator[Callable[[bytes], bytes | None]]:
        """Open this site as it would be in a study, with a ledger that lasts until it is closed.

        Yields
        ------
        callable
            Takes a question, signed with `centre_key`; returns the bytes of the sum or seed that left, and
            None where the site refused.

        """
        keys = self._keys[self._site]
        known: dict[PhaseName, Rows] = {}

        def rows(asked: Arguments, study: Study) -> Rows:
            """Compute a phase's rows once: in a rehearsal it is always asked with the same numbers."""
            if asked.phase not in known:
                known[asked.phase] = rows_of(asked, study)
            return known[asked.phase]

        with Ledger(_IN_MEMORY, keys.identity) as ledger:
            hospital = Hospital(
                gate=self._gate(self._site, ledger),
                bands=CohortBands(self._scratch / "bands", salt=_SALT),
                transcripts=_Rehearsed(study),
                centre_key=self.centre_key.public_key(),
                approved=lambda _: self._approved,
                load=lambda _: study,
                rows=rows,
            )

            def ask(body: bytes) -> bytes | None:
                said = Answer.from_bytes(hospital.reply(body), keys.identity.public_key())
                return said.seed if said.total is None else said.total.tobytes()

            # Each refusal is a line for the site's own log; here they are meant, and told on the page.
            log = logging.getLogger("esn_client.answers.hospital")
            before = log.level
            log.setLevel(logging.ERROR)
            try:
                yield ask
            finally:
                log.setLevel(before)

    def view(self, question: Question, rows: Rows) -> NDArray[np.float64]:
        """Release `rows` and return what an attacker sees who knows all that colluding sites know.

        Returns
        -------
        (d,) float64

        Raises
        ------
        GateError, PrivacyBudgetError
            The site's own policy refuses the release.

        """
        totals: dict[str, NDArray[np.int64]] = {}
        seeds: dict[str, bytes] = {}
        known = np.zeros(rows.kind.dimension, dtype=np.int64)
        for name in self._sites:
            given = rows if name == self._site else self._zeros(rows.kind, name)
            keys = self._keys[name]
            with Ledger(_IN_MEMORY, keys.identity) as ledger:
                gate = self._gate(name, ledger)
                public = keys.identity.public_key()
                total = Answer.from_bytes(gate.release(question, given, self._approved), public).total
                if total is not None:
                    totals[name] = total
                if self.protocol.self_masked:
                    seed = Answer.from_bytes(gate.reveal(question, self._approved), public).seed
                    seeds[name] = seed or b""
                paid = ledger.paid(str(question.id))
                if name in self._colluding and paid is not None:
                    known += paid.total
        if not self.protocol.masked:
            return leave_grid(totals[self._site], rows.kind)
        attempt = Attempt(self.protocol.sha256, str(question.id), self._sites, question.after.head)
        return leave_grid(unmask(totals, attempt, seeds=seeds) - known, rows.kind)

    def _gate(self, site: str, ledger: Ledger) -> Gate:
        return Gate(
            site=site,
            limits=self._limits,
            ledger=ledger,
            audit=AuditLog(self._scratch / f"{site}.jsonl", site=site),
            salt=_SALT,
            identity_key=self._keys[site].identity,
            mask_key=self._keys[site].mask,
            noise=discrete_gaussian,
        )

    def _zeros(self, kind: ReleaseKind, site: str) -> Rows:
        """Return rows of a played site: as many people as are needed, who add nothing."""
        whose = kind.children
        if whose == "training" and not self.protocol.trains(site):
            return Rows(kind, np.zeros((0, kind.dimension)), ())
        fewest = self.minimum_controls if whose == "controls" else self.minimum(whose)
        labels = tuple(f"sub-played{i}" for i in range(fewest))
        child: Standing = "child"
        standing = (child,) * (len(labels) if kind.name == COHORT.name else 0)
        return Rows(kind, np.zeros((len(labels), kind.dimension)), labels, standing)
