"""What a protocol costs: by phase and in total, and in the words that a site reads."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from esn_client.approval.review import review
from esn_core.analyses.planned_sums import grid_delta_of
from esn_core.privacy.accounting import GaussianRelease, compose, epsilon_of
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_server.protocol.price_list import price_list


def make(content, **changes):
    return Protocol.model_validate(
        {**content, **{table: {**content[table], **values} for table, values in changes.items()}}
    )


@given(epsilon=st.floats(0.1, 20), rounds=st.integers(1, 200))
def test_all_releases_of_one_child_spend_the_budget_and_no_more(protocol_content, epsilon, rounds):
    price = price_of(make(protocol_content, privacy={"epsilon": epsilon}, training={"rounds": rounds}))
    for children in ("training", "held-out"):
        releases = [
            GaussianRelease(phase.noise_multiplier)
            for phase in price.phases
            if phase.children == children
            for _ in range(phase.releases)
        ]
        # Two root searches of relative tolerance 1e-13 and some roundings.
        assert epsilon_of(compose(releases), 1e-3) == pytest.approx(epsilon, rel=1e-9)
        assert price.epsilon(children) == pytest.approx(epsilon, rel=1e-9)
    assert price.of("gradient").releases == rounds


def test_without_rounds_the_training_costs_nothing(protocol_content):
    shares = {"centre": 0.05, "association": 0.8, "calibration": 0.15, "evaluation": 1.0}
    content = {**protocol_content, "privacy": {**protocol_content["privacy"], "shares": shares}}
    price = price_of(make(content, training={"rounds": 0}))
    assert [phase.phase for phase in price.phases] == ["centre", "association", "calibration", "evaluation"]
    assert price.epsilon("training") == pytest.approx(8, rel=1e-9)


def test_without_noise_there_is_no_epsilon(protocol_content):
    price = price_of(make(protocol_content, privacy={"noise": "none"}))
    assert all(phase.noise_multiplier == 0 for phase in price.phases)
    assert math.isinf(price.epsilon("training"))
    assert math.isinf(price.replace_one_epsilon("held-out"))


def secure(content, **privacy):
    return make(content, privacy={"trust": "secure-sum", **privacy})


def test_the_trust_changes_who_sees_what_and_not_the_price(protocol_content):
    assert price_of(secure(protocol_content)) == price_of(make(protocol_content))


def test_no_attack_on_a_study_finds_more_children_than_the_bound(protocol_content):
    price = price_of(make(protocol_content, privacy={"epsilon": 3.0}))
    # mu 0.9645 (epsilon 3, delta 1e-3): Phi(Phi^-1(0.01) + mu).
    assert price.true_positives("training") == pytest.approx(norm.cdf(norm.ppf(0.01) + 1 / 1.0369), abs=1e-4)


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_the_review_names_every_phase_and_what_it_costs(protocol_content, trust):
    protocol = make(protocol_content, privacy={"trust": trust})
    text = review(protocol)
    price = price_of(protocol)
    assert protocol.sha256 in text
    for entry in protocol.roster:
        assert f"  {entry.site}: {entry.fingerprint}" in text
    for phase in price.phases:
        assert f"  {phase.phase}, " in text
        assert f"alone epsilon {price.epsilon_alone(phase):.2f}" in text
        assert f"noise of {phase.noise_multiplier:.2f} times" in text
    assert "gradient, 3 times from the training children" in text
    assert "A training child: epsilon 8.00; a held-out child: epsilon 8.00;" in text
    assert "at delta 0.001" in text
    for split in ("training", "held-out"):
        assert f"epsilon {price.replace_one_epsilon(split):.2f}" in text
    assert f"who did not finds at most {100 * price.true_positives('training'):.0f}." in text
    assert "Nothing of this protocol is declared exact" in text
    assert "Each sum asks 5 children or more." in text
    assert "the refusal itself tells that a split is below the minimum" in text
    assert "No noise protects these" in text
    assert "NO differential privacy" not in text


def test_the_review_says_whom_a_child_has_to_trust(protocol_content):
    local = review(make(protocol_content))
    assert "shows those that steer the study to all other sites" in local
    assert "site adds all of the noise to them itself" in local
    assert "told the centre" not in local
    assert "ALL other sites" not in local
    shared = review(secure(protocol_content))
    assert "The centre sees the sum of all sites only" in shared
    assert "shows those that steer the study to all other" in shared
    assert "the other hospitals for their fingerprints" in shared
    assert "each adds a part, and 2 parts are enough" in shared
    assert "even if one other site told the centre everything they know" in shared
    # Half of the variance is this site's own: mu is sqrt(2) times as large without the other's.
    price = price_of(secure(protocol_content))
    alone = epsilon_of(math.sqrt(2) * price.mu("training"), 1e-3)
    assert f"epsilon {alone:.2f}." in shared
    nobody = review(secure(protocol_content, colluding_sites=0))
    assert "only while NO site tells what noise it added" in nobody


def test_the_review_warns_of_a_list_that_may_know_a_child(protocol_content):
    pairs = [["L_precentral", "L_postcentral"], ["R_precentral", "R_postcentral"]]
    listed = make(protocol_content, severity_network={"candidates": "list", "pairs": pairs})
    text = review(listed)
    assert "A published list of 2 pairs of regions" in text
    assert "do NOT approve" in text
    assert "published list" not in review(make(protocol_content))


def test_the_review_warns_of_exact_sums(protocol_content):
    text = review(make(protocol_content, privacy={"noise": "none"}))
    assert "NO differential privacy" in text
    assert "limits.exact_sums" in text
    assert text.count("exactly as it is, without noise") == 5
    assert "epsilon 8.00" not in text


def test_the_review_of_exact_sums_in_the_clear_says_that_they_ask_for_more_trust(protocol_content):
    declared = {"analyses": {"cohort": True, "exact": ["cohort"]}}
    text = review(Protocol.model_validate({**protocol_content, **declared}))
    assert "trust nobody" not in text
    assert "Without noise, exactly as they are, the centre sees this site's own sums of: cohort." in text
    assert "for them alone the figures below hold" in text
    for bare in (text, review(make(protocol_content, privacy={"noise": "none"}))):
        assert "the trust asked for is MORE than under 'secure-sum'" in bare
    assert "MORE" not in review(make(protocol_content))


@pytest.mark.parametrize("exact", [[], ["cohort"]])
def test_the_review_says_whom_the_minimum_protects_in_a_summary_of_the_cohort(protocol_content, exact):
    shares = {**protocol_content["privacy"]["shares"], "association": 0.6}
    privacy = {**protocol_content["privacy"], "shares": shares if exact else {**shares, "cohort": 0.1}}
    if exact:
        shares["association"] = 0.7
    content = {**protocol_content, "privacy": privacy, "analyses": {"cohort": True, "exact": exact}}
    text = review(Protocol.model_validate(content))
    assert "The summary of the cohort sums 5 controls or more, or none" in text
    assert ("A reason for being left out that fewer than 5 share counts as nobody's" in text) == bool(exact)
    assert "summary of the cohort" not in review(make(protocol_content))


def test_the_review_tells_patients_from_simulated_children(protocol_content, patients_content):
    assert "All children are simulated." in review(make(protocol_content))
    said = review(Protocol.model_validate(patients_content))
    assert "The children are real patients." in said
    assert "66 pairs of regions of desikan-killiany-83, found in the controls of a cohort" in said
    assert "do NOT approve" not in said


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_every_line_of_the_review_fits_a_page(protocol_content, trust):
    text = review(make(protocol_content, privacy={"trust": trust}))
    assert max(map(len, text.splitlines())) <= 110


def test_the_review_names_the_columns_impairments_and_models(protocol_content):
    from_paper = {
        "phenotypes": {
            "age": {"kind": "number", "unit": "years", "range": (0, 21)},
            "sex": {"kind": "category", "codes": ("F", "M")},
            "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
        },
        "analyses": {
            "neurocognition": {
                "rounds": 2,
                "models": [["gase"], ["predicted_gase", "age", "sex"]],
                "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
            },
            "exact": ["neurocognition"],
        },
    }
    content = {**protocol_content, **from_paper}
    said = review(make(content, privacy={"trust": "secure-sum"}))
    for line in (
        "    age, 0 to 21 (years) or n/a",
        "    sex, F or M or n/a",
        "    verbal_score, 40 to 160 (standard score) or n/a",
        "    verbal: verbal_score below 85",
        "    gase",
        "    predicted_gase + age + sex",
    ):
        assert line in said.splitlines()
    assert "columns of participants.tsv" not in review(make(protocol_content))
    steered = "All other sites are shown the sums of newton; one that answers falsely can choose"
    few = "An exact model is of those whose values are known"
    assert steered in said
    assert few in said
    noised = review(make(protocol_content))
    assert steered not in noised
    assert few not in noised


def test_review_and_price_list_say_what_the_grid_adds_to_delta(protocol_content):
    protocol = make(protocol_content)
    worst = max(grid_delta_of(protocol, children) for children in ("training", "held-out"))
    assert f"make delta larger by {worst:.0e} at most." in review(protocol)
    listed = price_list(protocol, training_children=250, held_out_children=180).in_words
    assert f"the grid of the noise, and its parts being added up, add {worst:.0e} to delta at most" in listed
