"""The figures hold what they must, and say what they leave out."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ProtocolError
from esn_core.figures import brain
from esn_core.figures.brain import _angles, connectogram, glass_brain
from esn_server.report.figures.correlations import lines_of
from esn_server.report.figures.forest import forest, heterogeneity
from esn_server.report.figures.impairment import impairments
from esn_server.report.figures.scores import learning_curve, predicted_against_clinical, price_by_phase
from esn_server.report.result import RoundLoss
from esn_server.report.verdict import likely_r, prediction_in_words, privacy_in_words


def identifiers(svg: str, pattern: str) -> set[str]:
    return {found for found in re.findall(r'\sid="([^"]*)"', svg) if re.fullmatch(pattern, found)}


class TextOf(HTMLParser):
    """The text inside <text> elements."""

    def __init__(self, svg: str) -> None:
        super().__init__()
        self.inside, self.texts = False, []
        self.feed(svg)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "text"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts.append(data)


def test_there_is_one_marker_for_each_step_that_has_a_mean(result):
    drawing = predicted_against_clinical(result.evaluation)
    usable = {
        f"prediction-level-{row.gase}" for row in result.evaluation.by_gase if row.mean_prediction is not None
    }
    assert identifiers(drawing.svg, r"prediction-level-\d") == usable
    assert len(usable) == 6


def test_steps_that_are_left_out_or_weak_are_named(result):
    note = predicted_against_clinical(result.evaluation).note
    assert "Left out, because the released sums allow no mean: GASE 1 (count −1.4)." in note
    assert "Hollow: a released count below 5" in note
    assert "no sd: GASE 6." in note


def test_a_step_of_few_children_is_hollow(result):
    svg = predicted_against_clinical(result.evaluation).svg
    fills = {
        gase: re.search(rf'id="prediction-level-{gase}">.*?fill: (#\w+)', svg, re.DOTALL)[1]
        for gase in (2, 4)
    }
    assert fills == {2: "#ffffff", 4: "#0072b2"}


def test_every_edge_is_drawn_once_in_each_projection(result, atlas):
    svg = glass_brain(result.severity_network, atlas).svg
    for view in "xyz":
        assert len(identifiers(svg, rf"brain-edge-{view}-\d+")) == len(result.severity_network.edges)
    assert len(identifiers(connectogram(result.severity_network, atlas).svg, r"circle-edge-\d+")) == 3


def test_the_connectogram_names_every_region_as_text(result, atlas):
    assert set(atlas.names) <= set(TextOf(connectogram(result.severity_network, atlas).svg).texts)


def test_more_edges_than_can_be_read_are_left_out_and_counted(result, atlas, monkeypatch):
    monkeypatch.setattr(brain, "MOST_EDGES", 2)
    drawing = glass_brain(result.severity_network, atlas)
    assert len(identifiers(drawing.svg, r"brain-edge-x-\d+")) == 2
    assert "The 2 strongest of 3 edges are drawn." in drawing.note


def test_a_network_without_edges_is_drawn_and_says_so(result, atlas):
    empty = result.severity_network.model_copy(update={"edges": [], "retained": 0})
    assert glass_brain(empty, atlas).alt == connectogram(empty, atlas).alt == "Severity network: no edges."


def test_an_edge_to_an_unknown_region_is_refused_by_name(result, atlas):
    edge = result.severity_network.edges[0].model_copy(update={"region_b": "cerebellum"})
    with pytest.raises(ProtocolError, match="ends in 'cerebellum', a region that atlas 'six' does not have"):
        glass_brain(result.severity_network.model_copy(update={"edges": [edge]}), atlas)


def test_the_same_result_gives_the_same_bytes(result, atlas):
    assert glass_brain(result.severity_network, atlas).svg == glass_brain(result.severity_network, atlas).svg


def test_rounds_without_a_loss_are_named(result):
    drawing = learning_curve(result.learning_curve)
    assert drawing.note == "Without a loss: round 2."
    assert drawing.alt == "Training loss by round: 0.8134 in round 1, -0.0217 in round 3."


def test_a_curve_of_no_losses_is_drawn():
    assert (
        learning_curve([RoundLoss(round=1, loss=None)]).alt == "Training loss by round: no round has a loss."
    )


def test_every_phase_has_its_bar_and_so_have_both_totals(result, exact_result):
    svg = price_by_phase(result.privacy).svg
    assert len(identifiers(svg, r"price-price-\d+")) == len(result.privacy.phases) + 2
    assert {"2.904", "4.057", "4.052"} <= set(TextOf(svg).texts)
    assert "no bound" in TextOf(price_by_phase(exact_result.privacy).svg).texts


def test_the_estimates_are_what_is_told_and_drawn(result):
    assert likely_r(result.evaluation).interval == (-0.148, 0.829)
    line = lines_of(result, no_noise=None)[0]
    assert (line.r, line.interval) == (0.371, (-0.148, 0.829))


def test_a_result_without_estimates_has_fishers_interval_where_no_noise_was_added(result, exact_result):
    assert likely_r(exact_result.evaluation).interval == (0.493, 0.878)
    earlier = result.evaluation.model_copy(update={"estimates": None})
    assert likely_r(earlier) is None
    said = prediction_in_words(earlier)
    assert "is unknown: the sums hold no interval of r that includes the privacy noise" in said[0]
    assert said[1].startswith("This run shows nothing")


def test_an_interval_that_the_noise_stretches_over_0_is_called_inconclusive(result):
    assert "this run does not show" in prediction_in_words(result.evaluation)[1]


def test_without_noise_fishers_interval_decides(exact_result):
    first, last = prediction_in_words(exact_result.evaluation)
    assert first == (
        "The 95 % interval lies above 0: in held-out children the prediction follows the clinical score."
    )
    assert last.startswith("The prediction was trained on GASE, so that it repeats what GASE says")


def test_a_prediction_against_the_score_is_called_that(exact_result):
    turned = exact_result.evaluation.model_copy(update={"r": -0.7, "r_interval": (-0.85, -0.41)})
    assert "runs against the clinical score" in prediction_in_words(turned)[0]


def test_privacy_is_one_sentence_with_both_prices(result, exact_result):
    sentence = privacy_in_words(result.privacy)
    assert "ε = 4.057" in sentence
    assert "ε = 4.052" in sentence
    assert f"a factor of {math.exp(4.057):.0f}" in sentence
    assert privacy_in_words(exact_result.privacy).startswith("No noise was added")


def test_the_midline_stands_at_the_bottom_of_the_connectogram():
    aal = load_atlas("aal-116")
    angles = _angles(aal)
    assert angles.keys() == set(aal.names)
    heights = {region.name: np.sin(angles[region.name]) for region in aal.regions}
    for region in aal.regions:
        if region.hemisphere == "M":
            assert heights[region.name] < -0.95
        else:
            assert (np.cos(angles[region.name]) < 0) == (region.hemisphere == "L")
    gaps = np.diff(np.sort([angle % (2 * np.pi) for angle in angles.values()]))
    assert gaps.min() > 0.6 * 2 * np.pi / 116


def test_a_forest_shows_every_site_and_how_much_they_differ(full):
    def site(name, r, children):
        found = full.cross_site.by_site[0]
        known = {"r": r, "r_interval": (r - 0.2, r + 0.1), "r_noise_sd": 0.0}
        return found.model_copy(update={"site": name, "children": children, "estimates": None} | known)

    # Fisher's z of .5, .8 and -.1, weights 17, 37 and 27: computed with statsmodels 0.15.0
    # (stats.meta_analysis.combine_effects, 2026-11-29): Q 22.46, I2 91.1 %.
    sites = [site("north", 0.5, 20.0), site("south", 0.8, 40.0), site("west", -0.1, 30.0)]
    crossed = full.cross_site.model_copy(update={"by_site": sites})
    drawing = forest(crossed)
    assert [text for text in TextOf(drawing.svg).texts if "children" in text][:3] == [
        "north, 20 children",
        "south, 40 children",
        "west, 30 children",
    ]
    assert "Q 22.5 on 2 degrees of freedom, p < 0.001, I² 91 %" in drawing.note
    alike = [site(name, 0.6, 30.0) for name in ("north", "south")]
    assert heterogeneity(crossed.model_copy(update={"by_site": alike})).share == 0
    assert heterogeneity(full.cross_site.model_copy(update={"by_site": alike[:1]})) is None


def test_an_impairment_has_its_curves_beside_the_lines_that_they_are_judged_by(full):
    drawing = impairments(full.neurocognition)["impairment_1_verbal"]
    texts = " ".join(TextOf(drawing.svg).texts)
    for words in ("Verbal impairment", "ROC", "Calibration", "Decision curve", "area 0.78 (0.60 to 0.95)"):
        assert words in texts, words
    for words in (
        "1 − specificity",
        "share with the impairment",
        "everybody",
        "nobody",
        "predicted severity",
    ):
        assert words in texts, words
    assert "predicted and observed share 0.14 and 0.17, 0.63 and 0.75" in drawing.alt
    assert "net benefit from 0.20 on 26.0 a hundred children, of all 22.0" in drawing.alt
    assert (
        "Hollow: a group of fewer than 5 children. Groups of too few children are left out." in drawing.note
    )


def test_curves_that_the_noise_took_are_named_and_an_impairment_without_any_has_no_figure(full):
    def without(**lost):
        (model,) = full.neurocognition.models
        return full.neurocognition.model_copy(update={"models": [model.model_copy(update=lost)]})

    (drawing,) = impairments(without(roc=[], auc=None)).values()
    texts = TextOf(drawing.svg).texts
    assert "lost in the noise," in texts
    assert "sensitivity" not in texts
    assert "area not known" in drawing.alt
    assert impairments(without(roc=[], calibration=[], operating_points=[])) == {}


def test_an_impairment_shows_the_models_of_its_primary_comparison(full):
    (model,), (contest,) = full.neurocognition.models, full.neurocognition.contests
    with_age = model.model_copy(update={"predictors": ["age", "gase"]})
    primary = contest.model_copy(update={"others": ["age"], "primary": True})
    found = full.neurocognition.model_copy(
        update={"models": [model, with_age], "contests": [contest, primary], "called_impaired_from": 0.3}
    )
    (drawing,) = impairments(found).values()
    assert drawing.alt.count("severity with age") == drawing.alt.count("severity") == 1
    assert "Dotted" in drawing.note
