"""A study of patients from beginning to end: enrolled, voted, approved, run and read, by both command lines.

Three hospitals with connectomes that nothing marks as simulated and controls of their own, and nothing of
ours but the software. Flower alone is left out: questions go to the hospitals in this process.
"""

import contextlib
import json
from functools import partial
from types import SimpleNamespace

import pytest

from esn_client.cli import main as client
from esn_client.simulation.connectomes import write_connectomes
from esn_client.site.centre_kit import read_kit, take_in
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry
from esn_client.worker.process import open_hospital
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

    def __init__(self, root, run_command, monkeypatch):
        self.root = root
        self.patch = monkeypatch
        self.esn_client = partial(run_command, "esn-client", client.main)
        self.esn_server = partial(run_command, "esn-server", server.main)
        create_authority(root / "centre", names=["127.0.0.1"])
        for number, site in enumerate(SITES):
            self._found_hospital(site, seed=number)

    def _found_hospital(self, site, *, seed):
        place = self.root / site
        about = {"site": site, "seed": seed, "world_seed": 7, "children": CHILDREN, "controls": CONTROLS}
        write_connectomes(place / "bids", place / "connectomes", truth=None, **about)
        # As a hospital's own: from here on nothing says that these children do not exist.
        description = {"Name": site, "BIDSVersion": "1.10.0"}
        (place / "bids" / "dataset_description.json").write_text(json.dumps(description))
        words = ("--site", site, "--epsilon-cap", 8, "--delta", 0.001, "--control-sums")
        data = ("--dataset", place / "bids", "--derivatives", place / "connectomes")
        assert self.esn_client("init", place / "site", *words, *data)[0] == 0
        settings = load_site(self.settings(site))
        keep_enrolment(self.root / "centre", own_entry(settings))
        kit, _ = write_kit(self.root / "centre", own_entry(settings), public_address="127.0.0.1:9", port=9)
        take_in(settings, read_kit(kit), replace=False)

    def settings(self, site):
        return self.root / site / "site" / "site.toml"

    def agree(self, study, *words):
        """Draft and sign a protocol for real children, and let every site review and approve it."""
        path = self.root / f"{study}.toml"
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
        new = ("protocol", "new", self.root / "centre", *about, "--atlas", "desikan-killiany-83")
        status, _, err = self.esn_server(*new, "--out", path, "--training-rounds", 1, *words)
        assert status == 0, err
        assert self.esn_server("protocol", "sign", self.root / "centre", path)[0] == 0
        said = [self.esn_client("review", path, "--settings", self.settings(site))[1] for site in SITES]
        for site in SITES:
            assert self.esn_client("approve", self.settings(site), path)[0] == 0
        return path, said

    def run(self, protocol, out):
        """Run a protocol as the centre does; return what is printed for people."""
        with contextlib.ExitStack() as opened:
            hospitals = {
                number: opened.enter_context(open_hospital(load_site(self.settings(site))))[0]
                for number, site in enumerate(SITES, start=1)
            }
            nodes = {site: number for number, site in enumerate(SITES, start=1)}
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
