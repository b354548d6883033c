"""How often intervals hold the truth, and how often a test is sure of nothing, in docs/benchmarks.md.

    python tests/benchmarks/statistics_bars.py [--draws 400] [--seed 1] [--write]

`--write` puts the tables into docs/benchmarks.md; `make test-science` fails where they say what this does
not.
Cohorts are drawn from plain models; nothing is asked of any site. Noise is that of the phase's whole budget
of a held-out child, at delta 1e-3 and six sites of which one may collude.
"""

import argparse
import math
from collections.abc import Iterator
from itertools import chain

import numpy as np
import page
from scipy.stats import norm

from esn_core.errors import StudyError
from esn_core.gase import GASE_MIDDLE, GASE_UNIT
from esn_core.privacy.accounting import mu_for, noise_multiplier_for
from esn_core.severity_network.components import network_based
from esn_core.severity_network.exact import exact_network
from esn_core.severity_network.exact_releases import (
    design,
    moments_of,
    network_null_rows,
    network_rows,
    null_moments,
)
from esn_core.statistics.agreement import EVALUATION, evaluation_rows
from esn_core.statistics.agreement_estimates import Estimates, estimates, estimates_of_all
from esn_core.statistics.calibration_curve import judge_reliability, reliability_rows
from esn_core.statistics.linear import LinearFit, linear, linear_fit, linear_rows
from esn_core.statistics.logistic_exact import ExactLogistic
from esn_core.statistics.logistic_fit import EXACT_ROUNDS, ROUNDS, LogisticFit, LogisticNewton
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, log_likelihoods, newton, newton_rows
from esn_core.statistics.model_comparison import likelihood_ratio, vuong, vuong_rows, vuong_test
from esn_core.statistics.roc import auc, delong_areas, delong_rows, histogram_rows
from esn_server.report.analyses import Correlation, CrossSite, LeftOut
from esn_server.report.figures.forest import heterogeneity
from esn_server.report.impairment_outcome import model_p

Row = tuple[str, str, float]
"""Table, line and column are told by the first two: figure, setting; and the share."""
SIZES, NETWORK_SIZES = (36, 100, 300), (36, 300)
DELTA, SITES, COLLUDING = 1e-3, 6, 1
FEWEST = 4 * 5
TOLD_SIZES, FEWEST_TOLD = (126, 400, 1200), 400
"""Held-out children; and from how many on enough coefficients are shown to count intervals."""
LOG_ODDS_RATIO, LINEAR_SLOPE = 2.58, 0.5
NOTHING = (0.0, 0.0)
REGIONS, T_THRESHOLD, NULL_DRAWS = 28, 3.1, 60
"""Of the exact network; threshold and draws as a drafted protocol has them."""


def noise_of(bound: float, *, epsilon: float, share: float = 1.0, releases: int = 1) -> float:
    """Return the standard deviation of a sum's noise when one site may collude."""
    multiplier = noise_multiplier_for(mu_for(epsilon, DELTA), share=share, releases=releases)
    return bound * multiplier * math.sqrt(SITES / (SITES - COLLUDING))


def scores(children: int, r: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw predicted and clinical GASE that correlate by r, up to the scale's ends and whole steps."""
    severity, other = rng.normal(size=(2, children))
    gase = np.clip(np.rint(GASE_MIDDLE + 0.8 * GASE_UNIT * severity), 1, 7)
    followed = r * severity + math.sqrt(1 - r**2) * other
    return np.clip(GASE_MIDDLE + 0.8 * GASE_UNIT * r * followed, 1, 7), gase


def coverage_of_r(draws: int, rng: np.random.Generator) -> Iterator[Row]:
    """Draw studies; count intervals that hold the correlation of a large cohort."""
    for wanted in (0.3, 0.8):
        prediction, gase = scores(400_000, wanted, rng)
        truth = {
            "r": float(np.corrcoef(prediction, gase)[0, 1]),
            "MAE": float(np.abs(prediction - gase).mean()),
            "calibration slope": float(np.polyfit(prediction, gase, 1)[0]),
        }
        for children in SIZES:
            for epsilon in (math.inf, 8.0, 3.0):
                found = list(_estimated(draws, children, wanted, epsilon, rng))
                for what, true in truth.items():
                    held = [_holds(each, what, true) for each in found]
                    setting = "exact" if math.isinf(epsilon) else f"ε {epsilon:g}"
                    yield f"{what}, true r {truth['r']:.2f}", f"{children}, {setting}", float(np.mean(held))


def _estimated(
    draws: int, children: int, r: float, epsilon: float, rng: np.random.Generator
) -> Iterator[Estimates]:
    totals = np.array([evaluation_rows(*_pair(children, r, rng)).sum(axis=0) for _ in range(draws)])
    if math.isinf(epsilon):
        yield from (estimates(total, noise_sd=0.0, fewest_children=FEWEST, rng=rng) for total in totals)
        return
    sd = noise_of(EVALUATION.l2_bound, epsilon=epsilon)
    noised = totals + rng.normal(0, sd, totals.shape)
    for part in np.array_split(noised, -(-draws // 50)):
        yield from estimates_of_all(part, noise_sd=sd, fewest_children=FEWEST, rng=rng)


def _pair(children: int, r: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw predicted and clinical GASE; where r is 0, the prediction is that of other children."""
    if r:
        return scores(children, r, rng)
    return scores(children, 0.5, rng)[0], scores(children, 0.5, rng)[1]


def _holds(found: Estimates, what: str, true: float) -> bool:
    figure = {"r": found.r, "MAE": found.mae, "calibration slope": found.slope}[what]
    return figure is not None and figure.interval[0] <= true <= figure.interval[1]


def coverage_of_auc(draws: int, rng: np.random.Generator) -> Iterator[Row]:
    """Count intervals of areas that hold the true area, up to one."""
    for children in SIZES:
        ill = np.arange(children) < children // 3
        for true in (0.75, 0.9, 0.96):
            shift, held = math.sqrt(2) * norm.ppf(true), []
            for _ in range(draws):
                values = norm.cdf((rng.normal(size=children) + shift * ill - shift / 2) / 1.5)
                counts = histogram_rows(values, ill, bins=200).sum(axis=0)
                total = delong_rows(values[:, None], ill, histograms=(counts,)).sum(axis=0)
                found = auc(counts)
                ends = (found.interval if found else (0.0, 1.0)), delong_areas(total, 1).intervals[0]
                held.append([low <= true <= high for low, high in ends])
            by_scores, delong = np.mean(held, axis=0)
            setting = f"{children}, area {true:g}"
            yield "Hanley and McNeil by scores", setting, float(by_scores)
            yield "DeLong on the logit", setting, float(delong)


def size_of_vuong(draws: int, rng: np.random.Generator) -> Iterator[Row]:
    """Count sure verdicts on two scores that are equally good, models fitted under the same noise."""
    feature_norm = math.sqrt(2)
    for children in SIZES:
        for epsilon in (8.0, 3.0):
            fit_noise = noise_of(
                newton(2, feature_norm=feature_norm).l2_bound * math.sqrt(2),
                epsilon=epsilon,
                share=0.6,
                releases=ROUNDS,
            )
            noise = noise_of(vuong().l2_bound, epsilon=epsilon, share=0.2)
            sure = []
            for _ in range(draws):
                severity = rng.normal(size=children)
                impaired = rng.random(children) < 1 / (1 + np.exp(0.8 - severity))
                fits, each = [], []
                for _score in range(2):
                    score = np.clip(0.4 * severity + 0.25 * rng.normal(size=children), -1, 1)
                    x = np.column_stack([np.ones(children), score])
                    model = LogisticNewton(
                        ("intercept", "score"), feature_norm=feature_norm, noise_sd=fit_noise
                    )
                    for _round in range(ROUNDS):
                        total = newton_rows(
                            x, impaired, coefficients=model.coefficients, feature_norm=feature_norm
                        ).sum(axis=0)
                        model.step(total + rng.normal(0, fit_noise, total.shape))
                    try:
                        fits.append(model.fit())
                    except StudyError:
                        break
                    each.append(
                        log_likelihoods(
                            x, impaired, coefficients=fits[-1].coefficients, feature_norm=feature_norm
                        )
                    )
                if len(fits) < 2:
                    sure.append(False)
                    continue
                found = vuong_test(
                    vuong_rows(*each).sum(axis=0) + rng.normal(0, noise, 3),
                    first_features=2,
                    second_features=2,
                    noise_sd=noise,
                    lost_by_noise=math.hypot(*(fit.loss_by_noise for fit in fits)),
                )
                sure.append(found is not None and found.p_value < 0.05)
            yield "Vuong's test", f"{children}, ε {epsilon:g}", float(np.mean(sure))


def size_of_exact_tests(draws: int, rng: np.random.Generator) -> Iterator[Row]:
    """Count sure tests of exact sums: of two scores that are equally good, and of one that adds nothing."""
    for children in SIZES:
        sure = np.array([_exact_tests(children, rng) for _ in range(draws)])
        for test, share in zip(("Vuong's test", "DeLong's test", "likelihood ratio"), sure.T, strict=True):
            yield test, f"{children}, exact", float(np.mean(share))


def _exact_tests(children: int, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    severity = rng.normal(size=children)
    impaired = rng.random(children) < 1 / (1 + np.exp(0.8 - severity))
    predicted, clinical = (
        np.clip(0.4 * severity + 0.25 * rng.normal(size=children), -1, 1) for _ in range(2)
    )
    nothing = np.clip(0.4 * rng.normal(size=children), -1, 1)
    rules = {"feature_norm": math.sqrt(3), "logit_clip": EXACT_LOGIT_CLIP}
    fits, each = [], []
    for columns in ((predicted,), (clinical,), (clinical, nothing)):
        x = np.column_stack([np.ones(children), *columns])
        try:
            fits.append(_exact_fit(x, impaired, **rules))
        except StudyError:
            return False, False, False
        each.append(log_likelihoods(x, impaired, coefficients=fits[-1].coefficients, **rules))
    vuong_sums = vuong_rows(*each[:2], logit_clip=EXACT_LOGIT_CLIP).sum(axis=0)
    found = vuong_test(vuong_sums, first_features=2, second_features=2, logit_clip=EXACT_LOGIT_CLIP)
    scores = (np.column_stack([predicted, clinical]) + 1) / 2
    histograms = tuple(histogram_rows(s, impaired, bins=200).sum(axis=0) for s in scores.T)
    areas = delong_areas(delong_rows(scores, impaired, histograms=histograms).sum(axis=0), 2)
    tested = areas.difference(0, 1).p_value
    maxima = all(fit.maximum and fit.ratio_p is None for fit in fits[1:])
    return (
        found is not None and found.p_value < 0.05,
        tested is not None and tested < 0.05,
        maxima and likelihood_ratio(fits[1], fits[2]).p_value < 0.05,
    )


def _exact_fit(x: np.ndarray, impaired: np.ndarray, **rules: float) -> LogisticFit:
    model = ExactLogistic(("intercept", "a", "b")[: x.shape[1]], **rules)
    sums: dict[tuple[float, ...], np.ndarray] = {}
    for _ in range(EXACT_ROUNDS):
        for at in model.coefficients:
            if tuple(at) not in sums:
                rows = newton_rows(x, impaired, coefficients=at, thirds=True, **rules)
                sums[tuple(at)] = rows.sum(axis=0)
        model.step(np.concatenate([sums[tuple(at)] for at in model.coefficients]))
    return model.fit()


def size_of_exact_models(draws: int, seed: int, sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """Count sure tests of one model's exact sums: predictors that add nothing, and a model that is true."""
    for children in sizes:
        rng = np.random.default_rng([seed, 20, children])
        for impaired, intercept in (("a third impaired", -0.8), ("one in twelve impaired", -3.0)):
            sure = np.array([_exact_model(children, intercept, rng) for _ in range(draws)])
            for test, share in zip(("odds ratio", "Hosmer and Lemeshow's test"), sure.T, strict=True):
                yield f"{test}, {impaired}", f"{children}, exact", float(np.mean(share))
        for test, p_of in (("whole model", _whole_model_p), ("linear coefficient", _linear_p)):
            sure = np.array([p_of(children, rng) < 0.05 for _ in range(draws)])
            yield test, f"{children}, exact", float(np.mean(sure))
        sites = [_heterogeneity_p(children, rng) < 0.05 for _ in range(draws)]
        yield "heterogeneity between six sites", f"{children}, exact", float(np.mean(sites))


def _exact_model(children: int, intercept: float, rng: np.random.Generator) -> tuple[bool, bool]:
    """Say whether a predictor without effect is sure, and whether a true model is surely not calibrated."""
    score, nothing = np.clip(0.4 * rng.normal(size=(2, children)), -1, 1)
    impaired = rng.random(children) < 1 / (1 + np.exp(-intercept - LOG_ODDS_RATIO * score))
    rules = {"feature_norm": math.sqrt(3), "logit_clip": EXACT_LOGIT_CLIP}
    x = np.column_stack([np.ones(children), score, nothing])
    try:
        fit = _exact_fit(x, impaired, **rules)
    except StudyError:
        return False, False
    probability = 1 / (1 + np.exp(-x @ fit.coefficients))
    curve = judge_reliability(reliability_rows(probability, impaired, groups=20).sum(axis=0))
    return bool(fit.p_values[2] < 0.05), curve.p_value is not None and curve.p_value < 0.05


def _whole_model_p(children: int, rng: np.random.Generator) -> float:
    columns = np.clip(0.4 * rng.normal(size=(2, children)), -1, 1)
    x, impaired = np.column_stack([np.ones(children), *columns]), rng.random(children) < 1 / 3
    p = model_p(_exact_fit(x, impaired, feature_norm=math.sqrt(3), logit_clip=EXACT_LOGIT_CLIP))
    return 1.0 if p is None else p


def _linear_p(children: int, rng: np.random.Generator) -> float:
    score, nothing = np.clip(0.4 * rng.normal(size=(2, children)), -1, 1)
    target = np.clip(LINEAR_SLOPE * score + 0.25 * rng.normal(size=children), -1, 1)
    x = np.column_stack([np.ones(children), score, nothing])
    rows = linear_rows(x, target, feature_norm=math.sqrt(3), largest_target=1.0)
    return float(linear_fit(rows.sum(axis=0), ("intercept", "a", "b")).p_values[2])


def _heterogeneity_p(children: int, rng: np.random.Generator) -> float:
    prediction, gase = (np.array_split(each, SITES) for each in scores(children, 0.8, rng))
    nothing = {"r_interval": None, "r_noise_sd": None, "mae": None}
    sites = [
        LeftOut(site=f"{k}", children=len(own), r=_correlation(own, true), **nothing)
        for k, (own, true) in enumerate(zip(prediction, gase, strict=True))
    ]
    found = heterogeneity(
        CrossSite(by_site=sites, together=Correlation(children=children, r=None, **nothing))
    )
    return 1.0 if found is None else found.p


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    return float(np.corrcoef(first, second)[0, 1]) if first.std() and second.std() else None


def size_of_r(draws: int, seed: int, sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """Count intervals of r that leave 0 out, where the prediction is that of other children."""
    for children in sizes:
        rng = np.random.default_rng([seed, 22, children])
        for epsilon in (math.inf, 8.0, 3.0):
            found = list(_estimated(draws, children, 0.0, epsilon, rng))
            ends = [each.r.interval for each in found if each.r is not None]
            sure = sum(not low <= 0 <= high for low, high in ends)
            setting = "exact" if math.isinf(epsilon) else f"ε {epsilon:g}"
            yield "r", f"{children}, {setting}", sure / draws


def size_of_network(draws: int, seed: int, sizes: tuple[int, ...] = NETWORK_SIZES) -> Iterator[Row]:
    """Count what is sure in exact networks of connections that go with age and site, not with severity."""
    for children in sizes:
        rng = np.random.default_rng([seed, 21, children])
        for kind, shared in (("independent", 0.0), ("correlated", 0.6)):
            sure = np.array([_network(children, shared, rng) for _ in range(draws)])
            for test, share in zip(
                ("p of one", "any by false discovery rate", "p of a component"), sure.T, strict=True
            ):
                yield f"{kind} connections: {test}", f"{children}, exact", float(np.mean(share))


def _network(children: int, shared: float, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Draw six sites; `shared` is the share of a connection's variance that its two regions make."""
    ends = np.column_stack(np.triu_indices(REGIONS, 1))
    parts, null = [], []
    for own in np.array_split(np.arange(children), SITES):
        n = len(own)
        age, sex = rng.uniform(6, 18, n), rng.integers(0, 2, n).astype(float)
        severity = 0.05 * (age - 12) + rng.normal(0, 0.5) + rng.exponential(size=n)
        gase = np.clip(np.rint(2 + GASE_UNIT * severity), 1, 7)
        regions = rng.normal(size=(n, REGIONS))
        edges = math.sqrt(shared / 2) * regions[:, ends].sum(axis=2)
        edges += math.sqrt(1 - shared) * rng.normal(size=(n, len(ends)))
        edges += 0.1 * (age[:, None] - 12) + rng.normal(0, 0.5, len(ends))
        designs = design(gase, age, sex)
        parts.append(network_rows(edges, designs).sum(axis=0))
        null.append(network_null_rows(edges, designs, rng.normal(size=(n, NULL_DRAWS))).sum(axis=0))
    found = moments_of(np.sum(parts, axis=0), edges=len(ends), sites=SITES)
    network = exact_network(found)
    drawn = [exact_network(each).t for each in null_moments(np.sum(null, axis=0), found)]
    components, _ = network_based(network.t, ends, drawn, threshold=T_THRESHOLD)
    of_largest = components[0].p if components else None
    return (
        bool(network.p[0] < 0.05),
        bool(network.retained.any()),
        of_largest is not None and of_largest < 0.05,
    )


def coefficients_under_noise(
    draws: int,
    rng: np.random.Generator,
    effects: tuple[float, float] = (LOG_ODDS_RATIO, LINEAR_SLOPE),
) -> dict[str, list[Row]]:
    """Count how often noise leaves a coefficient to tell, its interval holds the truth, and its p is sure.

    Two models with one predictor each, as a study that compares two severities and nothing else.
    """
    told: dict[tuple[str, int], list[tuple[bool, bool]]] = {}
    for children in TOLD_SIZES:
        for _ in range(draws):
            for what, found in _coefficients(children, effects, rng):
                told.setdefault((what, children), []).extend([] if found is None else [found])
    shown = [(what, f"{n}, ε 8", len(told[what, n]) / draws) for what, n in told]
    counted = {(w, f"{n}, ε 8"): np.mean(told[w, n], axis=0) for w, n in told if n >= FEWEST_TOLD}
    return {
        "shown": shown,
        "held": [(*where, float(shares[0])) for where, shares in counted.items()],
        "sure": [(*where, float(shares[1])) for where, shares in counted.items()],
    }


def _coefficients(
    children: int, effects: tuple[float, float], rng: np.random.Generator
) -> Iterator[tuple[str, tuple[bool, bool] | None]]:
    """Draw a study; say whether both coefficients' intervals hold them and their p is sure; None if lost."""
    norm_of_x = math.sqrt(2)
    kinds = newton(2, feature_norm=norm_of_x), linear(2, feature_norm=norm_of_x, largest_target=1.0)
    newton_sd, linear_sd = (
        noise_of(kind.l2_bound * math.sqrt(2), epsilon=8.0, share=share, releases=releases)
        for kind, share, releases in zip(kinds, (0.6, 0.1), (ROUNDS, 1), strict=True)
    )
    score = np.clip(0.4 * rng.normal(size=children), -1, 1)
    x = np.column_stack([np.ones(children), score])
    impaired = rng.random(children) < 1 / (1 + np.exp(0.95 - effects[0] * score))
    model = LogisticNewton(("intercept", "score"), feature_norm=norm_of_x, noise_sd=newton_sd)
    for _round in range(ROUNDS):
        rows = newton_rows(x, impaired, coefficients=model.coefficients, feature_norm=norm_of_x)
        total = rows.sum(axis=0)
        model.step(total + rng.normal(0, newton_sd, total.shape))
    target = np.clip(effects[1] * score + 0.25 * rng.normal(size=children), -1, 1)
    total = linear_rows(x, target, feature_norm=norm_of_x, largest_target=1.0).sum(axis=0)
    noised = total + rng.normal(0, linear_sd, total.shape)

    def line() -> LinearFit:
        return linear_fit(noised, ("intercept", "score"), noise_sd=linear_sd)

    for what, truth, fit in (
        ("odds ratio under noise", effects[0], lambda: model.fit().beside(line().spreads)),
        ("linear coefficient under noise", effects[1], line),
    ):
        try:
            found = fit()
        except StudyError:
            yield what, None
            continue
        low, high = found.intervals[1]
        held = bool(low <= truth <= high), bool(found.p_values[1] < 0.05)
        yield what, held if found.told else None


def tables_of(draws: int, seed: int) -> str:
    """Return the tables as they stand on the page."""
    rng = np.random.default_rng(seed)
    few = max(draws // 4, 50)
    # Of their own seed, so that the figures above stay what they are.
    noised = coefficients_under_noise(draws, np.random.default_rng([seed, 18]))
    nothing = coefficients_under_noise(draws, np.random.default_rng([seed, 19]), NOTHING)
    models = size_of_exact_models(draws, seed)
    return "\n\n".join(
        [
            _table("95 % intervals hold", coverage_of_r(draws, rng)),
            _table("95 % intervals of an area hold, a third impaired", coverage_of_auc(draws, rng)),
            _table("sure at 5 % under noise, scores equally good", size_of_vuong(few, rng)),
            _table("sure at 5 %, exact, nothing to find", chain(size_of_exact_tests(draws, rng), models)),
            _table("sure at 5 %, exact, no connection goes with severity", size_of_network(draws, seed)),
            _table("r is sure at 5 %, of other children's prediction", size_of_r(draws, seed)),
            _table("95 % intervals hold, of coefficients that are shown", iter(noised["held"])),
            _table("coefficients that the noise leaves to show", iter(noised["shown"])),
            _table("sure at 5 %, no effect, of coefficients that are shown", iter(nothing["sure"])),
            _table("coefficients without effect that the noise leaves to show", iter(nothing["shown"])),
        ]
    )


def _table(title: str, rows: Iterator[Row]) -> str:
    shares: dict[str, dict[str, float]] = {}
    for figure, setting, share in rows:
        shares.setdefault(figure, {})[setting] = share
    columns = list(next(iter(shares.values())))
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [
        f"| {figure} | {' | '.join(f'{of[c]:.3f}' for c in columns)} |" for figure, of in shares.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write them where that is asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    tables = tables_of(given.draws, given.seed)
    print(tables)
    if given.write:
        page.write("statistics_bars.py", tables)


if __name__ == "__main__":
    main()
