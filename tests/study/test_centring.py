"""A study that counts its children by GASE: centred where residuals cancel; no exact cell is of a few."""

import numpy as np
import pytest

from esn_core.gase import GASE_UNIT
from esn_core.privacy.accounting import NO_NOISE, compose
from esn_core.severity_network.association import rows_of_residuals
from esn_core.severity_network.centring import (
    adjusted_rows,
    centre_of,
    covariates,
    level_rows,
    residuals,
    without_small_levels,
)
from esn_server.report.outcome import result_of


def asked_with(consortium, phase):
    """The numbers by which each site answered a phase."""
    transcripts = [h._transcripts.of(consortium.protocol, "r1") for h in consortium.link.hospitals.values()]
    return [transcript.arguments(phase, 0) for transcript in transcripts]


ROWS = {
    "levels": lambda split: level_rows(split.gase),
    "adjusted": lambda split: adjusted_rows(split.gase, covariates(split.age_years, split.sex)),
}


@pytest.mark.parametrize("centring", ["levels", "adjusted"])
def test_an_exact_study_is_centred_by_levels_that_no_few_children_share(make_consortium, centring):
    consortium = make_consortium(exact=True, centre=centring, analyses={"cross_site": True})
    findings = consortium.study()
    splits = [cohort.training for cohort in consortium.cohorts.values()]
    rows = [ROWS[centring](split) for split in splits]
    assert any(0 < count < 5 for split in splits for count in level_rows(split.gase).sum(axis=0))
    held = sum(without_small_levels(site, fewest=5).sum(axis=0) for site in rows)
    _, severity = centre_of(held, centring=centring, fewest_children=15.0)
    for phase in ("association", "rerun-association"):
        sent = {tuple(q.array("mean_severity", len(severity))) for q in asked_with(consortium, phase)}
        assert len(sent) == 1
        assert sent.pop() == pytest.approx(severity, abs=1e-9)
    chosen = [consortium.protocol.candidates.features(split.scores) for split in splits]
    residual = [residuals(s.gase, covariates(s.age_years, s.sex), severity) for s in splits]
    total = sum(rows_of_residuals(f, r).sum(axis=0) for f, r in zip(chosen, residual, strict=True))
    network = consortium.protocol.candidates.network(total, children=48.0, noise_sd=0.0)
    assert findings.network.weight == pytest.approx(network.weight, abs=1e-7)


@pytest.mark.parametrize("centring", ["levels", "adjusted"])
def test_a_private_study_counts_levels_within_its_budget(make_consortium, centring):
    consortium = make_consortium(centre=centring)
    findings = consortium.study()
    assert np.isfinite(findings.network.weight).all()
    assert findings.price.of("centre").noise_multiplier > NO_NOISE
    for ledger in consortium.ledgers.values():
        spent = max(compose(each.noisy) for each in ledger.spent().values())
        assert spent == pytest.approx(findings.price.mu("training"), rel=1e-12)


def test_a_weight_is_told_as_a_slope_and_called_what_it_is(make_consortium):
    consortium = make_consortium(exact=True, centre="levels")
    findings = consortium.study()
    network = result_of(consortium.protocol, findings, run="r1", timing_s={}).severity_network
    slopes = [edge.score_per_gase for edge in network.edges]
    assert slopes == pytest.approx(
        [edge.weight / findings.weight_of_slope / GASE_UNIT for edge in network.edges]
    )
    # The cohorts' twenty edges fall by .8 for each unit of severity, by .53 for each step; those that are
    # retained are the strongest of a sample, and shrunk.
    assert np.median(slopes[: network.retained]) == pytest.approx(-0.8 / GASE_UNIT, abs=0.15)
    assert "a covariance and no slope" in network.note
    assert "No false-discovery rate holds" in network.note
    assert "a bundle that is lost there does not show" in network.note
