"""Tests of gradient tables."""

import codecs

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from esn_client.imaging.preprocessing.gradient_table import count_weighted, read_gradients
from esn_client.imaging.preprocessing.table_files import TableFiles
from esn_core.errors import DataError

RAS, LAS = np.diag([2.0, 2, 2, 1]), np.diag([-2.0, 2, 2, 1])


def directions(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read_files(folder, volumes, *, affine=LAS, order=2, shell=None, **how):
    files = TableFiles(folder / "s_dwi.bval", folder / "s_dwi.bvec", volumes, **how)
    return read_gradients([files], affine=affine, sh_order_max=order, shell_s_per_mm2=shell)


def read_shell(folder, b_values, vectors, *, volumes=None, transpose=False, **how):
    bval, bvec = folder / "s_dwi.bval", folder / "s_dwi.bvec"
    np.savetxt(bval, np.array(b_values)[None], fmt="%g")
    np.savetxt(bvec, vectors if transpose else vectors.T, fmt="%.6f")
    return read_files(folder, len(b_values) if volumes is None else volumes, **how)


def read(folder, b_values, vectors, **how):
    return read_shell(folder, b_values, vectors, **how).gradients


@pytest.fixture
def table():
    return [0.0] + [1000.0] * 12, np.vstack([np.zeros(3), directions(12)])


@pytest.mark.parametrize(("affine", "sign"), [(LAS, 1), (RAS, -1)])
def test_x_is_negated_where_the_determinant_is_positive(tmp_path, table, affine, sign):
    b, vectors = table
    read_back = read(tmp_path, b, vectors, affine=affine).directions
    # Six decimals were written.
    assert read_back == pytest.approx(vectors * [sign, 1, 1], abs=2e-6)


def test_vectors_in_columns_are_read_too(tmp_path, table):
    rows, columns = (read(tmp_path, *table, transpose=turned) for turned in (False, True))
    assert np.array_equal(rows.directions, columns.directions)


def test_a_b_value_of_five_counts_as_b0(tmp_path, table):
    b, vectors = table
    gradients = read(tmp_path, [5.0, *b[1:]], vectors)
    assert gradients.is_b0.tolist() == [True] + [False] * 12
    assert not gradients.directions[0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, v: ([1000.0, *b[1:]], np.vstack([v[1], v[1:]])), "no b0; one volume of b <= 50"),
        (lambda b, v: ([*b[:-1], 2000.0], v), "one shell is needed; found b near 1000, 2000"),
        (
            lambda b, v: (b, np.vstack([v[:-2], np.zeros((2, 3))])),
            "volume 11 has b = 1000 and a vector of length 0",
        ),
        (lambda b, v: (b, v * 0.5), "volume 1 has b = 1000 and a vector of length 0.5; 1 is needed"),
        (lambda b, v: ([-1.0, *b[1:]], v), "must not be negative; the least is -1"),
        (
            lambda b, v: (b[:-1], v[:-1]),
            "12 b-values, s_dwi.bvec has 12 vectors and the image has 13 volumes",
        ),
        (lambda b, v: (b, v[:-1]), "13 b-values, s_dwi.bvec has 12 vectors and the image has 13 volumes"),
        (lambda b, v: (b, v[:, :2]), "three rows of numbers are needed; found shape"),
        (
            lambda b, v: ([float("nan"), *b[1:]], v),
            "s_dwi.bval: volume 0, counted from 0, has nan; numbers must be finite",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, table, change, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, *change(*table), volumes=13)


def test_directions_that_repeat_do_not_count(tmp_path):
    vectors = np.vstack([np.zeros(3), directions(10), -directions(10)])
    with pytest.raises(DataError, match="10 distinct directions; order 4 needs 15 or more"):
        read(tmp_path, [0.0] + [1000.0] * 20, vectors, order=4)


def test_words_are_no_gradients(tmp_path, table):
    read(tmp_path, *table)
    (tmp_path / "s_dwi.bval").write_text("0 1000 many\n")
    with pytest.raises(DataError, match=r"s_dwi.bval: not a table of numbers"):
        read_files(tmp_path, 13)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1e-3, "ms/um2"), (1.0, "s/mm2"), (1e6, "s/m2")], ids=["small", "usual", "si"]
)
def test_the_unit_of_b_values_is_recognised(tmp_path, table, factor, unit):
    b, vectors = table
    shell = read_shell(tmp_path, np.array(b) * factor, vectors)
    assert shell.unit == unit
    # The file holds six digits.
    assert shell.gradients.b_values_s_per_mm2 == pytest.approx(b, rel=1e-5)
    assert shell.b_value_s_per_mm2 == pytest.approx(1000, rel=1e-5)


@pytest.mark.parametrize("factor", [0.05, 1e3])
def test_b_values_in_no_unit_are_refused(tmp_path, table, factor):
    b, vectors = table
    with pytest.raises(
        DataError, match=r"the largest b-value is .*; a scan has one of 0\.2 to 20 ms/um2; 100 to"
    ):
        read(tmp_path, np.array(b) * factor, vectors)


def two_shells():
    """Two shells and three b0s, one of them in the midst, b-values spread as scanners spread them."""
    b = [0.0, 0.0, *([995.0, 1005.0, 2010.0, 1990.0] * 8), 5.0, *([1000.0, 2000.0] * 4)]
    vectors = directions(len(b), seed=4)
    vectors[np.array(b) < 50] = 0
    return b, vectors


@pytest.mark.parametrize(("wanted", "other"), [(1000, 2000), (2000, 1000), (1950, 1000)])
def test_the_protocol_chooses_the_shell_and_b0s_are_kept(tmp_path, wanted, other):
    b, vectors = two_shells()
    shell = read_shell(tmp_path, b, vectors, shell=wanted)
    keep = [k for k in range(len(b)) if b[k] < 50 or abs(b[k] - wanted) < 150]
    assert shell.kept.tolist() == keep
    assert shell.gradients.b_values_s_per_mm2.tolist() == [b[k] for k in keep]
    assert shell.gradients.directions == pytest.approx(vectors[keep], abs=2e-6)
    assert shell.gradients.is_b0.sum() == 3
    assert shell.dropped_s_per_mm2 == pytest.approx([other], rel=0.01)


def test_a_shell_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(
        DataError, match=r"b = 3000 s/mm2 \(within 10%\) is asked for; found b near 1000, 2000"
    ):
        read(tmp_path, *two_shells(), shell=3000)


def test_a_grid_of_b_values_has_no_shells(tmp_path):
    b = [0.0, *np.linspace(500, 2000, 40)]
    with pytest.raises(DataError, match=r"no shells; b-values from 500 to 2000 s/mm2 run into each other"):
        read(tmp_path, b, np.vstack([np.zeros(3), directions(40)]))


def test_directions_in_a_plane_are_refused(tmp_path):
    angle = np.linspace(0, np.pi, 20, endpoint=False)
    flat = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(20)])
    with pytest.raises(DataError, match="all directions lie near one plane"):
        read(tmp_path, [0.0] + [1000.0] * 20, np.vstack([np.zeros(3), flat]))


@pytest.mark.parametrize(
    ("b", "weighted"),
    [
        ([0, 0, 5, 5], 0),
        ([0.0], 0),
        ([0, *[1000] * 7], 7),
        ([0, *[1.0] * 7], 7),
        ([0, *[1e9] * 7], 7),
        ([60, *[1000] * 7], 7),
        ([0, 60, *[1000] * 7], 8),
    ],
)
def test_weighted_volumes_are_counted_in_any_unit(b, weighted):
    assert count_weighted(np.array(b, dtype=float)) == weighted


def test_files_that_were_exchanged_are_refused(tmp_path, table):
    read(tmp_path, *table)
    exchanged = TableFiles(tmp_path / "s_dwi.bvec", tmp_path / "s_dwi.bval", 13)
    with pytest.raises(DataError, match="three rows of numbers are needed; found shape"):
        read_gradients([exchanged], affine=LAS, sh_order_max=2)


OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_rotvec([0.1, -0.2, 0.15]).as_matrix() @ np.diag([-2.0, -2, 2])
"""LPS, as QSIPrep stores; turned, as no image of QSIPrep's is."""


def scanner_table(folder, b, vectors, affine):
    """Write MRtrix's table of directions along an image's axes."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.savetxt(folder / "s_dwi.b", np.column_stack([vectors @ axes.T, b]), fmt="%.7f")
    return folder / "s_dwi.b"


@pytest.mark.parametrize("affine", [LAS, RAS, OBLIQUE])
@pytest.mark.parametrize("flipped", [True, False])
def test_the_table_in_scanner_coordinates_leaves_nothing_open(tmp_path, table, affine, flipped):
    """Whatever rule its pipeline's .bvec follows, the directions are those of the .b."""
    b, vectors = table
    file_rows = vectors * [-1 if flipped and np.linalg.det(affine) > 0 else 1, 1, 1]
    table_b = scanner_table(tmp_path, b, vectors, affine)
    shell = read_shell(tmp_path, b, file_rows, affine=affine, scanner=table_b)
    assert shell.gradients.directions == pytest.approx(vectors, abs=2e-6)
    assert shell.conventions == ("scanner",)


def test_two_tables_of_other_directions_are_refused(tmp_path, table):
    b, vectors = table
    table_b = scanner_table(tmp_path, b, directions(13, seed=5), RAS)
    with pytest.raises(DataError, match=r"s_dwi\.b and s_dwi\.bvec name other directions, \d+ degrees apart"):
        read(tmp_path, b, vectors, affine=RAS, scanner=table_b)
    np.savetxt(table_b, np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"s_dwi\.b: 13 rows of x y z b are needed; found shape \(4, 4\)"):
        read(tmp_path, b, vectors, affine=RAS, scanner=table_b)


def test_vectors_along_the_images_axes_are_not_flipped(tmp_path, table):
    b, vectors = table
    for affine in (LAS, RAS, OBLIQUE):
        found = read(tmp_path, b, vectors, affine=affine, convention="image").directions
        assert found == pytest.approx(vectors, abs=2e-6)


def test_a_vector_of_nan_at_a_b0_is_none(tmp_path, table):
    b, vectors = table
    vectors[0] = np.nan
    found = read(tmp_path, b, vectors)
    assert not found.directions[0].any()
    assert found.directions[1:] == pytest.approx(vectors[1:], abs=2e-6)
    vectors[3:5] = np.nan
    with pytest.raises(DataError, match="volume 3 has b = 1000 and a vector of length 0; 1 is needed"):
        read(tmp_path, b, vectors)


@pytest.mark.parametrize("nothing", [0.0, np.nan, 1e-7])
def test_a_mean_over_the_directions_is_left_out_and_named(tmp_path, table, nothing):
    """Philips' scanners add one to each series."""
    b, vectors = [*table[0], 1000.0], np.vstack([table[1], np.full((1, 3), nothing)])
    shell = read_shell(tmp_path, b, vectors)
    assert shell.traces == (13,)
    assert shell.kept.tolist() == list(range(13))


def test_each_run_may_bring_a_mean_of_its_own(tmp_path, table):
    b, vectors = [*table[0], 1000.0], np.vstack([table[1], np.zeros(3)])
    read_shell(tmp_path, b, vectors)
    files = TableFiles(tmp_path / "s_dwi.bval", tmp_path / "s_dwi.bvec", 14)
    shell = read_gradients([files, files], affine=LAS, sh_order_max=2)
    assert shell.traces == (13, 27)
    assert len(shell.kept) == 26


@pytest.mark.parametrize("low", [55.0, 60.0, 62.0])
def test_a_low_b_value_counts_as_b0_where_nothing_lower_is_there(tmp_path, table, low):
    b, vectors = table
    vectors[0] = directions(1)
    gradients = read(tmp_path, [low, *b[1:]], vectors)
    assert gradients.is_b0.tolist() == [True] + [False] * 12
    assert gradients.b_values_s_per_mm2[0] == low
    assert not gradients.directions[0].any()
    # Beside a true b0 it is a shell of its own, and left out.
    shell = read_shell(tmp_path, [0.0, low, *b[1:]], np.vstack([np.zeros(3), vectors]), shell=1000)
    assert shell.kept.tolist() == [0, *range(2, 14)]
    with pytest.raises(DataError, match="no b0"):
        read(tmp_path, [80.0, *b[1:]], vectors)


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b" ", b","),
        lambda text: text.replace(b" ", b", "),
        lambda text: text.replace(b" ", b";"),
        lambda text: text.replace(b" ", b"\t").replace(b"\n", b"\r\n"),
        lambda text: codecs.BOM_UTF16_LE + text.decode().encode("utf-16-le"),
        lambda text: text + b"\n \n",
    ],
)
def test_tables_are_read_however_a_spreadsheet_wrote_them(tmp_path, table, spell):
    plain = read(tmp_path, *table)
    for name in ("s_dwi.bval", "s_dwi.bvec"):
        (tmp_path / name).write_bytes(spell((tmp_path / name).read_bytes()))
    again = read_files(tmp_path, 13).gradients
    assert np.array_equal(again.b_values_s_per_mm2, plain.b_values_s_per_mm2)
    assert np.array_equal(again.directions, plain.directions)


def test_runs_in_two_units_are_refused(tmp_path, table):
    """In s/mm2, the second run's b-values of 1 would all be b0s."""
    b, vectors = table
    files = []
    for name, factor in (("one", 1.0), ("two", 1e-3)):
        folder = tmp_path / name
        folder.mkdir()
        read(folder, np.array(b) * factor, vectors)
        files.append(TableFiles(folder / "s_dwi.bval", folder / "s_dwi.bvec", 13))
    with pytest.raises(DataError, match=r"b-values of up to 1, in ms/um2, beside a run's in s/mm2; one unit"):
        read_gradients(files, affine=LAS, sh_order_max=2)


def test_a_run_of_b0s_beside_any_unit_has_none_of_its_own(tmp_path, table):
    b, vectors = table
    read(tmp_path, np.array(b) * 1e-3, vectors)
    (tmp_path / "b0.bval").write_text("0 0")
    (tmp_path / "b0.bvec").write_text("0 0\n0 0\n0 0")
    files = [
        TableFiles(tmp_path / "s_dwi.bval", tmp_path / "s_dwi.bvec", 13),
        TableFiles(tmp_path / "b0.bval", tmp_path / "b0.bvec", 2),
    ]
    assert read_gradients(files, affine=LAS, sh_order_max=2).unit == "ms/um2"


@pytest.mark.parametrize("name", ["s_dwi.bval", "s_dwi.bvec"])
def test_a_decimal_comma_is_named_where_it_doubles_a_table(tmp_path, table, name):
    read(tmp_path, *table)
    rows = np.loadtxt(tmp_path / name, ndmin=2)
    spelt = "\n".join("\t".join(f"{number:.3f}".replace(".", ",") for number in row) for row in rows)
    (tmp_path / name).write_text(spelt)
    with pytest.raises(DataError, match=f"26 .* if {name} has decimal commas, write points"):
        read_files(tmp_path, 13)


def test_a_b_value_that_is_no_number_is_named_with_its_place(tmp_path, table):
    b, vectors = table
    with pytest.raises(DataError, match=r"s_dwi\.bval: volume 3, counted from 0, has nan; numbers must be"):
        read(tmp_path, [*b[:3], np.nan, *b[4:]], vectors)


def test_a_ragged_table_is_refused_without_advice_on_our_code(tmp_path, table):
    read(tmp_path, *table)
    (tmp_path / "s_dwi.bval").write_text("0 1000\n0\n")
    with pytest.raises(DataError, match=r"the number of columns changed from 2 to 1 at row 2$"):
        read_files(tmp_path, 13)
