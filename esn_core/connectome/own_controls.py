"""The reference of an edge at one hospital: mean and spread of its strength in the hospital's own controls.

A child's score is how far an edge lies from that mean, in that spread. Nothing of it leaves the hospital, no
template of other people's brains enters, and what the scanner does to every edge is in both. It is computed
from one child and the controls: no other patient enters, which is what the bounds of privacy stand on.

A handful of controls do not say how much one edge varies. Edges of equal strength vary alike, so each edge's
own variance is moderated by that of the hospital's edges of its strength, as Smyth (2004, Statistical
Applications in Genetics and Molecular Biology 3:3) moderates those of genes.

An edge that a person cannot have, because there is no tissue at one of its ends, is NaN among the strengths.
It counts as unknown: it enters no mean and no spread, and its score is 0.

>>> controls = np.array([[5.0, 3.0], [5.2, 3.6], [5.4, 3.0]])
>>> reference = ControlReference.of_controls(controls)
>>> reference.mean
array([5.2, 3.2])
>>> reference.scores(np.array([5.2, np.nan]))
array([0., 0.])
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esn_core.arrays import Floats
from esn_core.errors import DataError

FEWEST_CONTROLS = 3
"""Of fewer, a spread says nothing."""

# How many controls the hospital's curve of variance over strength is worth, against an edge's own variance
# (docs/benchmarks.md, "Whose mean and spread").
_PRIOR_CONTROLS = 8.0
# In units of strength: what has no streamlines in any control has no spread, and scores are divided by it.
_LEAST_SD = 0.05
_BINS = 12
# An edge is measured where so many of the controls have streamlines, and known where half of them have.
_MEASURED_SHARE = 0.95
_KNOWN_SHARE = 0.5


@dataclass(frozen=True)
class ControlReference:
    """Mean and moderated spread of each edge, by which a hospital's children are scored.

    Attributes
    ----------
    mean : (E,) float64
        Edge strength, of the controls.
    sd : (E,) float64
        Between controls, moderated; positive.
    known : (E,) bool
        The edges that half of the controls have; the others are scored 0.
    measured : (E,) bool
        The edges that nearly all controls have: a child's median is taken over them.
    controls : int

    """

    mean: Floats
    sd: Floats
    known: NDArray[np.bool_]
    measured: NDArray[np.bool_]
    controls: int

    @classmethod
    def of_controls(cls, strengths: Floats) -> Self:
        """Estimate a reference.

        Parameters
        ----------
        strengths : (n, E) float64
            Edge strengths of n controls; NaN where a control has no tissue for an edge.

        Raises
        ------
        DataError
            There are fewer than three controls, or no edge that nearly all of them have.

        """
        return cls.of_moments(ControlMoments.of_controls(strengths))

    @classmethod
    def of_moments(cls, moments: "ControlMoments") -> Self:
        """Estimate a reference from sums over controls, of one hospital or of several.

        Raises
        ------
        DataError
            As for `of_controls`.

        """
        controls = round(float(moments.people.max(initial=0.0)))
        if controls < FEWEST_CONTROLS:
            raise DataError(
                f"a reference takes {FEWEST_CONTROLS} controls with a connectome or more, not {controls}"
            )
        people = np.maximum(moments.people, 1.0)
        enough = moments.people >= FEWEST_CONTROLS
        measured = enough & (moments.with_streamlines >= _MEASURED_SHARE * people)
        if not measured.any():
            raise DataError(f"no edge has streamlines in nearly all of the {controls} controls")
        mean = moments.total / people
        freedom = np.maximum(people - 1, 1.0)
        variance = np.maximum(moments.squares - people * mean**2, 0.0) / freedom
        prior = _variance_at(mean, mean[measured], variance[measured])
        moderated = (_PRIOR_CONTROLS * prior + freedom * variance) / (_PRIOR_CONTROLS + freedom)
        return cls(
            mean=mean,
            sd=np.maximum(np.sqrt(moderated), _LEAST_SD),
            known=enough & (moments.with_streamlines >= _KNOWN_SHARE * people),
            measured=measured,
            controls=controls,
        )

    def scores(self, strengths: Floats) -> Floats:
        """Score one person's edges; no other patient's statistics enter.

        Parameters
        ----------
        strengths : (E,) float64
            NaN where there is no tissue for an edge.

        Returns
        -------
        (E,) float64
            Deviation from the controls' mean, in their moderated standard deviations, less the person's own
            median over the measured edges (a scan's gain is no finding); 0 for an edge that is unknown, here
            or to the controls.

        Raises
        ------
        DataError
            The number of edges is another one, or none of the measured edges is there.

        """
        if strengths.shape != self.mean.shape:
            raise DataError(f"strengths have {strengths.shape} edges; the reference has {self.mean.shape}")
        there = np.isfinite(strengths)
        if not (there & self.measured).any():
            raise DataError("there is tissue for none of the edges that the controls have")
        scores = np.where(there, strengths - self.mean, 0.0) / self.sd
        scores = scores - np.median(scores[there & self.measured])
        return np.where(there & self.known, scores, 0.0)


@dataclass(frozen=True)
class ControlMoments:
    """What a reference is estimated from: sums over controls, edge by edge.

    Attributes
    ----------
    people : (E,) float64
        Controls who could have the edge.
    total, squares : (E,) float64
        Of their strengths.
    with_streamlines : (E,) float64
        How many of them have streamlines there.

    """

    people: Floats
    total: Floats
    squares: Floats
    with_streamlines: Floats

    @classmethod
    def of_controls(cls, strengths: Floats) -> Self:
        """Sum over (n, E) strengths."""
        there = np.isfinite(strengths)
        values = np.where(there, strengths, 0.0)
        return cls(
            people=there.sum(axis=0).astype(np.float64),
            total=values.sum(axis=0),
            squares=(values**2).sum(axis=0),
            with_streamlines=(values > 0).sum(axis=0).astype(np.float64),
        )


def _variance_at(strength: Floats, mean: Floats, variance: Floats) -> Floats:
    """Read the variance that edges of a strength have off those whose mean and variance are given.

    Means of equally filled bins of strength, and straight lines between them.
    """
    edges = np.quantile(mean, np.linspace(0, 1, _BINS + 1))
    bins = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, _BINS - 1)
    filled = np.bincount(bins, minlength=_BINS)
    at, found = (np.bincount(bins, weights=x, minlength=_BINS)[filled > 0] for x in (mean, variance))
    each = filled[filled > 0]
    return np.asarray(np.interp(strength, at / each, found / each), dtype=np.float64)
