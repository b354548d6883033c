"""The exact network's sums: against regressions on one table, and what they tell of a child."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esn_core.errors import DataError, StudyError
from esn_core.privacy.fixed_point import add_up, sum_rows
from esn_core.privacy.secret_normals import LARGEST
from esn_core.severity_network.bootstrap import (
    EDGE_SD,
    LARGEST_EDGE_EFFECT,
    LARGEST_R,
    LARGEST_SEVERITY_EFFECT,
    SEVERITY_SD,
    Partial,
    bootstrap_r,
    influences,
    network_bootstrap,
    network_bootstrap_rows,
)
from esn_core.severity_network.exact import exact_network
from esn_core.severity_network.exact_releases import (
    centred,
    design,
    moments_of,
    network,
    network_null,
    network_null_rows,
    network_rows,
    null_moments,
)

EDGES, DRAWS = 12, 30
ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)


@pytest.fixture(scope="module")
def sites():
    """Scores, design and secret numbers of three sites with offsets of their own."""
    rng = np.random.default_rng(3)
    found = []
    for n, shift in ((30, 0.0), (22, 0.8), (41, -0.5)):
        age, sex = rng.uniform(4, 18, n), rng.integers(0, 2, n).astype(float)
        gase = np.clip(np.rint(4 + shift + 0.06 * (age - 10) + rng.normal(0, 1.4, n)), 1, 7)
        scores = rng.normal(size=(n, EDGES)) + shift * rng.normal(size=EDGES) + 0.08 * (age - 10)[:, None]
        scores[:, :4] -= 0.5 * (gase - 4)[:, None]
        scores[:, EDGES - 1] = 2.0
        found.append((scores, design(gase, age, sex), rng.normal(size=(n, DRAWS))))
    return found


def summed(rows):
    return sum(part.sum(axis=0) for part in rows)


@pytest.fixture(scope="module")
def base(sites):
    """The moments of all sites."""
    return moments_of(summed(network_rows(z, d) for z, d, _ in sites), edges=EDGES, sites=3)


def t_on_one_table(sites, severity):
    """The t of each edge on severity, with age, sex and indicators of the sites, edge by edge."""
    scores, covariates = (
        np.concatenate([z for z, *_ in sites]),
        np.concatenate([d[:, 1:] for _, d, _ in sites]),
    )
    indicators = np.repeat(np.eye(len(sites)), [len(z) for z, *_ in sites], axis=0)
    x = np.column_stack([severity, covariates, indicators])
    return np.array([sm.OLS(scores[:, e], x).fit().tvalues[0] for e in range(EDGES - 1)])


def severities(sites):
    return np.concatenate([d[:, 0] for _, d, _ in sites])


def test_the_network_from_rows_equals_regressions_on_one_table(sites, base):
    found = exact_network(base)
    assert found.t[:-1] == pytest.approx(t_on_one_table(sites, severities(sites)), rel=1e-10)
    assert np.isnan(found.t[-1])
    assert base.children == 93


def test_through_the_gates_grid_it_is_the_same_up_to_the_grid(sites, base):
    kind = network(EDGES)
    total = add_up([sum_rows(network_rows(z, d), kind) for z, d, _ in sites], kind)
    # The grid is 2^-40 of the bound: 2^-29 here.
    through = exact_network(moments_of(total, edges=EDGES, sites=3))
    assert through.t[:-1] == pytest.approx(exact_network(base).t[:-1], abs=1e-7)
    assert np.array_equal(through.retained, exact_network(base).retained)


def test_permuted_severities_give_the_permutation_test_on_one_table(sites, base):
    rng = np.random.default_rng(9)
    permuted = [np.column_stack([rng.permutation(d[:, 0]) for _ in range(3)]) for _, d, _ in sites]
    total = summed(network_null_rows(z, d, y) for (z, d, _), y in zip(sites, permuted, strict=True))
    pooled = np.concatenate(permuted)
    for k, draw in enumerate(null_moments(total, base)):
        assert exact_network(draw).t[:-1] == pytest.approx(t_on_one_table(sites, pooled[:, k]), rel=1e-10)


def test_secret_numbers_in_the_place_of_severity_give_their_own_regressions(sites, base):
    total = summed(network_null_rows(*site) for site in sites)
    draws = null_moments(total, base)
    assert len(draws) == DRAWS
    assert all(np.array_equal(draw.covariates, draw.covariates.T) for draw in draws)
    pooled = np.concatenate([g for *_, g in sites])
    for k in (0, DRAWS - 1):
        expected = t_on_one_table(sites, pooled[:, k])
        assert exact_network(draws[k]).t[:-1] == pytest.approx(expected, rel=1e-10)


def rotation_that_keeps_the_mean(n, rng):
    """An orthogonal (n, n) matrix that maps the vector of ones to itself."""
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, n - 1))]))
    inner, _ = np.linalg.qr(rng.normal(size=(n - 1, n - 1)))
    return basis @ np.block([[np.eye(1), np.zeros((1, n - 1))], [np.zeros((n - 1, 1)), inner]]) @ basis.T


def test_other_children_of_the_same_covariance_give_the_same_draws(sites, base):
    """Rotated children send what the true ones send, under numbers that are as likely."""
    scores, designs, numbers = sites[0]
    rotate = rotation_that_keeps_the_mean(len(scores), np.random.default_rng(1))
    others = rotate @ scores
    assert np.abs(others - scores).max() > 1
    ours = network_null_rows(scores, designs, numbers).sum(axis=0)
    theirs = network_null_rows(others, rotate @ designs, rotate @ numbers).sum(axis=0)
    assert theirs == pytest.approx(ours, abs=1e-10)


def test_numbers_that_the_centre_knew_would_give_every_child_away(sites):
    """Why they are secret: as many sums as children are so many linear equations."""
    scores, designs, _ = sites[0]
    n = len(scores)
    known = np.random.default_rng(4).normal(size=(n, n + 5))
    total = network_null_rows(scores, designs, known).sum(axis=0).reshape(n + 5, 3 + EDGES)
    solved = np.linalg.lstsq((known - known.mean(axis=0)).T, total[:, 3:], rcond=None)[0]
    assert solved - solved.mean(axis=0) == pytest.approx(scores - scores.mean(axis=0), abs=1e-9)


def test_influences_sum_to_nothing(sites, base):
    partial = Partial.of(base, exact_network(base).r)
    total = sum(influences(z, d, partial).sum(axis=0) for z, d, _ in sites)
    assert total == pytest.approx(np.zeros(EDGES), abs=1e-10)


def test_bootstrapped_correlations_spread_as_those_of_resampled_children(sites, base):
    partial = Partial.of(base, exact_network(base).r)
    rng = np.random.default_rng(5)
    numbers = [rng.normal(size=(len(z), 2000)) for z, *_ in sites]
    total = summed(
        network_bootstrap_rows(z, d, g, partial) for (z, d, _), g in zip(sites, numbers, strict=True)
    )
    ours = bootstrap_r(total, partial, children=base.children)
    slow = []
    for _ in range(600):
        chosen = [(z, d, rng.integers(0, len(z), len(z))) for z, d, _ in sites]
        rows = summed(network_rows(z[i], d[i]) for z, d, i in chosen)
        slow.append(exact_network(moments_of(rows, edges=EDGES, sites=3)).r)
    edges = slice(0, EDGES - 1)
    # Resampling 93 children at three sites loses three means and three effects; the sd of an sd is 3 %.
    ratio = ours.std(axis=0)[edges] / np.std(slow, axis=0)[edges]
    assert ratio == pytest.approx(np.ones(EDGES - 1), abs=0.15)
    assert np.tanh(np.arctanh(ours[:, edges]).mean(axis=0)) == pytest.approx(partial.r[edges], abs=0.02)
    assert (ours[:, -1] == 0).all()


def test_a_question_carries_partial_correlations_and_refuses_what_cannot_be(base):
    partial = Partial.of(base, exact_network(base).r)
    again = Partial.from_vector(partial.vector, edges=EDGES)
    assert np.array_equal(again.vector, partial.vector)
    with pytest.raises(DataError, match="of 12 edges are 51 numbers, not"):
        Partial.from_vector(partial.vector[1:], edges=EDGES)
    severity = 4 * EDGES
    for place, value, words in (
        (0, 1.0, "within -0.999 and 0.999"),
        (EDGES, -1.0, "an edge is 0.01 to 16, or 0"),
        (EDGES, 1e-9, "an edge is 0.01 to 16, or 0"),
        (EDGES, 0.0, "or 0 where its correlation is 0"),
        (EDGES, 17.0, "an edge is 0.01 to 16"),
        (2 * EDGES, 129.0, "an edge is at most 128"),
        (severity, 0.0, "severity is 0.1 to 2, not 0"),
        (severity, 1e-160, "severity is 0.1 to 2, not 1e-160"),
        (severity, 2.1, "severity is 0.1 to 2, not 2.1"),
        (severity + 2, -16.1, "severity is at most 16"),
    ):
        wrong = partial.vector
        wrong[place] = value
        with pytest.raises(DataError, match=words):
            Partial.from_vector(wrong, edges=EDGES)


def test_an_edge_that_hardly_varies_is_not_followed(sites):
    nearly = [(np.column_stack([z[:, :-1], 2 + 1e-3 * z[:, 0]]), d) for z, d, _ in sites]
    found = moments_of(summed(network_rows(z, d) for z, d in nearly), edges=EDGES, sites=3)
    partial = Partial.of(found, exact_network(found).r)
    assert (partial.r[-1], partial.edge_sd[-1]) == (0, 0)
    assert Partial.from_vector(partial.vector, edges=EDGES).edge_sd[-1] == 0


def test_severity_that_hardly_varies_has_no_draws(base):
    flat = base.covariates.copy()
    flat[0] *= 1e-3
    flat[:, 0] *= 1e-3
    moments = replace(base, covariates=flat, edges=base.edges * [[1e-3], [1], [1]])
    with pytest.raises(StudyError, match="cannot be drawn again: the sd of severity"):
        Partial.of(moments, exact_network(moments).r)


def extremes():
    """Every corner of what is accepted: r, sd of edges and of severity, effects on both."""
    for r, sd, effect, severity, on_it in product(
        (-LARGEST_R, 0.0, LARGEST_R),
        EDGE_SD,
        (-LARGEST_EDGE_EFFECT, LARGEST_EDGE_EFFECT),
        SEVERITY_SD,
        (-LARGEST_SEVERITY_EFFECT, LARGEST_SEVERITY_EFFECT),
    ):
        full = np.ones(EDGES)
        yield Partial(r * full, sd * full, effect * np.ones((2, EDGES)), severity, np.full(2, on_it))


def test_at_no_corner_of_what_is_accepted_does_a_child_fall_out_or_overflow(sites):
    """Also for scores at the ends, and where one child lies far from all others."""
    scores, designs, _ = sites[0]
    far = scores.copy()
    far[0] = 16.0
    with np.errstate(all="raise", under="ignore"):
        for partial in extremes():
            assert Partial.from_vector(partial.vector, edges=EDGES).beyond() is None
            for z in (scores, far, 1e6 * scores):
                rows = network_bootstrap_rows(z, designs, np.ones((len(z), 1)), partial)
                assert np.isfinite(rows).all()
                assert np.abs(rows).max(axis=1).min() > 0


ACCEPTED = st.tuples(
    st.floats(-LARGEST_R, LARGEST_R),
    st.floats(*EDGE_SD),
    st.floats(-LARGEST_EDGE_EFFECT, LARGEST_EDGE_EFFECT),
    st.floats(*SEVERITY_SD),
    st.floats(-LARGEST_SEVERITY_EFFECT, LARGEST_SEVERITY_EFFECT),
)


@given(
    arrays(float, (6, 3), elements=st.floats(-1e6, 1e6)),
    arrays(float, (6, 3), elements=st.floats(-6, 6)),
    ACCEPTED,
)
def test_influences_are_what_exact_arithmetic_says(scores, designs, accepted):
    """So that a child's row is zero only where its influences are, whatever is accepted from the centre."""
    r, sd, effect, severity, on_it = accepted
    partial = Partial(np.full(3, r), np.full(3, sd), np.full((2, 3), effect), severity, np.full(2, on_it))
    u, v = centred(designs, scores)
    found = influences(scores, designs, partial)
    for i in range(6):
        x = [Fraction(number) for number in u[i]]
        a = (x[0] - (x[1] + x[2]) * Fraction(on_it)) / Fraction(severity)
        bs = [(Fraction(number) - (x[1] + x[2]) * Fraction(effect)) / Fraction(sd) for number in v[i]]
        w = np.array([float(a * b - Fraction(r) * (a * a + b * b) / 2) for b in bs])
        held = w * min(1.0, 40 * 3**0.5 / max(np.linalg.norm(w), 1e-300))
        # What cancels leaves a rounding of the parts, which are no longer than this.
        parts = (16 + 12 * LARGEST_EDGE_EFFECT) / sd + (6 + 12 * LARGEST_SEVERITY_EFFECT) / severity
        assert np.abs(found[i] - held).max() <= 1e-13 * parts**2


@given(arrays(float, (5, 4), elements=ANY), arrays(float, (5, 3), elements=st.floats(-50, 50)), st.data())
def test_no_row_is_longer_than_its_bound(scores, designs, data):
    numbers = data.draw(arrays(float, (5, 2), elements=st.floats(-LARGEST, LARGEST)))
    r, sd = np.array([0.5, -LARGEST_R, 0, LARGEST_R]), np.array([1, EDGE_SD[0], 0, 2])
    partial = Partial(r, sd, np.ones((2, 4)), SEVERITY_SD[0], np.ones(2))
    with np.errstate(all="ignore"):
        for kind, rows in (
            (network(4), network_rows(scores, designs)),
            (network_null(4, 2), network_null_rows(scores, designs, numbers)),
            (network_bootstrap(4, 2), network_bootstrap_rows(scores, designs, numbers, partial)),
        ):
            assert rows.shape == (5, kind.dimension)
            assert (np.linalg.norm(rows, axis=1) <= kind.l2_bound * (1 + 1e-12)).all()


def test_a_site_without_children_adds_nothing():
    empty, nothing = np.empty((0, EDGES)), np.empty((0, 3))
    assert network_rows(empty, nothing).shape == (0, network(EDGES).dimension)
    assert network_null_rows(empty, nothing, np.empty((0, 2))).shape == (0, network_null(EDGES, 2).dimension)
