"""Tests of atlases."""

from dataclasses import replace

import numpy as np
import pytest

from esn_core.connectome.atlas import Atlas, Region, label_volume, load_atlas, parse_atlas
from esn_core.errors import ConfigError, DataError

HEADER = "index\tname\themisphere\tx_mm\ty_mm\tz_mm\tmodule\n"
LINES = HEADER + "1\tL_a\tL\t-30\t0\t10\tL_x\n2\tR_a\tR\t30\t0\t10\tR_x\n"


def test_the_phantom_atlas_has_fourteen_mirrored_pairs():
    atlas = load_atlas("phantom-28")
    by_name = {region.name: region for region in atlas.regions}
    left = [region for region in atlas.regions if region.hemisphere == "L"]
    assert len(atlas.regions) == 28
    assert len(left) == 14
    for region in left:
        twin = by_name["R" + region.name[1:]]
        assert (twin.x_mm, twin.y_mm, twin.z_mm) == (-region.x_mm, region.y_mm, region.z_mm)
        assert twin.module == "R" + region.module[1:]
        assert region.x_mm < 0


@pytest.mark.parametrize("name", ["phantom-28", "desikan-killiany-83", "aal-116"])
def test_modules_do_not_cross_the_midline(name):
    for region in load_atlas(name).regions:
        assert region.module[:2] == f"{region.hemisphere}_" or region.hemisphere == "M"
        assert (region.hemisphere == "M") == (not region.module.startswith(("L_", "R_")))


@pytest.mark.parametrize(
    ("name", "pairs", "midline"), [("desikan-killiany-83", 41, 1), ("aal-116", 54, 8), ("phantom-28", 14, 0)]
)
def test_an_anatomical_atlas_has_pairs_with_left_on_the_left(name, pairs, midline):
    atlas = load_atlas(name)
    left, right = ({r.stem: r for r in atlas.regions if r.hemisphere == side} for side in "LR")
    assert left.keys() == right.keys()
    assert len(left) == pairs
    assert len(atlas.regions) == 2 * pairs + midline
    for stem, region in left.items():
        assert region.x_mm < 0 < right[stem].x_mm
        assert region.module[1:] == right[stem].module[1:]
    # Colin27 and the ventral midline lean by a millimetre or two.
    assert all(abs(region.x_mm) < 2 for region in atlas.regions if region.hemisphere == "M")


def test_edges_are_the_pairs_above_the_diagonal_in_order():
    atlas = load_atlas("phantom-28")
    expected = [(a, b) for a in range(28) for b in range(a + 1, 28)]
    assert atlas.edges.tolist() == [list(pair) for pair in expected]


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", 9), ("name", "L_b"), ("hemisphere", "R"), ("x_mm", -31.0), ("module", "L_y")],
)
def test_the_digest_knows_every_field(field, value):
    atlas = parse_atlas("tiny", LINES)
    changed = Atlas("tiny", (replace(atlas.regions[0], **{field: value}), atlas.regions[1]))
    assert changed.sha256 != atlas.sha256


def test_the_digest_does_not_know_how_the_table_was_written():
    shuffled = (
        "module\tname\tindex\themisphere\tx_mm\ty_mm\tz_mm\n"
        "L_x\tL_a\t1\tL\t-30.0\t0\t10\nR_x\tR_a\t2\tR\t30\t0\t1e1\n"
    )
    assert parse_atlas("tiny", shuffled).sha256 == parse_atlas("tiny", LINES).sha256


def test_an_unknown_atlas_is_refused_with_the_known_ones():
    known = "aal-116, desikan-killiany-83, phantom-28"
    with pytest.raises(ConfigError, match=rf"unknown atlas 'aal'; there are: {known}"):
        load_atlas("aal")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (LINES.replace("\tmodule", "\tlobe"), "column 'module' is missing"),
        (LINES.replace("-30", "left"), "line 2: could not convert"),
        (LINES.replace("R_a", "L_a"), "repeats the region name 'L_a'"),
        (LINES.replace("\n2\t", "\n1\t"), "repeats the region index 1"),
        (LINES.replace("\n1\t", "\n0\t"), "index 0; a label is 1 or more"),
        (LINES.replace("\tL\t", "\tleft\t"), "hemisphere 'left', not 'L', 'R' or 'M'"),
        (LINES.replace("-30", "nan"), "centroid that is not finite"),
        (HEADER, "has 0 regions; 2 or more"),
    ],
)
def test_a_table_that_is_no_atlas_is_refused(table, message):
    with pytest.raises(DataError, match=message):
        parse_atlas("tiny", table)


def test_the_anatomical_atlases_have_label_volumes_and_the_phantom_has_none():
    assert label_volume("aal-116").name == "aal-116.nii.gz"
    assert label_volume("desikan-killiany-83").is_file()
    with pytest.raises(ConfigError, match="atlas 'phantom-28' has no label volume"):
        label_volume("phantom-28")


def test_centroids_keep_the_order_of_the_regions():
    regions = (Region(5, "a", "L", -1, 2, 3, "m"), Region(2, "b", "R", 4, 5, 6, "n"))
    assert np.array_equal(Atlas("two", regions).centroids_mm, [[-1, 2, 3], [4, 5, 6]])
