"""The models that a draft asks for can be fitted to the children that the full demo simulates."""

import numpy as np
import pytest

from esn_client.cohort.participants import read_participants, read_phenotypes
from esn_client.simulation.connectomes import ATLAS
from esn_client.simulation.scans import generator, write_table
from esn_core.analyses.neurocognition import PREDICTED, features_of, models_of, rivals, table_of
from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.protocol import Protocol
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.consortium import CLINICAL
from esn_core.simulation.world import World
from esn_core.statistics.logistic_exact import ExactLogistic
from esn_core.statistics.logistic_fit import EXACT_ROUNDS, ROUNDS
from esn_core.statistics.logistic_sums import EXACT_LOGIT_CLIP, newton_rows
from esn_server.protocol.drafting import _PHENOTYPES, analyses_of
from esn_server.simulation.demo import FULL

SEED = 20261123  # of 'esn-server demo'
COVARIATES = {"age", "sex", "duration", "medicines"}


def drafted(protocol_content, **asked):
    analyses = analyses_of(network=False, neurocognition=True, exact=("neurocognition",), **asked)
    return Protocol.model_validate(
        {**protocol_content, "analyses": analyses.model_dump(), "phenotypes": _PHENOTYPES}
    )


@pytest.fixture(scope="module")
def held_out(protocol_content, tmp_path_factory):
    """All held-out children of the demo's hospitals as the sites read them, and a prediction of r .85."""
    protocol = drafted(protocol_content)
    rules = protocol.cohort.model_copy(update={"split_salt": FULL.split_salt})
    world = World.draw(load_atlas(ATLAS), CLINICAL.world, rng=generator(SEED, "world"))
    columns = {name: [] for name in (*_PHENOTYPES, "gase", PREDICTED)}
    for site, children in FULL.children.items():
        subjects = draw_site(
            world,
            children=children,
            controls=0,
            rng=generator(SEED, site),
            scanner=world.scanner(CLINICAL.scanner, rng=generator(SEED, site, "scanner")),
            severity_shift_sd=CLINICAL.severity_shift_sd,
        )
        directory = tmp_path_factory.mktemp(site)
        write_table(directory, subjects, name=site, seed=SEED)
        people = read_participants(directory)
        values = read_phenotypes(people, protocol.phenotypes)
        held = [p for p in people if rules.holds_out(p.label, site=site)]
        for name in _PHENOTYPES:
            columns[name] += [values[name][p.label] for p in held]
        columns["gase"] += [float(p.gase) for p in held]
    gase = np.array(columns["gase"])
    noise = np.random.default_rng(0).normal(size=len(gase))
    columns[PREDICTED] = np.clip(gase + 0.85 * noise, 1, 7)
    return {name: np.array(values) for name, values in columns.items()}


def test_every_model_converges_and_none_separates(protocol_content, held_out):
    protocol = drafted(protocol_content)
    for model in models_of(protocol):
        found = ExactLogistic(model.names, feature_norm=model.feature_norm, logit_clip=EXACT_LOGIT_CLIP)
        for _ in range(protocol.analyses.neurocognition.rounds):
            rows = [
                newton_rows(
                    features_of(model, held_out, protocol),
                    table_of(model, held_out, protocol).impaired,
                    coefficients=coefficients,
                    feature_norm=model.feature_norm,
                    logit_clip=EXACT_LOGIT_CLIP,
                    thirds=True,
                )
                for coefficients in found.coefficients
            ]
            found.step(np.concatenate(rows, axis=1).sum(axis=0))
        fit = found.fit()
        assert fit.converged
        assert fit.guard is None
        assert fit.by_profile[1:].all()
        assert fit.children == len(held_out["gase"]) > 90
        # Ten children of the rarer kind for a coefficient, as a rule of thumb, is too much to ask of the
        # multivariate models; five are there.
        assert min(fit.positives, fit.children - fit.positives) >= 5 * len(model.predictors)


def test_the_severities_meet_with_all_covariates_beside_them(protocol_content):
    models = models_of(drafted(protocol_content))
    together = [set(models[predicted].predictors) - {PREDICTED} for predicted, _ in rivals(models)]
    assert together.count(COVARIATES) == 3  # of global, verbal and nonverbal impairment


def test_exact_models_have_steps_for_the_ends_of_intervals_and_noised_ones_pay_for_none():
    exact = analyses_of(network=False, neurocognition=True, exact=("neurocognition",))
    noised = analyses_of(network=False, neurocognition=True, exact=())
    assert exact.neurocognition.rounds == EXACT_ROUNDS
    assert noised.neurocognition.rounds == ROUNDS
