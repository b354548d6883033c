"""The price list as a coordinator reads it, and what it warns of."""

import itertools
import json
import tomllib
from importlib.resources import files

import pytest

from esn_core.analyses.expected_r import measured
from esn_core.analyses.power import false_positives, power_of
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.protocol.analyses import NetworkRules
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_server.protocol.price_list import price_list

RECIPE = files("esn_core.connectome") / "atlases" / "phantom-28.recipe.toml"
PHANTOM = {
    "simulated": True,
    "imaging": tomllib.loads(RECIPE.read_text()),
    "severity_network": {"candidates": "template"},
}


def make(content, **privacy):
    return Protocol.model_validate({**content, "privacy": {**content["privacy"], **privacy}})


def listed(protocol, training=250, held_out=180):
    return price_list(protocol, training_children=training, held_out_children=held_out).in_words


def test_the_same_is_told_to_machines(protocol_content):
    protocol = make(protocol_content, trust="secure-sum")
    facts = json.loads(json.dumps(price_list(protocol, training_children=250, held_out_children=180).facts))
    price = price_of(protocol)
    assert facts["protocol_sha256"] == protocol.sha256
    assert facts["epsilon"]["training"] == price.epsilon("training")
    assert [phase["phase"] for phase in facts["phases"]] == [phase.phase for phase in price.phases]
    exact = price_list(
        make(protocol_content | PHANTOM, noise="none"), training_children=250, held_out_children=180
    ).facts
    assert exact["epsilon"] == {"training": None, "held-out": None}
    assert all(phase["epsilon_alone"] is None for phase in exact["phases"])


def test_the_list_names_every_phase_its_noise_and_both_adjacencies(protocol_content):
    protocol = make(protocol_content, trust="secure-sum")
    text = listed(protocol)
    price = price_of(protocol)
    assert protocol.sha256 in text
    assert "3 sites, about 250 training and 180 held-out" in text
    for phase in price.phases:
        (line,) = [
            row for row in text.splitlines() if row.startswith(f"  {phase.phase:<12} {phase.children}")
        ]
        assert f"{phase.releases} x" in line
        assert f"{phase.noise_multiplier:.3f}" in line
        assert line.endswith(f"epsilon {price.epsilon_alone(phase):.2f}")
    for split in ("training", "held-out"):
        assert (
            f"in all, a {split} child: epsilon 8.00 when one is added or removed, "
            f"{price.replace_one_epsilon(split):.2f} when one is replaced"
        ) in text
    assert f"at most {100 * price.true_positives('training'):.0f} % of them at one false alarm" in text
    for what in (
        "number of training children",
        "candidate edges with severity",
        "calibration slope",
        "r, pred",
    ):
        assert what in text


@pytest.mark.parametrize(
    ("privacy", "sizes", "words"),
    [
        ({"noise": "none"}, (250, 180), "No noise: the sums are exact."),
        ({"delta": 0.01}, (250, 180), "delta 0.01 is not below 1 over 430 children"),
        ({"epsilon": 1.0}, (250, 180), "at epsilon 1 or less is known to leave no usable result"),
        ({"trust": "secure-sum", "colluding_sites": 0}, (250, 180), "colluding_sites = 0"),
        ({}, (48, 24), "The evaluation will say little"),
    ],
)
def test_the_list_warns_of_what_is_known_not_to_work(protocol_content, privacy, sizes, words):
    assert words in listed(make(protocol_content, **privacy), *sizes)


def test_the_list_has_local_updates_and_combat_and_says_what_they_mix(protocol_content):
    content = {
        **protocol_content,
        "cohort": {**protocol_content["cohort"], "harmonisation": "combat"},
        "training": {**protocol_content["training"], "strategy": "fedavg", "local_steps": 4},
    }
    text = listed(make(content, noise="none", trust="secure-sum"))
    for phase in ("combat", "local-update"):
        (line,) = [row for row in text.splitlines() if row.startswith(f"  {phase:<12} training")]
        assert line.endswith("epsilon without bound")
    assert "a site's update depends on all of its children at once" in text
    assert "statistics of other children enter a child's features" in text
    assert "a training step, over" not in text
    plain = listed(make(protocol_content, noise="none"))
    assert "at once" not in plain
    assert "a training step, over" in plain


@pytest.fixture
def of_six(patients_content, more_sites):
    """A study of patients at six hospitals."""
    names = load_atlas("desikan-killiany-83").names
    pairs = [[a, b] for a, b in itertools.combinations(names[:45], 2)]  # about as many as were measured
    return {
        **patients_content,
        "severity_network": {**patients_content["severity_network"], "pairs": pairs},
        "roster": more_sites[0],
        "rounds": {**patients_content["rounds"], "quorum": 6},
    }


def test_a_study_with_a_large_budget_has_no_warning(of_six):
    text = listed(make(of_six, trust="secure-sum", epsilon=20.0), 120, 450)
    assert text.endswith("Warnings\n  none")


def test_the_r_to_expect_is_said_in_each_world_and_so_is_a_federation_that_buys_little(of_six):
    text = listed(make(of_six, trust="secure-sum", epsilon=8.0), 252, 450)
    worlds = {}
    for world in {each.world for each in measured()}:
        (line,) = [row for row in text.splitlines() if row.startswith(f"  {world} ")]
        worlds[world] = [float(number) for number in line.split()[1:5]]
    for alone, _, personal, buys in worlds.values():
        assert 0.3 < alone < personal < 0.95
        assert buys == pytest.approx(personal - alone, abs=0.0011)  # each is rounded
    assert worlds["sober"][0] < worlds["clinical"][0]
    assert "inside a hospital of 42 training children" in text
    assert "of r more than the strongest that it does alone" not in text
    little = listed(make(of_six, trust="secure-sum", epsilon=1.0), 360, 450)
    assert "Worlds clinical" in little.split("Warnings")[1]
    assert "less than 0.01 of r more than the strongest that it does alone" in little
    assert "desikan-killiany-83, not phantom-28" in listed(make({**of_six, **PHANTOM}))


def test_what_a_study_could_find_and_what_sites_do_to_p_are_said(of_six):
    rules = {
        "rounds": 6,
        "models": [["gase"], ["predicted_gase"], ["gase", "age"], ["predicted_gase", "age"]],
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
        "primary": {"outcome": "verbal"},
    }
    columns = {
        "age": {"kind": "number", "unit": "years", "range": (0, 21)},
        "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
    }
    analyses = {"neurocognition": rules, "exact": ["neurocognition"]}
    protocol = make({**of_six, **PHANTOM, "phenotypes": columns, "analyses": analyses}, trust="secure-sum")
    text = listed(protocol, 250, 100)
    alone = 100 * power_of(100)
    assert f"    verbal: {alone:.0f} % as the primary comparison" in text
    assert (
        f"    verbal beside age: {alone:.0f} % as held to the number of comparisons ({alone:.0f} % alone)"
        in text
    )
    chances = [100 * false_positives(100, 6, between_sites=share) for share in (0.1, 0.25)]
    assert "neither r nor a model of impairment is adjusted for sites" in text
    assert (
        f"p < 0.05 in {chances[0]:.0f} % where a tenth, {chances[1]:.0f} % where a quarter of the variance"
    ) in text


def test_the_list_counts_what_the_candidates_release(protocol_content):
    counts = {}
    for source in ("template", "modules"):
        content = {**protocol_content, "severity_network": {"candidates": source}}
        (line,) = [x for x in listed(make(content)).splitlines() if "correlation of one of" in x]
        counts[source] = int(line.split("one of ")[1].split()[0])
    assert counts["template"] == load_template("phantom-28", simulated=True).present.sum()
    assert 0 < counts["modules"] < counts["template"]


def test_the_children_that_each_site_needs_are_said(protocol_content):
    protocol = make(protocol_content)
    assert "each site needs 5 training and 5 held-out children\n" in listed(protocol)
    assert "held-out children: MORE than these are" in listed(protocol, 14, 180)
    named = protocol.cohort.model_copy(update={"without_controls": ("north",)})
    text = listed(protocol.model_copy(update={"cohort": named}), 14, 180)
    assert "5 held-out children, those without controls no training children\n" in text
    rules = NetworkRules(t_threshold=3.0, null_draws=40, bootstrap_draws=0, minimum_children=53)
    analyses = protocol.analyses.model_copy(update={"network": rules})
    text = listed(protocol.model_copy(update={"analyses": analyses}))
    assert f"each site needs {rules.minimum_children} training" in text
