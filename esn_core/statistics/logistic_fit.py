"""Logistic regression by federated Newton steps: one model, fed with sums over children."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.stats import norm

from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.statistics.intervals import Z_95
from esn_core.statistics.logistic_sums import LARGEST_COEFFICIENT, LOGIT_CLIP, NewtonSums, largest_loss

ROUNDS = 8
"""Newton rounds that leave a fit without separation at its maximum to 1e-8 or better."""

EXACT_ROUNDS = 14
"""Rounds that leave time for the separation guard as well, where a round costs no privacy."""

SEPARATION_RIDGE = 0.05
"""Weight of the penalty that a separated model gets: as a normal prior of sd 4.5 on each log odds ratio."""

# A step this small leaves the maximum: the next would be its square.
_CONVERGED = 1e-8
# The log-likelihood has fallen when it fell by more than rounding, and than three sd of its noise.
_ROUNDING = 1e-10
_NOISE_SDS = 3.0
_MOST_HALVINGS = 6
# A model is being separated when the curvature along some direction is this small a part of what it is
# without effects, and the Newton decrement still falls no faster than towards infinity (by e a step).
_COLLAPSED, _SLOW = 0.05, 0.2
_GONE = 1e-5
_STEPS_BEFORE_JUDGING = 3
# Of a correlation matrix of the features: below, one is another's copy up to rounding.
_SMALLEST_EIGENVALUE = 1e-9


@dataclass(frozen=True)
class LogisticFit:
    """A fitted logistic model.

    Attributes
    ----------
    names : tuple of p str
        The intercept first.
    coefficients : (p,) float64
        Log odds ratios per unit of each feature.
    covariance : (p, p) float64
        Inverse of the information, of the choice of children.
    noise_sd_of_coefficients : (p,) float64
        Standard deviation that the noise of the last sums gives to each coefficient; 0 for exact sums.
    log_likelihood : float
    null_log_likelihood : float or None
        Of the intercept alone; None when noise left no positives, or no others.
    aic, bic : float
    children, positives : float
        Not whole numbers when noise was added.
    iterations : int
        Newton steps that were accepted.
    converged : bool
    guard : str or None
        What kept the fit from running away, in words: 'ridge 0.05', 'curvature held at 3.2'.

    """

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    noise_sd_of_coefficients: Floats
    log_likelihood: float
    null_log_likelihood: float | None
    aic: float
    bic: float
    children: float
    positives: float
    iterations: int
    converged: bool
    guard: str | None

    @property
    def standard_errors(self) -> Floats:
        """(p,) float64, for the choice of children."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def _errors(self) -> Floats:
        """For the choice of children and the noise together."""
        return np.hypot(self.standard_errors, self.noise_sd_of_coefficients)

    @property
    def odds_ratios(self) -> Floats:
        """(p,) float64."""
        with np.errstate(over="ignore"):
            return np.exp(self.coefficients)

    @property
    def odds_ratio_intervals(self) -> Floats:
        """(p, 2) float64: 95 % by Wald, for the choice of children and the noise together."""
        with np.errstate(over="ignore"):
            ends: Floats = np.exp(
                self.coefficients[:, None] + np.array([-Z_95, Z_95]) * self._errors[:, None]
            )
        return ends

    @property
    def z(self) -> Floats:
        """(p,) float64, of the choice of children and the noise together."""
        return np.asarray(self.coefficients / self._errors)

    @property
    def p_values(self) -> Floats:
        """(p,) float64, two-sided, of `z`."""
        return np.asarray(2 * norm.sf(np.abs(self.z)))


class LogisticNewton:
    """One logistic model, moved to its maximum by sums of `esn_core.statistics.logistic_sums.newton_rows`.

    The federation asks a fixed number of rounds: `coefficients` says where the next sums are needed, `step`
    takes them. A step that lowers the likelihood is halved. Once the maximum is reached the coefficients
    stay, and further sums there are averaged, which makes their noise smaller. A model that separates its
    children, so that a coefficient would grow for ever, starts again with a small ridge penalty that the
    fit names.

    Parameters
    ----------
    names : tuple of p str
        The intercept first; it is never penalised.
    feature_norm, logit_clip : float
        As the rows were computed with.
    children_known : float, optional
        Number of children where it is public; otherwise that of the sums, noise included.
    ridge : float
        Penalty ridge / 2 times the sum of the squared coefficients, from the start.
    noise_sd : float
        Standard deviation of the noise in each number of a sum. Under noise the ridge is there from the
        start, as separation cannot be told from chance.

    """

    def __init__(
        self,
        names: tuple[str, ...],
        children_known: float | None = None,
        ridge: float = 0.0,
        *,
        feature_norm: float,
        logit_clip: float = LOGIT_CLIP,
        noise_sd: float = 0.0,
    ) -> None:
        self._names = names
        self._known = children_known
        self._ridge = max(ridge, SEPARATION_RIDGE if noise_sd else 0.0)
        self._feature_norm, self._logit_clip, self._noise_sd = feature_norm, logit_clip, noise_sd
        self._needed = np.zeros(len(names))
        self._accepted: _Point | None = None
        self._first_curvature: Floats | None = None
        self._taken: list[Floats] = []
        self._decrement = math.inf
        self._steps, self._halvings = 0, 0
        self._converged = False

    @property
    def coefficients(self) -> Floats:
        """Where sums are needed next, (p,)."""
        return self._needed.copy()

    @property
    def converged(self) -> bool:
        """Whether the coefficients no longer move."""
        return self._converged

    def step(self, total: Floats) -> None:
        """Take a sum of Newton rows at `coefficients`, and move.

        Raises
        ------
        DataError
            The sum has another length, or holds a number that is not finite.

        """
        sums = self._read(total)
        if self._converged:
            self._taken.append(total)
            return
        here = self._point(self._needed, sums)
        before = self._accepted
        if before is not None and here.objective < before.objective - self._tolerance(before):
            self._halvings += 1
            if self._halvings <= _MOST_HALVINGS:
                self._needed = (self._needed + before.coefficients) / 2
                return
            # Nothing along the way is better than rounding, or noise, can tell.
            self._needed, self._converged, self._taken = before.coefficients, True, []
            return
        if self._first_curvature is None:
            self._first_curvature = sums.curvature
        self._accepted, self._taken, self._halvings = here, [total], 0
        if self._separating(here):
            self._ridge = max(self._ridge, SEPARATION_RIDGE)
            self._needed, self._accepted, self._taken = np.zeros_like(self._needed), None, []
            self._decrement, self._steps = math.inf, 0
            return
        self._steps += 1
        self._decrement = here.decrement
        if np.all(np.abs(here.direction) <= np.maximum(_CONVERGED, _NOISE_SDS * here.noise_sd)):
            self._converged = True
        else:
            self._needed = _held(here.coefficients + here.direction)

    def fit(self) -> LogisticFit:
        """Return the model at the best coefficients that were seen, one free Newton step included.

        Raises
        ------
        StudyError
            No sum was taken; all children have one outcome; the features cannot be told apart.

        """
        if self._accepted is None:
            raise StudyError(
                f"the logistic model of {', '.join(self._names)} has no usable sum; it needs more rounds"
            )
        at = self._accepted
        total = np.mean(self._taken, axis=0) if self._taken else None
        sums = at.sums if total is None else self._read(total)
        averaged = max(len(self._taken), 1)
        here = self._point(at.coefficients, sums, averaged=averaged)
        n, positives = sums.children if self._known is None else self._known, sums.positives
        self._check(n, positives, sums)
        # The sums say where the next step would lead, and to what likelihood, to second order.
        beta = _held(here.coefficients + here.direction)
        step = beta - here.coefficients
        rise = float(sums.score @ step - step @ sums.curvature @ step / 2)
        likelihood = sums.log_likelihood + rise
        return LogisticFit(
            names=self._names,
            coefficients=beta,
            covariance=here.inverse,
            noise_sd_of_coefficients=here.noise_sd,
            log_likelihood=likelihood,
            null_log_likelihood=_null_log_likelihood(n, positives),
            aic=-2 * likelihood + 2 * len(beta),
            bic=-2 * likelihood + len(beta) * math.log(n),
            children=n,
            positives=positives,
            iterations=self._steps,
            converged=self._converged,
            guard=self._guard(here),
        )

    def _read(self, total: Floats) -> NewtonSums:
        return NewtonSums.read(
            total, len(self._names), feature_norm=self._feature_norm, logit_clip=self._logit_clip
        )

    def _penalty(self) -> Floats:
        """Return the (p,) ridge: none on the intercept."""
        ridge = np.full(len(self._names), self._ridge)
        ridge[0] = 0.0
        return ridge

    def _point(self, beta: Floats, sums: NewtonSums, *, averaged: int = 1) -> "_Point":
        """Compute what a Newton step needs at `beta`."""
        noise, ridge = self._noise_sd / math.sqrt(averaged), self._penalty()
        # Largest eigenvalue of a symmetric matrix of noise: 2 sd sqrt(p) (Wigner 1955). What is
        # smaller cannot be told from none.
        floor = 2 * noise * math.sqrt(len(beta))
        values, vectors = np.linalg.eigh(sums.curvature)
        held = floor if values[0] < floor else None
        curvature = (vectors * np.maximum(values, floor)) @ vectors.T + np.diag(ridge)
        inverse: Floats = np.linalg.pinv(curvature, hermitian=True)
        score = sums.score - ridge * beta
        direction = inverse @ score
        return _Point(
            coefficients=beta,
            sums=sums,
            objective=sums.log_likelihood - float(ridge @ beta**2) / 2,
            direction=direction,
            decrement=float(score @ direction),
            inverse=inverse,
            noise_sd=noise * np.sqrt(np.sum(inverse**2, axis=1)),
            held=held,
        )

    def _tolerance(self, before: "_Point") -> float:
        """Return how much the log-likelihood may fall by rounding and noise."""
        scale = largest_loss(self._logit_clip) / self._feature_norm
        noise = _NOISE_SDS * math.sqrt(2) * self._noise_sd * scale
        return noise + _ROUNDING * (1 + abs(before.objective))

    def _separating(self, here: "_Point") -> bool:
        """Tell whether the model is running away; a ridge that is there already holds it."""
        first = self._first_curvature
        if self._ridge > 0 or self._steps < _STEPS_BEFORE_JUDGING or first is None or _singular(first):
            return False
        share = here.sums.positives / here.sums.children
        if not 0 < share < 1:
            return False
        # At zero coefficients every weight was 1/4; without effects it is that of the overall share.
        without = 4 * share * (1 - share) * first
        smallest = float(eigh(here.sums.curvature, without, eigvals_only=True, subset_by_index=[0, 0])[0])
        slow = here.decrement > max(_SLOW * self._decrement, _CONVERGED)
        return smallest < _GONE or (smallest < _COLLAPSED and slow)

    def _check(self, n: float, positives: float, sums: NewtonSums) -> None:
        """Refuse what no logistic model can be fitted to."""
        model = f"the logistic model of {', '.join(self._names)}"
        if n < len(self._names) + 1:
            raise StudyError(f"{model} needs more than {len(self._names)} children, not {n:.1f}")
        if self._noise_sd == 0 and not 0 < positives < n:
            raise StudyError(f"{model} needs both outcomes; {positives:.0f} of {n:.0f} children are impaired")
        if self._ridge == 0 and _singular(sums.curvature):
            raise StudyError(f"{model}: some features are the same, or do not vary; leave one of them out")

    def _guard(self, here: "_Point") -> str | None:
        """Say what kept the fit from running away."""
        said = [f"ridge {self._ridge:g}"] if self._ridge else []
        said += [f"curvature held at {here.held:.3g}"] if here.held is not None else []
        return ", ".join(said) or None


@dataclass(frozen=True)
class _Point:
    """One place on the way, with the Newton step from it."""

    coefficients: Floats
    sums: NewtonSums
    objective: float
    direction: Floats
    decrement: float
    inverse: Floats
    noise_sd: Floats
    held: float | None


def _held(coefficients: Floats) -> Floats:
    """Hold coefficients within what sites answer at."""
    return np.clip(coefficients, -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT)


def _singular(curvature: Floats) -> bool:
    """Tell whether features cannot be told apart, on their own scales."""
    scale = np.sqrt(np.maximum(np.diag(curvature), np.finfo(float).tiny))
    return bool(np.linalg.eigvalsh(curvature / np.outer(scale, scale))[0] < _SMALLEST_EIGENVALUE)


def _null_log_likelihood(n: float, positives: float) -> float | None:
    """Return the log-likelihood of the intercept alone, where it exists."""
    if not 0 < positives < n:
        return None
    return positives * math.log(positives / n) + (n - positives) * math.log1p(-positives / n)
