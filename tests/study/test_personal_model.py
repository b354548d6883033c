"""A hospital's personal model: from what a study released, less the own part, and its own children."""

import shutil
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives import serialization

from esn_client.answers.study import Study
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.prediction import personal, personal_command
from esn_client.prediction.personal import fit_personal, judge, own_predictor, require_personal
from esn_client.prediction.personal_command import personal_findings, write_personal
from esn_client.prediction.personal_findings import STAYS, PersonalFindings
from esn_client.site.state import initialise
from esn_client.worker.study_end import make_personal_models
from esn_core.connectome.own_controls import ControlReference
from esn_core.errors import ConfigError, DataError, GateError, ProtocolError, StudyError
from esn_core.learning.personal_model import fit
from esn_core.learning.personal_network import OthersSum
from esn_core.privacy.release import clip_rows
from esn_core.severity_network.association import association_release, association_rows
from esn_core.transcript.course import Course

SITES = ("north", "south", "west")


@pytest.fixture(scope="module")
def consortium(build_consortium, tmp_path_factory):
    """A finished study without noise: what was released is what can be added up by hand."""
    opened = []
    made = build_consortium(
        tmp_path_factory.mktemp("study"), opened, exact=True, trust="secure-sum", training={"rounds": 1}
    )
    made.study()
    for file in opened:
        file.close()
    return made


def study_of(consortium, site="north"):
    return Study(site, consortium.protocol, consortium.cohorts[site], torch.device("cpu"))


def course_of(consortium, site="north"):
    hospital = consortium.link.hospitals[1 + SITES.index(site)]
    return hospital._transcripts.of(consortium.protocol, "r1").course


def exact_rows(consortium, site, centre):
    split, candidates = consortium.cohorts[site].training, consortium.protocol.candidates
    rows = association_rows(candidates.features(split.scores), split.gase, mean_severity=float(centre[0]))
    return clip_rows(rows, association_release(rows.shape[1]).l2_bound)


@pytest.mark.parametrize("site", SITES)
def test_what_is_known_of_the_others_is_the_sum_of_their_rows(consortium, site):
    course = course_of(consortium, site)
    found = personal._others(study_of(consortium, site), course)
    rest = [exact_rows(consortium, other, course.centre[1]) for other in SITES if other != site]
    assert found.total == pytest.approx(np.concatenate(rest).sum(axis=0), abs=1e-6)
    assert found.children == pytest.approx(sum(map(len, rest)), abs=1e-6)
    assert found.noise_sd == 0


def test_a_site_that_was_not_in_the_sum_takes_nothing_off_it(consortium):
    course = course_of(consortium)
    stranger = Study("east", consortium.protocol, consortium.cohorts["north"], torch.device("cpu"))
    assert np.array_equal(personal._others(stranger, course).total, course.sum_of("association").total)


def test_the_model_is_that_of_the_pooled_rows_and_the_released_weights(consortium):
    study, course = study_of(consortium), course_of(consortium)
    model, reader = fit_personal(study, course)
    split, edges = study.cohort.training, study.candidates.edges
    rest = np.concatenate([exact_rows(consortium, other, course.centre[1]) for other in SITES[1:]])
    reference = ControlReference.of_controls(study.cohort.control_strengths)
    expected = fit(
        split.scores[:, edges],
        split.gase,
        np.array([reference.scores(each) for each in study.cohort.control_strengths])[:, edges],
        blocks=study.candidates.blocks,
        others=OthersSum(rest.sum(axis=0), float(len(rest)), 0.0),
        reader=reader,
    )
    assert model.weight == pytest.approx(expected.weight, rel=1e-6, abs=1e-9)
    held = study.cohort.held_out.scores[:, edges]
    assert model.predict(held, reader) == pytest.approx(expected.predict(held, reader), abs=1e-4)


def test_it_is_judged_beside_the_consortiums_model_on_children_who_were_in_no_training(consortium):
    study, course = study_of(consortium), course_of(consortium)
    found = judge(study, course, run="r1")
    held = study.cohort.held_out
    assert [one.children for one in (found.personal, found.consortium, found.alone)] == [len(held.gase)] * 3
    assert found.cross_validated.children == found.training == len(study.cohort.training.gase)
    assert found.controls == study.cohort.controls
    assert [abs(edge.weight) for edge in found.edges] == sorted(
        (abs(edge.weight) for edge in found.edges), reverse=True
    )
    raw = personal.reader_of(study, course)(
        personal.masked_input(held.scores[:, study.candidates.edges], course.network.weight)
    )
    intercept, slope = course.calibration
    gase = np.clip(4 + 1.5 * (intercept + slope * np.clip(raw, -4, 4)), 1, 7)
    assert found.consortium.mae == pytest.approx(np.abs(gase - held.gase).mean(), rel=1e-6)
    # Two dozen edges fall with severity, at every site: all three read it.
    assert min(one.r for one in (found.personal, found.consortium, found.alone)) > 0.5


def test_a_study_that_is_not_finished_gives_none(consortium):
    with pytest.raises(StudyError, match="has not been released yet"):
        fit_personal(study_of(consortium), Course(consortium.protocol))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"harmonisation": "public-template"}, "by a public template, not by own controls"),
        ({"centre": "adjusted"}, "adjusts its network for age and sex"),
    ],
)
def test_a_study_whose_sums_give_none_says_so(build_consortium, tmp_path, rules, words):
    opened = []
    other = build_consortium(tmp_path, opened, **rules)
    for file in opened:
        file.close()
    with pytest.raises(ConfigError, match=words):
        require_personal(study_of(other))


def test_an_own_patient_is_predicted_by_it_with_its_own_error(consortium):
    study, course = study_of(consortium), course_of(consortium)
    model, reader = fit_personal(study, course)
    held = study.cohort.held_out.scores[:, study.candidates.edges]
    said = own_predictor(study, course)(held[0])
    assert said.predicted_gase == pytest.approx(model.predict(held[:1], reader)[0])
    error = model.own_prediction - study.cohort.training.gase
    # Student's quantile of 15 degrees of freedom.
    half = 2.131 * np.sqrt((error**2).mean() * (1 + 1 / 16))
    low, high = said.interval
    assert (low, high) == pytest.approx(
        (max(1, said.predicted_gase - half), min(7, said.predicted_gase + half)), abs=1e-3
    )
    assert said.children == 16


@pytest.fixture
def north(consortium, more_sites, tmp_path, monkeypatch):
    """A hospital on disk that was in the study: its keys, ledger, log and transcript; and its cohort."""
    settings = initialise(
        tmp_path / "north",
        site="north",
        dataset=tmp_path / "bids",
        derivatives=tmp_path / "derivatives",
        trust="secure-sum",
        epsilon_cap=8.0,
        delta=1e-3,
        colluding_sites=1,
        exact_sums=True,
    )
    form = serialization.PrivateFormat.OpenSSH
    key = more_sites[1]["north"][0].private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )
    settings.identity_key_path.write_bytes(key)
    settings.salt_path.write_bytes(b"s" * 32)
    kept = consortium.ledgers["north"]._store._path.parent
    for name, path in {
        "north.sqlite": settings.ledger_path,
        "north.jsonl": settings.audit_path,
        "north-transcripts.sqlite": settings.transcripts_path,
    }.items():
        shutil.copy(kept / name, path)
    monkeypatch.setattr(personal_command, "read_participants", lambda dataset: ())
    use(monkeypatch, consortium.cohorts["north"])
    return settings


def use(monkeypatch, cohort):
    monkeypatch.setattr(personal_command, "load_cohort", lambda participants, **about: cohort)


def test_the_command_writes_a_page_for_the_hospital_alone_and_notes_nothing(north, consortium, tmp_path):
    before = {path: path.read_bytes() for path in (north.ledger_path, north.audit_path)}
    found = personal_findings(north, consortium.protocol)
    assert found == judge(study_of(consortium), course_of(consortium), run="r1")
    files = write_personal(found, tmp_path / "out", atlas=consortium.protocol.atlas)
    assert [path.name for path in files] == ["personal-model.html", "personal-model.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    page, facts = (path.read_text(encoding="utf-8") for path in files)
    assert STAYS in page
    assert f"{found.personal.r:.2f}" in page
    assert "sub-" not in page + facts
    assert PersonalFindings.model_validate_json(facts) == found
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(ConfigError, match=r"personal-model\.html, personal-model\.json would be overwritten"):
        write_personal(found, tmp_path / "out", atlas=consortium.protocol.atlas)


def test_the_end_of_a_study_leaves_one_in_the_sites_state(north, consortium, caplog):
    caplog.set_level("INFO")
    protocol = consortium.protocol
    make_personal_models(north, [protocol, protocol.model_copy(update={"study": "another"})])
    place = north.personal_model_path(protocol.study, protocol.sha256)
    assert [path.parent for path in (north.state / "personal").glob("*/*.json")] == [place]
    facts = (place / "personal-model.json").read_text(encoding="utf-8")
    assert PersonalFindings.model_validate_json(facts) == personal_findings(north, protocol)
    (said,) = caplog.messages
    assert said.startswith("test: this hospital's personal model was made, and stays here")
    make_personal_models(north, [protocol])  # and is not made again
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("error", [DataError("sub-001 is missing"), ValueError("sub-001")])
def test_what_stands_in_its_way_is_logged_without_a_persons_name_and_ends_nothing(
    north, consortium, monkeypatch, caplog, error
):
    def fail(participants, **about):
        raise error

    monkeypatch.setattr(personal_command, "load_cohort", fail)
    make_personal_models(north, [consortium.protocol])
    assert "personal model was not made ('esn-client personal-model' makes it)" in caplog.text
    assert "sub-001" not in caplog.text
    assert not (north.state / "personal").exists()


def test_a_disk_that_fills_up_or_a_kill_leaves_no_half_of_one(north, consortium, monkeypatch, caplog):
    """A directory that is there is taken for a model that is made."""
    protocol = consortium.protocol
    place = north.personal_model_path(protocol.study, protocol.sha256)

    def full(path, content, *, mode):
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(personal_command, "write_new", full)
        make_personal_models(north, [protocol])
    assert "personal model was not made" in caplog.text
    assert list(place.parent.iterdir()) == []
    half = place.with_name(f".{place.name}.part")  # as a kill leaves it
    half.mkdir()
    (half / "personal-model.html").write_text("<p>ha")
    make_personal_models(north, [protocol])
    assert list(place.parent.iterdir()) == [place]
    assert {path.name for path in place.iterdir()} == {"personal-model.html", "personal-model.json"}


def test_a_study_that_gives_none_is_passed_over_without_a_word(north, consortium, caplog):
    rules = consortium.protocol.cohort.model_copy(update={"harmonisation": "public-template"})
    make_personal_models(north, [consortium.protocol.model_copy(update={"cohort": rules})])
    assert (caplog.text, (north.state / "personal").exists()) == ("", False)


def test_another_cohort_than_that_of_the_study_is_refused(north, consortium, monkeypatch):
    """The own part of the sum could not be taken off."""
    cohort = consortium.cohorts["north"]
    fewer = replace(
        cohort.training,
        participants=cohort.training.participants[1:],
        scores=cohort.training.scores[1:],
        gase=cohort.training.gase[1:],
    )
    use(monkeypatch, replace(cohort, training=fewer))
    with pytest.raises(GateError, match="1 of those who were there is missing"):
        personal_findings(north, consortium.protocol)


def test_who_withdrew_cannot_be_taken_off_the_sum(north, consortium, more_sites):
    label = consortium.cohorts["north"].training.participants[0]
    (patient,) = patient_hashes([label], salt=b"s" * 32, simulated=True)
    with Ledger(north.ledger_path, more_sites[1]["north"][0]) as ledger:
        ledger.withdraw(patient, scans=(), salt_sha256=salt_fingerprint(b"s" * 32))
    with pytest.raises(ConfigError, match="has withdrawn consent"):
        personal_findings(north, consortium.protocol)


def test_a_protocol_that_the_site_never_answered_is_refused(north, consortium):
    other = consortium.protocol.model_copy(update={"study": "another"})
    with pytest.raises(ProtocolError, match="keeps no cohort of a run of the protocol"):
        personal_findings(north, other)


def test_a_study_without_its_last_sums_is_not_finished(north, consortium):
    north.transcripts_path.unlink()
    with pytest.raises(StudyError, match="study test is not at its end here: the sum of gradient"):
        personal_findings(north, consortium.protocol)
