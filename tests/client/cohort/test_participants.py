"""The table of participants: what is read, what is refused, and in which words."""

import math
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esn_client.cohort.participants import Participant, read_participants, read_phenotypes
from esn_core.errors import DataError
from esn_core.protocol.data_dictionary import Phenotype

HEAD = "participant_id\tage\tsex\tgroup\tgase\n"
GOOD = "sub-001\t10.5\tF\tdre\t3\nsub-002\t8\tM\tcontrol\tn/a\n"
DICTIONARY = {
    "duration": Phenotype(kind="number", unit="years", range=(0, 21)),
    "side": Phenotype(kind="category", codes=("left", "right")),
}


@pytest.fixture
def read(tmp_path):
    """A function that writes participants.tsv and reads it."""

    def read_text(text):
        (tmp_path / "participants.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_participants(tmp_path)

    return read_text


def test_a_table_is_read_line_by_line(read):
    first, second = read(HEAD + GOOD)
    assert (first.label, first.age_years, first.sex, first.group, first.gase) == (
        "sub-001",
        10.5,
        0,
        "dre",
        3,
    )
    assert (second.label, second.sex, second.group, second.gase) == ("sub-002", 1, "control", None)


def test_spreadsheets_line_ends_marks_blank_lines_and_columns_of_their_own_are_taken(read):
    text = "\ufeff" + HEAD.replace("\n", "\tiq\n") + GOOD.replace("\n", "\t100\n\n")
    assert len(read(text.replace("\n", "\r\n"))) == 2


def test_a_head_may_have_capitals_and_spaces(read):
    head = " Participant_ID\tAge \tSEX\tGroup\tGASE\t IQ total\n"
    first, _ = read(head + GOOD.replace("\n", "\t100\n"))
    assert first.row["IQ total"] == "100"
    assert (first.age_years, first.gase) == (10.5, 3)
    with pytest.raises(DataError, match="missing or repeated column 'age'"):
        read(HEAD.replace("\n", "\tAge\n") + GOOD)


def test_third_groups_and_people_without_age_or_sex_are_left_out_and_counted(read, caplog):
    lines = "sub-003\tn/a\tF\tdre\t3\nsub-004\t9\tn/a\tcontrol\tn/a\nsub-005\told\tx\tsibling\t\n"
    assert [p.label for p in read(HEAD + GOOD + lines)] == ["sub-001", "sub-002"]
    assert caplog.messages == [
        "participants.tsv: 1 participants belong to another group and are left out",
        "participants.tsv: 2 participants lack age or sex and are left out",
    ]
    with pytest.raises(DataError, match="line 4: sub-003: group must be dre or control"):
        read(HEAD + GOOD + "sub-003\t9\tF\t Control\tn/a\n")


def test_every_fault_is_named_at_once_with_its_line(read):
    faults = {
        "sub-003\t9\tF\tdre\t0": "line 4: sub-003: gase must be a whole number from 1 to 7, or n/a, not '0'",
        "sub-004\t9\tF\tdre\t8": "line 5: sub-004: gase must be",
        "sub-005\t9\tF\tdre\t3.5": "line 6: sub-005: gase must be",
        "sub-006\t9\tF\tdre\t": "line 7: sub-006: gase must be a whole number from 1 to 7, or n/a",
        "sub-007\t9\tx\tdre\t3": "line 8: sub-007: sex must be F, M or n/a, not 'x'",
        "sub-008\t9\tF\tDRE\t3": "line 9: sub-008: group must be dre or control, or a word for another",
        "": "",
        "sub-009\tten\tF\tdre\t3": "line 11: sub-009: age must be in years, or n/a, not 'ten'",
        "sub-010\tnan\tF\tdre\t3": "line 12: sub-010: age",
        "sub-011\t-1\tF\tdre\t3": "line 13: sub-011: age",
        "012\t9\tF\tdre\t3": "line 14: participant_id must be 'sub-'",
        "sub-../x\t9\tF\tdre\t3": "line 15: participant_id",
        "sub-013\t9\tF\tdre": "line 16: holds 4 fields, not 5",
        "sub-014\t9\tF\tdre\t3\tmore": "line 17: holds 6 fields, not 5",
        "sub-001\t9\tF\tdre\t3": "sub-001 is listed twice",
    }
    with pytest.raises(DataError) as caught:
        read(HEAD + GOOD + "\n".join(faults) + "\n")
    for said in faults.values():
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("participant_id\tage\tsex\n", "line 1: missing or repeated column 'group', 'gase'"),
        (HEAD.replace("\n", "\tage\n"), "missing or repeated column 'age'"),
        ("", "missing or repeated column 'participant_id'"),
        (HEAD, "lists no participant"),
        (HEAD.encode("utf-16"), "is written in UTF-16 .*; save it as UTF-8"),
        ((HEAD + GOOD).encode() + "Zoë".encode("latin-1"), "line 4 is not UTF-8, but perhaps Latin-1"),
        (
            HEAD.replace("\t", ","),
            "'participant_id', .* quoted, or parted by commas: save it as tab",
        ),
        (HEAD.replace("age", '"age"'), "'age'; the fields seem to be quoted"),
        (HEAD + "sub-001\t9\tF\tsibling\t3\n", "no child with epilepsy and no control whose age and sex"),
    ],
)
def test_what_is_no_table_is_refused_by_what_was_found(read, text, words):
    with pytest.raises(DataError, match=words):
        read(text)


def test_a_table_that_is_missing_or_a_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"participants\.tsv: there is no such file"):
        read_participants(tmp_path)
    (tmp_path / "participants.tsv").mkdir()
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_participants(tmp_path)


def is_right(label, age, sex, group, gase):
    """Whether a line has no fault, one rule after the other."""
    if not (label.startswith("sub-") and label[4:].isalnum() and label.isascii()):
        return False
    if group.strip().lower() not in ("", "n/a", "dre", "control"):
        return True
    if age != "n/a":
        if not set(age) <= set("0123456789."):
            return False
        try:
            years = float(age)
        except ValueError:
            return False
        if not 0 <= years <= 120:
            return False
    if sex not in ("F", "M", "n/a") or group not in ("dre", "control"):
        return False
    return group == "control" or gase in ("1", "2", "3", "4", "5", "6", "7", "n/a")


FIELD = st.text(st.sampled_from("sub-01.5FM7na/ \"'#eNA"), max_size=6)
LINE = st.tuples(
    st.sampled_from(["sub-1", "sub-2", "sub-a", "2"]) | FIELD,
    st.sampled_from(["7", "10.25", "007", "", "n/a", "121", "NaN", "7,5", "1_0", " 7"]) | FIELD,
    st.sampled_from(["F", "M", "f", "NA"]) | FIELD,
    st.sampled_from(["dre", "control", "null", "Dre", "n/a"]) | FIELD,
    st.sampled_from(["1", "7", "8", "3.0", "n/a", "NA", "", "TRUE"]) | FIELD,
)


@given(st.lists(LINE, min_size=1, max_size=5))
@example([("sub-1", "7", "F", "dre", "3"), ("sub-NA", "007", "M", "control", "nan")])
def test_a_table_is_read_as_line_by_line_and_each_faulty_line_is_named(tmp_path_factory, lines):
    directory = tmp_path_factory.mktemp("table")
    (directory / "participants.tsv").write_text(HEAD + "\n".join("\t".join(line) for line in lines) + "\n")
    there = {number: line for number, line in enumerate(lines, 2) if "".join(line).strip()}
    wrong = [number for number, line in there.items() if not is_right(*line)]
    labels = [line[0] for number, line in there.items()]
    if there and not wrong and len(set(labels)) == len(labels):
        taken = [x for x in there.values() if x[3] in ("dre", "control") and "n/a" not in x[1:3]]
        if not taken:
            with pytest.raises(DataError, match="no child with epilepsy and no control"):
                read_participants(directory)
            return
        found = read_participants(directory)
        assert [(p.label, p.age_years, p.sex, p.group) for p in found] == [
            (label, float(age), float(sex == "M"), group) for label, age, sex, group, _ in taken
        ]
        assert [p.gase for p in found] == [
            int(gase) if group == "dre" and gase != "n/a" else None for *_, group, gase in taken
        ]
        assert [tuple(p.row.values()) for p in found] == taken
        return
    with pytest.raises(DataError) as caught:
        read_participants(directory)
    said = str(caught.value)
    assert [n for n in range(1, 10) if f"line {n}: " in said] == wrong


@pytest.mark.parametrize("text", ["NA", "null", "NaN", "", "TRUE", "007", "1e3", "#", "None", "-"])
def test_no_field_is_taken_for_anything_but_its_text(read, text):
    (child,) = read(HEAD.replace("\n", "\tnote\n") + f"sub-001\t9\tF\tdre\t3\t{text}\n")
    assert child.row["note"] == text


def test_a_quotation_mark_is_a_character_like_any_other(read):
    first, second = read(
        HEAD.replace("\n", "\tnote\n") + 'sub-001\t9\tF\tdre\t3\t"a\nsub-002\t9\tF\tdre\t3\tb"\n'
    )
    assert (first.row["note"], second.row["note"]) == ('"a', 'b"')


def people(**columns):
    rows = zip(*columns.values(), strict=True)
    return [
        Participant(f"sub-{k}", 9.0, 0.0, "dre", 3, dict(zip(columns, row, strict=True)))
        for k, row in enumerate(rows, 1)
    ]


def test_a_dictionary_reads_numbers_codes_and_missing_values():
    found = read_phenotypes(
        people(duration=["2.5", "0", "n/a"], side=["right", "n/a", "left"], note=["?", "", "7"]), DICTIONARY
    )
    assert list(found) == ["duration", "side"]
    assert found["duration"] == pytest.approx({"sub-1": 2.5, "sub-2": 0.0, "sub-3": math.nan}, nan_ok=True)
    assert found["side"] == pytest.approx({"sub-1": 1.0, "sub-2": math.nan, "sub-3": 0.0}, nan_ok=True)


def test_all_faults_of_a_dictionarys_columns_are_told_together():
    with pytest.raises(DataError) as caught:
        read_phenotypes(
            people(side=["up", "left"], duration=["22", ""]),
            {**DICTIONARY, "medicines": Phenotype(kind="number", unit="a day", range=(0, 9))},
        )
    assert str(caught.value).split("; ") == [
        "sub-1: duration must be 0 to 21 (years) or n/a, not '22'",
        "sub-2: duration must be 0 to 21 (years) or n/a, not ''",
        "sub-1: side must be left or right or n/a, not 'up'",
        "participants.tsv has no column 'medicines', which the protocol explains",
    ]


def test_no_participant_needs_no_dictionary():
    assert read_phenotypes(people(), {}) == {}


def test_a_guard_does_without_pandas():
    """A site that waits reads no table: its memory is a bar of its own."""
    said = (
        "import sys, esn_client.link.guard, esn_client.cohort.participants; sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
