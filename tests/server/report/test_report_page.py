"""report.html is one file, says everything in the result, and trusts no name."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import BaseModel

from esn_core.connectome.atlas import Atlas
from esn_server.report.figures.shown import figures_of
from esn_server.report.page import page_text, write_page
from esn_server.report.result import StudyResult

HOSTILE = "<script>alert('x')</script>\"&$x_1$--"


class Elements(HTMLParser):
    """All start tags with their attributes, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def numbers_of(value: object) -> list[float]:
    """Every number in a result, wherever it stands."""
    if isinstance(value, BaseModel):
        return [n for name in type(value).model_fields for n in numbers_of(getattr(value, name))]
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_of(item)]
    if isinstance(value, list | tuple):
        return [n for item in value for n in numbers_of(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def is_shown(number: float, text: str) -> bool:
    """Whether `text` holds `number`, rounded by 3 % at most."""
    forms = {f"{number:.{digits}f}" for digits in (1, 2, 3, 4)} | {f"{number:g}"}
    forms = {form for form in forms if abs(float(form) - number) <= 0.03 * abs(number)}
    return any(re.search(rf"(?<![\d.]){re.escape(form.replace('-', '−'))}(?!\d)", text) for form in forms)


@pytest.fixture
def page(result: StudyResult, exact_result: StudyResult, atlas: Atlas) -> str:
    return page_text(result, atlas, no_noise=exact_result)


def test_the_page_asks_for_no_other_file(page):
    for tag, attributes in Elements(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            assert name not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|@import", page)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_the_page_forbids_the_network_by_its_own_policy(page):
    policies = [
        a["content"] for t, a in Elements(page).tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]


def test_no_identifier_stands_twice(page):
    found = [attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes]
    assert len(found) == len(set(found))


def test_every_reference_inside_the_page_has_its_target(page):
    tags = Elements(page).tags
    found = {attributes.get("id") for _, attributes in tags}
    wanted = {a[name][1:] for _, a in tags for name in ("href", "xlink:href") if name in a}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", page)) | {
        a["aria-labelledby"] for _, a in tags if "aria-labelledby" in a
    }
    assert wanted <= found


def test_every_number_of_the_result_is_on_the_page(result, atlas):
    text = re.sub(r"<svg.*?</svg>", "", page_text(result, atlas), flags=re.DOTALL)
    numbers = numbers_of(result)
    assert len(numbers) > 60
    assert [number for number in numbers if not is_shown(number, text)] == []


def test_every_word_of_the_result_is_on_the_page(result, atlas):
    text = Elements(page_text(result, atlas)).text
    said = [result.study, result.run, result.protocol_sha256, *result.warnings, result.severity_network.note]
    said += [result.privacy.unit, result.privacy.adjacency, result.privacy.controls_note, *result.timing_s]
    said += [
        word for site in result.sites for word in (site.name, site.cohort_size_band, *site.software.values())
    ]
    said += [phase.phase for phase in result.privacy.phases]
    assert [word for word in said if word not in text] == []


def test_hostile_names_stay_text(result, atlas):
    region = atlas.regions[0]
    hostile_atlas = Atlas("six", (type(region)(1, HOSTILE, "L", -30.0, 20.0, 10.0, "L"), *atlas.regions[1:]))
    edge = result.severity_network.edges[0].model_copy(update={"region_a": HOSTILE})
    network = result.severity_network.model_copy(update={"edges": [edge], "retained": 1, "note": HOSTILE})
    site = result.sites[0].model_copy(update={"name": HOSTILE, "software": {HOSTILE: HOSTILE}})
    hostile = result.model_copy(
        update={
            "study": HOSTILE,
            "run": HOSTILE,
            "sites": [site],
            "severity_network": network,
            "warnings": [HOSTILE],
            "timing_s": {HOSTILE: 1.0},
            "evaluation": result.evaluation.model_copy(update={"undefined_because": HOSTILE}),
        }
    )
    page = page_text(hostile, hostile_atlas)
    assert "<script" not in page
    elements = Elements(page)
    assert elements.text.count(HOSTILE) >= 8
    assert "script" not in {tag for tag, _ in elements.tags}


def test_an_undefined_result_is_told_with_its_reason(undefined_result, atlas):
    text = unescape(page_text(undefined_result, atlas))
    assert "Nothing can be said of how the prediction follows clinical severity" in text
    assert "r = undefined" not in text
    assert "is unknown: the noise exceeds the variance of the scores." in text
    assert "neither for it nor against it" in text
    assert "None" not in text
    assert "nan" not in Elements(text).text.lower().split()


def headline(result, atlas, **changed):
    evaluation = result.evaluation.model_copy(update=changed)
    text = Elements(page_text(result.model_copy(update={"evaluation": evaluation}), atlas)).text
    return re.search(r"r = .*?(?=Mean absolute error)", text, re.DOTALL)[0]


def test_the_interval_that_a_reader_sees_first_holds_the_noise(result, exact_result, atlas):
    assert "r = 0.371" in headline(result, atlas)
    assert "95 % interval −0.148 to 0.829, privacy noise included" in headline(result, atlas)
    assert "95 % interval 0.493 to 0.878" in headline(exact_result, atlas)
    assert "noise" not in headline(exact_result, atlas)
    unknown = headline(result, atlas, estimates=None)
    assert "95 % interval 0.021 to 0.694, privacy noise not included" in unknown


def test_a_run_without_noise_is_called_that(exact_result, atlas):
    text = Elements(page_text(exact_result, atlas)).text
    assert "No privacy noise." in text
    assert "ε = no bound" in text


def test_simulated_children_are_declared_and_real_ones_are_not(result, atlas):
    assert "Every child in this study was simulated." in page_text(result, atlas)
    assert "was simulated" not in page_text(result.model_copy(update={"simulated": False}), atlas)


def test_the_run_without_noise_stands_beside(result, exact_result, atlas, page):
    text = re.sub(r"\s+", " ", Elements(page).text)
    assert "What privacy costs" in text
    assert "r (95 % interval) 0.37 (−0.15 to 0.83) 0.74 (0.49 to 0.88)" in re.sub(
        r"\s+", " ", re.sub(r"<[^>]+>", " ", page)
    )
    assert "What privacy costs" not in page_text(result, atlas)


def test_a_study_without_training_says_so(result, atlas):
    assert "asked for no training round" in page_text(result.model_copy(update={"learning_curve": []}), atlas)


def test_tables_have_captions_and_headers_have_scopes(page):
    tags = Elements(page).tags
    count = [tag for tag, _ in tags].count
    assert count("table") == count("caption") > 5
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in tags if tag == "th")
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag == "svg")


def test_the_page_says_what_it_is_not(page):
    assert "Research software, not a medical device." in page


def test_the_page_is_written_whole(result, atlas, tmp_path: Path):
    write_page(result, figures_of(result, atlas), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
