"""What stands beside a report: tables that a statistics program reads, figures alone, words for a paper."""

import csv
import re
from functools import partial
from xml.etree import ElementTree

import pytest
from pydantic import BaseModel

from esn_server.cli import main as cli
from esn_server.report.beside import (
    FIGURES,
    NETWORK,
    SUMMARY,
    TABLES,
    network_text,
    summary_text,
    write_beside,
)
from esn_server.report.figures.correlations import lines_of
from esn_server.report.figures.shown import figures_of
from esn_server.report.impairment import LinearCoefficient
from esn_server.report.page import page_text
from esn_server.report.paragraphs import headline, methods, results
from esn_server.report.result import NetworkTruth, PublicInput, read_result, write_result
from esn_server.report.tables import tables_of


@pytest.fixture
def undefined(result):
    """A result whose sums tell nothing of r."""
    evaluation = result.evaluation.model_copy(
        update={
            "r": None,
            "r_interval": None,
            "estimates": None,
            "undefined_because": "the noise is too large",
        }
    )
    return result.model_copy(update={"evaluation": evaluation})


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_every_table_has_a_line_an_observation_and_intervals_in_two_columns(full):
    found = tables_of(full)
    assert {"sites", "severity_network", "learning_curve", "privacy_by_phase", "correlations"} <= set(found)
    for name, text in found.items():
        rows = rows_of(text)
        assert rows, name
        assert "(" not in text.splitlines()[0]
        assert not [cell for row in rows for cell in row.values() if cell in (None, "None") or "[" in cell]
        for row in rows:
            for column in [c for c in row if c.endswith("_low") and row[c]]:
                assert float(row[column]) <= float(row[column.replace("_low", "_high")])
    edges = rows_of(found["severity_network"])
    assert [(e["region_a"], float(e["weight"])) for e in edges] == [
        (e.region_a, e.weight) for e in full.severity_network.edges
    ]


@pytest.fixture
def fullest(full, result):
    """A result whose every part has something to tell."""
    (model,) = full.neurocognition.models
    slope = LinearCoefficient(name="predicted_gase", coefficient=0.4, interval=(0.1, 0.7), p_value=0.01)
    model = model.model_copy(update={"linear": [slope], "expected_slope": result.evaluation.estimates.r})
    estimates = {"estimates": result.evaluation.estimates}
    truth = NetworkTruth(listed=2, same_sign=1, candidates=5)
    one = PublicInput(
        kind="atlas", name="six", files={}, origin="drawn", licence="CC0", people=12, ships=True
    )
    sites = [site.model_copy(update=estimates) for site in full.cross_site.by_site]
    return full.model_copy(
        update={
            "inputs": [one],
            "harmonisation": full.harmonisation.model_copy(update={"compared": full.baselines}),
            "cross_site": full.cross_site.model_copy(update={"by_site": sites}),
            "cross_validation": full.cross_validation.model_copy(update=estimates),
            "severity_network": full.severity_network.model_copy(update={"truth": truth}),
            "neurocognition": full.neurocognition.model_copy(
                update={"models": [model], "called_impaired_from": 0.3}
            ),
        }
    )


def marked(value, place, marks):
    """Return the same with another whole number for each of its numbers; `marks` says where each stands."""
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if name != "format"]
        return value.model_copy(
            update={name: marked(getattr(value, name), f"{place}.{name}", marks) for name in names}
        )
    if isinstance(value, dict):
        return {key: marked(item, f"{place}.{key}", marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(marked(item, f"{place}[{i}]", marks) for i, item in enumerate(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = 1_000_001 + len(marks)
        marks[str(number)] = place
        return number
    return value


NOT_IN_TABLES = r"\.estimates\.(children|rmse|calibration_\w+)\."
"""Of reruns, which the report shows r and MAE of."""


def test_every_number_of_a_result_stands_in_a_table(fullest):
    marks = {}
    tables = tables_of(marked(fullest, "result", marks))
    cells = {cell for text in tables.values() for row in rows_of(text) for cell in row.values()}
    missing = [place for number, place in marks.items() if number not in cells]
    reruns = re.compile(rf"result\.cross_\w+.*{NOT_IN_TABLES}")
    assert [place for place in missing if not reruns.match(f"{place}.")] == []
    assert len(marks) > 250


def test_every_part_that_the_report_shows_has_its_own_table(fullest):
    wanted = "local_only baselines harmonisation_compared random_score_simulated cohort cohort_differences"
    assert set(wanted.split()) <= set(tables_of(fullest))
    rows = [(row["r"], row["r_low"], row["r_high"]) for row in rows_of(tables_of(fullest)["correlations"])]
    for line in lines_of(fullest, no_noise=None):
        ends = ("", "") if line.interval is None else tuple(map(str, line.interval))
        assert ("" if line.r is None else str(line.r), *ends) in rows, line.label


def test_all_files_are_written_and_ask_for_no_other(full, atlas, tmp_path):
    files = {
        path.relative_to(tmp_path).as_posix()
        for path in write_beside(full, atlas, figures_of(full, atlas), tmp_path)
    }
    assert {f"{TABLES}/sites.csv", f"{FIGURES}/severity_network_brain.svg", NETWORK, SUMMARY} <= files
    for path in (tmp_path / FIGURES).glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    for name in (NETWORK, SUMMARY):
        text = (tmp_path / name).read_text()
        assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=\"(?!data:)", text)
        assert '<html lang="en">' in text


@pytest.mark.parametrize("beside", ["no run without noise", "a run without noise"])
def test_every_figure_of_the_page_stands_beside_it(full, exact_result, atlas, tmp_path, beside):
    no_noise = exact_result if beside.startswith("a") else None
    page = page_text(full, atlas, no_noise=no_noise)
    write_beside(full, atlas, figures_of(full, atlas, no_noise=no_noise), tmp_path)
    written = {path.stem: path.read_text() for path in (tmp_path / FIGURES).glob("*.svg")}
    labels = re.findall(r'<svg[^>]* aria-label="([^"]*)"', page)
    assert len(written) == page.count("<svg") == len(labels)
    assert sorted(labels) == sorted(re.search(r'aria-label="([^"]*)"', svg)[1] for svg in written.values())
    assert {"stability", "correlations", "forest", "impairment_1_verbal"} <= set(written)
    numbers = re.findall(r"<strong>Figure (\d+b?)\.", page)
    assert numbers == sorted(set(numbers), key=lambda number: (int(number.strip("b")), number))


def test_the_network_in_3d_has_every_edge_once_in_each_direction_and_its_weight(result, atlas):
    text = network_text(result, atlas)
    assert "Severity network: blue is weaker when severe" in text
    assert "_con_w" in text or "con_w" in text


def test_the_network_in_3d_has_a_heading_a_main_part_and_labelled_controls(result, atlas):
    _, _, body = network_text(result, atlas).rpartition("<body>")
    assert re.match(rf"<main><h1>Severity network in 3-D: study {result.study}</h1>\s*<(p|div)", body)
    assert re.search(r"</main></body>\s*</html>\s*$", body)
    assert re.search(r"<label>Seen from <select [^<]*(<option.*?</option>\s*)+</select></label>", body)
    assert re.search(r"<label>Opacity of the brain <input [^<]*/></label>", body)
    assert body.count("<label>") == body.count("</label>") == 2


@pytest.mark.parametrize("simulated", [True, False])
def test_the_network_in_3d_says_when_its_children_are_simulated(result, atlas, simulated):
    text = network_text(result.model_copy(update={"simulated": simulated}), atlas)
    assert ("<strong>Simulated children.</strong>" in text) == simulated


def test_the_summary_is_light_or_dark_on_a_screen_and_light_in_print(result, atlas):
    text = summary_text(result, figures_of(result, atlas))
    assert "color-scheme: light dark" in text
    assert "@media screen and (prefers-color-scheme: dark)" in text


def test_the_headline_says_the_uncertainty_and_never_that_r_is_undefined(result, undefined, atlas):
    likely = result.evaluation.estimates.r if result.evaluation.estimates else None
    if likely is not None:
        assert "95 % interval" in headline(result.evaluation)
    said = headline(undefined.evaluation)
    assert said.endswith("the noise is too large.")
    page = page_text(undefined, atlas)
    assert said in page
    assert "r = undefined" not in page
    assert "not known<small>the noise is too large" in page


@pytest.mark.parametrize(
    ("interval", "words"),
    [((0.2, 0.9), "follows"), ((-0.9, -0.2), "against"), ((-0.2, 0.9), "does not show")],
)
def test_the_headline_follows_the_interval(full, interval, words):
    told = full.evaluation.estimates
    changed = told.model_copy(update={"r": told.r.model_copy(update={"interval": interval})})
    assert words in headline(full.evaluation.model_copy(update={"estimates": changed}))


def test_paragraphs_hold_the_figures_and_the_price(full, undefined):
    said = methods(full)
    assert f"ε {full.privacy.epsilon_training_child:.2f}" in said
    assert "TRIPOD+AI" in said
    assert f"{full.severity_network.retained} of {full.severity_network.candidates}" in results(full)
    assert "In about 26 (20 to 32) held-out children" in results(full)
    for text in (said, results(full), methods(undefined), results(undefined)):
        assert "None" not in text
        assert "undefined" not in text


def test_comparisons_of_one_outcome_are_told_apart_by_what_both_models_hold_besides(full):
    (contest,) = full.neurocognition.contests
    contests = [contest, contest.model_copy(update={"others": ["age_years", "sex"]})]
    found = full.neurocognition.model_copy(update={"contests": contests})
    said = results(full.model_copy(update={"neurocognition": found}))
    assert f"Verbal: {contest.verdict} Verbal, besides age years and sex: {contest.verdict}" in said


def test_the_command_writes_what_the_run_writes(run_command, full, tmp_path):
    from esn_core.connectome.atlas import load_atlas

    names = load_atlas("phantom-28").names
    ends = {"region_a": names[0], "region_b": names[1]}
    network = full.severity_network
    network = network.model_copy(
        update={"atlas": "phantom-28", "edges": [e.model_copy(update=ends) for e in network.edges]}
    )
    write_result(full.model_copy(update={"severity_network": network}), tmp_path / "result.json")
    run = partial(run_command, "esn-server", cli.main)
    status, out, err = run("export", tmp_path / "result.json", "--out", tmp_path / "out")
    assert status == 0, err
    assert sorted(out.split()) == sorted(str(p) for p in (tmp_path / "out").rglob("*.*"))
    assert read_result(tmp_path / "result.json").study in (tmp_path / "out" / SUMMARY).read_text()
