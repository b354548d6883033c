"""The page's further analyses: each has its section, and what was not asked has none."""

import pytest
from pydantic import ValidationError

from esn_server.report.analyses import Estimated
from esn_server.report.analyses_outcome import absent_of
from esn_server.report.figures.correlations import lines_of
from esn_server.report.page import page_text
from esn_server.report.result import NetworkTruth


def test_every_analysis_has_its_section(full, atlas):
    page = page_text(full, atlas)
    for words in (
        "Every correlation of this study",
        "held-out children of north, which took no part",
        "training children, each without its part",
        "scores drawn at random, draw 1",
        "One site alone",
        "the middle 95 % run from −0.150 to 0.180, with 0 inside",
        "Other predictors",
        "Own controls.",
        "Children and controls",
        "fewer than the minimum",
        "What the predictions rest on",
        "Neurocognitive impairment",
        "These children do not decide.",
        "no ε covers them",
        "2.01 (1.20 to 3.40)",
    ):
        assert words in page, words


def test_what_was_not_asked_has_no_section(result, atlas):
    page = page_text(result, atlas)
    assert "The protocol asked for no cross-site validation" in page
    for words in ("One site alone", "Children and controls", "Neurocognitive impairment", "rest on"):
        assert words not in page


def test_an_undefined_correlation_is_a_row_without_a_number(full):
    lines = {line.label: line for line in lines_of(full, no_noise=None)}
    assert lines["random scores, draw 1"].r is None
    assert lines["random scores, draw 1"].interval is None
    assert lines["200 permutations, in simulation"].interval == (-0.15, 0.18)
    assert lines["   north alone, in simulation"].r == 0.7
    # The privacy noise makes the study's own interval wider than the choice of children alone.
    low, high = lines["this study, held-out children"].interval
    assert low < full.evaluation.r_interval[0] < full.evaluation.r_interval[1] < high


@pytest.mark.parametrize(
    ("value", "interval", "words"),
    [
        (0.55, (0.40, 0.62), "gives these sites no more than they have alone"),
        (0.65, (0.40, 0.80), "more than they have alone, this study cannot tell"),
        (0.90, (0.80, 0.95), None),
    ],
)
def test_what_a_federation_gives_is_told_with_what_its_noise_leaves_open(full, atlas, value, interval, words):
    """And never by the released r, which noise may have put anywhere or undone."""
    told = full.evaluation.estimates.model_copy(update={"r": Estimated(value=value, interval=interval)})
    for r in (0.99, None):
        evaluation = full.evaluation.model_copy(update={"r": r, "estimates": told})
        page = page_text(full.model_copy(update={"evaluation": evaluation}), atlas)
        found = [said for said in ("no more than they have alone", "cannot tell") if said in page]
        assert found == ([] if words is None else [said for said in found if said in words])
        assert words is None or words in page


def test_what_was_declared_exact_stands_beside_the_price(full, atlas):
    privacy = full.privacy.model_copy(
        update={"exact_phases": ["newton"], "epsilon_held_out_child": None, "epsilon_of_noised": 8.0}
    )
    page = page_text(full.model_copy(update={"privacy": privacy}), atlas)
    assert "declared exact, without ε: newton; all the rest 8.00" in page


def test_an_analysis_that_is_null_stands_on_the_page_with_its_reason(result, atlas):
    reasons = absent_of({"cohort": object(), "baselines": None})
    assert "cohort" not in reasons
    assert set(reasons) < set(type(result).model_fields)
    page = page_text(result.model_copy(update={"absent": reasons}), atlas)
    for name, why in reasons.items():
        assert f'<th scope="row">{name.replace("_", " ")}</th><td>{why}</td>' in page
    assert "does not tell" not in page_text(result, atlas)


def test_what_is_there_may_not_be_called_absent(full):
    with pytest.raises(ValidationError, match="absent may name analyses that are null, not cohort"):
        type(full).model_validate({**full.model_dump(), "absent": {"cohort": "not asked"}})


def test_a_correlation_that_the_noise_could_have_made_stands_in_no_column_of_its_own(full, atlas):
    # As a result of an earlier release has it: no estimates, and noise of unknown size.
    lost = full.random_score.draws[0].model_copy(update={"r": -0.929, "r_interval": (-0.95, -0.9)})
    random = full.random_score.model_copy(update={"draws": [lost]})
    page = page_text(full.model_copy(update={"random_score": random}), atlas)
    assert '<td class="n" colspan="2">lost in the noise</td><td class="n">−0.929</td>' in page
    assert "−0.950 to −0.900" not in page


def test_the_network_stands_beside_the_true_one_and_beside_chance(full, atlas):
    truth = NetworkTruth(listed=2, same_sign=1, candidates=5)
    network = full.severity_network.model_copy(update={"truth": truth})
    page = page_text(full.model_copy(update={"severity_network": network}), atlas)
    # Three connections are listed, of 15 candidates.
    assert "2 of the 3 listed connections belong to the true network, 1 of them with the true sign" in page
    assert "by chance would hold 1.0 of its connections, for 5 of the 15 candidates" in page
    assert "the true network" not in page_text(full, atlas)


def test_the_exact_network_has_its_components_and_frequencies(full, atlas, result):
    page = page_text(full, atlas)
    for words in (
        "1 of 3 candidate connections go with GASE at a false discovery rate of 5 % (160 training children",
        "1 connections are retained in four of five draws",
        "95 of 100 such draws stay within 1 connections",
        '<td class="n">−0.410</td><td class="n">&lt; 0.001</td><td class="n">yes</td><td class="n">0.97</td>',
        "there is no ε for the children in them",
        'id="stability-',
    ):
        assert words in page, words
    assert "By exact partial correlation" not in page_text(result, atlas)


def test_the_exact_network_of_the_run_without_noise_is_said_to_be_so(full, result, atlas):
    beside = full.model_copy(update={"absent": {}})
    page = page_text(result, atlas, no_noise=beside)
    assert "From the run without noise. Given age, sex and site" in page
    assert "From the run without noise. Given" not in page_text(full, atlas)


def test_a_network_without_draws_has_no_figure_and_no_p(full, atlas):
    found = full.exact_network
    bare = found.model_copy(
        update={
            "edges": [edge.model_copy(update={"frequency": None}) for edge in found.edges],
            "components": [part.model_copy(update={"p": None}) for part in found.components],
            "null_draws": 0,
            "largest_by_chance": None,
            "bootstrap_draws": 0,
        }
    )
    page = page_text(full.model_copy(update={"exact_network": bare}), atlas)
    assert "No null was asked for." in page
    assert 'id="stability-' not in page
    none = bare.model_copy(update={"components": []})
    assert "there is no component" in page_text(full.model_copy(update={"exact_network": none}), atlas)
