"""Tests of quality pages and of a site's table: what they show is where it is, and nothing leaves."""

import csv
import json
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from esn_client.imaging.bids.derivatives import MEASURES, Derivative
from esn_client.imaging.bids.failures import Failure, keep_failure
from esn_client.imaging.bids.scans import Scan
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.preprocessing.displacement import Displacement
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.quality import numbers
from esn_client.imaging.quality import page as subject_page
from esn_client.imaging.quality.anatomy import Anatomy
from esn_client.imaging.quality.distributions import lay_out
from esn_client.imaging.quality.figures import overlay_regions, region_colours
from esn_client.imaging.quality.page import draw_page, judge_rows
from esn_client.imaging.quality.planes import Planes
from esn_client.imaging.quality.ratings import rate
from esn_client.imaging.quality.residuals import fit_plainly
from esn_client.imaging.quality.site_table import read_exclusions, robust_z, ways_scanned, write_site
from esn_client.imaging.quality.wording import WORDINGS
from esn_client.simulation.presets import SITES
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.quality_limits import quantity
from esn_core.simulation.diffusion import draw_phantom
from esn_core.simulation.world import World

ATLAS = load_atlas("phantom-28")
RECIPE = ImagingRecipe(
    **tomllib.loads(files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text())
)
SCHEME = SITES["north"].scheme()
TABLE = Gradients(SCHEME.b_values_s_per_mm2, SCHEME.directions)
CHROMIUM = shutil.which("chromium")
NUMBERS = {
    "brain_ml": 1100.0,
    "cut_off_percent": 1.0,
    "signal_to_noise": 25.0,
    "response_ratio": 5.0,
    "assigned_percent": 30.0,
    "density_percent": 40.0,
}


@pytest.fixture(scope="module")
def phantom():
    world = World.draw(ATLAS, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    return draw_phantom(ATLAS, world.mean, SCHEME, voxel_size_mm=5.0, signal_to_noise=28.0, rng=rng)


@pytest.fixture(scope="module")
def anatomy(phantom):
    """A child whose left hemisphere is brighter."""
    mask = phantom.signal[..., 0] > 0.5 * phantom.signal[..., 0].max()
    place = np.full(max(region.index for region in ATLAS.regions) + 1, -1)
    place[[region.index for region in ATLAS.regions]] = np.arange(len(ATLAS.regions))
    counts = np.random.default_rng(0).integers(0, 300, (28, 28)).astype(float)
    x_mm = np.arange(mask.shape[0]) * phantom.affine[0, 0] + phantom.affine[0, 3]
    return Anatomy(
        affine=phantom.affine,
        is_b0=TABLE.is_b0,
        plain=fit_plainly(phantom.signal.astype(np.float32), TABLE, mask, slice_axis=2),
        mask=mask,
        b0=phantom.signal[..., 0].astype(float),
        fa=mask * np.where(x_mm < 0, 0.8, 0.3)[:, None, None],
        regions=place[phantom.labels],
        lost=mask & False,
        density=mask * 7,
        displacement=Displacement(
            np.linspace(0, 2, len(TABLE.is_b0)), np.where(TABLE.is_b0, 0, 0.5), np.ones(TABLE.is_b0.sum() - 1)
        ),
        counts=counts + counts.T,
        absent=np.arange(28) == 5,
        scanned_directions=TABLE.directions,
        turned_directions=TABLE.directions,
        transforms=np.broadcast_to(np.eye(4), (len(TABLE.is_b0), 4, 4)),
        weighted_before=phantom.signal[..., ~TABLE.is_b0].mean(axis=3),
        weighted_after=phantom.signal[..., ~TABLE.is_b0].mean(axis=3),
        template=mask * 0.4,
    )


RECORD = {
    "PreprocessedBy": None,
    "Quality": NUMBERS,
    "Stages": [{"Name": "tensor", "WallSeconds": 0.1, "Parameters": {"a": 1}, "Sha256": "0" * 64}],
    "Sources": {"sub-001/dwi/sub-001_dwi.nii.gz": "1" * 64},
    "Software": {"dipy": "1.12.1"},
}


def draw(anatomy, **changes):
    return draw_page(anatomy, visit="sub-001", atlas=ATLAS, recipe=RECIPE, record=RECORD | changes)


@pytest.fixture(scope="module")
def page(anatomy):
    return draw(anatomy)


def stored(anatomy, axes, flips):
    """The same head, stored along other axes."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        turn[old, new] = -1 if flip else 1
        turn[old, 3] = anatomy.mask.shape[old] - 1 if flip else 0

    def put(volume):
        rest = tuple(range(3, volume.ndim))
        moved = volume.transpose(*axes, *rest)
        return moved[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]

    volumes = {name: put(getattr(anatomy, name)) for name in ("mask", "fa", "regions")}
    return replace(anatomy, affine=anatomy.affine @ turn, **volumes)


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((0, 1, 2), (0, 0, 0)), ((0, 1, 2), (1, 0, 0)), ((2, 0, 1), (0, 1, 1)), ((1, 2, 0), (1, 1, 1))],
)
def test_left_is_left_however_the_image_is_stored(anatomy, axes, flips):
    head = stored(anatomy, axes, flips)
    planes = Planes.through(head.mask, head.affine)
    _, columns, height, width, _ = planes.voxels.shape
    fa = planes.image(head.fa, order=0).reshape(2, height, columns, width)
    for row, column in [(0, 2), (0, 3), (1, 1)]:  # two axial planes and a coronal one
        plane = fa[row, :, column]
        left, right = plane[:, : width // 2], plane[:, (width + 1) // 2 :]
        assert np.median(left[left > 0]) == 0.8
        assert np.median(right[right > 0]) == 0.3
    colours = overlay_regions(planes, np.zeros(head.fa.shape), head.regions, ATLAS)
    axial = colours.reshape(2, height, columns, width, 3)[0, :, 2]
    blue_minus_red = axial[..., 2] - axial[..., 0]
    assert blue_minus_red[:, : width // 2].mean() > 0 > blue_minus_red[:, width // 2 :].mean()


def test_the_face_is_where_a_sagittal_plane_says(anatomy):
    """The front half is made dark: it must be left in sagittal planes, and at the top of axial ones."""
    y_mm = np.arange(anatomy.mask.shape[1]) * anatomy.affine[1, 1] + anatomy.affine[1, 3]
    head = anatomy.mask * np.where(y_mm > 0, 0.2, 0.9)[None, :, None]
    planes = Planes.through(anatomy.mask, anatomy.affine)
    _, columns, height, width, _ = planes.voxels.shape
    tiles = planes.image(head, order=0).reshape(2, height, columns, width)
    sagittal, axial = tiles[1, :, 4], tiles[0, :, 2]
    front, back = sagittal[:, : width // 2], sagittal[:, width // 2 + 1 :]
    assert (np.median(front[front > 0]), np.median(back[back > 0])) == (0.2, 0.9)
    assert np.median(axial[: height // 3][axial[: height // 3] > 0]) == 0.2
    assert planes.names[1][4].startswith("sagittal, x = ")


def test_hemispheres_have_colours_of_their_own():
    colours = region_colours(ATLAS)
    assert not colours[0].any()
    for region, (red, _, blue) in zip(ATLAS.regions, colours[1:], strict=True):
        assert (blue > red) == (region.hemisphere == "L"), region.name
    assert len(np.unique(colours.round(6), axis=0)) == len(colours)


def test_a_slice_that_dropped_out_is_seen(phantom, anatomy):
    clean = anatomy.plain
    signal = phantom.signal.astype(np.float32)
    signal[:, :, 12, 20] *= 0.3
    damaged = fit_plainly(signal, TABLE, anatomy.mask, slice_axis=2)
    assert np.nanargmax(damaged.residual) == 20 * damaged.residual.shape[1] + 12
    assert damaged.residual[20, 12] > 3 * clean.residual[20, 12]
    assert np.isnan(damaged.residual[TABLE.is_b0]).all()
    # The tensor itself follows the lost slice a little: less than .7 is missing from its prediction.
    assert 0.5 < damaged.lost[20, 12] < 0.7
    assert clean.bad_volumes_percent == 0
    assert damaged.bad_volumes_percent == pytest.approx(100 / (~TABLE.is_b0).sum())


def test_the_principal_direction_is_that_of_the_fibres():
    table = TABLE
    along = np.array([0.6, 0.0, 0.8])
    diffusivity = 3e-4 + 14e-4 * (table.directions @ along) ** 2
    signal = 1000 * np.exp(-table.b_values_s_per_mm2 * diffusivity)
    volume = np.broadcast_to(signal, (3, 3, 3, len(signal))).astype(np.float32)
    plain = fit_plainly(volume, table, np.ones((3, 3, 3), dtype=bool), slice_axis=2)
    # The signal is float32: seven digits.
    assert np.abs(plain.principal @ along) == pytest.approx(np.ones(27), abs=1e-5)


class Page(HTMLParser):
    """What a page would fetch, and what it leaves unsaid."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.unsaid, self.images, self.heads, self.scripts = [], [], 0, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.scripts += tag == "script"
        for name in ("src", "href"):
            value = values.get(name, "")
            if value and not value.startswith(("data:image/png;base64,", "#")):
                self.fetched.append(value)
        if tag == "img":
            self.images += 1
            if len(values.get("alt", "")) < 20 or "width" not in values:
                self.unsaid.append(values)
        if tag == "th" and "scope" not in values:
            self.unsaid.append(values)


def test_a_page_is_complete_in_itself_and_says_what_it_shows(page):
    read = Page(page)
    assert (read.fetched, read.unsaid, read.scripts) == ([], [], 0)
    assert read.images == 16
    assert '<html lang="en">' in page
    assert "default-src 'none'" in page


def test_a_page_shows_each_number_with_its_verdict(page):
    rows = judge_rows(RECIPE, NUMBERS)
    assert [row.title for row in rows] == [words.title for words in WORDINGS.values()]
    by_title = {row.title: row for row in rows}
    assert by_title["Streamlines assigned"].verdict == "warn"
    assert by_title["Registration"].verdict == "not measured"
    assert by_title["Brain volume"].passes == "800 or more; fails below 500; 1400 or less; fails above 1800"
    assert "30.0 %" in page
    assert "Usable, but somebody should look." in page


def test_a_number_without_a_limit_is_shown_and_not_judged():
    by_title = {row.title: row for row in judge_rows(RECIPE, NUMBERS | {"eddy_shift_mm": 1.234})}
    assert (by_title["Eddy shift"].value, by_title["Eddy shift"].passes) == ("1.23 mm", "")
    assert by_title["Eddy shift"].verdict == "not measured"


def test_a_page_says_what_the_header_says_of_the_sides_and_warns(anatomy, monkeypatch):
    pictures = subject_page._draw(anatomy, ATLAS, RECIPE)
    monkeypatch.setattr(subject_page, "_draw", lambda *_: pictures)
    good = NUMBERS | {"assigned_percent": 90.0}
    assert "All numbers are within" in draw(anatomy, Quality=good)
    warned = draw(
        anatomy,
        Quality=good,
        Sides="stored LAS, by the header's sform (code 1)",
        Warnings=["a <warning>"],
        Remarks=["volume 33 was left out"],
    )
    assert "Usable, but somebody should look." in warned
    assert "<li>a &lt;warning&gt;</li>" in warned
    assert "Left and right are the header's alone: stored LAS, by the header&#39;s sform (code 1)." in warned
    assert "Nothing in a brain confirms them." in warned
    agreed = draw(anatomy, Quality=good | {"sides_margin_percent": 6.7}, Sides="stored LAS")
    assert "T1w image, by a header of its own, says the same." in agreed
    assert "<li>volume 33 was left out</li>" in warned


def test_a_scan_that_came_preprocessed_says_so(anatomy):
    page = draw(replace(anatomy, displacement=None, transforms=None), PreprocessedBy="QSIPrep <1.0>")
    assert "preprocessed by <strong>QSIPrep &lt;1.0&gt;</strong>" in page
    assert "there is no motion trace" in page
    assert Page(page).images == 12


def test_every_limit_has_words():
    assert {quantity(name) for name in RECIPE.quality.limits()} <= set(WORDINGS)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_drop_out_is_looked_for_along_the_axis_of_the_slices(phantom, anatomy, axes):
    """However the brain is stored: none where there is none, and each planted slice."""
    slice_axis = axes.index(2)
    signal = phantom.signal.astype(np.float32)
    mask, table = anatomy.mask.transpose(axes), replace(TABLE, directions=TABLE.directions[:, axes])
    clean = fit_plainly(signal.transpose(*axes, 3), table, mask, slice_axis=slice_axis)
    assert clean.bad_volumes_percent == 0
    for volume in (10, 20, 30):
        signal[:, :, 12, volume] *= 0.3
    damaged = fit_plainly(signal.transpose(*axes, 3), table, mask, slice_axis=slice_axis)
    assert damaged.bad_volumes_percent == pytest.approx(300 / (~TABLE.is_b0).sum())
    assert damaged.lost.shape == (len(TABLE.is_b0), phantom.signal.shape[2])


def test_noise_is_measured_from_two_unweighted_volumes(anatomy):
    rng = np.random.default_rng(1)
    signal = np.full((20, 20, 20, 3), 100.0) + rng.normal(0, 5, (20, 20, 20, 3))
    table = Gradients(np.array([0.0, 0.0, 1000.0]), np.vstack([np.zeros((2, 3)), [[1.0, 0, 0]]]))
    scan = Scan(signal.astype(np.float32), np.eye(4), table, None, False)
    inside = np.ones((20, 20, 20), dtype=bool)
    # 8,000 voxels: the median absolute difference is known to 1.2 %; three standard errors.
    assert numbers.signal_to_noise(scan, inside) == pytest.approx(20.0, rel=0.04)
    one = replace(scan, gradients=Gradients(table.b_values_s_per_mm2[1:], table.directions[1:]))
    assert numbers.signal_to_noise(replace(one, signal=scan.signal[..., 1:]), inside) is None


def test_a_brain_that_touches_the_grids_edge_is_measured():
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[2:8, 2:8, 2:8] = True
    assert numbers.cut_off_percent(mask, np.eye(4)) == 0
    assert numbers.cut_off_percent(mask[:, 5:], np.eye(4)) == 100
    assert numbers.cut_off_percent(mask[:, :, 5:], np.eye(4)) == 0, "the neck goes on"
    mask[3:6, 3:6, 9] = True
    assert numbers.cut_off_percent(mask, np.eye(4)) == pytest.approx(100 * 9 / 36)
    assert numbers.volume_ml(mask, np.array([2.0, 2.0, 2.5])) == pytest.approx((216 + 9) * 10 / 1000)


def test_robust_z_equals_its_definition_and_knows_when_it_has_none():
    values = [10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, None, 30.0]
    z = robust_z(values)
    known = np.array([v for v in values if v is not None])
    spread = np.median(np.abs(known - np.median(known)))
    assert z[8] == pytest.approx(0.6745 * (30 - np.median(known)) / spread)
    assert z[7] is None
    assert robust_z([1.0, 2.0, 3.0]) == [None] * 3
    assert robust_z([0.0] * 10 + [5.0]) == [None] * 11
    # Nearly equal numbers: the spread counts as a fiftieth of the median.
    assert robust_z([1.0] * 10 + [1.05])[10] == pytest.approx(0.6745 * 0.05 / 0.02)


@pytest.fixture
def site(tmp_path):
    """Nine visits; the assigned share of one is unlike the others', that of another fails."""
    counts = np.ones((28, 28))
    for number in range(1, 10):
        visit = Visit(f"sub-{number:03d}", "ses-1" if number == 2 else None)
        quality = NUMBERS | {"assigned_percent": {3: 45.0, 4: 10.0}.get(number, 80.0 + number)}
        Derivative(tmp_path, visit, RECIPE).write(
            dict.fromkeys(MEASURES, counts), sources={}, details={"Quality": quality}
        )
    return tmp_path


def test_a_site_has_a_table_and_a_page(site):
    (site / "sub-003_seg-phantom28_quality.html").write_text("a page")
    rows = write_site(site, RECIPE, exclude_failed=True)
    with (site / "seg-phantom28_quality.tsv").open(encoding="utf-8") as file:
        table = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert len(table) == len(rows) == 9
    assert table["sub-002"]["session_id"] == "ses-1"
    assert (table["sub-004"]["verdict"], table["sub-004"]["excluded"]) == ("fail", "yes")
    assert (table["sub-003"]["outlying"], table["sub-003"]["excluded"]) == ("assigned_percent", "no")
    assert table["sub-001"]["registration_correlation"] == "n/a"
    about = json.loads((site / "seg-phantom28_quality.json").read_text())
    assert set(about) == set(next(iter(table.values()))) - {"participant_id", "session_id"}
    page = (site / "seg-phantom28_quality.html").read_text()
    assert "Studies leave 1 out." in page
    assert page.index("sub-004") < page.index("sub-001"), "worst first"
    assert Page(page).fetched == ["sub-003_seg-phantom28_quality.html"], "a link to the visit's own page"


def test_visits_that_could_not_be_prepared_come_first_with_their_reason(site):
    """They are part of the denominator, and studies leave them out, whatever is left of an earlier time."""
    keep_failure(site, RECIPE, "sub-010_ses-2", Failure("sub-010_ses-2", "DataError", "no <b0>"))
    keep_failure(site, RECIPE, "sub-005", Failure("sub-005", "OSError", "no space left"))
    rows = write_site(site, RECIPE, exclude_failed=False)
    assert len(rows) == 10
    with (site / "seg-phantom28_quality.tsv").open(encoding="utf-8") as file:
        table = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert (table["sub-010"]["session_id"], table["sub-010"]["failure"]) == ("ses-2", "DataError: no <b0>")
    assert (table["sub-010"]["excluded"], table["sub-010"]["connectome_sha256"]) == ("yes", "n/a")
    assert (table["sub-005"]["failure"], table["sub-005"]["excluded"]) == ("OSError: no space left", "yes")
    assert table["sub-001"]["failure"] == "n/a"
    page = (site / "seg-phantom28_quality.html").read_text()
    assert "10 visits" in page
    assert "1 fail, 2 could not be prepared." in page
    assert "DataError: no &lt;b0&gt;" in page
    assert page.index("sub-005") < page.index("sub-010") < page.index("sub-004") < page.index("sub-001")
    assert read_exclusions(site, RECIPE) == {Visit("sub-005", None)}, "who has no connectome is nobody's"
    keep_failure(site, RECIPE, "sub-005", None)
    assert len([row for row in write_site(site, RECIPE, exclude_failed=False) if row.failure]) == 1


def scanned(site, number, *, directions):
    kind = {"Directions": directions, "BValue": 1000.0, "VoxelMm": [2.0, 2.0, 2.0]}
    Derivative(site, Visit(f"sub-{number:03d}", None), RECIPE).write(
        dict.fromkeys(MEASURES, np.ones((28, 28))),
        sources={},
        details={"Quality": NUMBERS, "ScanKind": kind},
    )


def test_visits_that_were_scanned_otherwise_are_named_on_page_and_table(site):
    for number in (5, 6, 7):
        scanned(site, number, directions=64)
    page = site / "seg-phantom28_quality.html"
    write_site(site, RECIPE, exclude_failed=False)
    assert "not all scanned alike" not in page.read_text()
    scanned(site, 7, directions=15)
    rows = write_site(site, RECIPE, exclude_failed=False)
    whole, few = (f"{n} directions, b 1000, 2 x 2 x 2 mm" for n in (64, 15))
    assert ways_scanned(rows) == ((whole, 2), (few, 1))
    assert "These visits were not all scanned alike." in page.read_text()
    assert f"<li>1 visit: {few}</li>" in page.read_text()
    with (site / "seg-phantom28_quality.tsv").open(encoding="utf-8") as file:
        table = {row["participant_id"]: row["scan"] for row in csv.DictReader(file, delimiter="\t")}
    assert (table["sub-005"], table["sub-007"], table["sub-008"]) == (whole, few, "n/a")
    # Who is left out mixes nothing.
    rate(site, RECIPE, Visit("sub-007", None), rating="fail", initials="AB")
    assert len(ways_scanned(write_site(site, RECIPE, exclude_failed=True))) == 1


def test_a_site_where_everybody_failed_has_a_page(tmp_path):
    keep_failure(tmp_path, RECIPE, "sub-001", Failure("sub-001", "DataError", "no b0"))
    (tmp_path / "sub-002_seg-phantom28_failure.json").write_text("{")
    rows = write_site(tmp_path, RECIPE, exclude_failed=False)
    assert [row.failure for row in rows] == [
        "DataError: no b0",
        "DataError: sub-002_seg-phantom28_failure.json cannot be read; prepare the visit again",
    ]


def test_a_site_without_prepared_visits_is_told_what_to_do(tmp_path):
    with pytest.raises(DataError, match="nobody is prepared for atlas phantom-28; run 'prepare …"):
        write_site(tmp_path, RECIPE, exclude_failed=False)


RULER = """<script>
const wide = [...document.querySelectorAll("th, td, p, figcaption, h1, h2, code")]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != "inline")
  .map(e => e.textContent.slice(0, 40));
const root = document.documentElement;
document.title = JSON.stringify({wide, wider: root.scrollWidth - root.clientWidth,
  broken: [...document.images].filter(i => !i.naturalWidth).length, images: document.images.length});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser_nothing_is_clipped_or_missing(page, tmp_path, width):
    path = tmp_path / "page.html"
    open_to_scripts = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    path.write_text(open_to_scripts.replace("</body>", f"{RULER}</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000",
        "--dump-dom",
        path.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.search(r"<title>(.*?)</title>", dom).group(1))
    assert found == {"wide": [], "wider": 0, "broken": 0, "images": 16}


@pytest.mark.axe
def test_a_screen_reader_and_a_keyboard_miss_nothing_of_a_visit_or_a_site(page, site, barriers_of):
    keep_failure(site, RECIPE, "sub-010_ses-2", Failure("sub-010_ses-2", "DataError", "no <b0>"))
    write_site(site, RECIPE, exclude_failed=True)
    assert barriers_of(page) == []
    assert barriers_of((site / "seg-phantom28_quality.html").read_text()) == []


def test_a_rater_who_says_fail_is_believed_and_one_who_says_pass_changes_no_limit(site):
    rate(
        site, RECIPE, Visit("sub-001", None), rating="fail", initials="ab", note="ghost in the\nfrontal lobe"
    )
    rate(site, RECIPE, Visit("sub-004", None), rating="pass", initials="AB")
    rate(site, RECIPE, Visit("sub-002", "ses-1"), rating="fail", initials="AB")
    rate(site, RECIPE, Visit("sub-002", "ses-1"), rating="pass", initials="AB")  # thought again
    rows = {row.visit.label: row for row in write_site(site, RECIPE, exclude_failed=True)}
    assert (rows["sub-001"].verdict, rows["sub-001"].excluded, rows["sub-001"].rated) == (
        "fail",
        True,
        "fail AB",
    )
    assert (rows["sub-004"].verdict, rows["sub-004"].excluded) == ("fail", True), (
        "a number's limit is the study's"
    )
    assert (rows["sub-002_ses-1"].excluded, rows["sub-002_ses-1"].rated) == (False, "pass AB")
    assert read_exclusions(site, RECIPE) == {Visit("sub-001", None), Visit("sub-004", None)}
    assert "fail AB" in (site / "seg-phantom28_quality.html").read_text()
    assert "ghost in the frontal lobe" in (site / "seg-phantom28_ratings.tsv").read_text()
    relaxed = {row.visit.label: row for row in write_site(site, RECIPE, exclude_failed=False)}
    assert not relaxed["sub-001"].excluded


def test_a_rating_of_a_connectome_that_was_made_again_does_not_count(site):
    rate(site, RECIPE, Visit("sub-001", None), rating="fail", initials="AB")
    Derivative(site, Visit("sub-001", None), RECIPE).write(
        dict.fromkeys(MEASURES, 2 * np.ones((28, 28))), sources={}, details={"Quality": NUMBERS}
    )
    rows = {row.visit.label: row for row in write_site(site, RECIPE, exclude_failed=True)}
    assert (rows["sub-001"].rated, rows["sub-001"].excluded) == ("", False)


@pytest.mark.parametrize("initials", ["", "A", "ABCDE", "A1", "../x"])
def test_who_has_no_initials_rates_nobody(site, initials):
    with pytest.raises(DataError, match="initials are two to four letters"):
        rate(site, RECIPE, Visit("sub-001", None), rating="fail", initials=initials)


def test_nobody_is_rated_who_is_not_prepared(site):
    with pytest.raises(DataError, match="sub-099: no connectome"):
        rate(site, RECIPE, Visit("sub-099", None), rating="fail", initials="AB")


@pytest.mark.parametrize("line", ["sub-001\tn/a\tmaybe\tAB\t2026-11-29\tx\tn/a", "sub-001\tn/a\tfail"])
def test_a_table_of_ratings_that_is_no_more_is_refused(site, line):
    rate(site, RECIPE, Visit("sub-001", None), rating="fail", initials="AB")
    path = site / "seg-phantom28_ratings.tsv"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(DataError, match="line 3: a rating is pass or fail, with the initials of who looked"):
        write_site(site, RECIPE, exclude_failed=True)


def test_each_visit_is_a_dot_among_the_others(site):
    page = (
        write_site(site, RECIPE, exclude_failed=False) and site / "seg-phantom28_quality.html"
    ).read_text()
    assert page.count("<svg") == len(NUMBERS)
    assert page.count("<circle") == 9 * len(NUMBERS)
    assert "<title>sub-004: 10.0</title>" in page


def test_dots_keep_their_order_and_limits_their_place():
    values = [("a", 10.0, "pass"), ("b", 20.0, "warn"), ("c", 40.0, "pass")]
    strip = lay_out(values, [RECIPE.quality.assigned_percent], shown=["10", "20", "40"])
    xs = {dot.label[0]: dot.x for dot in strip.dots}
    assert xs["a"] < xs["b"] < xs["c"]
    assert strip.median_x == xs["b"]
    limits = {kind: x for x, kind in strip.limits}
    assert xs["b"] == pytest.approx(limits["fail"])  # 20 of the recipe
    assert xs["b"] < limits["warn"] < xs["c"]  # 35
    assert WORDINGS["bad_volumes_percent"].shown(-1e-9) == "0.0"
    assert lay_out([], [], shown=[]) is None
    assert lay_out([("a", 5.0, "pass")] * 2, [], shown=["5", "5"]).median_x == pytest.approx(360)
