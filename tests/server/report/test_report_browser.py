"""Report and prediction in a real browser: they ask for nothing, complain of nothing, and clip nothing."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from esn_client.prediction.findings import Driver, OwnPrediction, Prediction, Risk, Unlike
from esn_client.prediction.page import page_of, personal_page, table_of
from esn_client.prediction.personal_findings import Edge, Figures, PersonalFindings
from esn_core.connectome.atlas import load_atlas
from esn_core.released_model.archive import read_model
from esn_server.report.beside import network_text, summary_text
from esn_server.report.figures.shown import figures_of
from esn_server.report.page import page_text
from esn_server.report.result import write_result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

# Measures the page as laid out; it is added to a copy, for the page itself allows no script.
RULER = """<script>
const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
  && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
const clipped = [];
for (const svg of document.querySelectorAll("svg"))
  for (const text of svg.querySelectorAll("text"))
    if (!within(text.getBoundingClientRect(), svg.getBoundingClientRect())) clipped.push(text.textContent);
const root = document.documentElement;
document.title = JSON.stringify({clipped, texts: document.querySelectorAll("svg text").length,
  wider: root.scrollWidth - root.clientWidth});
</script>"""


def open_page(path: Path, profile: Path, *, width: int = 1200) -> tuple[str, str]:
    """Return the DOM after loading `path`, and what the browser's console said."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # the machine's network is out of reach
        f"--user-data-dir={profile}",
        f"--window-size={width},2000",
        "--enable-logging=stderr",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def ruled(page: str, directory: Path, width: int) -> str:
    """Return by how many pixels the page is too wide; no text of a figure may be clipped."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    path = directory / "report.html"
    path.write_text(page.replace("</body>", f"{RULER}</body>"), encoding="utf-8")
    dom, _ = open_page(path, directory / "profile", width=width)
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    measured = re.fullmatch(r'\{"clipped":\[\],"texts":\d{2,},"wider":(\d+)\}', found[1])
    assert measured is not None, found[1]
    return measured[1]


def test_the_page_opens_without_a_request_or_a_complaint(result, exact_result, atlas, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page_text(result, atlas, no_noise=exact_result), encoding="utf-8")
    dom, console = open_page(path, tmp_path / "profile")
    assert "<title>Severity report: demo-study</title>" in dom
    assert dom.count("<svg") == 6
    assert console == ""


def test_a_page_that_did_ask_for_something_would_be_noticed(result, atlas, tmp_path):
    path = tmp_path / "report.html"
    leaking = page_text(result, atlas).replace("<main>", '<main><img src="https://example.org/pixel.png">')
    path.write_text(leaking, encoding="utf-8")
    _, console = open_page(path, tmp_path / "profile")
    assert "example.org" in console
    assert "Content Security Policy" in console


@pytest.fixture
def long_names(full):
    """Every analysis, with the longest names that a real atlas has."""
    names = sorted(load_atlas("desikan-killiany-83").names, key=len)[-6:]
    network, explanation = full.severity_network, full.explanation
    ends = {"region_a": names[-1], "region_b": names[-2]}
    return full.model_copy(
        update={
            "severity_network": network.model_copy(
                update={
                    "atlas": "desikan-killiany-83",
                    "edges": [edge.model_copy(update=ends) for edge in network.edges],
                }
            ),
            "explanation": explanation.model_copy(
                update={"edges": [edge.model_copy(update=ends) for edge in explanation.edges]}
            ),
        }
    )


@pytest.mark.parametrize("width", [1200, 500])
def test_no_table_is_wider_than_the_window_whatever_the_regions_are_called(long_names, tmp_path, width):
    assert ruled(page_text(long_names, load_atlas("desikan-killiany-83")), tmp_path, width) == "0"


@pytest.mark.parametrize("width", [1200, 500])
def test_no_text_of_a_figure_is_clipped_and_the_page_fits_its_window(
    result, exact_result, atlas, tmp_path, width
):
    assert ruled(page_text(result, atlas, no_noise=exact_result), tmp_path, width) == "0"


@pytest.fixture
def predicted():
    """Two predicted children and a personal model, with all that a page can say, by their pages' names."""
    model = read_model(Path(__file__).parents[2] / "golden" / "formats" / "model-1.esn")
    names = load_atlas(model.content.atlas).names
    risk = {
        "outcome": "verbal",
        "impaired_below": 85.0,
        "column": "verbal",
        "predictors": ("predicted_gase",),
    }
    one = Prediction(
        participant="sub-001",
        visits=2,
        model_sha256=model.content.sha256,
        study=model.content.study,
        simulated_study=True,
        controls=8,
        predicted_gase=5.1,
        interval=(3.4, 6.8),
        personal=OwnPrediction(predicted_gase=4.9, interval=(3.5, 6.3), children=20, cross_validated_r=0.71),
        baseline_gase=3.0,
        risks=(
            Risk(**risk, risk=0.4, interval=(0.2, 0.6), not_shown=None),
            Risk(**risk, risk=None, interval=None, not_shown="age of the child is not known"),
        ),
        unlike=Unlike(
            prediction_z=0.9,
            age_z=None,
            spread=1.4,
            controls_spread=(0.8, 1.2),
            missing_edges=0.0,
            words="The prediction is usual among those of the study's children (+0.9 sd).",
        ),
        drivers=tuple(
            Driver(region_a=names[0], region_b=name, weight=0.3 / i * (-1) ** i, score=-1.5)
            for i, name in enumerate(names[1:20], start=1)
        ),
        quality="warn",
        notes=("The scan's quality asks for a look.",),
        made="0.1.0",
    )
    other = one.model_copy(update={"participant": "sub-002", "personal": None, "risks": one.risks[:1]})
    figures = Figures(children=12, r=0.62, r_interval=(0.07, 0.88), mae=0.9, rmse=1.2)
    own = PersonalFindings(
        site="north",
        study=model.content.study,
        simulated=True,
        atlas=model.content.atlas,
        protocol_sha256=model.content.protocol_sha256,
        run="r1",
        training=24,
        controls=8,
        cross_validated=figures,
        personal=figures,
        consortium=figures.model_copy(update={"r": None, "r_interval": None}),
        alone=None,
        edges=tuple(
            Edge(region_a=names[0], region_b=name, weight=0.3 / i * (-1) ** i, posterior_sd=0.1)
            for i, name in enumerate(names[1:20], start=1)
        ),
        made="0.1.0",
    )
    return {
        "child": page_of(one, model),
        "children": table_of([one, other], model),
        "personal": personal_page(own, model.protocol.atlas),
    }


def test_a_prediction_opens_without_a_complaint_and_prints_on_one_sheet(predicted, tmp_path):
    for name, page in predicted.items():
        path = tmp_path / f"{name}.html"
        path.write_text(page, encoding="utf-8")
        assert open_page(path, tmp_path / "profile")[1] == ""
        assert sheets(path, tmp_path) == 1, name


def test_a_table_is_shown_in_one_order_which_a_radio_button_chooses(full, atlas, tmp_path):
    """Tab and arrows reach it, as they do any radio button; what is not shown is not read aloud."""
    page = page_text(full, atlas)
    shown = (
        "<script>const of = n => [...document.querySelectorAll('.sort')[0].children].filter(e =>"
        "e.tagName === 'DIV' && getComputedStyle(e).display !== 'none').map(e =>"
        "[...e.querySelectorAll('tbody tr')].map(r => r.cells[n].textContent.replace('\u2212', '-')));"
        "const before = of(0); document.getElementById('sort-strongest-4').click();"
        "document.title = JSON.stringify([before, of(3)])</script></body>"
    )
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace("</body>", shown)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    dom, _ = open_page(tmp_path / "report.html", tmp_path / "profile")
    (before,), (weights,) = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert before == [str(rank) for rank in range(1, len(before) + 1)]
    assert [float(text) for text in weights] == sorted(map(float, weights), reverse=True)
    assert len(weights) == len(before) > 1


@pytest.mark.axe
def test_a_screen_reader_and_a_keyboard_miss_nothing(full, exact_result, atlas, predicted, barriers_of):
    """By axe-core: the report with every analysis, what stands beside it, and the pages of predictions."""
    for name, page in (
        ("report", page_text(full, atlas, no_noise=exact_result)),
        ("summary", summary_text(full, figures_of(full, atlas))),
        ("network", network_text(full, atlas)),
        *predicted.items(),
    ):
        assert barriers_of(page) == [], name


@pytest.mark.axe
def test_what_a_screen_reader_would_miss_is_noticed(result, atlas, barriers_of):
    page = page_text(result, atlas)
    spoilt = page.replace("<main>", '<main><img src="data:,">').replace(' lang="en"', "")
    assert {rule for rule, _ in barriers_of(spoilt)} >= {"image-alt", "html-has-lang"}


def test_the_summary_prints_on_one_page(full, atlas, tmp_path):
    path = tmp_path / "summary.html"
    path.write_text(summary_text(full, figures_of(full, atlas)), encoding="utf-8")
    assert sheets(path, tmp_path) == 1


def sheets(path: Path, directory: Path) -> int:
    """Return on how many sheets of paper a page is printed."""
    printed = directory / "printed.pdf"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={directory / 'profile'}", f"--print-to-pdf={printed}", path.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    (count,) = re.findall(rb"/Count (\d+)", printed.read_bytes())
    return int(count)


@pytest.mark.slow
def test_the_pictures_of_the_readme_have_the_figures_with_noise_and_without(
    full, exact_result, atlas, tmp_path, capsys
):
    (tmp_path / "no-noise").mkdir()
    (tmp_path / "report.html").write_text(page_text(full, atlas, no_noise=exact_result), encoding="utf-8")
    write_result(full, tmp_path / "result.json")
    write_result(exact_result, tmp_path / "no-noise" / "result.json")
    script = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "make_screenshots.py"))
    assert script["main"](tmp_path, tmp_path) == 0
    assert "with noise: r 0.37, 95 % interval −0.15 to 0.83" in (said := capsys.readouterr().out)
    assert "without: r 0.74, 95 % interval 0.49 to 0.88" in said
    for name in script["PICTURES"]:
        with Image.open(tmp_path / name) as picture:
            assert picture.width == script["WIDTH"]
            assert 300 < picture.height < 2000  # the figures are shown, and all the rest is not
