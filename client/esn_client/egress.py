"""The gate: everything that leaves a site passes here, in one order.

Protocol and site policy, minimum count, clip, quantise, noise, ledger charge
together with the noised sum, audit line, bytes. The masks of the secure sum
will stand between charge and audit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from esn_client.audit import AuditLog
from esn_client.config import Limits
from esn_client.ledger import Charge, Ledger, patient_hashes
from esn_core.errors import EsnError, GateError, ProtocolError
from esn_core.fixed_point import quantise, sensitivity_units
from esn_core.price import price_of
from esn_core.privacy import NO_NOISE
from esn_core.protocol import Protocol
from esn_core.questions import Answer, Question, Refusal, SiteFacts, sha256_of
from esn_core.releases import ReleaseKind, clip_rows

Noise = Callable[[int, float], NDArray[np.int64]]
"""Draws (d,) integers from the discrete Gaussian of a standard deviation in grid units."""


@dataclass(frozen=True)
class Rows:
    """What one release sums: a row per scan, and whose it is.

    Attributes
    ----------
    kind : ReleaseKind
    values : (n, d) float64
    participants : tuple of n str
        Participant label of each row; several rows of one participant are added before the clip.

    """

    kind: ReleaseKind
    values: NDArray[np.float64]
    participants: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = (len(self.participants), self.kind.dimension)
        if self.values.shape != expected:
            raise GateError(f"release {self.kind.name} needs rows of shape {expected}, not {self.values.shape}")


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
    noise : Noise
        `discrete_gaussian` outside tests.

    """

    def __init__(
        self, *, site: str, limits: Limits, ledger: Ledger, audit: AuditLog, salt: bytes, noise: Noise
    ) -> None:
        self._site = site
        self._limits = limits
        self._ledger = ledger
        self._audit = audit
        self._salt = salt
        self._noise = noise

    def answered(self, question: Question) -> bytes | None:
        """Return the answer that was already paid for, when this question was asked before.

        Raises
        ------
        ProtocolError
            It was asked before with other content.

        """
        paid = self._ledger.paid(str(question.id))
        if paid is None:
            return None
        if paid.content_sha256 != question.content_sha256:
            raise ProtocolError("a question was asked again with other content")
        return self._send(question, Answer(question.id, self._site, total=paid.total))

    def release(self, question: Question, rows: Rows, protocol: Protocol) -> bytes:
        """Protect, charge and hand out one sum.

        Parameters
        ----------
        question : Question
            Of the phase that the sum answers.
        rows : Rows
            What is to be summed.
        protocol : Protocol
            Approved by the site.

        Returns
        -------
        bytes
            The answer, ready to leave.

        Raises
        ------
        GateError
            Too few children, or no consent to exact sums, or a number that is not finite.
        PrivacyBudgetError
            The site's cap, or a second run of the protocol.

        """
        price = price_of(protocol).of(question.id.phase)
        kind = rows.kind
        if price.noise_multiplier == NO_NOISE and not self._limits.exact_sums:
            raise GateError("the protocol asks for exact sums; this site has not consented (limits.exact_sums)")
        patients, values = _one_row_each(rows)
        needed = max(self._limits.minimum_children, protocol.cohort.minimum_children)
        if len(patients) < needed:
            raise GateError(
                f"release {kind.name} would sum fewer than the minimum of {needed} children"
            )
        if not np.isfinite(values).all():
            raise GateError(f"release {kind.name} holds numbers that are not finite")
        total = quantise(clip_rows(values, kind.l2_bound).sum(axis=0))
        if price.noise_multiplier != NO_NOISE:
            total = total + self._noise(kind.dimension, price.noise_multiplier * sensitivity_units(kind))
        paid = self._ledger.charge(
            Charge(
                question=str(question.id),
                protocol_sha256=protocol.sha256,
                run=question.id.run,
                release=kind.name,
                noise_multiplier=price.noise_multiplier,
                l2_bound=kind.l2_bound,
                dimension=kind.dimension,
                patients=tuple(sorted(patient_hashes(patients, salt=self._salt))),
                software=version("esn-federated"),
            ),
            total,
            content_sha256=question.content_sha256,
            epsilon_cap=self._limits.epsilon_cap,
            delta=self._limits.delta,
        )
        return self._send(question, Answer(question.id, self._site, total=paid.total))

    def disclose(self, question: Question, facts: SiteFacts) -> bytes:
        """Hand out the facts of a roll call; nothing in them is computed from a child's data."""
        return self._send(question, Answer(question.id, self._site, facts=facts))

    def refuse(self, question: Question, error: EsnError) -> bytes:
        """Answer with the class of `error`; its text stays in the site's own log."""
        refusal = Refusal(error=type(error).__name__)
        self._audit.write("refused", question=str(question.id), error=refusal.error)
        return Answer(question.id, self._site, refusal=refusal).to_bytes()

    def _send(self, question: Question, answer: Answer) -> bytes:
        body = answer.to_bytes()
        self._audit.write(
            "sent",
            question=str(question.id),
            attempt=question.id.attempt,
            bytes=len(body),
            sha256=sha256_of(body),
        )
        return body


def discrete_gaussian(dimension: int, scale: float) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian (Canonne, Kamath & Steinke 2020), from the system's entropy.

    Parameters
    ----------
    dimension : int
    scale : float
        Standard deviation, in grid units.

    """
    # Imported here: OpenDP loads a native library, and most commands draw no noise.
    import opendp.prelude as dp

    dp.enable_features("contrib")
    measurement = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64"), scale=scale
    )
    return np.array(measurement([0] * dimension), dtype=np.int64)


def _one_row_each(rows: Rows) -> tuple[Sequence[str], NDArray[np.float64]]:
    patients, index = np.unique(np.array(rows.participants, dtype=str), return_inverse=True)
    values = np.zeros((len(patients), rows.kind.dimension))
    np.add.at(values, index, rows.values)
    return [str(p) for p in patients], values
