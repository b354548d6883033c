"""Who is in the study, and that no child's data depend on another child with epilepsy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esn_client.cohort.cohort import load_cohort
from esn_client.cohort.participants import read_participants
from esn_client.imaging.bids.derivatives import MEASURES, Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.quality.site_table import write_site
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.connectome import Connectome
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import edge_scores, edge_strengths, load_template
from esn_core.errors import DataError
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.rules import CohortRules
from esn_core.severity_network.candidate_list import pairs_of
from esn_core.severity_network.pooled_reference import PooledReference

HEAD = "participant_id\tage\tsex\tgroup\tgase\n"
RULES = CohortRules(held_out_fraction=0.333, split_salt="test", minimum_children=5)


def test_the_holding_out_of_a_child_depends_on_its_own_label_site_and_salt():
    labels = [f"sub-{i}" for i in range(3000)]
    held = [RULES.holds_out(label, site="north") for label in labels]
    # Binomial: 4 standard deviations of 0.0086.
    assert np.mean(held) == pytest.approx(0.333, abs=0.035)
    assert [RULES.holds_out(label, site="south") for label in labels] != held
    other = RULES.model_copy(update={"split_salt": "x"})
    assert [other.holds_out(label, site="north") for label in labels] != held


@given(st.text(), st.floats(0.01, 0.88))
def test_a_child_held_out_at_a_fraction_is_held_out_at_every_larger_one(label, fraction):
    def held(f):
        return RULES.model_copy(update={"held_out_fraction": f}).holds_out(label, site="n")

    assert held(fraction + 0.01) or not held(fraction)


class Dataset:
    """Connectomes and a table on disk."""

    def __init__(self, root: Path, protocol: Protocol):
        self.root = root
        self.protocol = protocol
        self.atlas = load_atlas("phantom-28")
        self.lines = []

    def add(self, label, group="dre", *, seed=None, connectome=True):
        self.lines.append(f"{label}\t10\tF\t{group}\t{'3' if group == 'dre' else 'n/a'}\n")
        if connectome:
            self.scan(label, seed=int(label[4:]) if seed is None else seed)

    def scan(self, label, *, seed, session=None, quality=None):
        counts = np.random.default_rng(seed).integers(1, 500, (28, 28)).astype(float)
        derivative = Derivative(self.root / "out", Visit(label, session), self.protocol.imaging)
        matrices = dict.fromkeys(MEASURES, counts + counts.T)
        derivative.write(matrices, sources={}, details={"Quality": quality or {"assigned_percent": 90.0}})

    def judge(self, *, exclude_failed):
        return write_site(self.root / "out", self.protocol.imaging, exclude_failed=exclude_failed)

    def load(self, head=HEAD):
        (self.root / "participants.tsv").write_text(head + "".join(self.lines))
        (self.root / "dataset_description.json").write_text('{"Authors": ["esn-client simulate"]}')
        people = read_participants(self.root)
        return load_cohort(people, site="north", derivatives=self.root / "out", protocol=self.protocol)


@pytest.fixture
def dataset(tmp_path, protocol_content):
    """Ten children with epilepsy and three controls."""
    made = Dataset(tmp_path, Protocol.model_validate(protocol_content))
    for number in range(1, 11):
        made.add(f"sub-{number:03d}")
    for number in range(101, 104):
        made.add(f"sub-{number}", "control")
    return made


def by_label(cohort):
    splits = (cohort.training, cohort.held_out)
    return {label: row for s in splits for label, row in zip(s.participants, s.scores, strict=True)}


def score_by(dataset, harmonisation, *, version=2):
    rules = dataset.protocol.cohort.model_copy(update={"harmonisation": harmonisation})
    dataset.protocol = dataset.protocol.model_copy(update={"cohort": rules, "format": version})


def strengths_in(dataset, number):
    counts = np.random.default_rng(number).integers(1, 500, (28, 28)).astype(float)
    return edge_strengths(Connectome(counts + counts.T, dataset.atlas.names))


def test_scores_are_against_the_sites_own_controls(dataset):
    dataset.scan("sub-004", seed=44, session="later")
    reference = ControlReference.of_controls(np.array([strengths_in(dataset, n) for n in (101, 102, 103)]))
    visits = [reference.scores(strengths_in(dataset, seed)) for seed in (4, 44)]
    cohort = dataset.load()
    assert by_label(cohort)["sub-004"] == pytest.approx(np.mean(visits, axis=0), abs=1e-12)
    assert (cohort.controls, len(by_label(cohort))) == (3, 10)


def test_a_child_is_judged_by_the_controls_of_its_own_scanner_where_they_are_enough(dataset):
    """Three controls of scanner A, three of B, and two of C, whose children all controls judge."""
    head = HEAD.replace("\n", "\tscanner\n")
    for number in range(104, 109):
        dataset.add(f"sub-{number}", "control")
    scanners = {1: "A", 2: "B", 3: "C", 4: "n/a"}
    scanners |= (
        dict.fromkeys((101, 102, 103), "A") | dict.fromkeys((104, 105, 106), "B") | {107: "C", 108: "C"}
    )
    dataset.lines = [
        line.replace("\n", f"\t{scanners.get(int(line.split()[0][4:]), 'A')}\n") for line in dataset.lines
    ]
    cohort = dataset.load(head)
    scores, everybody = by_label(cohort), tuple(range(101, 109))
    judged_by = {1: (101, 102, 103), 2: (104, 105, 106), 3: everybody, 4: everybody}
    for child, controls in judged_by.items():
        reference = ControlReference.of_controls(np.array([strengths_in(dataset, n) for n in controls]))
        expected = reference.scores(strengths_in(dataset, child))
        assert scores[f"sub-{child:03d}"] == pytest.approx(expected, abs=1e-12), child
    assert cohort.control_scores.shape == cohort.control_strengths.shape == (8, len(dataset.atlas.edges))
    assert "A" in cohort.lines["sub-001"]  # another scanner in mid-study is another cohort


def test_a_site_with_fewer_controls_than_the_protocol_asks_for_is_refused(dataset):
    rules = dataset.protocol.cohort.model_copy(update={"minimum_controls": 4})
    dataset.protocol = dataset.protocol.model_copy(update={"cohort": rules})
    with pytest.raises(
        DataError, match=r"site north: 3 healthy controls have a usable connectome; .* 4 or more"
    ):
        dataset.load()


def test_a_site_without_controls_has_held_out_children_alone_judged_by_the_pooled_reference(dataset, caplog):
    edges = len(dataset.atlas.edges)
    pairs = pairs_of(dataset.atlas, np.ones(edges, dtype=np.bool_))[:40]
    pooled = PooledReference(sites=3, controls=24, mean=(4.0,) * 40, sd=(0.5,) * 40)
    rules = dataset.protocol.severity_network.model_copy(update={"candidates": "list", "pairs": pairs})
    named = dataset.protocol.cohort.model_copy(update={"reference": pooled, "without_controls": ("north",)})
    before = dataset.load()
    dataset.protocol = dataset.protocol.model_copy(update={"severity_network": rules, "cohort": named})
    for path in (dataset.root / "out").glob("sub-10*/**/*"):  # of two controls nothing is left
        if path.is_file() and "sub-103" not in path.name:
            path.unlink()
    cohort = dataset.load()
    assert (cohort.training.participants, cohort.controls) == ((), 0)
    assert cohort.held_out.participants == before.held_out.participants
    reference = pooled.reference(dataset.atlas, pairs)
    for label, row in by_label(cohort).items():
        assert row == pytest.approx(reference.scores(strengths_in(dataset, int(label[4:]))), abs=1e-12)
    assert "control" not in cohort.people.standing
    assert "they train nothing" in caplog.text


def resect(monkeypatch, label, regions):
    """Let a participant's connectome lack regions, as `prepare` would after a resection."""
    read = Derivative.read_connectome

    def without(derivative):
        found = read(derivative)
        if derivative.visit.participant != label:
            return found
        counts = found.counts.copy()
        gone = [found.regions.index(name) for name in regions]
        counts[gone] = counts[:, gone] = 0
        return Connectome(counts, found.regions, tuple(regions))

    monkeypatch.setattr(Derivative, "read_connectome", without)


@pytest.mark.parametrize("harmonisation", ["site-controls", "public-template"])
def test_edges_of_regions_without_tissue_are_unknown_and_not_weak(dataset, monkeypatch, harmonisation):
    score_by(dataset, harmonisation)
    before = by_label(dataset.load())
    resect(monkeypatch, "sub-004", dataset.atlas.names[:3])
    after = by_label(dataset.load())
    gone = (dataset.atlas.edges < 3).any(axis=1)
    present = before["sub-004"] != 0
    assert (after["sub-004"][gone] == 0).all()
    # The others' shares of all streamlines grow alike, which the child's own median takes off.
    shift = after["sub-004"][~gone & present] - before["sub-004"][~gone & present]
    assert np.abs(shift).max() < 0.5 * np.abs(before["sub-004"][gone & present]).max()
    assert all(np.array_equal(before[label], after[label]) for label in before if label != "sub-004")


def test_a_child_who_lacks_more_than_the_protocol_allows_is_left_out(dataset, monkeypatch, caplog):
    resect(monkeypatch, "sub-004", dataset.atlas.names[:12])
    assert "sub-004" in by_label(dataset.load())
    rules = dataset.protocol.cohort.model_copy(update={"missing_edges": 0.3})
    dataset.protocol = dataset.protocol.model_copy(update={"cohort": rules})
    cohort = dataset.load()
    assert "sub-004" not in by_label(cohort)
    assert cohort.people.standing.count("no-connectome") == 1
    assert cohort.lacking_tissue == ("sub-004",)
    assert "lacks more edges than the protocol allows" in caplog.text
    assert "sub-004" not in caplog.text


def test_a_control_without_tissue_for_an_edge_is_not_counted_there(dataset, monkeypatch):
    resect(monkeypatch, "sub-102", dataset.atlas.names[:2])
    dataset.add("sub-105", "control")
    cohort = dataset.load()
    gone = (dataset.atlas.edges < 2).any(axis=1)
    assert np.isnan(cohort.control_strengths[1]).tolist() == gone.tolist()
    assert all(np.isfinite(row).all() for row in by_label(cohort).values())


@pytest.mark.parametrize(("harmonisation", "shrinkage"), [("public-template", 1.5), ("own-controls", 6)])
def test_scores_are_the_templates_less_the_shrunk_mean_of_the_controls(dataset, harmonisation, shrinkage):
    score_by(dataset, harmonisation)
    cohort = dataset.load()
    template = load_template("phantom-28", simulated=True)

    def score(number):
        return edge_scores(strengths_in(dataset, number), template, age_years=10.0, sex=0.0)

    offset = 3 / (3 + shrinkage) * np.mean([score(n) for n in (101, 102, 103)], axis=0)
    assert by_label(cohort)["sub-004"] == pytest.approx(score(4) - offset, abs=1e-12)
    assert cohort.controls == 3
    assert len(by_label(cohort)) == 10


def test_combat_starts_from_scores_without_the_controls_offset(dataset):
    score_by(dataset, "public-template")
    own = by_label(dataset.load())
    score_by(dataset, "combat")
    raw = by_label(dataset.load())
    offset = {label: raw[label] - own[label] for label in raw}
    assert np.abs(offset["sub-001"]).max() > 0.1
    assert all(each == pytest.approx(offset["sub-001"], abs=1e-12) for each in offset.values())
    split = dataset.load().training
    assert (split.age_years.tolist(), split.sex.tolist()) == (
        [10.0] * len(split.gase),
        [0.0] * len(split.gase),
    )


def test_another_childs_scan_changes_nobody_elses_scores(dataset):
    before = by_label(dataset.load())
    dataset.scan("sub-004", seed=999)
    after = by_label(dataset.load())
    assert not np.array_equal(before["sub-004"], after["sub-004"])
    assert all(np.array_equal(before[label], after[label]) for label in before if label != "sub-004")


def test_another_child_changes_nobody_elses_scores_or_split(dataset):
    before = dataset.load()
    dataset.add("sub-055")
    after = dataset.load()
    for split in ("training", "held-out"):
        assert set(before.split(split).participants) == set(after.split(split).participants) - {"sub-055"}
    assert all(np.array_equal(row, by_label(after)[label]) for label, row in by_label(before).items())


def test_a_control_changes_scores(dataset):
    before = by_label(dataset.load())
    dataset.add("sub-104", "control")
    assert not any(np.array_equal(row, by_label(dataset.load())[label]) for label, row in before.items())


def test_participants_without_a_connectome_are_left_out_and_counted(dataset, caplog):
    dataset.add("sub-060", connectome=False)
    dataset.add("sub-061", "control", connectome=False)
    cohort = dataset.load()
    assert "sub-060" not in by_label(cohort)
    assert cohort.controls == 3
    assert "2 participants are left out: no-connectome" in caplog.text
    assert sorted(cohort.people.standing).count("no-connectome") == 2
    assert cohort.people.standing.count("control") == 3
    assert "sub-" not in caplog.text


def test_a_site_without_controls_has_no_offset_from_a_template(tmp_path, protocol_content):
    made = Dataset(tmp_path, Protocol.model_validate(protocol_content))
    made.add("sub-001")
    score_by(made, "public-template")
    assert made.load().controls == 0
    score_by(made, "site-controls")
    with pytest.raises(DataError, match="0 healthy controls have a usable connectome"):
        made.load()


def test_a_site_without_prepared_children_is_told_what_to_do(tmp_path, protocol_content):
    made = Dataset(tmp_path, Protocol.model_validate(protocol_content))
    made.add("sub-001", connectome=False)
    made.add("sub-002", "control")
    with pytest.raises(DataError, match="no child with DRE has a connectome; run 'esn-client prepare' first"):
        made.load()


def test_several_sessions_of_a_child_count_as_one_child(dataset):
    before = by_label(dataset.load())
    derivative = Derivative(dataset.root / "out", Visit("sub-004", None), dataset.protocol.imaging)
    for path in derivative.record.parent.iterdir():
        path.unlink()
    for session, seed in (("ses-1", 4), ("ses-2", 77)):
        dataset.scan("sub-004", seed=seed, session=session)
    after = by_label(dataset.load())
    assert set(after) == set(before)
    dataset.scan("sub-004", seed=4)
    dataset.scan("sub-077", seed=77)
    dataset.add("sub-077", connectome=False)
    for session in ("ses-1", "ses-2"):
        for path in (dataset.root / "out" / "sub-004" / session / "dwi").iterdir():
            path.unlink()
    each = by_label(dataset.load())
    # Only the order of the additions differs: a few float64 ulp of scores up to ten.
    assert after["sub-004"] == pytest.approx((each["sub-004"] + each["sub-077"]) / 2, abs=1e-12)


BAD = {"assigned_percent": 5.0}


def test_a_visit_that_fails_is_left_out_if_the_site_says_so_and_only_then(dataset, caplog):
    dataset.scan("sub-004", seed=4, quality=BAD)
    assert "sub-004" in by_label(dataset.load())
    assert [row.excluded for row in dataset.judge(exclude_failed=False) if row.verdict == "fail"] == [False]
    assert "sub-004" in by_label(dataset.load())
    dataset.judge(exclude_failed=True)
    assert "sub-004" not in by_label(dataset.load())
    assert "1 visits are left out for their quality" in caplog.text
    assert "sub-" not in caplog.text


def test_a_session_that_fails_leaves_the_childs_other_session(dataset):
    dataset.scan("sub-005", seed=50, session="ses-2", quality=BAD)
    dataset.judge(exclude_failed=True)
    with_one = by_label(dataset.load())["sub-005"]
    dataset.judge(exclude_failed=False)
    assert not np.array_equal(with_one, by_label(dataset.load())["sub-005"])


def test_a_child_that_is_unlike_the_others_is_not_left_out(dataset):
    """Who takes part depends on the child's own scan alone: otherwise one child would move another."""
    for number in range(1, 11):
        dataset.scan(f"sub-{number:03d}", seed=number, quality={"assigned_percent": 90.0 + 0.1 * number})
    dataset.scan("sub-004", seed=4, quality={"assigned_percent": 55.0})
    rows = {row.visit.participant: row for row in dataset.judge(exclude_failed=True)}
    assert rows["sub-004"].outlying == ("assigned_percent",)
    assert "sub-004" in by_label(dataset.load())


def test_a_table_of_quality_that_is_older_than_a_connectome_is_refused(dataset):
    dataset.judge(exclude_failed=True)
    dataset.scan("sub-004", seed=999)
    with pytest.raises(
        DataError, match="1 connectomes are newer than the table; run 'prepare … group' again"
    ):
        dataset.load()


def test_a_damaged_table_of_quality_is_refused(dataset):
    dataset.judge(exclude_failed=True)
    (dataset.root / "out" / "seg-phantom28_quality.tsv").write_text("participant_id\nsub-004\n")
    with pytest.raises(DataError, match="not a site's table of quality"):
        dataset.load()


@pytest.mark.parametrize(
    ("mark", "simulated", "words"),
    [
        ('{"Authors": ["a hospital"]}', True, "is not marked as simulated"),
        ("no json", True, "is not marked as simulated"),
        ('["esn-client simulate"]', True, "is not marked as simulated"),
        ('{"Authors": ["esn-client simulate"]}', False, "the protocol is for real patients"),
        ('{"GeneratedBy": [{"Name": "esn-client simulate"}]}', False, "the protocol is for real patients"),
        ('{"GeneratedBy": [{"Name": "a scanner"}, 3], "Authors": 7}', True, "is not marked as simulated"),
    ],
)
def test_a_rehearsal_takes_nobody_real_and_a_study_nobody_simulated(dataset, mark, simulated, words):
    dataset.load()
    (dataset.root / "dataset_description.json").write_text(mark)
    people = read_participants(dataset.root)
    protocol = dataset.protocol.model_copy(update={"simulated": simulated})
    about = {"site": "north", "derivatives": dataset.root / "out", "protocol": protocol}
    with pytest.raises(DataError, match=words):
        load_cohort(people, **about)


def test_everybody_is_enrolled_with_the_columns_that_the_study_reads_and_the_scans_behind_the_scores(dataset):
    before = {person.label: person for person in dataset.load().enrolled}
    assert {person.standing for person in before.values()} == {"training", "held-out", "control"}
    # No scan stands behind these connectomes: each is its own digest.
    assert len({person.scans for person in before.values()}) == len(before) == 13
    derivative = Derivative(dataset.root / "out", Visit("sub-004", None), dataset.protocol.imaging)
    matrices = dict.fromkeys(MEASURES, np.full((28, 28), 7.0))
    sources = {"sub-004/dwi/sub-004_dwi.nii.gz": "a" * 64, "sub-004/dwi/sub-004_dwi.bval": "b" * 64}
    derivative.write(matrices, sources=sources, details={"Quality": {}})
    dataset.lines[1] = dataset.lines[1].replace("\t3", "\t4")
    dataset.lines[2] = dataset.lines[2].replace("\n", "\ta remark\n")
    dataset.lines = [line if "remark" in line else line.replace("\n", "\t\n") for line in dataset.lines]
    after = {person.label: person for person in dataset.load(HEAD.replace("\n", "\tremark\n")).enrolled}
    assert {label for label in before if before[label] != after[label]} == {"sub-002", "sub-004"}
    assert after["sub-004"].scans == ("a" * 64,)
