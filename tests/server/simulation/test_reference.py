"""What a demo sets beside a study: harmonisations of sites that differ in severity."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from esn_core.analyses.expected_r import expected_r
from esn_core.protocol.protocol import Protocol
from esn_core.statistics.combat import ComBatSite, combat_model, combat_rows
from esn_server.simulation import reference


@pytest.fixture(scope="module")
def confounded():
    """Two sites whose scanners differ, and whose children differ by two steps of GASE."""
    rng = np.random.default_rng(1)
    effect = np.linspace(-0.8, 0.8, 40)
    sites = {}
    for name, mean, offset in (("mild", 3.0, 0.0), ("severe", 5.0, 1.0)):
        gase = np.clip(np.rint(rng.normal(mean, 1.2, 400)), 1, 7)
        age_years, sex = 10 + 10 * rng.uniform(-0.6, 0.8, 400), rng.integers(0, 2, 400).astype(float)
        scores = (
            np.outer((gase - 4) / 1.5, effect) + offset * rng.normal(size=40) + rng.normal(size=(400, 40))
        )
        controls = rng.normal(size=(0, 40))
        sites[name] = reference._Site(
            scores, controls, scores, controls, gase, rng.random(400) < 0.3, age_years, sex
        )
    return sites, effect


def between(harmonised, sites, effect):
    """The difference of the sites along the true effect, in steps of GASE, and the true one."""
    along = {
        name: harmonised[name][site.held_out] @ effect / (effect @ effect) * 1.5
        for name, site in sites.items()
    }
    truth = {name: site.gase[site.held_out].mean() for name, site in sites.items()}
    return along["severe"].mean() - along["mild"].mean(), truth["severe"] - truth["mild"]


def test_combat_takes_the_sites_difference_in_severity_away_unless_it_is_told(confounded):
    sites, effect = confounded
    blind, truth = between(reference._combat(sites, told_severity=False), sites, effect)
    told, _ = between(reference._combat(sites, told_severity=True), sites, effect)
    # About 120 held-out children a site, sd 1.2 + what the scores add: a standard error of .2.
    assert abs(blind) < 0.4
    assert told == pytest.approx(truth, abs=0.4)
    assert truth > 1.5


def test_a_held_out_childs_gase_changes_nothing_of_its_scores(confounded):
    sites, _ = confounded
    before = reference._combat(sites, told_severity=True)
    changed = {
        name: replace(site, gase=np.where(site.held_out, 8 - site.gase, site.gase))
        for name, site in sites.items()
    }
    after = reference._combat(changed, told_severity=True)
    assert all(np.array_equal(before[name], after[name]) for name in sites)


def harmonised_by_hand(sites):
    """ComBat with covariates on another scale, and a clip that changes no child."""

    def covariates(site, severity):
        return np.column_stack([(site.age_years - 10) / 10, site.sex - 0.5, severity / 3])

    trained = {
        name: (site.children[~site.held_out], covariates(site, site.gase - 4)[~site.held_out])
        for name, site in sites.items()
    }
    total = sum(combat_rows(z, x, covariate_norm=1e3).sum(axis=0) for z, x in trained.values())
    model = combat_model(total, edges=40, covariates=3)
    return {
        name: ComBatSite.estimate(*trained[name], model).apply(
            site.children, covariates(site, np.zeros(len(site.gase)))
        )
        for name, site in sites.items()
    }


def test_the_scale_of_a_covariate_changes_nothing(confounded):
    """So the study's own scale of severity, GASE over 1.5, stands for any other."""
    sites, _ = confounded
    found, expected = reference._combat(sites, told_severity=True), harmonised_by_hand(sites)
    for name in sites:
        # Only the rounding of a linear solve differs, through a shrinkage that stops at the same step.
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9)


def test_the_report_of_a_demo_says_what_studies_of_its_size_had_in_every_world(protocol_content):
    protocol = Protocol.model_validate(protocol_content)
    sites = {name: SimpleNamespace(held_out=np.repeat([False, True], 30)) for name in protocol.sites}
    said = reference._in_other_worlds(protocol, sites)
    for one in expected_r(protocol, training_children=90):
        assert f"about {one.consortium:.2f} in the world '{one.world}'" in said.replace("; ", " about ")
        assert f"a hospital alone has {one.alone:.2f} and its personal model {one.personal:.2f}" in said
    assert "simulated on desikan-killiany-83" in said
