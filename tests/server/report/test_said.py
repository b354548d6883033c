"""What a reviewer has to be told stands on the page, in the section of the figures that it is about."""

import html
import re

import pytest

from esn_server.report.page import page_text


@pytest.fixture
def sections(full, atlas):
    """The text of each section of the page, by its heading's identifier."""
    found = {}
    for part in page_text(full, atlas).split("<section ")[1:]:
        name = re.match(r'aria-labelledby="([^"]+)"', part)[1]
        found[name] = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())
    return found


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("headline", "The prediction was trained on GASE, so that it repeats what GASE says"),
        ("prediction", "no adjustment for sites"),
        ("prediction", "The same in groups of the held-out children, by sex and by age"),
        ("prediction", "younger than 6 years too few children"),
        ("validation", "No correlation is adjusted for sites"),
        ("neurocognition", "Sites are not adjusted for. No model knows which hospital a child is from"),
        ("neurocognition", "see protocol price for what that does to p"),
        (
            "neurocognition",
            "Area, Brier score, calibration and net benefit are of the children that the",
        ),
        ("neurocognition", "Apparent AUC (95 %)"),
        ("neurocognition", "Apparent Brier (95 %)"),
        ("neurocognition", "can explain what GASE explains and little that GASE misses"),
        ("network", "covariance of the connection's strength"),
        ("network", "Score per step of GASE"),
        ("cohort", "above 25 counted as 25"),
        ("cohort", "Number ≈ 60.0 ≈ 60.0 –"),
        ("cohort", "≈ 10.2 (≈ 3.1) ≈ 10.2 (≈ 3.1)"),
        ("cohort", "≈: the privacy noise is in the figure"),
        (
            "prediction",
            "Held-out children ≈ 26.1 20.4 to 32.0 ≈ 25.3 the privacy noise is in the released number",
        ),
        ("sites", "held out, and predicted: ≈ 25"),
        ("glossary", "with other children and fresh privacy noise"),
        ("explanation", "the choice of children at most 0.020 (root mean square over connections)"),
        ("glossary", "a covariance, not a slope"),
    ],
)
def test_a_limit_is_said_beside_the_figures_that_it_limits(sections, section, words):
    assert words in sections[section]


def test_counts_of_a_study_without_noise_are_exact(full, exact_result, atlas):
    exact = full.model_copy(update={"privacy": exact_result.privacy, "evaluation": exact_result.evaluation})
    assert "≈" not in re.sub(r"<svg.*?</svg>", "", page_text(exact, atlas), flags=re.DOTALL)
