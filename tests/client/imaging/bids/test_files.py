"""Tests of names in BIDS datasets, and of which sidecars hold for an image."""

from bidsschematools.schema import load_schema
from hypothesis import given
from hypothesis import strategies as st

from esn_client.imaging.bids.files import files_of, is_label, nearest_above

KEYS = sorted(entity.name for entity in load_schema().objects.entities.values())
COUNTED = {"run", "echo", "flip", "inv", "split", "chunk"}
LABELS = st.text("abcXYZ019+", min_size=1, max_size=4)


def read(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {file.path.relative_to(tmp_path).as_posix(): file for file in files_of(tmp_path)}
    return [found[name] for name in names]


@given(
    values=st.dictionaries(st.sampled_from([key for key in KEYS if key not in COUNTED]), LABELS, min_size=1)
)
def test_every_key_of_bids_is_read_back(tmp_path_factory, values):
    name = "_".join([*(f"{key}-{value}" for key, value in values.items()), "dwi.nii.gz"])
    (file,) = read(tmp_path_factory.mktemp("bids"), name)
    assert (file.entities, file.suffix, file.extension) == (values, "dwi", ".nii.gz")


def test_what_bids_counts_is_a_number(tmp_path):
    for key in KEYS:
        first, second = read(tmp_path, f"sub-1_{key}-02_dwi.nii", f"sub-1_{key}-2_dwi.nii")
        assert (first.entities == second.entities) == (key in COUNTED or key == "sub")


def test_labels_are_letters_and_digits():
    assert [text for text in ("012", "aB", "a+b", "a-b", "a.b", "é", "") if is_label(text)] == [
        "012",
        "aB",
        "a+b",
    ]


def test_of_all_sidecars_above_the_nearest_comes_first(tmp_path):
    image, *expected = read(
        tmp_path,
        "sub-1/ses-2/dwi/sub-1_ses-2_acq-b_dwi.nii.gz",
        "sub-1/ses-2/dwi/sub-1_ses-2_acq-b_dwi.json",
        "sub-1/ses-2/sub-1_ses-2_dwi.json",
        "sub-1/sub-1_acq-b_dwi.json",
        "sub-1/sub-1_dwi.json",
        "dwi.json",
    )
    others = read(
        tmp_path,
        "sub-1/ses-2/dwi/sub-1_ses-2_acq-c_dwi.json",
        "sub-1/ses-2/anat/sub-1_ses-2_dwi.json",
        "sub-1/sub-1_run-1_dwi.json",
        "sub-2/sub-2_dwi.json",
        "T1w.json",
    )
    assert nearest_above(image, [*others, *reversed(expected)]) == expected
