"""The attack on a site's own controls: it finds as much as the noise lets it, and everything without."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.privacy_audit.controls import attack_on_controls, sum_of
from esn_client.privacy_audit.findings import Audit, KindAudit
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import load_template
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol

CONTROLS = 6


@pytest.fixture(scope="module")
def protocol(protocol_content):
    cohort = {**protocol_content["cohort"], "harmonisation": "site-controls"}
    return Protocol.model_validate({**protocol_content, "format": 2, "cohort": cohort})


@pytest.fixture(scope="module")
def studies(protocol):
    """A study whose children are judged by six controls, and the same without each of them in turn."""
    rng = np.random.default_rng(1)
    present = load_template("phantom-28", simulated=True).present
    children, controls = (
        np.where(present, rng.normal(5.0, 0.5, (n, len(present))), 0.0) for n in (20, CONTROLS)
    )
    gase = rng.integers(1, 8, 20).astype(float)

    def judged(by):
        reference = ControlReference.of_controls(by)
        scores = np.array([reference.scores(child) for child in children])
        splits = (
            Split(tuple(f"sub-{i}" for i in range(part.start, part.stop)), scores[part], gase[part])
            for part in (slice(0, 12), slice(12, 20))
        )
        cohort = Cohort(*splits, controls=len(by), control_strengths=by)
        return Study("north", protocol, cohort, torch.device("cpu"))

    return judged(controls), [judged(np.delete(controls, k, axis=0)) for k in range(CONTROLS)]


def attack(studies, phase, *, sd, sums=300):
    study, without = studies
    dimension = {"association": len(study.candidates.edges), "calibration": 5, "centre": 2}[phase]
    noise = sd * np.random.default_rng(2).normal(size=(sums, dimension))
    return attack_on_controls(phase, study, without, total=sum_of(phase, study), noise=noise, noise_sd=sd)


@pytest.mark.parametrize("phase", ["association", "calibration"])
def test_a_control_is_found_as_often_as_the_noise_lets_it_be(studies, phase):
    once = attack(studies, phase, sd=1.0)
    found = attack(studies, phase, sd=float(np.mean(once.mu)))  # so that a control moves it by one noise
    mu = np.array(found.mu)
    assert mu.mean() == pytest.approx(1.0)
    # Odds are comparable between controls: together they give no less than one by one, on average.
    assert found.area == pytest.approx(ndtr(mu / np.sqrt(2)).mean(), abs=4 * found.area_error + 0.03)
    assert 0.6 < found.area < 0.9
    assert found.area_of_most == pytest.approx(ndtr(mu.max() / np.sqrt(2)))


def test_without_noise_each_control_is_found_and_its_connectome_read(studies):
    found = attack(studies, "association", sd=1e-9)
    assert found.area == 1.0
    # A control moves the spread as well, of which this plain attack makes no use.
    assert found.reconstruction[0] > 0.2
    hidden = attack(studies, "association", sd=1e6)
    # The same noise stands in both arms: what is left is no sampling error.
    assert hidden.area == pytest.approx(0.5, abs=0.01)
    assert hidden.reconstruction[0] == pytest.approx(0.0, abs=4 * hidden.reconstruction[1])


def test_few_sums_give_no_area(studies):
    few = attack(studies, "association", sd=1.0, sums=5)
    assert (few.area, few.area_error, few.reconstruction) == (None, None, None)
    assert few.mu == attack(studies, "association", sd=1.0).mu


def test_a_release_that_depends_on_no_control_is_not_attacked(studies):
    assert attack(studies, "centre", sd=1.0) is None


@pytest.mark.parametrize(("sd", "exposed"), [(1.0, True), (1e6, False)])
def test_what_is_found_of_controls_in_all_releases_is_said(studies, protocol, sd, exposed):
    found = attack(studies, "association", sd=sd)
    kinds = tuple(
        KindAudit("association", "training", n, 1, 1.0, canaries=None, membership=None, controls=found)
        for n in (1, 3)
    )
    audit = Audit(
        *("north", "test", "0" * 64, "now", "1"),
        price=price_of(protocol),
        trust="local",
        colluding_sites=0,
        repeats=20,
        kinds=kinds,
    )
    assert audit.controls.exposed is exposed
    # Four releases of one mu are one of twice that mu.
    assert audit.controls.area_of_most == pytest.approx(ndtr(2 * max(found.mu) / np.sqrt(2)))
    assert audit.facts["controls"]["exposed"] is exposed
    assert not audit.faults
