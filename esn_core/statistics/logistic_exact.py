"""Logistic regression from exact sums: its maximum where there is one, Firth's estimate where there is none.

A model of exact sums is followed on several tracks at once, each with sums of its own at its own
coefficients, so that a federation needs no more rounds: the likelihood; the penalised likelihood of Firth
(1993, Biometrika 80:27); the same without each predictor, for its test; and both ends of each interval.
Everything that decides where sums are asked next is plain arithmetic on Python's floats in a fixed order: the
same sums lead to the same coefficients on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.statistics.intervals import Z_95
from esn_core.statistics.linear import fault_in_features
from esn_core.statistics.logistic_fit import LogisticFit, check_children, null_log_likelihood
from esn_core.statistics.logistic_sums import LARGEST_COEFFICIENT, NewtonSums, newton_dimension

# A step this small leaves the maximum: the next would be its square.
_CONVERGED = 1e-8
# Of the signed root, which is 1.96 at an end: far below what its normal distribution is good for.
_END_FOUND = 1e-4
# A likelihood has fallen when it fell by more than what the grid of sums does to it.
_ROUNDING = 1e-8
# The ends of intervals may be looked for from here: the top is known to what they are.
_NEAR_THE_TOP = 1e-5
# Of a log-likelihood; models are compared by tenths.
_NEAR_ENOUGH = 0.01
# Cosine of what a curvature lacked with the step: below, an update of rank one is nearly a division by 0.
_LEARNT = 1e-8
_MOST_HALVINGS = 6
_LONGEST_STEP = 10.0

_Vector = list[float]
_Matrix = list[list[float]]


def tracks(features: int) -> int:
    """Return how many tracks a model with so many features, intercept included, is followed on."""
    return 2 + 3 * (features - 1)


@dataclass(frozen=True)
class _Point:
    """One place on a track, with what its sums say."""

    coefficients: _Vector
    objective: float
    log_likelihood: float
    score: _Vector
    curvature: _Matrix
    inverse: _Matrix
    sums: NewtonSums


class _Track:
    """Newton's way to a maximum, of the likelihood or of Firth's; one coefficient may be held at zero.

    The curvature of Firth's penalty itself needs fourth moments, which no sum has. It is learnt from how its
    part of the score changed between two places, by symmetric updates of rank one, beside the likelihood's
    own curvature, which is known (Dennis, Martinez & Tapia 1989, Journal of Optimization Theory and
    Applications 61:161). Without it each step left three quarters of the way in eight children.
    """

    def __init__(self, features: int, *, penalised: bool, without: int | None = None) -> None:
        self.needed = [0.0] * features
        self.at: _Point | None = None
        self.converged = False
        self._penalised, self._without, self._halvings = penalised, without, 0
        self._penalty: _Matrix = [[0.0] * features for _ in range(features)]

    def step(self, sums: NewtonSums) -> None:
        if self.converged:
            return
        here = _point(self.needed, sums, penalised=self._penalised)
        before = self.at
        worse = here is None or (
            before is not None and here.objective < before.objective - _ROUNDING * (1 + abs(before.objective))
        )
        if here is None and before is None:
            self.converged = True  # no curvature at the start: the features cannot be told apart
            return
        if worse and before is not None:
            self._halvings += 1
            self.needed = [(a + b) / 2 for a, b in zip(self.needed, before.coefficients, strict=True)]
            if self._halvings > _MOST_HALVINGS:
                self.needed, self.converged = before.coefficients, True
            return
        assert here is not None
        self.at, self._halvings = here, 0
        if self._penalised and before is not None:
            self._learn(before, here)
        step = self.way
        self.converged = max(abs(x) for x in step) <= _CONVERGED
        if not self.converged:
            self.needed = _moved(here.coefficients, step)

    @property
    def way(self) -> _Vector:
        """The step from where the track is."""
        assert self.at is not None
        return _newton_step(self.at, self._without, self._penalty)

    def _learn(self, before: _Point, here: _Point) -> None:
        """Learn from the last step, where what is not known yet is more than rounding."""
        moved = [b - a for a, b in zip(before.coefficients, here.coefficients, strict=True)]
        fell = [a - b for a, b in zip(_by_penalty(before), _by_penalty(here), strict=True)]
        lacked = [a - b for a, b in zip(fell, _times(self._penalty, moved), strict=True)]
        if self._without is not None:
            lacked[self._without] = 0.0
        along = _dot(lacked, moved)
        if abs(along) > _LEARNT * math.sqrt(_dot(lacked, lacked) * _dot(moved, moved)):
            self._penalty = [
                [old + a * b / along for old, b in zip(row, lacked, strict=True)]
                for row, a in zip(self._penalty, lacked, strict=True)
            ]


class _End:
    """The way to one end of an interval by profile likelihood.

    With the coefficient held, the others take a Newton step towards their best, and the objective's fall
    below its maximum is read with what that step adds. The signed root of twice the fall
    (Barndorff-Nielsen & Cox 1994, section 3.4) is nearly a line in the coefficient: the secant through the
    last two places leads to where it is 1.96.
    """

    def __init__(self, base: _Point, k: int, side: int, *, penalised: bool) -> None:
        self._centre, self._k, self._penalised = base.coefficients[k], k, penalised
        self._top = base.objective + _decrement(base) / 2
        self._before, self._root_before = base.coefficients[k], 0.0
        self.value: float | None = None
        # Wald's end, to begin with; a step of Newton for the others along the base's curvature.
        by = side * Z_95 * math.sqrt(base.inverse[k][k])
        along = [row[k] / base.inverse[k][k] for row in base.inverse]
        self.needed = _moved(base.coefficients, [by * a for a in along], longest=LARGEST_COEFFICIENT)

    def step(self, sums: NewtonSums) -> None:
        if self.value is not None:
            return
        here = _point(self.needed, sums, penalised=self._penalised)
        others = None if here is None else _newton_step(here, self._k)
        k, at = self._k, self.needed[self._k]
        # At the largest coefficient that is asked at there is no way to an end beyond it.
        if here is None or others is None or at == self._centre:
            return
        rise = _dot(here.score, others) / 2
        root = math.sqrt(max(2 * (self._top - here.objective - rise), 0.0))
        centre = self._centre
        if abs(root - Z_95) <= _END_FOUND and rise <= _END_FOUND:
            self.value = at
            return
        # A curve that is flat, or falls, between two places says less than the chord from the maximum.
        chord = (at - centre) / max(root, _END_FOUND)
        secant = (at - self._before) / (root - self._root_before) if root != self._root_before else chord
        slope = secant if secant * chord > 0 else chord
        reached = at + (Z_95 - root) * slope
        ratio = min(max((reached - centre) / (at - centre), 1 / 3), 3.0)
        moved = centre + ratio * (at - centre) - at
        self._before, self._root_before = at, root
        along = [row[k] / here.inverse[k][k] for row in here.inverse]
        steps = [o + moved * a for o, a in zip(others, along, strict=True)]
        self.needed = _moved(here.coefficients, steps, longest=LARGEST_COEFFICIENT)


class ExactLogistic:
    """One logistic model, fed with exact sums of `esn_core.statistics.logistic_sums.newton_rows` with thirds.

    Whether there is a maximum is decided by proof. There is one where the Newton decrement is small against
    the smallest curvature (Bach 2010, Electronic Journal of Statistics 4:384, proposition 2). There is none
    where the log-likelihood is above -log 2: every child then has a probability of more than a half for its
    own outcome, so that larger coefficients would fit better for ever. Where neither was proved within the
    rounds the children are separated in part, or the rounds were too few: the fit is Firth's, too, and says
    so.

    Parameters
    ----------
    names : tuple of p str
        The intercept first.
    feature_norm, logit_clip : float
        As the rows were computed with.

    """

    def __init__(self, names: tuple[str, ...], *, feature_norm: float, logit_clip: float) -> None:
        p = len(names)
        self._names, self._feature_norm, self._logit_clip = names, feature_norm, logit_clip
        self._maximum, self._firth = _Track(p, penalised=False), _Track(p, penalised=True)
        self._without = [_Track(p, penalised=True, without=k) for k in range(1, p)]
        self._ends: list[_End] = []
        self._base: _Track | None = None
        self._first: NewtonSums | None = None
        self._steps = 0

    @property
    def coefficients(self) -> Floats:
        """Where sums are needed next, (`tracks`, p)."""
        ends = [end.needed for end in self._ends] or [self._firth.needed] * (2 * len(self._without))
        tracked = [self._maximum, self._firth, *self._without]
        return np.array([*(track.needed for track in tracked), *ends])

    def step(self, total: Floats) -> None:
        """Take sums of Newton rows at `coefficients`, and move.

        Raises
        ------
        DataError
            The sums have another length, or hold a number that is not finite.

        """
        p = len(self._names)
        each = [
            NewtonSums.read(
                part, p, feature_norm=self._feature_norm, logit_clip=self._logit_clip, thirds=True
            )
            for part in np.split(total, len(total) // newton_dimension(p, thirds=True))
        ]
        tracked = [self._maximum, self._firth, *self._without]
        self._first = self._first or each[0]
        for track, sums in zip(tracked, each, strict=False):
            track.step(sums)
        for end, sums in zip(self._ends, each[len(tracked) :], strict=False):
            end.step(sums)
        self._steps += 1
        base = self._maximum if self._proved else self._firth
        if base.at is not None and base is not self._base and _decrement(base.at) <= _NEAR_THE_TOP:
            self._base = base
            self._ends = [
                _End(base.at, k, side, penalised=base is self._firth) for k in range(1, p) for side in (-1, 1)
            ]

    @property
    def _proved(self) -> bool:
        """Whether the likelihood has a maximum, by proof."""
        at = self._maximum.at
        if at is None:
            return False
        decrement = math.sqrt(max(_decrement(at), 0.0))
        # The root of the sum of squares of an inverse is at least its largest eigenvalue.
        largest = math.sqrt(_dot(*(2 * ([x for row in at.inverse for x in row],))))
        return decrement * math.sqrt(largest) <= 1 / (2 * self._feature_norm)

    def fit(self) -> LogisticFit:
        """Return the model.

        Raises
        ------
        StudyError
            No sum was taken; all children have one outcome; the features cannot be told apart, or one of them
            hardly varies.

        """
        model = f"the logistic model of {', '.join(self._names)}"
        if self._first is None:
            raise StudyError(f"{model} has no usable sum; it needs more rounds")
        check_children(self._names, self._first)
        # Without effects each child weighs a quarter.
        fault = fault_in_features(4 * self._first.curvature, self._names)
        tracked = self._maximum if self._proved else self._firth
        at, best = tracked.at, self._maximum.at
        if fault is not None or at is None or best is None:
            raise StudyError(f"{model}: {fault or 'its features cannot be told apart'}")
        n, positives = best.sums.children, best.sums.positives
        beta = np.array(_moved(at.coefficients, tracked.way))
        separated = best.log_likelihood > -math.log(2)
        # Larger coefficients lead a separated model as near to a likelihood of 1 as anybody wants.
        likelihood = 0.0 if separated else best.log_likelihood + _gain(best)
        found = self._base is tracked
        ends = np.full((len(beta), 2), np.nan)
        if found and self._ends:
            values = [math.nan if end.value is None else end.value for end in self._ends]
            ends[1:] = np.array(values).reshape(-1, 2)
        return LogisticFit(
            names=self._names,
            coefficients=beta,
            covariance=np.array(at.inverse),
            noise_sd_of_coefficients=np.zeros(len(beta)),
            log_likelihood=likelihood,
            null_log_likelihood=null_log_likelihood(n, positives),
            children=n,
            positives=positives,
            iterations=self._steps,
            converged=tracked.converged,
            guard=None if self._proved else _reason(self._steps, separated=separated),
            separated=separated,
            maximum=separated or _gain(best) < _NEAR_ENOUGH,
            profile=ends,
            ratio_p=None if self._proved else self._ratio_p(at),
        )

    def _ratio_p(self, full: _Point) -> Floats:
        """Return the (p,) p of the penalised likelihood ratio (Heinze & Schemper 2002)."""
        p = np.full(len(self._names), np.nan)
        for k, track in enumerate(self._without, start=1):
            if track.at is not None and track.converged:
                p[k] = chdtrc(1, max(2 * (full.objective - track.at.objective), 0.0))
        return p


def _reason(rounds: int, *, separated: bool) -> str:
    if separated:
        return "Firth's penalised likelihood, as the predictors separate the children"
    return (
        f"Firth's penalised likelihood, as {rounds} rounds found no maximum: the predictors separate "
        "the children in part, or the rounds were too few"
    )


def _point(coefficients: _Vector, sums: NewtonSums, *, penalised: bool) -> _Point | None:
    """Return what sums say at their coefficients; None where their curvature has no inverse."""
    curvature = [[float(x) for x in row] for row in sums.curvature]
    found = _inverted(curvature)
    if found is None:
        return None
    inverse, log_determinant = found
    score, objective = [float(x) for x in sums.score], sums.log_likelihood
    if penalised:
        assert sums.thirds is not None
        score = [
            u + _dot([x for row in inverse for x in row], [float(x) for x in third.ravel()])
            for u, third in zip(score, sums.thirds, strict=True)
        ]
        objective += log_determinant / 2
    return _Point(list(coefficients), objective, sums.log_likelihood, score, curvature, inverse, sums)


def _newton_step(at: _Point, without: int | None, penalty: _Matrix | None = None) -> _Vector:
    """Return the step to the maximum, by the curvature with the penalty's where both have an inverse."""
    kept = [k for k in range(len(at.score)) if k != without]
    found = None
    for curvature in ([] if penalty is None else [_sum(at.curvature, penalty)]) + [at.curvature]:
        found = found or _inverted([[curvature[i][j] for j in kept] for i in kept])
    step = [0.0] * len(at.score)
    if found is not None:
        for k, by in zip(kept, _times(found[0], [at.score[k] for k in kept]), strict=True):
            step[k] = by
    return step


def _decrement(at: _Point) -> float:
    """Return the square of Newton's decrement, twice what is left to rise, to second order."""
    return _dot(at.score, _times(at.inverse, at.score))


def _by_penalty(at: _Point) -> _Vector:
    """Return what Firth's penalty adds to the score."""
    return [penalised - float(plain) for penalised, plain in zip(at.score, at.sums.score, strict=True)]


def _gain(at: _Point) -> float:
    """Return how much one more step would add to the log-likelihood, to second order."""
    plain = [float(x) for x in at.sums.score]
    return _dot(plain, _times(at.inverse, plain)) / 2


def _moved(coefficients: _Vector, step: _Vector, *, longest: float = _LONGEST_STEP) -> _Vector:
    """Take a step, shortened to the longest, within what sites answer at."""
    length = max(abs(x) for x in step)
    scale = min(1.0, longest / length) if length > 0 else 1.0
    return [
        min(max(b + scale * s, -LARGEST_COEFFICIENT), LARGEST_COEFFICIENT)
        for b, s in zip(coefficients, step, strict=True)
    ]


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    total = 0.0
    for a, b in zip(first, second, strict=True):
        total += a * b
    return total


def _sum(first: _Matrix, second: _Matrix) -> _Matrix:
    return [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(first, second, strict=True)]


def _times(matrix: _Matrix, vector: _Vector) -> _Vector:
    return [_dot(row, vector) for row in matrix]


def _inverted(matrix: _Matrix) -> tuple[_Matrix, float] | None:
    """Return the inverse of a positive definite matrix and the logarithm of its determinant, by Cholesky."""
    p = len(matrix)
    lower = [[0.0] * p for _ in range(p)]
    for j in range(p):
        pivot = matrix[j][j] - _dot(lower[j][:j], lower[j][:j])
        # What is left of a feature beside the ones before it: rounding, where it is a copy of them.
        if not pivot > 1e-13 * matrix[j][j]:
            return None
        lower[j][j] = math.sqrt(pivot)
        for i in range(j + 1, p):
            lower[i][j] = (matrix[i][j] - _dot(lower[i][:j], lower[j][:j])) / lower[j][j]
    # Solve L y = e, then L' x = y, for each unit vector.
    inverse = [[0.0] * p for _ in range(p)]
    for k in range(p):
        y = [0.0] * p
        for i in range(p):
            y[i] = ((1.0 if i == k else 0.0) - _dot(lower[i][:i], y[:i])) / lower[i][i]
        for i in reversed(range(p)):
            after = _dot([lower[j][i] for j in range(i + 1, p)], [inverse[j][k] for j in range(i + 1, p)])
            inverse[i][k] = (y[i] - after) / lower[i][i]
    return inverse, 2 * sum(math.log(lower[j][j]) for j in range(p))
