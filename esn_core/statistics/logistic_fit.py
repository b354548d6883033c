"""Logistic regression by federated Newton steps: one model, and its fit from noised sums."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.statistics.intervals import Z_95, noise_floor, noise_in_ratio
from esn_core.statistics.logistic_sums import LARGEST_COEFFICIENT, LOGIT_CLIP, NewtonSums, largest_loss

ROUNDS = 8
"""Newton rounds that leave a fit without separation at its maximum to 1e-8 or better."""

EXACT_ROUNDS = 18
"""Rounds that leave time for the ends of intervals as well, where a round costs no privacy."""

SEPARATION_RIDGE = 0.05
"""Weight of the penalty of a noised model: as a normal prior of sd 4.5 on each log odds ratio."""

FEWEST_FLOORS = 9
"""How often the noise's largest eigenvalue must go into the children's variance for coefficients to be told.

The curvature along a feature with a standard deviation of .4, of a range from -1 to 1, is a sixth of that of
the intercept; a curvature that passes for more by its noise alone gives a coefficient that is too small."""

SPREAD_FLOORS = 1.5
"""How often the noise's largest eigenvalue must go into the curvature along each predictor.

That curvature is taken from the spread of the predictor in the linear sums, whose noise is another: among
fits of a narrow predictor those that the noise made steep could not be told from true ones by their own."""

# A step this small leaves the maximum: the next would be its square.
_CONVERGED = 1e-8
# The log-likelihood has fallen when it fell by more than rounding, and than three sd of its noise.
_ROUNDING = 1e-10
_NOISE_SDS = 3.0
_MOST_HALVINGS = 6


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
        Standard deviation that the noise of the last sums gives to each coefficient, so that the interval
        reaches Fieller's further end; 0 for exact sums.
    log_likelihood : float
        The largest that there is, also where no coefficients reach it (`separated`).
    null_log_likelihood : float or None
        Of the intercept alone; None when noise left no positives, or no others.
    children, positives : float
        Not whole numbers when noise was added.
    iterations : int
        Newton steps that were accepted.
    converged : bool
    guard : str or None
        What kept the fit from running away, in words: 'ridge 0.05', 'curvature held at 3.2', or that it is
        Firth's.
    noise_sd_of_log_likelihood : float
        Standard deviation that the noise gives to the log-likelihood as it is told.
    loss_by_noise : float
        How far the noise leaves the log-likelihood of the released coefficients below its maximum, as the
        root of the mean square: half of e'H^-1 e for a noise e in the slope.
    separated : bool
        Whether the predictors tell every child's outcome; exact sums only.
    told : bool
        Whether the noise leaves coefficients that can be told; always for exact sums.
    noise_floor : float
        The largest eigenvalue that the noise may give to the curvature; 0 for exact sums.
    maximum : bool
        Whether `log_likelihood` is the largest up to rounding, so that models can be compared by it.
    profile : (p, 2) float64 or None
        95 % by profile likelihood; NaN where exact rounds did not suffice, and for the intercept.
    ratio_p : (p,) float64 or None
        Of the penalised likelihood ratio, where the estimate is Firth's; NaN as above.

    """

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    noise_sd_of_coefficients: Floats
    log_likelihood: float
    null_log_likelihood: float | None
    children: float
    positives: float
    iterations: int
    converged: bool
    guard: str | None
    noise_sd_of_log_likelihood: float = 0.0
    loss_by_noise: float = 0.0
    separated: bool = False
    told: bool = True
    noise_floor: float = 0.0
    maximum: bool = False
    profile: Floats | None = None
    ratio_p: Floats | None = None

    @property
    def possible(self) -> bool:
        """Whether the log-likelihood is one that children can have.

        A model with an intercept fits no worse than even odds for everybody; noise may leave it below these,
        and above 0.
        """
        worst = -max(self.children, 0.0) * math.log(2)
        return worst <= self.log_likelihood <= 0 or not self.noise_sd_of_coefficients.any()

    def beside(self, spreads: Floats | None) -> "LogisticFit":
        """Return the fit, whose coefficients are told only where the children spread along every predictor.

        Parameters
        ----------
        spreads : (p,) float64 or None
            Of the features, from other sums (`esn_core.statistics.linear.LinearFit`); None where these have
            no model.

        """
        if self.noise_floor == 0:
            return self
        fewest = SPREAD_FLOORS * self.noise_floor
        curvature = None if spreads is None else _variance(self.positives / self.children) * spreads[1:]
        return replace(self, told=self.told and curvature is not None and bool((curvature >= fewest).all()))

    @property
    def aic(self) -> float:
        """Akaike's criterion; smaller is better."""
        return -2 * self.log_likelihood + 2 * len(self.coefficients)

    @property
    def bic(self) -> float:
        """Schwarz's criterion; smaller is better."""
        return -2 * self.log_likelihood + len(self.coefficients) * math.log(self.children)

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
    def wald_intervals(self) -> Floats:
        """(p, 2) float64: 95 % of the coefficients by Wald, for children and noise together."""
        ends: Floats = self.coefficients[:, None] + np.array([-Z_95, Z_95]) * self._errors[:, None]
        return ends

    @property
    def by_profile(self) -> NDArray[np.bool_]:
        """(p,) bool: which coefficients have an interval by profile likelihood; the others have Wald's."""
        profile = np.full((len(self.names), 2), np.nan) if self.profile is None else self.profile
        return np.asarray(np.isfinite(profile).all(axis=1))

    @property
    def intervals(self) -> Floats:
        """(p, 2) float64: 95 % of the coefficients, by profile likelihood where that is known."""
        wald = self.wald_intervals
        return wald if self.profile is None else np.where(self.by_profile[:, None], self.profile, wald)

    @property
    def odds_ratio_intervals(self) -> Floats:
        """(p, 2) float64: `intervals` of the odds ratios."""
        with np.errstate(over="ignore"):
            return np.exp(self.intervals)

    @property
    def z(self) -> Floats:
        """(p,) float64, of the choice of children and the noise together."""
        return np.asarray(self.coefficients / self._errors)

    @property
    def p_values(self) -> Floats:
        """(p,) float64, two-sided: of `z`, or of the penalised likelihood ratio where that is known."""
        wald = np.asarray(2 * ndtr(-np.abs(self.z)))
        return wald if self.ratio_p is None else np.where(np.isfinite(self.ratio_p), self.ratio_p, wald)


class LogisticNewton:
    """One logistic model, moved to its maximum by sums of `esn_core.statistics.logistic_sums.newton_rows`.

    The federation asks a fixed number of rounds: `coefficients` says where the next sums are needed, `step`
    takes them. A step that lowers the likelihood is halved. Once the maximum is reached the coefficients
    stay, and further sums there are averaged, which makes their noise smaller. As separation cannot be told
    from chance under noise, there is a small ridge penalty from the start, which the fit names. Exact sums
    are for `esn_core.statistics.logistic_exact.ExactLogistic`.

    Parameters
    ----------
    names : tuple of p str
        The intercept first; it is never penalised.
    feature_norm, logit_clip : float
        As the rows were computed with.
    noise_sd : float
        Standard deviation of the noise in each number of a sum.

    """

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        feature_norm: float,
        noise_sd: float,
        logit_clip: float = LOGIT_CLIP,
    ) -> None:
        self._names = names
        self._feature_norm, self._logit_clip, self._noise_sd = feature_norm, logit_clip, noise_sd
        self._needed = np.zeros(len(names))
        self._accepted: _Point | None = None
        self._taken: list[Floats] = []
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
        self._accepted, self._taken, self._halvings = here, [total], 0
        self._steps += 1
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
        n, positives = sums.children, sums.positives
        check_children(self._names, sums, exact=False)
        # The sums say where the next step would lead, and to what likelihood, to second order.
        beta = _held(here.coefficients + here.direction)
        step = beta - here.coefficients
        rise = float(sums.score @ step - step @ sums.curvature @ step / 2)
        likelihood = sums.log_likelihood + rise
        noise = self._noise_sd / math.sqrt(averaged)
        loss = _loss_by_noise(here.inverse, noise)
        sampling = np.sqrt(np.diag(here.inverse))
        by_noise = noise_in_ratio(sampling, here.noise_sd, step)
        # The intercept's curvature is that of all children, which noise can hardly make.
        floor = noise_floor(noise, len(beta))
        enough = n * _variance(positives / n) >= FEWEST_FLOORS * floor
        told = here.held is None and enough and bool(np.isfinite(by_noise).all())
        of_likelihood = noise * largest_loss(self._logit_clip) / self._feature_norm
        return LogisticFit(
            names=self._names,
            coefficients=beta,
            covariance=here.inverse,
            noise_sd_of_coefficients=by_noise if told else here.noise_sd,
            log_likelihood=likelihood,
            null_log_likelihood=null_log_likelihood(n, positives),
            children=n,
            positives=positives,
            iterations=self._steps,
            converged=self._converged,
            guard=self._guard(here),
            noise_sd_of_log_likelihood=math.hypot(of_likelihood, loss, noise * float(np.linalg.norm(step))),
            loss_by_noise=loss,
            told=told,
            noise_floor=floor,
        )

    def _read(self, total: Floats) -> NewtonSums:
        return NewtonSums.read(
            total, len(self._names), feature_norm=self._feature_norm, logit_clip=self._logit_clip
        )

    def _penalty(self) -> Floats:
        """Return the (p,) ridge: none on the intercept."""
        ridge = np.full(len(self._names), SEPARATION_RIDGE)
        ridge[0] = 0.0
        return ridge

    def _point(self, beta: Floats, sums: NewtonSums, *, averaged: int = 1) -> "_Point":
        """Compute what a Newton step needs at `beta`."""
        noise, ridge = self._noise_sd / math.sqrt(averaged), self._penalty()
        floor = noise_floor(noise, len(beta))  # what is smaller cannot be told from none
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
            inverse=inverse,
            noise_sd=noise * np.sqrt(np.sum(inverse**2, axis=1)),
            held=held,
        )

    def _tolerance(self, before: "_Point") -> float:
        """Return how much the log-likelihood may fall by rounding and noise."""
        scale = largest_loss(self._logit_clip) / self._feature_norm
        noise = _NOISE_SDS * math.sqrt(2) * self._noise_sd * scale
        return noise + _ROUNDING * (1 + abs(before.objective))

    def _guard(self, here: "_Point") -> str:
        """Say what kept the fit from running away."""
        said = [f"ridge {SEPARATION_RIDGE:g}"]
        said += [f"curvature held at {here.held:.3g}"] if here.held is not None else []
        return ", ".join(said)


@dataclass(frozen=True)
class _Point:
    """One place on the way, with the Newton step from it."""

    coefficients: Floats
    sums: NewtonSums
    objective: float
    direction: Floats
    inverse: Floats
    noise_sd: Floats
    held: float | None


def _loss_by_noise(inverse: Floats, noise_sd: float) -> float:
    """Return the root of the mean square of e'H^-1 e / 2, for e of independent noise."""
    mean, variance = noise_sd**2 * np.trace(inverse) / 2, noise_sd**4 * np.sum(inverse**2) / 2
    return math.sqrt(float(mean**2 + variance))


def _held(coefficients: Floats) -> Floats:
    """Hold coefficients within what sites answer at."""
    return np.clip(coefficients, -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT)


def _variance(share: float) -> float:
    return max(share * (1 - share), 0.0)


def check_children(names: tuple[str, ...], sums: NewtonSums, *, exact: bool = True) -> None:
    """Refuse sums that no logistic model can be fitted to.

    Raises
    ------
    StudyError
        There are too few children, or all of them have one outcome.

    """
    model, n, positives = f"the logistic model of {', '.join(names)}", sums.children, sums.positives
    if n < len(names) + 1:
        raise StudyError(f"{model} needs more than {len(names)} children, not {n:.1f}")
    if exact and not 0.5 < positives < n - 0.5:
        raise StudyError(f"{model} needs both outcomes; {positives:.0f} of {n:.0f} children are impaired")


def null_log_likelihood(n: float, positives: float) -> float | None:
    """Return the log-likelihood of the intercept alone, where it exists."""
    if not 0 < positives < n:
        return None
    return positives * math.log(positives / n) + (n - positives) * math.log1p(-positives / n)
