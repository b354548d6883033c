"""Connectomes made elsewhere: put into the atlas's order, with their provenance, or refused by name."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import tomli_w

from esn_client.cli import main as cli
from esn_client.imaging.bids.derivatives import Derivative, load_connectome
from esn_client.imaging.bids.foreign import read_matrix, read_nodes
from esn_client.imaging.bids.visits import Visit
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import edge_strengths
from esn_core.errors import DataError
from esn_core.protocol.protocol import load_protocol

HOW = "MRtrix3 3.0.4: iFOD2, 10 M streamlines, SIFT2, labelconvert to phantom-28"
NAMES = load_atlas("phantom-28").names
RNG = np.random.default_rng(4)
WHOLE = np.triu(RNG.gamma(2.0, 10.0, (28, 28)))
WHOLE = WHOLE + np.triu(WHOLE, 1).T
ORDER = RNG.permutation(28)


@pytest.fixture
def protocol(tmp_path, protocol_content):
    content = {**protocol_content, "imaging": {**protocol_content["imaging"], "made_elsewhere": HOW}}
    path = tmp_path / "protocol.toml"
    path.write_text(tomli_w.dumps(content))
    return path


@pytest.fixture
def esn_client(run_command):
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def fails(command_fails):
    return partial(command_fails, "esn-client", cli.main)


SHUFFLED = WHOLE[np.ix_(ORDER, ORDER)]


def mrtrix(folder, *, matrix=SHUFFLED, upper=True, names=None):
    """What tck2connectome and labelconvert write: the upper triangle, and a table of colours."""
    np.savetxt(folder / "c.csv", np.triu(matrix) if upper else matrix, delimiter=",", fmt="%.17g")
    names = names or [NAMES[i] for i in ORDER]
    lines = ["# a table of MRtrix", "0  Unknown ??? 0 0 0 0"]
    lines += [f"{i}  {name} {name[:4]} {i} {i} {i} 255" for i, name in enumerate(names, start=1)]
    (folder / "nodes.txt").write_text("\n".join(lines) + "\n")
    return folder / "c.csv", folder / "nodes.txt"


def words(folder, protocol, matrix, nodes=None):
    more = ("--nodes", nodes) if nodes else ()
    where = ("--protocol", protocol, "--participant-label", "012")
    return ("import", folder / "derivatives", matrix, *where, *more)


def test_a_matrix_of_mrtrix_is_read_in_the_order_of_the_atlas(esn_client, protocol, tmp_path):
    status, out, err = esn_client(*words(tmp_path, protocol, *mrtrix(tmp_path)))
    assert status == 0, err
    recipe = load_protocol(protocol).imaging
    found = load_connectome(tmp_path / "derivatives", "sub-012", recipe)
    np.testing.assert_allclose(found.counts, WHOLE, rtol=1e-15)
    assert np.isfinite(edge_strengths(found)).all()
    record = Derivative(tmp_path / "derivatives", Visit("sub-012", None), recipe).read_record()
    assert record["Origin"] == f"made elsewhere: {HOW}"
    assert set(record["Sources"]) == {"c.csv", "nodes.txt"}
    assert out.strip().endswith("_relmat.dense.tsv")


def test_what_was_taken_in_is_a_relation_matrix_that_another_site_can_take_in(esn_client, protocol, tmp_path):
    assert esn_client(*words(tmp_path, protocol, *mrtrix(tmp_path)))[0] == 0
    (tmp_path / "other").mkdir()
    written = next((tmp_path / "derivatives").rglob("*_relmat.dense.tsv"))
    assert esn_client(*words(tmp_path / "other", protocol, written))[0] == 0
    again = load_connectome(tmp_path / "other" / "derivatives", "sub-012", load_protocol(protocol).imaging)
    np.testing.assert_array_equal(
        again.counts,
        load_connectome(tmp_path / "derivatives", "sub-012", load_protocol(protocol).imaging).counts,
    )


def test_a_recipe_made_elsewhere_is_another_one_and_an_older_protocol_keeps_its_hash(
    protocol, protocol_content
):
    from esn_core.protocol.imaging_recipe import ImagingRecipe

    ours = ImagingRecipe.model_validate(protocol_content["imaging"])
    assert load_protocol(protocol).imaging.sha256 != ours.sha256
    assert "made_elsewhere" not in json.dumps(ours.model_dump(exclude_none=True))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"matrix": -WHOLE, "upper": False}, "must be finite and not negative"),
        ({"matrix": WHOLE + np.tril(WHOLE), "upper": False}, "neither symmetric nor an upper triangle"),
        ({"matrix": WHOLE[:27], "upper": False}, "27 rows and 28 columns"),
        ({"matrix": WHOLE[:27, :27]}, "27 rows, and 28 regions"),
        ({"names": [*NAMES[:27], "Elsewhere"]}, f"1 are missing ({NAMES[27]}); 1 are none of it (Elsewhere)"),
        ({"names": [*NAMES[:27], NAMES[0]]}, "a name stands twice"),
    ],
)
def test_what_is_no_connectome_of_the_atlas_is_refused_by_name(fails, protocol, tmp_path, spoil, said):
    fails(11, said, *words(tmp_path, protocol, *mrtrix(tmp_path, **spoil)))
    assert not (tmp_path / "derivatives").exists()


def test_studies_of_either_kind_take_nothing_of_the_other(fails, protocol, protocol_content, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(tomli_w.dumps(protocol_content))
    fails(10, "is one of this software", *words(tmp_path, own, *mrtrix(tmp_path)))
    fails(
        10, "are made elsewhere", "prepare", tmp_path, tmp_path / "out", "participant", "--protocol", protocol
    )


def test_a_connectome_that_is_there_stays(esn_client, fails, protocol, tmp_path):
    command = words(tmp_path, protocol, *mrtrix(tmp_path))
    assert esn_client(*command)[0] == 0
    fails(11, "has a connectome already", *command)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 rows and 0 columns"),
        (b"a,b\nc,d\n", "is no matrix of numbers parted by commas, tabs or spaces"),
        (b"one,two\n1,2\n2,1\n", "without a heading"),
        (b"1 2\n3\n", "is no matrix of numbers"),
        (b"1;2\n2;1\n", "parted by commas, tabs or spaces"),
        (b"1\t2\n2\t1\n".decode().encode("utf-16"), "is no matrix of numbers"),
        (b"PK\x03\x04\xff\x00", "is no matrix of numbers"),
        (b"1,nan\nnan,1\n", "finite and not negative"),
        (b"1,inf\ninf,1\n", "finite and not negative"),
        (b"3,0\n0,0\n", "joins no two regions"),
        (b"5\n", "joins no two regions"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path, content, said):
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_matrix(tmp_path / "c.csv")


def test_a_directory_and_a_link_that_leads_nowhere_are_refused(tmp_path):
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    for path in (tmp_path, tmp_path / "gone.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            read_matrix(path)


def test_the_mark_that_spreadsheets_begin_a_file_with_is_no_part_of_it(tmp_path):
    matrix, nodes = tmp_path / "c.csv", tmp_path / "nodes.txt"
    matrix.write_text("\ufeff1,2\n2,1\n", encoding="utf-8")
    nodes.write_text("\ufeff1\ta\n2\tb\n", encoding="utf-8")
    assert read_matrix(matrix).tolist() == [[1.0, 2.0], [2.0, 1.0]]
    assert read_nodes(nodes) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nodes.txt", "² left\n".encode(), "do not number the regions"),
        ("nodes.txt", b"9" * 5000 + b" left\n", "do not number the regions"),
        ("nodes.txt", b"\xff\xfe1\x00", "is no text"),
        ("nodes.json", b"[" * 100_000, "is no sidecar"),
        ("nodes.json", b'{"Nodes": 3}', "is no sidecar"),
    ],
)
def test_what_names_no_regions_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_nodes(tmp_path / name)


@pytest.mark.parametrize("label", ["012/../../elsewhere", "..", "", "01 2", "sub-sub-012"])
def test_a_label_that_is_none_writes_nothing_anywhere(fails, protocol, tmp_path, label):
    command = list(words(tmp_path / "deep" / "er", protocol, *mrtrix(tmp_path)))
    before = set(tmp_path.rglob("*"))
    command[command.index("012")] = label
    fails(10, "is no label of a participant", *command)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "spoiled",
    [
        {"MatricesSha256": []},
        {"MatricesSha256": {"count": 5}},
        {"Sources": ["c.csv"]},
        {"Sources": {"sub-012_dwi.nii.gz": ["0"]}},
        {"Warnings": [{}]},
        {"Quality": {"snr_b0": "high"}},
        {"RegionsWithoutTissue": 5},
    ],
)
def test_a_record_whose_parts_have_other_kinds_is_none(protocol, tmp_path, spoiled):
    derivative = Derivative(tmp_path, Visit("sub-012", None), load_protocol(protocol).imaging)
    derivative.write({"count": WHOLE}, sources={"c.csv": "0"}, details={"Warnings": ["w"]})
    assert derivative.read_record()["Warnings"] == ["w"]
    said = json.loads(derivative.record.read_text())
    derivative.record.write_text(json.dumps(said | spoiled))
    for read in (derivative.read_record, derivative.read_connectome):
        with pytest.raises(DataError, match="is not a record of a connectome"):
            read()


@pytest.mark.parametrize("content", [b"", b"1;2\n2;1\n", b"1\t2\n3\n", b"\xff\xfe1\x00", b"5\n"])
def test_a_matrix_that_is_none_is_refused_whatever_its_record_says(protocol, tmp_path, content):
    derivative = Derivative(tmp_path, Visit("sub-012", None), load_protocol(protocol).imaging)
    derivative.write({"count": WHOLE}, sources={}, details={})
    derivative.matrix("count").write_bytes(content)
    said = json.loads(derivative.record.read_text())
    said["MatricesSha256"]["count"] = hashlib.sha256(content).hexdigest()
    derivative.record.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"is no matrix|must have shape"):
        derivative.read_connectome()


def test_the_review_says_by_what_connectomes_are_made(esn_client, protocol):
    status, out, _ = esn_client("review", protocol)
    assert status == 0
    assert f"Connectomes are made elsewhere, alike at every site:\n  {HOW}" in out
