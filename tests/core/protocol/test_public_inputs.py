"""Public inputs are named by hash and travel with the protocol; hostile ones are refused before use."""

import gzip
import hashlib
import io
import random
import struct
import tracemalloc
import zipfile

import pytest
import tomli_w
from pydantic import ValidationError

from esn_core.connectome.atlas import SHIPPED, load_atlas
from esn_core.connectome.own_atlas import check_volume, parse_own_atlas
from esn_core.errors import ConfigError, DataError, ProtocolError
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.public_inputs import read_own_inputs, shipped_input
from esn_core.protocol.study_package import INPUTS, file_of, packed, read_study, write_inputs

PHANTOM = (SHIPPED / "phantom-28.tsv").read_text(encoding="utf-8")
TABLE = "\n".join(PHANTOM.splitlines()[:13]).encode() + b"\n"
WORDS = {"origin": "drawn by hand in Bonn", "licence": "CC0-1.0", "people": 1}


def digest(content):
    return hashlib.sha256(content).hexdigest()


def volume(*, shape=(4, 4, 4), magic=b"n+1\0", rank=3, fill=0):
    """A NIfTI-1 file, without nibabel: what a hostile one says of itself is chosen freely."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, rank, *shape, *[1] * (7 - len(shape)))
    header[344:348] = magic
    return gzip.compress(bytes(header) + bytes(fill))


def own_atlas(name="bonn-12", table=TABLE, **words):
    return {"kind": "atlas", "name": name, "files": {f"{name}.tsv": digest(table)}, **WORDS, **words}


@pytest.fixture
def content(protocol_content):
    """A protocol of an atlas of its own, with a list of candidates, as plain data."""
    names = parse_own_atlas("bonn-12", TABLE).names
    return {
        **protocol_content,
        "inputs": [own_atlas()],
        "imaging": {**protocol_content["imaging"], "atlas": "bonn-12"},
        "severity_network": {"candidates": "list", "pairs": [names[:2], names[2:4]]},
    }


def text_of(content):
    return tomli_w.dumps(content).encode()


@pytest.fixture
def package(content, tmp_path):
    """The study package."""
    path = tmp_path / "study.zip"
    path.write_bytes(packed(text_of(content), {"bonn-12.tsv": TABLE}))
    return path


def test_a_study_reads_the_same_from_its_package_and_unpacked_by_a_standard_tool(package, tmp_path):
    found = load_protocol(package)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "opened")
    opened = load_protocol(tmp_path / "opened" / "protocol.toml")
    assert opened.sha256 == found.sha256
    assert opened == found
    assert opened.atlas.names == found.atlas.names == load_atlas("phantom-28").names[:12]
    assert file_of(read_study(package)[0], found.own_files) == (".zip", package.read_bytes())
    copied = found.model_copy(update={"study": "another"})
    assert copied.atlas == found.atlas
    assert dict(copied.own_files) == {"bonn-12.tsv": TABLE}


def test_another_table_of_the_same_name_is_another_study_and_another_recipe(content):
    other = TABLE.replace(b"L_frontal", b"L_front")
    found = Protocol.model_validate(content, context={"bonn-12.tsv": TABLE})
    changed = Protocol.model_validate(
        {**content, "inputs": [own_atlas(table=other)]}, context={"bonn-12.tsv": other}
    )
    assert changed.sha256 != found.sha256
    assert changed.imaging.sha256 != found.imaging.sha256
    assert (
        found.imaging.sha256
        != Protocol.model_validate(content, context={"bonn-12.tsv": TABLE})
        .model_copy(update={"imaging": changed.imaging})
        .imaging.sha256
    )


def test_an_input_that_differs_by_a_byte_is_named_and_refused(content, tmp_path):
    altered = TABLE.replace(b"-15.8", b"-15.9")
    path = tmp_path / "study.zip"
    path.write_bytes(packed(text_of(content), {"bonn-12.tsv": altered}))
    with pytest.raises(
        ProtocolError, match=r"bonn-12\.tsv is not the file that was signed: it has the SHA-256"
    ):
        load_protocol(path)


def test_a_protocol_without_its_inputs_says_which_are_missing(content, tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_bytes(text_of(content))
    with pytest.raises(ProtocolError, match=r"the file bonn-12\.tsv of the atlas bonn-12 is not here; read"):
        load_protocol(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": [own_atlas(), own_atlas()]}, "names the atlas bonn-12 twice"),
        ({"inputs": [own_atlas(), own_atlas("bonn-13")]}, "nothing uses the atlas bonn-13"),
        ({"inputs": [own_atlas("aal-116")]}, "atlas aal-116 ships with this version, and aal-116.nii.gz has"),
        (
            {"inputs": [{**own_atlas(), "files": {"../bonn-12.tsv": "0" * 64}}]},
            "has no file '../bonn-12.tsv'",
        ),
        ({"inputs": [{**own_atlas(), "files": {"bonn-12.nii.gz": "0" * 64}}]}, "needs the file bonn-12.tsv"),
        ({"inputs": [own_atlas(origin="a\x1b[2Jb")]}, "String should match pattern"),
        ({"inputs": [own_atlas(people=-1)]}, "greater than or equal to 0"),
        ({"model": {"name": "compact", "initial_weights": "mine"}}, r"no weights mine ship .*\(compact-3\)"),
        ({"format": 1, "cohort": None}, "inputs is a setting of format 2"),
        ({"inputs": [{**own_atlas("norms"), "kind": "template"}, own_atlas()]}, "has no file 'norms.tsv'"),
    ],
)
def test_what_inputs_must_not_say_is_refused(content, changes, words):
    given = {"bonn-12.tsv": TABLE, "bonn-13.tsv": TABLE}
    named = {name for one in changes.get("inputs", [own_atlas()]) for name in one["files"]}
    with pytest.raises(ValidationError, match=words):
        Protocol.model_validate(
            {**content, **changes}, context={name: given[name] for name in named & given.keys()}
        )


def test_a_file_that_the_protocol_does_not_name_is_refused(content):
    with pytest.raises(ValidationError, match=r"the file 'run\.py' is none that the protocol names"):
        Protocol.model_validate(content, context={"bonn-12.tsv": TABLE, "run.py": b"import os"})


def test_what_ships_is_compared_when_it_is_named_by_hash(protocol_content):
    known = shipped_input("weights", "compact-3").model_dump()
    assert Protocol.model_validate({**protocol_content, "inputs": [known]}).inputs[0].ships
    other = {**known, "files": {"compact-3.safetensors": "0" * 64}}
    with pytest.raises(
        ValidationError, match=r"ships with this version, and compact-3.safetensors has .* an update"
    ):
        Protocol.model_validate({**protocol_content, "inputs": [other]})


def test_an_own_template_is_used_and_for_real_children_people_stand_behind_it(
    content, protocol_content, patients_content
):
    table = (SHIPPED / "phantom-28.simulated-template.tsv").read_bytes()
    one = {
        **WORDS,
        "kind": "template",
        "name": "norms",
        "files": {"norms.template.tsv": digest(table)},
        "people": 0,
    }
    asked = {**protocol_content, "inputs": [one]}
    found = Protocol.model_validate(asked, context={"norms.template.tsv": table})
    assert found.template_sha256 == digest(table)
    assert [i.title for i in found.public_inputs] == [
        "atlas phantom-28",
        "weights compact-3",
        "template norms",
    ]
    real = {**patients_content, "inputs": [one]}
    with pytest.raises(ValidationError, match="nothing uses the template norms"):
        Protocol.model_validate(real, context={"norms.template.tsv": table})
    rules = {**patients_content["cohort"], "harmonisation": "public-template"}
    with pytest.raises(ValidationError, match="nobody stands behind the template"):
        Protocol.model_validate({**real, "cohort": rules}, context={"norms.template.tsv": table})


def test_no_own_template_chooses_whom_an_exact_sum_of_real_children_is_about(patients_content):
    """Where slopes on age are a million times the spread, an edge's score is a line between two ages."""
    table = (SHIPPED / "desikan-killiany-83.simulated-template.tsv").read_bytes()
    name = "norms.template.tsv"
    one = {**WORDS, "kind": "template", "name": "norms", "files": {name: digest(table)}}
    network = {"t_threshold": 3.0, "null_draws": 20, "bootstrap_draws": 0, "minimum_children": 30}
    cohort = {**patients_content["cohort"], "harmonisation": "public-template"}
    asked = {**patients_content, "inputs": [one], "cohort": cohort}
    privacy = {**asked["privacy"], "trust": "secure-sum", "colluding_sites": 1}
    assert Protocol.model_validate({**asked, "privacy": privacy}, context={name: table}).template is not None
    asked = {**asked, "privacy": privacy, "analyses": {"network": network, "exact": ["network"]}}
    with pytest.raises(ValidationError, match="could choose which child they are about") as refusal:
        Protocol.model_validate(asked, context={name: table})
    assert refusal.value.error_count() == 1
    assert "exact sums of network, network-null" in str(refusal.value)


# --- hostile packages ---------------------------------------------------------------------------------


def zip_of(*entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, part in entries:
            archive.writestr(name, part)
    return buffer.getvalue()


def test_zips_that_are_not_ours_are_refused_and_unpack_nothing(content, tmp_path):
    text, path = text_of(content), tmp_path / "study.zip"
    bomb = ("inputs/bonn-12.tsv", bytes(3 * 10**8))
    for made, words in (
        (zip_of(("protocol.toml", text), bomb, compression=zipfile.ZIP_DEFLATED), "is no study package"),
        (zip_of(("inputs/bonn-12.tsv", TABLE)), "is no study package"),
        (zip_of(("protocol.toml", text), ("../evil.tsv", TABLE)), "a byte of it was changed"),
        (packed(text, {"../../evil.tsv": TABLE, "bonn-12.tsv": TABLE}), "is none that the protocol names"),
        (packed(text, {"bonn-12.tsv": TABLE}) + b"more", "a byte of it was changed"),
        (b"PK\x03\x04" + bytes(100), "is no study package"),
        (zip_of(("protocol.toml", text), *((f"{i}", b"") for i in range(1001))), "is no study package"),
        (packed(text + b"#" * 2**23, {"bonn-12.tsv": TABLE}), "its protocol has .* 8 MiB at most"),
        (text + b"#" * 2**23, "its protocol has .* 8 MiB at most"),
    ):
        path.write_bytes(made)
        tracemalloc.start()
        with pytest.raises(ProtocolError, match=words):
            load_protocol(path)
        assert tracemalloc.get_traced_memory()[1] < 10**8  # as much as a package may have is read at most
        tracemalloc.stop()
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(zip_of(("protocol.toml", text), ("protocol.toml", text)))
    with pytest.raises(ProtocolError, match="is no study package"):
        load_protocol(path)
    assert [p.name for p in tmp_path.iterdir()] == ["study.zip"]


def test_no_byte_of_a_package_can_be_changed(package):
    honest, rng = package.read_bytes(), random.Random(1)
    for _ in range(300):
        at, bit = rng.randrange(len(honest)), 1 << rng.randrange(8)
        package.write_bytes(honest[:at] + bytes([honest[at] ^ bit]) + honest[at + 1 :])
        with pytest.raises(ProtocolError):
            load_protocol(package)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: gzip.compress(bytes(2**27)), "unpacks to more than 64 MiB"),
        (lambda: volume(shape=(30000, 30000, 30000)), "has more than 16 million voxels"),
        (lambda: volume(shape=(4, 4, 4, 9), rank=4), "a 3-D label volume is needed"),
        (lambda: volume(shape=(4, -4, 4)), "a 3-D label volume is needed"),
        (lambda: volume(magic=b"ni1\0"), "is not a NIfTI-1 image"),
        (lambda: volume()[:-12], "is not a whole gzip file"),
        (lambda: b"no image", "is not a whole gzip file"),
    ],
)
def test_label_volumes_that_no_atlas_has_are_refused_before_they_are_unpacked(made, words):
    check_volume("own.nii.gz", volume(fill=64))
    with pytest.raises(DataError, match=words):
        check_volume("own.nii.gz", made())


ROWS = TABLE.decode().splitlines()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("\n".join([ROWS[0], *(f"{i}\tr{i}\tL\t1\t1\t1\tm" for i in range(1, 402))]), "has 401 regions; 400"),
        (TABLE.decode().replace("1\tL_sup", "70000\tL_sup"), "an index is 65535 at most, not 70000"),
        (TABLE.decode().replace("L_superior_frontal", "\x1b[2J"), "printable characters"),
        (TABLE.decode().replace("L_superior_frontal", "x" * 101), "printable characters"),
        (TABLE.decode().replace("-15.8", "1e9"), "lies outside of any head"),
        (TABLE.decode().replace("-15.8", "nan"), "not finite"),
        ("x" * 300_000, "256 KiB at most"),
        (ROWS[0] + "\n1\t" + "x" * 200_000, "is no table: field larger"),
    ],
)
def test_tables_that_no_atlas_has_are_refused(table, words):
    with pytest.raises(DataError, match=words):
        parse_own_atlas("bonn-12", table.encode())


# --- for a draft --------------------------------------------------------------------------------------


def test_a_description_and_the_files_beside_it_make_inputs(tmp_path):
    path = tmp_path / "inputs.toml"
    path.write_text(tomli_w.dumps({"inputs": [{"kind": "atlas", "name": "bonn-12", **WORDS}]}))
    with pytest.raises(ConfigError, match=r"bonn-12\.tsv, a file of the atlas, is not beside it"):
        read_own_inputs(path)
    (tmp_path / "bonn-12.tsv").write_bytes(TABLE)
    (found,), given = read_own_inputs(path)
    assert (found.files, given) == ({"bonn-12.tsv": digest(TABLE)}, {"bonn-12.tsv": TABLE})
    path.write_text(path.read_text().replace("bonn-12", "aal-116"))
    (tmp_path / "aal-116.tsv").write_bytes(TABLE)
    with pytest.raises(ConfigError, match="an input of your own needs a name of its own"):
        read_own_inputs(path)


def test_inputs_of_two_studies_do_not_replace_one_another(tmp_path):
    write_inputs(tmp_path, {"bonn-12.tsv": TABLE})
    write_inputs(tmp_path, {"bonn-12.tsv": TABLE})
    with pytest.raises(ConfigError, match="is another file; write the study into a directory of its own"):
        write_inputs(tmp_path, {"bonn-12.tsv": TABLE + b"\n"})
    assert (tmp_path / INPUTS / "bonn-12.tsv").read_bytes() == TABLE
