"""A study of patients from beginning to end: enrolled, voted, approved, run and read, by both command lines.

Three hospitals with connectomes that nothing marks as simulated and controls of their own, and nothing of
ours but the software. Flower alone is left out: questions go to the hospitals in this process.
"""

import contextlib
import json
import zipfile
from functools import partial
from importlib.resources import files
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tomli_w

from esn_client.cli import main as client
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.simulation.connectomes import write_connectomes
from esn_client.site.centre_kit import read_kit, take_in
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry
from esn_client.worker.process import open_hospital
from esn_core.connectome.atlas import SHIPPED
from esn_core.protocol.protocol import load_protocol
from esn_server.cli import main as server
from esn_server.enrolment.centre_keys import create_authority
from esn_server.enrolment.kits import write_kit
from esn_server.enrolment.sites import keep_enrolment
from esn_server.run import run as running
from esn_server.study.link import Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITES = ("north", "south", "west")
CHILDREN, CONTROLS = 24, 6


class Link:
    """Carries questions to hospitals in this process."""

    def __init__(self, hospitals):
        self.hospitals = hospitals
        self.replies = []

    def send(self, node_id, body):
        number = f"m{node_id}-{len(self.replies)}-{id(body)}"
        self.replies.append(Reply(number, node_id, self.hospitals[node_id].reply(body)))
        return number

    def receive(self):
        arrived, self.replies = self.replies, []
        return arrived

    def online(self):
        return set(self.hospitals)


class Consortium:
    """A centre and its hospitals, each with a directory, and both command lines."""

    def __init__(
        self, root, run_command, monkeypatch, *, atlas="desikan-killiany-83", inputs=None, without_controls=()
    ):
        self.root = root
        self.patch = monkeypatch
        self.esn_client = partial(run_command, "esn-client", client.main)
        self.esn_server = partial(run_command, "esn-server", server.main)
        self.atlas, self.inputs = atlas, inputs
        self.sites, self.without = (*SITES, *without_controls), without_controls
        create_authority(root / "centre", names=["127.0.0.1"])
        for site in self.sites:
            self._found_hospital(site)
        protocol = load_protocol(self.draft("recipe", "--votes")) if inputs else None
        for number, site in enumerate(self.sites):
            self._fill_hospital(site, seed=number, protocol=protocol)

    def _found_hospital(self, site):
        place = self.root / site
        words = ("--site", site, "--epsilon-cap", 8, "--delta", 0.001, "--control-sums")
        words += ("--control-reference",) if self.without else ()
        data = ("--dataset", place / "bids", "--derivatives", place / "connectomes")
        assert self.esn_client("init", place / "site", *words, *data)[0] == 0
        settings = load_site(self.settings(site))
        keep_enrolment(self.root / "centre", own_entry(settings))
        kit, _ = write_kit(self.root / "centre", own_entry(settings), public_address="127.0.0.1:9", port=9)
        take_in(settings, read_kit(kit), replace=False)

    def _fill_hospital(self, site, *, seed, protocol):
        place = self.root / site
        controls = 0 if site in self.without else CONTROLS
        about = {"site": site, "seed": seed, "world_seed": 7, "children": CHILDREN, "controls": controls}
        write_connectomes(place / "bids", place / "connectomes", truth=None, protocol=protocol, **about)
        # As a hospital's own: from here on nothing says that these children do not exist.
        description = {"Name": site, "BIDSVersion": "1.10.0"}
        (place / "bids" / "dataset_description.json").write_text(json.dumps(description))

    def settings(self, site):
        return self.root / site / "site" / "site.toml"

    def draft(self, study, *words, where=""):
        """Draft a protocol for real children."""
        (self.root / where).mkdir(exist_ok=True)
        path = self.root / where / f"{study}.toml"
        about = (
            "--study",
            study,
            "--epsilon",
            8,
            "--delta",
            0.001,
            "--split-salt",
            "real-1",
            "--no-simulated",
        )
        own = ("--inputs", self.inputs, "--initial-weights", "own-weights") if self.inputs else ()
        new = ("protocol", "new", self.root / "centre", *about, "--atlas", self.atlas, *own)
        status, _, err = self.esn_server(*new, "--out", path, "--training-rounds", 1, *words)
        assert status == 0, err
        return path

    def agree(self, study, *words):
        """Draft and sign a protocol, and let every site review and approve what it is sent."""
        path = self.draft(study, *words)
        assert self.esn_server("protocol", "sign", self.root / "centre", path)[0] == 0
        if self.inputs:
            path = path.with_suffix(".zip")
        sites = load_protocol(path).sites if not self.inputs else self.sites
        said = [self.esn_client("review", path, "--settings", self.settings(site))[1] for site in sites]
        for site in sites:
            assert self.esn_client("approve", self.settings(site), path)[0] == 0
        return path, said

    def run(self, protocol, out):
        """Run a protocol as the centre does; return what is printed for people."""
        with contextlib.ExitStack() as opened:
            hospitals = {
                number: opened.enter_context(open_hospital(load_site(self.settings(site))))[0]
                for number, site in enumerate(self.sites, start=1)
            }
            nodes = {site: number for number, site in enumerate(self.sites, start=1)}
            self.patch.setattr(running, "open_study", lambda _: contextlib.nullcontext(Link(hospitals)))
            self.patch.setattr(running, "read_address", lambda _: SimpleNamespace(superlink=""))
            self.patch.setattr(running, "node_key_of", lambda _, site: site)
            self.patch.setattr(running, "register_site", lambda _centre, _address, site: nodes[site])
            status, _, err = self.esn_server("run", self.root / "centre", protocol, "--out", out)
        assert status == 0, err
        return err


@pytest.fixture
def consortium(tmp_path, run_command, monkeypatch):
    """Three hospitals that are enrolled."""
    return Consortium(tmp_path, run_command, monkeypatch)


def test_hospitals_run_a_study_of_their_own_patients(consortium, tmp_path):
    votes, _ = consortium.agree("votes-1", "--votes")
    consortium.run(votes, tmp_path / "votes")
    candidates = tmp_path / "votes" / "candidates.toml"
    study, said = consortium.agree("severity-1", "--candidates", candidates)
    for words in ("The children are real patients.", "by the votes of sites", "All of it fits under the cap"):
        assert all(words in review for review in said)
    consortium.run(study, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "severity-1" in str(found["study"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    status, out, _ = consortium.esn_client("ledger", "show", consortium.settings("north"), "--json")
    spent = json.loads(out)
    assert (status, spent["patients"], spent["controls"]) == (0, CHILDREN, CONTROLS)
    assert spent["largest_epsilon"] == pytest.approx(8.0, abs=1e-6)
    # What is over is out of the way, and nobody can be charged for it again.
    points = json.loads(consortium.esn_client("check", consortium.settings("north"), "--json")[1])
    said = {point["point"]: (point["verdict"], point["text"]) for point in points}
    assert "answered to the end: " in said["protocol"][1]
    assert said["ledger"][0] == "ok"


def resect(derivatives, recipe, label, regions):
    """Let a child's connectome lack regions, as `prepare` finds it after an operation."""
    derivative = Derivative(derivatives, Visit(label, None), recipe)
    gone = [recipe.parcellation.names.index(name) for name in regions]
    matrices = {measure: np.loadtxt(derivative.matrix(measure)) for measure in derivative.measures}
    for matrix in matrices.values():
        matrix[gone], matrix[:, gone] = np.nan, np.nan
    record = derivative.read_record()
    details = {name: record[name] for name in ("Stages", "Quality") if name in record}
    derivative.write(matrices, sources=record.get("Sources", {}), details=details)
    assert derivative.read_connectome().without_tissue == tuple(regions)


@pytest.mark.long
def test_a_hospital_without_controls_and_a_child_after_an_operation(tmp_path, run_command, monkeypatch):
    consortium = Consortium(tmp_path, run_command, monkeypatch, without_controls=("east",))
    votes, said = consortium.agree("votes-1", "--votes", "--pool-controls", "--without-controls", "east")
    assert len(said) == 3
    assert all("becomes PUBLIC" in review for review in said)
    consortium.run(votes, tmp_path / "votes")
    candidates = tmp_path / "votes" / "candidates.toml"
    # Not named, it is refused by name wherever somebody looks, and told what to do.
    bare, said = consortium.agree("bare-1", "--candidates", candidates)
    assert "site east: 0 healthy controls have a usable connectome" in said[0]
    points = consortium.esn_client("check", consortium.settings("east"), "--json")[1]
    prepared = next(point for point in json.loads(points) if point["point"] == "prepared")
    assert prepared["verdict"] == "FAIL"
    assert "cohort.without_controls" in prepared["text"]
    with pytest.raises(AssertionError, match=r"east: .*ControlsError"):
        consortium.run(bare, tmp_path / "bare")
    for site in consortium.sites:
        assert (
            consortium.esn_client("withdraw", consortium.settings(site), load_protocol(bare).sha256)[0] == 0
        )
    operated = ("L_inferiortemporal", "L_middletemporal", "L_superiortemporal", "L_temporalpole")
    resect(tmp_path / "north" / "connectomes", load_protocol(votes).imaging, "sub-001", operated)
    named = ("--candidates", candidates, "--without-controls", "east")
    study, said = consortium.agree("severity-1", *named)
    assert all("WITHOUT OWN CONTROLS, judged by it: east." in review for review in said)
    consortium.run(study, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "Of east, which have too few controls" in found["harmonisation"]["note"]
    assert "off by half a step" in (tmp_path / "run" / "report.html").read_text()
    spent = json.loads(consortium.esn_client("ledger", "show", consortium.settings("east"), "--json")[1])
    assert 5 <= spent["patients"] < CHILDREN  # its held-out children alone
    assert spent["controls"] == 0
    spent = json.loads(consortium.esn_client("ledger", "show", consortium.settings("north"), "--json")[1])
    assert spent["patients"] == CHILDREN  # who was operated on among them


# --- with an atlas and weights of the consortium's own -------------------------------------------------


@pytest.fixture
def own_inputs(tmp_path):
    """Their description, beside an atlas of 22 regions with its label volume, and weights."""
    folder = tmp_path / "ours"
    folder.mkdir()
    rows = (SHIPPED / "desikan-killiany-83.tsv").read_text(encoding="utf-8").splitlines()
    kept = [rows[0], *rows[1:12], *rows[42:53]]
    (folder / "own-22.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    labels = nib.load(SHIPPED / "desikan-killiany-83.nii.gz")
    values = np.asarray(labels.dataobj)
    own = np.where(np.isin(values, [int(row.split("\t")[0]) for row in kept[1:]]), values, 0)
    nib.save(nib.Nifti1Image(own.astype(np.uint8), labels.affine), folder / "own-22.nii.gz")
    weights = files("esn_core.learning") / "pretrained" / "compact-3.safetensors"
    (folder / "own-weights.safetensors").write_bytes(weights.read_bytes())
    about = {"origin": "ours", "licence": "CC0-1.0", "people": 40}
    kinds = {"atlas": "own-22", "weights": "own-weights"}
    inputs = [{"kind": kind, "name": name, **about} for kind, name in kinds.items()]
    (folder / "inputs.toml").write_text(tomli_w.dumps({"inputs": inputs}), encoding="utf-8")
    return folder / "inputs.toml"


@pytest.mark.long
def test_hospitals_run_a_study_on_an_atlas_of_their_own(
    own_inputs, tmp_path, run_command, monkeypatch, command_fails
):
    consortium = Consortium(tmp_path, run_command, monkeypatch, atlas="own-22", inputs=own_inputs)
    votes, _ = consortium.agree("votes-1", "--votes")
    consortium.run(votes, tmp_path / "votes")
    study, said = consortium.agree("severity-1", "--candidates", tmp_path / "votes" / "candidates.toml")
    with zipfile.ZipFile(study) as archive:
        names = ("own-22.nii.gz", "own-22.tsv", "own-weights.safetensors")
        assert archive.namelist() == ["protocol.toml", *(f"inputs/{name}" for name in names)]
    for words in ("atlas own-22, came with the protocol. ours. Licence: CC0-1.0. Behind it: 40 people.",):
        assert all(words in review for review in said)
    points = json.loads(consortium.esn_client("check", consortium.settings("north"), "--json")[1])
    assert {p["point"]: p["verdict"] for p in points}["prepared"] == "ok"
    consortium.run(study, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    inputs = {one["name"]: one["ships"] for one in found["inputs"]}
    assert inputs == {"own-22": False, "own-weights": False}
    assert "atlas own-22, the study's own" in (tmp_path / "run" / "report.html").read_text()
    again = ("report", tmp_path / "run" / "result.json", "--out", tmp_path / "again.html")
    assert consortium.esn_server(*again)[0] == 0
    # A file that was approved is never read otherwise.
    (kept,) = (tmp_path / "north" / "site").rglob(f"{load_protocol(study).sha256}.zip")
    content = kept.read_bytes()
    kept.write_bytes(content.replace(b"\tR_frontal", b"\tR_fr0ntal", 1))
    _, out, _ = consortium.esn_client("check", consortium.settings("north"), "--json")
    assert "is no study package, or was damaged on its way" in out


def test_an_approval_tries_volume_and_weights(own_inputs, tmp_path, run_command, monkeypatch, command_fails):
    fails = partial(command_fails, "esn-client", client.main)
    consortium = Consortium(tmp_path, run_command, monkeypatch, atlas="own-22", inputs=own_inputs)
    folder, centre = own_inputs.parent, tmp_path / "centre"
    empty = nib.Nifti1Image(np.zeros((9, 9, 9), dtype=np.uint8), np.eye(4))
    for number, (name, status, words) in enumerate(
        (
            ("own-22.nii.gz", 11, "own-22.nii.gz: region 1 of atlas own-22 has no voxel"),
            ("own-weights.safetensors", 10, "the weights 'own-weights' are no safetensors"),
        )
    ):
        honest = (folder / name).read_bytes()
        if name.endswith(".gz"):
            nib.save(empty, folder / name)
        else:
            (folder / name).write_bytes(honest[:-4])
        path = consortium.draft("votes", "--votes", where=f"try-{number}")
        assert consortium.esn_server("protocol", "sign", centre, path)[0] == 0
        fails(status, words, "approve", consortium.settings("north"), path)
        (folder / name).write_bytes(honest)
