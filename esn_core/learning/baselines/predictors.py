"""Predictors of GASE to compare the DCNN+RN with, behind one interface, and one table of them.

All of them are trained on pooled rows and without privacy: in simulation, or inside one site.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr
from torch import nn

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError
from esn_core.gase import GASE_MIDDLE, GASE_UNIT, standardise_severity
from esn_core.learning.baselines.networks import BrainNetCnn, GraphNetwork, PlainCnn, train
from esn_core.learning.baselines.published import published_epochs
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import pretrained
from esn_core.severity_network.association import association_rows
from esn_core.severity_network.candidates import Candidates
from esn_core.severity_network.selection import masked_input
from esn_core.statistics.intervals import fisher_interval
from esn_core.statistics.recalibration import PREDICTION_CLIP, affine, calibration_rows

Fitted = Callable[[Floats], Floats]
"""Predicts (m,) GASE from (m, E) edge scores."""

_EDGES = 100
_PENALTIES = np.logspace(0, 5, 26)
_CPM_P = 0.01


class Predictor(Protocol):
    """One way to predict GASE."""

    @property
    def name(self) -> str:
        """As it stands in a table."""

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:
        """Learn from (n, E) edge scores against the public template, and (n,) GASE."""


@dataclass(frozen=True)
class MeanPredictor:
    """Says the mean of the training children of everybody."""

    name: str = "mean"

    def fit(self, _scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:  # noqa: ARG002
        """Learn the mean."""
        mean = float(gase.mean())
        return lambda scores: np.full(len(scores), mean)


@dataclass(frozen=True)
class Cpm:
    """Connectome-based predictive modelling (Shen et al. 2017, Nature Protocols 12:506).

    Edges whose correlation with GASE has p below .01; the sum of the positive less that of the negative ones;
    a line.
    """

    name: str = "CPM"

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:  # noqa: ARG002
        """Select edges, and fit the line."""
        r, n = _correlations(scores, gase), len(gase)
        with np.errstate(divide="ignore"):
            p = 2 * stdtr(n - 2, -(np.abs(r) * np.sqrt((n - 2) / np.maximum(1 - r**2, 1e-300))))
        sign = np.where(p < _CPM_P, np.sign(r), 0.0)
        return _line(lambda rows: rows @ sign, scores, gase)


@dataclass(frozen=True)
class EdgeRidge:
    """Ridge on the 100 edges of largest correlation; the penalty by leave-one-out in closed form."""

    name: str = "ridge on the network's edges"

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:  # noqa: ARG002
        """Select edges, choose the penalty, solve."""
        chosen = _strongest(scores, gase)
        x, mean = scores[:, chosen], scores[:, chosen].mean(axis=0)
        u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
        y = gase - gase.mean()
        best, best_error = _PENALTIES[0], np.inf
        for penalty in _PENALTIES:
            shrink = s**2 / (s**2 + penalty)
            # Leave-one-out residuals of a linear smoother, the mean's share of the hat matrix included.
            hat = (u**2) @ shrink + 1 / len(y)
            error = float(np.mean(((y - u @ (shrink * (u.T @ y))) / (1 - hat)) ** 2))
            if error < best_error:
                best, best_error = penalty, error
        weight = vt.T @ (s / (s**2 + best) * (u.T @ y))
        middle = float(gase.mean())
        return lambda rows: middle + (rows[:, chosen] - mean) @ weight


@dataclass(frozen=True)
class ElasticNet:
    """Elastic net on the same edges; penalty and mixture by five-fold cross-validation (scikit-learn)."""

    name: str = "elastic net on the network's edges"

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:
        """Select edges, and fit."""
        # Imported here: only a centre has scikit-learn, which nilearn brings.
        from sklearn.linear_model import ElasticNetCV

        chosen = _strongest(scores, gase)
        net = ElasticNetCV(l1_ratio=[0.1, 0.5, 0.9], cv=5, max_iter=5000, tol=1e-3)
        net.random_state = int(rng.integers(2**31))
        net.fit(scores[:, chosen], gase)
        return lambda rows: np.asarray(net.predict(rows[:, chosen]), dtype=np.float64)


@dataclass(frozen=True)
class CompactDcnnRn:
    """The study's own pipeline without noise: network, pre-trained DCNN+RN, calibration.

    Attributes
    ----------
    atlas : Atlas
    candidates : Candidates
    weights : str
        Name of the pre-trained weights.

    """

    atlas: Atlas
    candidates: Candidates
    weights: str
    name: str = "DCNN+RN, pre-trained"

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:  # noqa: ARG002
        """Select the network, and calibrate."""
        mean = float(standardise_severity(gase).mean())
        rows = association_rows(self.candidates.features(scores), gase, mean_severity=mean)
        network = self.candidates.network(rows.sum(axis=0), children=float(len(gase)), noise_sd=0.0)
        reads, edges = reader_of(self.atlas, self.candidates, self.weights), self.candidates.edges

        def raw(scores: Floats) -> Floats:
            said = reads(masked_input(scores[:, edges], network.weight))
            return np.clip(said, -PREDICTION_CLIP, PREDICTION_CLIP)

        sums = calibration_rows(raw(scores), gase).sum(axis=0)
        intercept, slope = affine(sums, fewest_children=1.0, noise_sd=0.0)
        return lambda rows: GASE_MIDDLE + GASE_UNIT * (intercept + slope * raw(rows))


def reader_of(atlas: Atlas, candidates: Candidates, weights: str) -> Fitted:
    """Return what a pre-trained network says of (m, d) inputs: standardised severity, not calibrated."""
    model, edges = pretrained(weights), candidates.edges
    return lambda inputs: predict(model, _matrices(inputs, edges, atlas))


@dataclass(frozen=True)
class PublishedDcnnRn:
    """The published network on the scores of the edges that go with GASE, from scratch.

    Attributes
    ----------
    atlas : Atlas
    epochs : int
        The paper's are 100; the default is what a table on two cores has time for.

    """

    atlas: Atlas
    epochs: int = 8

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return f"DCNN+RN as published, from scratch, {self.epochs} epochs"

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:
        """Mask the connectome by the network's edges, and train."""
        *_, last = islice(self.course(scores, gase, rng=rng), self.epochs)
        return last

    def course(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Iterator[Fitted]:
        """Return what is said after each epoch, without end; ask it before the next epoch is trained."""
        chosen = _strongest(scores, gase)

        def inputs(rows: Floats) -> torch.Tensor:
            # Strictly upper triangle, as published.
            return torch.triu(_matrices(np.clip(rows[:, chosen], -4, 4) / 4, chosen, self.atlas), diagonal=1)

        def reads(model: nn.Module) -> Fitted:
            return lambda rows: 1 + 6 * _said(model, inputs(rows))

        return map(reads, published_epochs(inputs(scores), (gase - 1) / 6, rng=rng))


@dataclass(frozen=True)
class Network:
    """One of the other networks, on all scores of the template's edges.

    Attributes
    ----------
    name : str
    atlas : Atlas
    edges : (d,) int64
    make : callable
        Makes the untrained network for a number of regions.

    """

    name: str
    atlas: Atlas
    edges: NDArray[np.int64]
    make: Callable[[int], nn.Module]

    def fit(self, scores: Floats, gase: Floats, *, rng: np.random.Generator) -> Fitted:
        """Train on standardised severity."""
        torch.manual_seed(int(rng.integers(2**31)))

        def inputs(rows: Floats) -> torch.Tensor:
            return _matrices(np.clip(rows[:, self.edges], -4, 4), self.edges, self.atlas)

        model = train(
            self.make(len(self.atlas.regions)), inputs(scores), (gase - GASE_MIDDLE) / GASE_UNIT, rng=rng
        )
        return lambda rows: GASE_MIDDLE + GASE_UNIT * _said(model, inputs(rows))


def all_baselines(atlas: Atlas, candidates: Candidates, *, weights: str) -> tuple[Predictor, ...]:
    """Return every predictor of the comparison, the study's own among them."""
    edges = candidates.edges
    return (
        MeanPredictor(),
        CompactDcnnRn(atlas, candidates, weights),
        Cpm(),
        EdgeRidge(),
        ElasticNet(),
        PublishedDcnnRn(atlas),
        Network("BrainNetCNN", atlas, edges, BrainNetCnn),
        Network("plain CNN", atlas, edges, lambda _regions: PlainCnn()),
        Network("graph network", atlas, edges, GraphNetwork),
    )


@dataclass(frozen=True)
class Rated:
    """One line of the table.

    Attributes
    ----------
    name : str
    r : float or None
        None for a prediction that does not vary.
    r_interval : (float, float) or None
        95 % by Fisher's transformation.
    mae, rmse : float
        In steps of GASE.

    """

    name: str
    r: float | None
    r_interval: tuple[float, float] | None
    mae: float
    rmse: float


def correlation(predicted: Floats, gase: Floats) -> float | None:
    """Return Pearson's r of (n,) predictions; None where either does not vary."""
    if np.std(predicted) > 1e-9 and np.std(gase) > 1e-9:
        return float(np.corrcoef(predicted, gase)[0, 1])
    return None


def rate(name: str, predicted: Floats, gase: Floats) -> Rated:
    """Compare (n,) predictions with clinical GASE."""
    if len(gase) < 4:
        raise DataError(f"a comparison needs 4 children or more, not {len(gase)}")
    errors = np.clip(predicted, 1, 7) - gase
    r = correlation(predicted, gase)
    interval = None if r is None else fisher_interval(r, len(gase))
    return Rated(name, r, interval, float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean())))


def compare(
    predictors: Sequence[Predictor],
    training: tuple[Floats, Floats],
    held_out: tuple[Floats, Floats],
    *,
    rng: np.random.Generator,
) -> tuple[Rated, ...]:
    """Train each predictor on (scores, gase) of the training children, and rate it on the held-out ones."""
    return tuple(rate(p.name, p.fit(*training, rng=rng)(held_out[0]), held_out[1]) for p in predictors)


def permuted_r(
    predictor: Predictor,
    training: tuple[Floats, Floats],
    held_out: tuple[Floats, Floats],
    *,
    times: int,
    rng: np.random.Generator,
) -> Floats:
    """Return (times,) correlations of true GASE with predictions that were learnt from permuted scores.

    Judged by the true scores: what leaks from the held-out children into the training would show. A
    prediction that does not vary counts as 0.
    """
    found = np.zeros(times)
    for k in range(times):
        fitted = predictor.fit(training[0], rng.permutation(training[1]), rng=rng)
        found[k] = rate("", fitted(held_out[0]), held_out[1]).r or 0.0
    return found


def _correlations(scores: Floats, gase: Floats) -> Floats:
    x, y = scores - scores.mean(axis=0), gase - gase.mean()
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
    r: Floats = (y @ x) / np.where(size > 0, size, 1.0)
    return r


def _strongest(scores: Floats, gase: Floats) -> NDArray[np.int64]:
    return np.sort(np.argsort(-np.abs(_correlations(scores, gase)), kind="stable")[:_EDGES])


def _line(feature: Fitted, scores: Floats, gase: Floats) -> Fitted:
    x = feature(scores)
    if np.std(x) == 0:
        mean = float(gase.mean())
        return lambda rows: np.full(len(rows), mean)
    slope, intercept = np.polyfit(x, gase, 1)
    return lambda rows: intercept + slope * feature(rows)


def _matrices(values: Floats, edges: NDArray[np.int64], atlas: Atlas) -> torch.Tensor:
    return as_matrices(values, edges, ends=atlas.edges, regions=len(atlas.regions))


def _said(model: nn.Module, inputs: torch.Tensor) -> Floats:
    with torch.no_grad():
        return np.asarray(model(inputs).double().numpy(), dtype=np.float64)
