"""Tests of how long simulated children have had their epilepsy, and how many medicines they take."""

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.illness import draw_illness
from esn_core.simulation.world import World

# draw_site of phantom-28, seeds 1 and 2, four children and two controls, at commit 894d237, which drew
# neither duration nor medicines (2026-11-25): age, sex, GASE, standard scores, sum of the log weights.
BEFORE = [
    (11.8, "M", 2, [94.0, 92.0, 93.0], -316.7306668351116),
    (10.7, "M", 4, [104.0, 112.0, 100.0], -345.00447952827767),
    (13.3, "F", 4, [77.0, 87.0, 86.0], -306.617213150026),
    (14.3, "F", 7, [73.0, 67.0, 62.0], -277.6357227959351),
    (11.0, "M", None, [111.0, 109.0, 112.0], -278.5551472990333),
    (11.3, "M", None, [91.0, 93.0, 98.0], -298.07410297337196),
]


@pytest.fixture(scope="module")
def many():
    """Age, severity, duration and medicines of 40,000 children."""
    rng = np.random.default_rng(1)
    age, severity = np.clip(rng.normal(10, 3.6, 40_000), 4, 18), np.clip(rng.normal(size=40_000), -2.2, 2.2)
    illness = draw_illness(age, severity, rng=rng)
    return age, severity, illness.duration_years, illness.medicines


def test_both_go_with_severity_and_each_other_as_documented(many):
    age, severity, duration, medicines = 0, 1, 2, 3
    r = np.corrcoef(many)
    # Standard error of a correlation of 40,000 children: .005.
    assert r[duration, age] == pytest.approx(0.62, abs=0.02)
    assert r[duration, severity] == pytest.approx(0.26, abs=0.02)
    assert r[medicines, severity] == pytest.approx(0.44, abs=0.02)
    assert r[medicines, duration] == pytest.approx(0.28, abs=0.02)
    assert r[medicines, age] == pytest.approx(0.11, abs=0.02)


def test_an_epilepsy_is_younger_than_its_child_and_older_than_half_a_year(many):
    age, _, duration, medicines = many
    assert (duration >= 0.5).all()
    assert (duration <= age).all()
    assert set(medicines) == {1, 2, 3, 4, 5, 6}


def test_what_was_drawn_before_is_drawn_as_before():
    world = World.draw(load_atlas("phantom-28"), rng=np.random.default_rng(1))
    subjects = draw_site(world, children=4, controls=2, rng=np.random.default_rng(2))
    for subject, (age, sex, gase, outcomes, weights) in zip(subjects, BEFORE, strict=True):
        assert (subject.age_years, subject.sex, subject.gase) == (age, sex, gase)
        assert list(subject.outcomes.values()) == outcomes
        # The order of a sum's additions may differ between builds of numpy.
        assert subject.log_weights.sum() == pytest.approx(weights, rel=1e-12)


def test_two_sites_of_one_stream_have_illnesses_of_their_own():
    world = World.draw(load_atlas("phantom-28"), rng=np.random.default_rng(1))
    rng = np.random.default_rng(2)
    first, second = (draw_site(world, children=20, controls=0, rng=rng) for _ in range(2))
    ours = [[(s.duration_years, s.medicines) for s in site] for site in (first, second)]
    assert ours[0] != ours[1]


def test_controls_have_neither():
    world = World.draw(load_atlas("phantom-28"), rng=np.random.default_rng(1))
    child, control = draw_site(world, children=1, controls=1, rng=np.random.default_rng(2))
    assert (child.duration_years is None, child.medicines is None) == (False, False)
    assert (control.duration_years, control.medicines) == (None, None)
