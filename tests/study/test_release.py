"""From a finished run to a child whom the study never saw: proposed, countersigned, released, predicted."""

import errno
import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from cryptography.hazmat.primitives import serialization

from esn_client.approval.countersigning import in_words
from esn_client.cli import main as client
from esn_client.cohort.members import scans_behind
from esn_client.cohort.participants import read_participants
from esn_client.cohort.withdrawn import name_of
from esn_client.gate.frozen_cohort import keyed_scans
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import salt_fingerprint
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.quality.ratings import rate, ratings_file
from esn_client.imaging.quality.site_table import write_site
from esn_client.prediction import command
from esn_client.simulation.connectomes import _shipped_recipe, _write_derivatives
from esn_client.simulation.scans import write_table
from esn_client.site.centre_kit import take_in
from esn_client.site.keys import load_identity_key
from esn_client.site.state import initialise, own_entry, read_salt
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ProtocolError
from esn_core.released_model.archive import read_model
from esn_core.simulation import tracking
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.world import World
from esn_server.cli import main as server
from esn_server.enrolment.centre_keys import create_authority
from esn_server.enrolment.kits import write_kit
from esn_server.report.outcome import result_of
from esn_server.report.result import read_result, write_result
from esn_server.run.learned import LEARNED, write_learned

SITES = ("north", "south", "west")
PHENOTYPES = {
    "age": {"kind": "number", "unit": "years", "range": (0, 20)},
    "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
}
ANALYSES = {
    "cohort": True,
    "random_scores": 1,
    "exact": ["cohort", "neurocognition"],
    "neurocognition": {
        "rounds": 6,
        "models": (("gase",), ("predicted_gase",), ("predicted_gase", "age")),
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 95.0}],
    },
}


def private_bytes(key, form=serialization.PrivateFormat.OpenSSH):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def centre(tmp_path_factory, centre_key):
    """The centre's directory, with the key of all tests."""
    directory = tmp_path_factory.mktemp("release") / "centre"
    create_authority(directory, names=["centre.example.org"])
    (directory / "signing_key").write_bytes(private_bytes(centre_key))
    return directory


@pytest.fixture(scope="module")
def run(build_consortium, tmp_path_factory, pooled_rules):
    """The directory of a finished run, of a study without noise that asks for what a release needs."""
    opened = []
    consortium = build_consortium(
        tmp_path_factory.mktemp("study"),
        opened,
        exact=True,
        trust="secure-sum",
        analyses=ANALYSES,
        phenotypes=PHENOTYPES,
        **pooled_rules,
    )
    findings = consortium.study()
    for file in opened:
        file.close()
    directory = tmp_path_factory.mktemp("run")
    content = consortium.protocol.model_dump(exclude_none=True)
    (directory / "protocol.toml").write_text(tomli_w.dumps(content))
    write_learned(findings, directory)
    write_result(result_of(consortium.protocol, findings, run="r1", timing_s={}), directory / "result.json")
    return directory


@pytest.fixture(scope="module")
def hospitals(centre, run, more_sites, tmp_path_factory):
    """The settings of the three hospitals, which approved the protocol."""
    made = {}
    digest = read_result(run / "result.json").protocol_sha256
    for site in SITES:
        directory = tmp_path_factory.mktemp(site)
        settings = initialise(
            directory,
            site=site,
            dataset=directory / "bids",
            derivatives=directory / "derivatives",
            trust="secure-sum",
            epsilon_cap=8.0,
            delta=1e-3,
            colluding_sites=1,
            exact_sums=True,
        )
        settings.identity_key_path.write_bytes(private_bytes(more_sites[1][site][0]))
        _, kit = write_kit(centre, own_entry(settings), public_address=None, port=9092)
        take_in(settings, kit, replace=False)
        settings.approved_path.mkdir(exist_ok=True)
        shutil.copy(run / "protocol.toml", settings.approved_path / f"{digest}.toml")
        audit = {"site": site, "protocol_sha256": digest, "passed": True, "repeats": 100}
        audit |= {"at": "2026-11-29 10:00", "software": "0.1.0"}
        (directory / "audit.json").write_text(json.dumps(audit))
        made[site] = directory
    return made


@pytest.fixture
def esn_server(run_command):
    return partial(run_command, "esn-server", server.main)


@pytest.fixture
def esn_client(run_command):
    return partial(run_command, "esn-client", client.main)


@pytest.fixture
def refused(command_fails):
    return partial(command_fails, "esn-client", client.main)


@pytest.fixture
def not_released(command_fails):
    return partial(command_fails, "esn-server", server.main, 16)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the model of this module is kept once it is made."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def proposal(kept, esn_server, centre, run):
    path = kept / "proposal.esn"
    if not path.exists():
        status, out, _ = esn_server("release", centre, run, "--propose", "--out", path)
        assert (status, out.strip()) == (0, str(path))
    return path


@pytest.fixture
def countersignatures(kept, proposal, esn_client, hospitals):
    files = [kept / f"{site}.json" for site in SITES]
    for file, directory in zip(files, hospitals.values(), strict=True):
        if not file.exists():
            words = ("--audit", directory / "audit.json", "--out", file, "--agree")
            status, _, err = esn_client("countersign", directory / "site.toml", proposal, *words)
            assert status == 0, err
    return files


@pytest.fixture
def model(kept, esn_server, centre, run, countersignatures):
    path = kept / "model.esn"
    if not path.exists():
        given = [word for file in countersignatures for word in ("--countersignature", file)]
        status, _, err = esn_server("release", centre, run, "--out", path, *given)
        assert status == 0, err
        assert read_model(path).fingerprint in err
    return path


@pytest.fixture(scope="module")
def clinic(tmp_path_factory, run):
    """A hospital that took no part: four children and eight controls with connectomes of the recipe."""
    directory = tmp_path_factory.mktemp("clinic")
    atlas = load_atlas("phantom-28")
    world = World.draw(atlas, rng=np.random.default_rng(1))
    subjects = draw_site(world, children=4, controls=8, rng=np.random.default_rng(2))
    (directory / "bids").mkdir()
    write_table(directory / "bids", subjects, name="clinic", seed=1)
    counts = tracking.tracking("north").counts(
        np.array([subject.log_weights for subject in subjects]), rng=np.random.default_rng(3)
    )
    _write_derivatives(
        directory / "derivatives",
        subjects,
        counts,
        atlas=atlas,
        recipe=_shipped_recipe(atlas),
        source=directory / "bids",
        origin="test",
    )
    return directory


@pytest.fixture
def own(clinic, tmp_path):
    """A copy of the clinic, to be spoilt."""
    return shutil.copytree(clinic, tmp_path / "clinic")


def predict_words(clinic, model, out, *more, fingerprint=None):
    heard = fingerprint or read_model(model).fingerprint
    where = ("--derivatives", clinic / "derivatives", "--out", out, "--fingerprint", heard)
    return ("predict", model, clinic / "bids", *where, *more)


def matrix_words(clinic, model, out, path, *more):
    """The words that predict one matrix, by the clinic's own controls."""
    words = predict_words(clinic, model, out, "--controls", clinic / "bids", "--age-years", "10", *more)
    return (*words[:2], path, *words[3:])


def rewritten(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def age_of(clinic, label):
    people = read_participants(clinic / "bids")
    return next(person.age_years for person in people if person.label == label)


def matrix_of(clinic, model, label):
    return Derivative(clinic / "derivatives", Visit(label, None), read_model(model).protocol.imaging)


class TestRelease:
    def test_it_is_refused_with_everything_that_is_missing(self, not_released, centre, run, tmp_path):
        spoilt = shutil.copytree(run, tmp_path / "run")
        found = read_result(run / "result.json")
        absent = {**found.absent, "random_score": "the protocol did not ask for it"}
        write_result(
            found.model_copy(update={"random_score": None, "absent": absent}), spoilt / "result.json"
        )
        words = ("random scores", *(f"countersignature of {site}" for site in SITES))
        not_released(words, "release", centre, spoilt, "--out", tmp_path / "model.esn")
        assert not (tmp_path / "model.esn").exists()

    def test_a_run_that_does_not_show_that_it_predicts_is_not_released(
        self, not_released, centre, run, tmp_path
    ):
        spoilt = shutil.copytree(run, tmp_path / "run")
        found = read_result(run / "result.json")
        likely = found.evaluation.estimates
        unsure = likely.model_copy(update={"r": likely.r.model_copy(update={"interval": (-0.1, 0.5)})})
        evaluation = found.evaluation.model_copy(update={"estimates": unsure})
        write_result(found.model_copy(update={"evaluation": evaluation}), spoilt / "result.json")
        words = ("held-out evaluation", "-0.10 and 0.50")
        not_released(words, "release", centre, spoilt, "--propose", "--out", tmp_path / "model.esn")

    def test_two_countersignatures_of_three_are_not_enough(
        self, not_released, centre, run, countersignatures, tmp_path
    ):
        given = [word for file in countersignatures[:2] for word in ("--countersignature", file)]
        words = "countersignature of west"
        not_released(words, "release", centre, run, "--out", tmp_path / "model.esn", *given)

    def test_a_proposal_takes_no_countersignatures(
        self, command_fails, centre, run, countersignatures, tmp_path
    ):
        given = ("--countersignature", countersignatures[0])
        words = ("release", centre, run, "--propose", "--out", tmp_path / "model.esn", *given)
        command_fails("esn-server", server.main, 10, "leave out --propose", *words)
        assert not (tmp_path / "model.esn").exists()

    def test_a_run_that_is_not_finished_says_so(self, not_released, centre, run, tmp_path):
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run" / "result.json").unlink()
        words = ("not finished", "--resume")
        not_released(words, "release", centre, tmp_path / "run", "--propose", "--out", tmp_path / "model.esn")

    @pytest.mark.parametrize(
        ("spoil", "status", "words"),
        [
            (lambda run: (run / "result.json").write_text(""), 12, "result.json"),
            (lambda run: (run / "result.json").write_text("[1]"), 12, "result.json"),
            (lambda run: (run / "result.json").write_bytes(b"PK\x03\x04\xff"), 12, "result.json"),
            (lambda run: (run / "protocol.toml").write_text(""), 12, "protocol.toml"),
            (lambda run: (run / LEARNED).write_bytes(b""), 12, "holds no numbers of a model"),
            (lambda run: shutil.rmtree(run), 10, "is no directory of a run"),
        ],
    )
    def test_what_is_no_run_is_refused_in_one_line(
        self, command_fails, centre, run, tmp_path, spoil, status, words
    ):
        spoilt = shutil.copytree(run, tmp_path / "run")
        spoil(spoilt)
        command = ("release", centre, spoilt, "--propose", "--out", tmp_path / "made" / "model.esn")
        command_fails("esn-server", server.main, status, words, *command)
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("given", ["directory", "empty", "zip", "gone"])
    def test_what_is_no_countersignature_is_refused_in_one_line(
        self, command_fails, centre, run, tmp_path, given
    ):
        path = tmp_path / given
        if given == "directory":
            path.mkdir()
        elif given != "gone":
            path.write_bytes(b"" if given == "empty" else b"PK\x03\x04\xff")
        status, words = (10, "cannot be read") if given in ("directory", "gone") else (12, "is no signature")
        command = ("release", centre, run, "--countersignature", path, "--out", tmp_path / "model.esn")
        command_fails("esn-server", server.main, status, words, *command)
        assert not (tmp_path / "model.esn").exists()

    def test_the_same_run_gives_the_same_bytes(self, esn_server, centre, run, proposal, tmp_path):
        again = tmp_path / "again.esn"
        status, out, err = esn_server("release", centre, run, "--propose", "--out", again, "--json")
        assert (status, err) == (0, "")
        assert again.read_bytes() == proposal.read_bytes()
        assert json.loads(out) == {
            "file": str(again),
            "model_sha256": read_model(again).content.sha256,
            "released": False,
            "fingerprint": None,
            "countersigned_by": [],
        }

    def test_the_model_says_what_the_study_found(self, model, run):
        found, result = read_model(model), read_result(run / "result.json")
        assert found.released
        assert found.content.error.rmse == result.evaluation.estimates.rmse.value
        assert [risk.predictors for risk in found.content.risks] == [
            tuple(one.predictors) for one in result.neurocognition.models
        ]
        for risk, one in zip(found.content.risks, result.neurocognition.models, strict=True):
            assert risk.coefficients == pytest.approx([c.coefficient for c in one.coefficients])
            errors = np.sqrt(np.diag(risk.covariance))
            assert errors == pytest.approx(
                [np.hypot(c.standard_error, c.noise_sd) for c in one.coefficients], rel=1e-9
            )

    def test_the_card_has_front_matter_privacy_and_every_limit(self, model):
        found = read_model(model)
        front, card = found.card.removeprefix("---\n").split("---\n", 1)
        assert "license: other" in front
        assert "**Research use only. Not a medical device.**" in card
        assert "| ε of a training child | no bound |" in card
        assert "None" not in card

    def test_the_card_has_every_item_of_tripod_by_the_projects_titles(self, model, run):
        """As docs/tripod.md has them, filled where protocol and result know."""
        card, result = read_model(model).card, read_result(run / "result.json")
        table = card.partition("## TRIPOD+AI\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (\d+e?) (.+?) \| (.+) \|$", table, re.MULTILINE)
        text = (Path(__file__).parents[2] / "docs" / "tripod.md").read_text()
        listed = re.findall(r"^\| (\d+e?) \| (.+?) \|", text, re.MULTILINE)
        assert [(number, title) for number, title, _ in rows] == listed
        assert [number for number, _ in listed if number != "12e"] == [str(n) for n in range(1, 28)]
        said = {number: words for number, _, words in rows}
        assert result.protocol_sha256 in said["18"]
        assert "protocol.toml" in said["18"]
        assert "GASE from 1 to 7" in said["15"]
        for number in ("20", "23"):
            assert f"{result.evaluation.children:.0f} held-out children" in said[number]
        for one in result.neurocognition.models:
            counts = f"{one.impaired:.0f} impaired of {one.children:.0f}"
            assert f"verbal from {', '.join(one.predictors)}: {counts}" in said["21"]
        assert all(said[number] == "authors" for number in ("1", "2", "19"))
        assert "own controls" in said["27"]

    def test_a_changed_byte_anywhere_is_refused(self, model, tmp_path):
        content, path = model.read_bytes(), tmp_path / "changed.esn"
        places = [*range(0, len(content), len(content) // 60), len(content) - 1]
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(ProtocolError):
                read_model(path)

    def test_a_file_more_than_was_signed_is_refused(self, model, tmp_path):
        spoilt = Path(shutil.copy(model, tmp_path / "model.esn"))
        with zipfile.ZipFile(spoilt, "a") as archive:
            archive.writestr("more.json", "{}")
        with pytest.raises(ProtocolError, match="a byte of it was changed"):
            read_model(spoilt)

    def test_what_is_no_model_is_refused(self, model, tmp_path):
        (tmp_path / "empty.esn").touch()
        (tmp_path / "gone.esn").symlink_to(tmp_path / "nothing")
        with zipfile.ZipFile(tmp_path / "other.esn", "w") as archive:
            archive.writestr("a.txt", "a")
        for name, said in (
            ("empty.esn", "is no released model"),
            ("gone.esn", "cannot be read"),
            ("other.esn", "is no released model"),
            ("", "cannot be read"),
        ):
            with pytest.raises(ProtocolError, match=said):
                read_model(tmp_path / name)

    def test_a_part_of_another_model_is_refused(self, model, tmp_path):
        import zipfile

        with zipfile.ZipFile(model) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["README.md"] += b"harmless"
        with zipfile.ZipFile(tmp_path / "other.esn", "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        with pytest.raises(ProtocolError, match=r"README\.md is not the one that was signed"):
            read_model(tmp_path / "other.esn")


class TestCountersignature:
    def test_it_says_what_is_published_and_what_it_reveals(self, proposal):
        said = in_words(read_model(proposal))
        assert "There is NO bound on what the model tells of a child" in said
        assert "cannot be called back" in said

    def test_without_an_audit_that_passed_nothing_is_signed(self, esn_client, hospitals, proposal, tmp_path):
        directory = hospitals["north"]
        failed = json.loads((directory / "audit.json").read_text()) | {"passed": False}
        (tmp_path / "audit.json").write_text(json.dumps(failed))
        words = (
            "countersign",
            directory / "site.toml",
            proposal,
            "--out",
            tmp_path / "north.json",
            "--agree",
        )
        status, _, err = esn_client(*words)
        assert (status, "name what 'esn-client audit" in err) == (10, True)
        status, _, err = esn_client(*words, "--audit", tmp_path / "audit.json")
        assert (status, "the audit found a fault" in err) == (10, True)
        assert not (tmp_path / "north.json").exists()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"--agree": None}, "nobody can be asked here"),
            ({"--out": None}, "--agree signs nothing without --out"),
            ({"--audit": "another.json"}, "is the audit of site south"),
            ({"--audit": "deep.json"}, "is not what 'esn-client audit --json' prints"),
            ({"--out": "there.json"}, "never overwritten"),
        ],
    )
    def test_what_is_refused_is_refused_in_one_line_before_anybody_reads(
        self, refused, hospitals, proposal, tmp_path, monkeypatch, change, words
    ):
        monkeypatch.chdir(tmp_path)
        shutil.copy(hospitals["south"] / "audit.json", "another.json")
        Path("deep.json").write_text("[" * 100_000)
        Path("there.json").touch()
        before = sorted(tmp_path.iterdir())
        said = {"--audit": hospitals["north"] / "audit.json", "--out": "new.json", "--agree": ""} | change
        given = [word for option, value in said.items() if value is not None for word in (option, value)]
        command = ("countersign", hospitals["north"] / "site.toml", proposal, *(w for w in given if w != ""))
        refused(10, words, *command)
        assert sorted(tmp_path.iterdir()) == before
        assert Path("there.json").read_bytes() == b""

    def test_a_model_that_is_released_is_not_countersigned_again(self, refused, hospitals, model, tmp_path):
        words = ("--audit", hospitals["north"] / "audit.json", "--out", tmp_path / "new.json", "--agree")
        command = ("countersign", hospitals["north"] / "site.toml", model, *words)
        refused(10, "is released already", *command)

    def test_a_site_that_never_approved_the_study_does_not_sign(self, refused, hospitals, proposal, tmp_path):
        directory = shutil.copytree(hospitals["north"], tmp_path / "site")
        shutil.rmtree(directory / "state" / "approved")
        refused(12, "never approved the protocol", "countersign", directory / "site.toml", proposal)


class TestPrediction:
    def test_every_child_has_a_page_a_file_and_a_place_in_the_table(
        self, esn_client, clinic, model, tmp_path
    ):
        status, _, err = esn_client(*predict_words(clinic, model, tmp_path / "out"))
        assert status == 0, err
        assert "Research use only" in err
        files = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert len(files) == 2 * 4 + 2
        found = [json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("*.json"))]
        for one in found:
            low, high = one["interval"]
            assert 1 <= low <= one["predicted_gase"] <= high <= 7
            assert one["controls"] == 8
            assert [risk["outcome"] for risk in one["risks"]] == ["verbal", "verbal"]
            # Integrated gradients add up to the prediction, less that of a child like the controls, but for
            # the midpoint rule's few percent.
            adds = sum(driver["weight"] for driver in one["drivers"])
            assert adds == pytest.approx(one["predicted_gase"] - one["baseline_gase"], abs=0.2)
        page = (tmp_path / "out" / "sub-001_prediction.html").read_text()
        assert page.count("Research use only") == 2
        assert "<svg" in page
        assert not re.search(r"(src|href)=\"http", page)
        table = (tmp_path / "out" / "predictions.tsv").read_text().splitlines()
        assert len(table) == 5

    @pytest.mark.parametrize("place", ["bids", "derivatives"])
    def test_what_is_not_there_is_named(self, refused, clinic, model, tmp_path, place):
        words = [w if w != clinic / place else tmp_path / "no" for w in predict_words(clinic, model, "out")]
        refused(11, f"{tmp_path / 'no'}: there is no such", *words, "--participant-label", "001")

    def test_nothing_is_replaced(self, esn_client, refused, clinic, model, tmp_path):
        words = predict_words(clinic, model, tmp_path / "out", "--participant-label", "001")
        assert esn_client(*words)[0] == 0
        refused(10, "would be overwritten", *words)

    def test_a_disk_that_is_full_after_some_children_leaves_none_of_them(
        self, refused, clinic, model, tmp_path, monkeypatch
    ):
        whole = iter([True] * 4)

        def fsync(_descriptor):
            if not next(whole, False):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        words = predict_words(clinic, model, tmp_path / "out")
        monkeypatch.setattr(os, "fsync", fsync)
        refused(1, ("sub-002_prediction", "No space left"), *words)
        assert not (tmp_path / "out").exists()

    def test_one_matrix_is_predicted_as_the_same_child_of_the_dataset(
        self, esn_client, clinic, model, tmp_path
    ):
        words = predict_words(clinic, model, tmp_path / "a", "--participant-label", "001")
        assert esn_client(*words)[0] == 0
        alone = list(words)
        alone[2] = matrix_of(clinic, model, "sub-001").matrix("count")
        alone[alone.index(tmp_path / "a")] = tmp_path / "b"
        alone = [*alone[: alone.index("--participant-label")], "--controls", clinic / "bids"]
        alone += ["--age-years", str(age_of(clinic, "sub-001"))]
        status, _, err = esn_client(*alone)
        assert status == 0, err
        a, b = (json.loads((tmp_path / d / "sub-001_prediction.json").read_text()) for d in "ab")
        assert a["predicted_gase"] == b["predicted_gase"]
        assert a["drivers"] == b["drivers"]
        assert a["unlike"] == b["unlike"]

    def test_who_withdrew_consent_is_not_predicted_and_judges_nobody(
        self, esn_client, refused, own, model, centre, tmp_path
    ):
        """By this hospital's own ledger: a child by its label, and by a scan that came back under another."""
        site = initialise(
            own / "site",
            site="north",  # the name of a hospital of the study, of another centre's kit
            dataset=own / "bids",
            derivatives=own / "derivatives",
            trust="secure-sum",
            epsilon_cap=8.0,
            delta=1e-3,
            colluding_sites=1,
            exact_sums=False,
        )
        other = tmp_path / "other-centre"
        create_authority(other, names=["other.example.org"])
        take_in(site, write_kit(other, own_entry(site), public_address=None, port=9092)[1], replace=False)
        asked = partial(predict_words, own, model)
        settings = ("--settings", own / "site" / "site.toml")
        salt = read_salt(site)
        scans = scans_behind(own / "derivatives", read_model(model).protocol.imaging, "sub-002", frozenset())
        with Ledger(site.ledger_path, load_identity_key(site.identity_key_path)) as ledger:
            for label, of_it in (("sub-001", ()), ("sub-gone", scans), ("sub-005", ())):
                ledger.withdraw(
                    name_of(label, salt, simulated=True),
                    scans=keyed_scans(of_it, salt=salt, simulated=True),
                    salt_sha256=salt_fingerprint(salt),
                )
        for label in ("001", "002"):
            words = asked(tmp_path / "no", "--participant-label", label, *settings)
            refused(11, f"sub-{label}: consent was withdrawn", *words)
        matrix = [*asked(tmp_path / "no", "--controls", own / "bids", *settings)]
        matrix[2] = matrix_of(own, model, "sub-001").matrix("count")
        refused(11, "consent was withdrawn", *matrix)
        assert not (tmp_path / "no").exists()
        status, _, err = esn_client(*asked(tmp_path / "yes", "--participant-label", "003", *settings))
        assert status == 0, err
        (one,) = (json.loads(p.read_text()) for p in (tmp_path / "yes").glob("*.json"))
        assert one["controls"] == 7
        assert not any("took part" in note for note in one["notes"])
        without_fingerprint = asked(tmp_path / "no")[:-2]
        refused(12, "not by this hospital's centre", *without_fingerprint, *settings)

    @pytest.mark.parametrize("heard", ["0123", "dead beef " * 4])
    def test_a_model_that_nobody_vouches_for_is_not_used(self, refused, clinic, model, tmp_path, heard):
        refused(12, "has the fingerprint", *predict_words(clinic, model, tmp_path / "out", fingerprint=heard))
        assert not (tmp_path / "out").exists()

    def test_a_proposal_predicts_nobody(self, refused, clinic, proposal, tmp_path):
        refused(12, "is a proposal", *predict_words(clinic, proposal, tmp_path / "out"))

    def test_two_controls_are_too_few_and_it_says_what_to_do(self, refused, own, model, tmp_path):
        for path in sorted((own / "derivatives").glob("sub-*"))[6:]:
            shutil.rmtree(path)
        words = ("2 own healthy controls", "3 or more are needed", "esn-client prepare", "--pooled-reference")
        refused(11, words, *predict_words(own, model, tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_a_child_is_judged_by_controls_of_its_own_scanner_or_it_says_by_whom(
        self, esn_client, own, model, tmp_path
    ):
        path = own / "bids" / "participants.tsv"
        head, *lines = path.read_text().splitlines()
        scanners = iter("ACAA" + "AAAABBBB")
        path.write_text("\n".join([f"{head}\tscanner", *(f"{x}\t{next(scanners)}" for x in lines)]) + "\n")
        assert esn_client(*predict_words(own, model, tmp_path / "out"))[0] == 0
        found = [json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("*.json"))]
        assert [one["controls"] for one in found] == [4, 8, 4, 4]
        told = ["were not scanned alike" in " ".join(one["notes"]) for one in found]
        assert told == [False, True, False, False]

    def test_without_own_controls_the_studys_pooled_ones_judge_and_it_is_marked(
        self, esn_client, own, model, tmp_path
    ):
        for path in sorted((own / "derivatives").glob("sub-*"))[4:]:
            shutil.rmtree(path)
        words = predict_words(own, model, tmp_path / "out", "--pooled-reference")
        status, _, err = esn_client(*words)
        assert status == 0, err
        found = [json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("*.json"))]
        assert [(one["pooled_reference"], one["controls"]) for one in found] == [(True, 0)] * 4
        assert all("off by half a step" in " ".join(one["notes"]) for one in found)
        page = (tmp_path / "out" / "sub-001_prediction.html").read_text()
        assert "judged by the pooled controls of other hospitals" in page
        assert "off by half a step" in page

    def test_every_bad_child_is_named_and_nobody_is_predicted(self, refused, own, model, tmp_path):
        path = own / "bids" / "participants.tsv"
        head, *lines = path.read_text().splitlines()
        column = head.split("\t").index("age")
        for place, age in ((1, "60"),):
            cells = lines[place].split("\t")
            cells[column] = age
            lines[place] = "\t".join(cells)
        path.write_text("\n".join([head, *lines]) + "\n")
        changed = matrix_of(own, model, "sub-003").matrix("count")
        changed.write_text(changed.read_text().replace("0", "1", 1))
        poor = matrix_of(own, model, "sub-004").record
        poor.write_text(json.dumps(json.loads(poor.read_text()) | {"Quality": {"displacement_mm": 50.0}}))
        words = ("sub-002: is 60 years old", "sub-003_seg", "changed after", "sub-004: fails the protocol's")
        labels = [word for name in ("002", "003", "004") for word in ("--participant-label", name)]
        refused(11, words, *predict_words(own, model, tmp_path / "out", *labels))
        refused(
            11,
            "sub-nobody: is not in",
            *predict_words(own, model, tmp_path / "out", "--participant-label", "nobody"),
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("way", ["dataset", "matrix", "relative matrix"])
    def test_a_child_whom_a_rater_fails_is_predicted_neither_way(
        self, refused, own, model, tmp_path, monkeypatch, way
    ):
        found = matrix_of(own, model, "sub-001")
        rate(found.out, found.recipe, found.visit, rating="fail", initials="AB")
        if way == "dataset":
            words = predict_words(own, model, tmp_path / "out", "--participant-label", "001")
        else:
            monkeypatch.chdir(found.record.parent)
            path = found.matrix("count")
            path = Path(path.name) if way == "relative matrix" else path
            words = matrix_words(own, model, tmp_path / "out", path)
        refused(11, ("sub-001", "rated fail by AB"), *words)
        assert not (tmp_path / "out").exists()

    def test_a_matrix_that_the_table_of_quality_leaves_out_is_not_predicted(
        self, refused, own, model, tmp_path
    ):
        found = matrix_of(own, model, "sub-001")
        rate(found.out, found.recipe, found.visit, rating="fail", initials="AB")
        write_site(found.out, found.recipe, exclude_failed=True)
        ratings_file(found.out, found.recipe).unlink()
        words = matrix_words(own, model, tmp_path / "out", found.matrix("count"))
        refused(11, "sub-001_seg-phantom28_meas-count_relmat.dense.tsv: is left out by the table", *words)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("way", ["dataset", "matrix"])
    def test_a_warning_of_the_record_asks_for_a_look_either_way(self, esn_client, own, model, tmp_path, way):
        found = matrix_of(own, model, "sub-001")
        record = json.loads(found.record.read_text()) | {"Warnings": ["no map of the field was given"]}
        found.record.write_text(json.dumps(record))
        words = (
            predict_words(own, model, tmp_path / "out", "--participant-label", "001")
            if way == "dataset"
            else matrix_words(own, model, tmp_path / "out", found.matrix("count"))
        )
        status, _, err = esn_client(*words)
        assert status == 0, err
        (one,) = (json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json"))
        assert one["quality"] == "warn"
        assert "The scan's quality asks for a look." in one["notes"]

    def test_a_matrix_without_an_age_is_not_predicted_where_the_study_released_ages(
        self, refused, clinic, model, tmp_path
    ):
        path = matrix_of(clinic, model, "sub-001").matrix("count")
        words = predict_words(clinic, model, tmp_path / "out", "--controls", clinic / "bids")
        refused(11, "age is not known; say it by --age-years", *words[:2], path, *words[3:])
        assert not (tmp_path / "out").exists()

    def test_where_the_study_released_no_ages_page_json_and_output_say_so(
        self, esn_client, clinic, model, tmp_path, monkeypatch
    ):
        def without_ages(path):
            found = read_model(path)
            children = found.content.children.model_copy(
                update={"mean_age_years": None, "sd_age_years": None}
            )
            return replace(found, content=found.content.model_copy(update={"children": children}))

        monkeypatch.setattr(command, "read_model", without_ages)
        heard = without_ages(model).fingerprint
        path = matrix_of(clinic, model, "sub-001").matrix("count")
        words = predict_words(
            clinic, model, tmp_path / "out", "--controls", clinic / "bids", fingerprint=heard
        )
        status, _, err = esn_client(*words[:2], path, *words[3:])
        assert status == 0, err
        said = "The study released no ages, or noise alone: nothing says whether this child is of its ages."
        one = json.loads((tmp_path / "out" / "sub-001_prediction.json").read_text())
        assert said in one["unlike"]["words"]
        assert said in (tmp_path / "out" / "sub-001_prediction.html").read_text()
        assert err.count(said) == 1

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda m, r: (-m, r), "must not be negative"),
            (lambda m, r: (np.triu(m), r), "must be symmetric"),
            (lambda m, r: (m[:-1, :-1], r), "its regions are not the 28"),
            (lambda m, r: (m, r | {"Nodes": r["Nodes"][::-1]}), "its regions are not the 28"),
            (lambda m, r: (m, r | {"RecipeSha256": "0" * 64}), "made by recipe 000000000000"),
            (lambda m, r: (m + 1, r), "was changed after it was made"),
            (lambda m, r: (m * np.nan, r), "was changed|is no matrix|of the candidate"),
        ],
    )
    def test_a_matrix_that_is_none_of_the_model_is_refused(self, refused, own, model, tmp_path, spoil, words):
        derivative = matrix_of(own, model, "sub-001")
        path, record = derivative.matrix("count"), json.loads(derivative.record.read_text())
        matrix, record = spoil(np.loadtxt(path), record)
        np.savetxt(path, matrix, delimiter="\t")
        derivative.record.write_text(json.dumps(record))
        command = list(predict_words(own, model, tmp_path / "out", "--controls", own / "bids"))
        command[2] = path
        if "|" in words:
            words = ""
        refused(11, words, *command)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda path, record: record.unlink(), "beside it, cannot be read"),
            (lambda path, record: record.write_text("{"), "is not a record of a connectome"),
            (lambda path, record: record.write_text("[1]"), "is not a record of a connectome"),
            (lambda path, record: rewritten(record, Nodes=None), "is not a record of a connectome"),
            (lambda path, record: rewritten(record, MatricesSha256=[]), "is not a record of a connectome"),
            (lambda path, record: rewritten(record, RegionsWithoutTissue=5), "is not a record of"),
            (lambda path, record: path.write_bytes(b""), "is no matrix of tab-separated"),
            (lambda path, record: path.write_text("1;2\n2;1\n"), "is no matrix of tab-separated"),
            (lambda path, record: path.write_text("\ufeff1\t2\n2\t1\n"), "is no matrix of tab-separated"),
            (lambda path, record: path.write_text("5\n"), "its regions are not the 28"),
            (lambda path, record: path.write_text("one\ttwo\n"), "is no matrix of tab-separated"),
            (lambda path, record: path.write_bytes(b"\xff\xfe1\t2\n"), "is no matrix of tab-separated"),
        ],
    )
    def test_files_that_are_no_connectome_are_refused(self, refused, own, model, tmp_path, spoil, words):
        derivative = matrix_of(own, model, "sub-001")
        path = derivative.matrix("count")
        spoil(path, derivative.record)
        command = list(predict_words(own, model, tmp_path / "out", "--controls", own / "bids"))
        command[2] = path
        refused(11, words, *command)
        assert not (tmp_path / "out").exists()

    def test_a_control_is_no_child_to_be_predicted(self, refused, own, model, tmp_path):
        lines = (own / "bids" / "participants.tsv").read_text().splitlines()
        control = next(line.split("\t")[0] for line in lines if "\tcontrol" in line)
        words = predict_words(own, model, tmp_path / "out", "--participant-label", control)
        refused(11, f"{control}: is a healthy control", *words)
        assert not (tmp_path / "out").exists()
