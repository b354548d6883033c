"""From diffusion MRI at three hospitals to a result, with every real part in its place.

The commands are those of the guides, each in a process of its own: three
simulated datasets, in each one child's raw scan and the other children as
prepared earlier, a SuperLink with TLS and site authentication, three SuperNodes
with our executor, private sums through the gate, one study - which is killed in
its midst and resumed.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from esn_client.site.settings import load_site
from esn_client.site.state import own_entry
from esn_core.errors import ProtocolError, StudyError
from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port
from esn_server.enrolment.centre_keys import load_centre_key
from esn_server.report.result import read_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SITES = ("north", "south", "west")
CHILDREN, CONTROLS, ROUNDS = 20, 3, 2
QUESTIONS = ["centre", "association", "gradient", "gradient", "calibration", "evaluation"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "ESN_LOG_LEVEL": "debug"}
"""And everything is logged, so that the logs can be looked through."""


@dataclass
class Federation:
    """A running consortium and the study that it finished."""

    directory: Path
    address: str

    def settings(self, site):
        return self.directory / site / "home" / "site.toml"

    def ledger(self, site):
        shown = esn("client", "ledger", "show", str(self.settings(site)), "--json")
        return json.loads(shown.stdout)

    def run(self, out, *, protocol=None, resume=False):
        centre = str(self.directory / "centre")
        protocol = str(protocol or self.directory / "protocol.toml")
        return esn(
            *("server", "run", centre, protocol, "--out", str(out)),
            *(["--resume"] if resume else []),
            check=False,
        )


def esn(side, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", f"esn_{side}.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def background(side, *arguments, log):
    command = [sys.executable, "-m", f"esn_{side}.cli.main", *arguments]
    return ChildProcess(command, log_file=log, environment=ONE_THREAD)


def lower_minimum(path):
    """Edit a file as a coordinator would: these cohorts are smaller than the draft's minimum."""
    text = path.read_text(encoding="utf-8")
    assert "minimum_children = 5" in text
    path.write_text(text.replace("minimum_children = 5", "minimum_children = 3"), encoding="utf-8")


def enrol(federation, site):
    """Exchange request and kit, and read each fingerprint out from the other side's screen."""
    settings, centre = federation.settings(site), federation.directory / "centre"
    state = settings.parent / "state"
    request, kit = state / "enrolment.toml", centre / "kits" / f"{site}.kit.toml"
    addresses = ("--public-address", federation.address)
    heard = own_entry(load_site(settings)).fingerprint
    said = esn("server", "enrol", str(centre), str(request), "--fingerprint", heard, *addresses)
    assert said.stdout.strip() == str(kit)
    heard = said.stderr.splitlines()[-1].strip()
    esn("client", "kit", str(settings), str(kit), "--fingerprint", heard)


def kill_after_two_sums(federation):
    """Start the study and end it with SIGKILL in its midst: what the tests see is the resumed one."""
    directory = federation.directory
    arguments = (str(directory / "centre"), str(directory / "protocol.toml"), "--out", str(directory / "run"))
    with background("server", "run", *arguments, log=directory / "killed.log") as first:
        assert first.wait_until(lambda: finished_steps(directory / "run") >= 2, timeout_s=300)
        os.kill(first.pid, signal.SIGKILL)
    # It goes on from a copy, as it would on another machine.
    shutil.copytree(directory / "run", directory / "copy")
    shutil.rmtree(directory / "run")
    (directory / "copy").rename(directory / "run")
    assert not (directory / "run" / "result.json").exists()


def finished_steps(run):
    if not (run / "run.sqlite").exists():
        return 0
    with closing(sqlite3.connect(run / "run.sqlite", timeout=30)) as store:
        tables = store.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'steps'").fetchone()[0]
        return store.execute("SELECT COUNT(*) FROM steps").fetchone()[0] if tables else 0


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    directory = tmp_path_factory.mktemp("federation")
    port = free_port()
    ports = ("--port", str(port), "--health-port", str(free_port()))
    address = f"127.0.0.1:{port}"
    centre, protocol = directory / "centre", directory / "protocol.toml"
    found = Federation(directory, address)

    def simulate(site):
        data = directory / site
        arguments = ("--site", site, "--seed", "7", "--children", str(CHILDREN), "--controls", str(CONTROLS))
        prepared = ("--scans", "1", "--connectomes", str(data / "derivatives"))
        esn("client", "simulate", str(data / "bids"), *arguments, *prepared)

    def prepare(site):
        data = directory / site
        arguments = ("participant", "--protocol", str(protocol))
        esn("client", "prepare", str(data / "bids"), str(data / "derivatives"), *arguments)

    with ExitStack() as processes, ThreadPoolExecutor(2) as two:
        list(two.map(simulate, SITES))
        esn("server", "init", str(centre), "--name", "127.0.0.1")
        serving = processes.enter_context(
            background("server", "start", str(centre), *ports, log=directory / "centre.log")
        )
        assert serving.wait_until(lambda: "ready" in " ".join(serving.log_lines()), timeout_s=300)
        for site in SITES:
            data = directory / site
            esn(
                "client",
                *("init", str(data / "home"), "--site", site, "--epsilon-cap", "8.01", "--delta", "0.001"),
                *("--dataset", str(data / "bids"), "--derivatives", str(data / "derivatives")),
            )
            lower_minimum(found.settings(site))
            enrol(found, site)
        esn(
            "server",
            *("protocol", "new", str(centre), "--study", "test", "--epsilon", "8", "--delta", "0.001"),
            *("--split-salt", "test-119", "--simulated", "--candidates", "template"),
            *("--training-rounds", str(ROUNDS)),
            *("--deadline-s", "300", "--out", str(protocol)),
        )
        lower_minimum(protocol)
        esn("server", "protocol", "sign", str(centre), str(protocol))
        list(two.map(prepare, SITES))
        for site in SITES:
            esn("client", "approve", str(found.settings(site)), str(protocol))
            processes.enter_context(
                background("client", "join", str(found.settings(site)), log=directory / f"{site}.log")
            )
        kill_after_two_sums(found)
        done = found.run(directory / "run", resume=True)
        assert done.returncode == 0, done.stderr
        yield found
    ours = [
        p for p in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(p.info["cmdline"] or [])
    ]
    _, left = psutil.wait_procs(ours, timeout=60)  # a SuperNode whose guard was slow to end notices by itself
    assert left == []


def test_the_study_ends_with_a_result_and_a_report(federation):
    result = read_result(federation.directory / "run" / "result.json")
    assert [site.name for site in result.sites] == list(SITES)
    assert result.privacy.epsilon_training_child == pytest.approx(8.0, rel=1e-6)
    assert result.privacy.trust == "secure-sum"
    assert len(result.learning_curve) == ROUNDS
    page = (federation.directory / "run" / "report.html").read_text(encoding="utf-8")
    assert result.protocol_sha256 in page


def test_each_ledger_holds_each_question_once(federation):
    for site in SITES:
        ledger = federation.ledger(site)
        assert [entry["release"] for entry in ledger["entries"]] == QUESTIONS
        assert ledger["largest_epsilon"] == pytest.approx(8.0, rel=1e-6)
        assert ledger["patients"] == CHILDREN


def test_the_centre_holds_no_participant(federation):
    held = [path for path in (federation.directory / "centre").rglob("*") if path.is_file()]
    held += [path for path in (federation.directory / "run").rglob("*") if path.is_file()]
    assert len(held) > 5
    for path in held:
        assert b"sub-0" not in path.read_bytes(), path


def test_the_audit_log_tells_what_was_sent_and_names_nobody(federation):
    for site in SITES:
        text = (federation.directory / site / "home" / "state" / "audit.jsonl").read_text(encoding="utf-8")
        # The resumed study repeats the roll call, and the question that was under way.
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["event"] for line in lines[:2]] == ["kit", "approved"]
        sent = dict.fromkeys(line["question"] for line in lines[2:])
        assert [question.split("/")[2] for question in sent] == ["roll-call", *QUESTIONS]
        assert "sub-" not in text
        assert str(federation.directory) not in text


def test_a_hospital_has_a_personal_model_of_the_study_and_says_nothing_of_it(federation):
    settings, out = federation.settings("south"), federation.directory / "personal"
    state = settings.parent / "state"
    before = federation.ledger("south"), (state / "audit.jsonl").read_bytes()
    protocol = str(federation.directory / "protocol.toml")
    esn("client", "personal-model", str(settings), protocol, "--out", str(out))
    found = json.loads((out / "personal-model.json").read_text(encoding="utf-8"))
    assert (found["training"] + found["personal"]["children"], found["controls"]) == (CHILDREN, CONTROLS)
    assert "Send nothing of it." in (out / "personal-model.html").read_text(encoding="utf-8")
    assert (federation.ledger("south"), (state / "audit.jsonl").read_bytes()) == before


def test_a_finished_run_is_read_again_without_a_new_charge(federation):
    before = (federation.directory / "run" / "result.json").read_bytes()
    assert federation.run(federation.directory / "run", resume=True).returncode == 0
    first, second = (
        json.loads(before),
        json.loads((federation.directory / "run" / "result.json").read_bytes()),
    )
    for result in (first, second):
        del result["timing_s"]
    assert first == second
    assert len(federation.ledger("north")["entries"]) == len(QUESTIONS)


def test_a_second_run_is_refused_by_every_site_and_ends_with_its_own_status(federation):
    done = federation.run(federation.directory / "again")
    assert done.returncode == StudyError.exit_status
    assert "refused (PrivacyBudgetError)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (federation.directory / "again" / "result.json").exists()


def altered(federation, sign_as):
    """The study's protocol with a larger budget, signed by the centre but approved by nobody."""
    path = federation.directory / "altered.toml"
    text = (federation.directory / "protocol.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("epsilon = 8.0", "epsilon = 9.0"), encoding="utf-8")
    return sign_as(path, load_centre_key(federation.directory / "centre"))


def test_an_altered_protocol_is_not_run(federation):
    path = federation.directory / "by-a-byte.toml"
    text = (federation.directory / "protocol.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("epsilon = 8.0", "epsilon = 9.0"), encoding="utf-8")
    done = federation.run(federation.directory / "no-run", protocol=path)
    assert done.returncode == ProtocolError.exit_status
    assert "was altered since it was signed by SHA256:" in done.stderr
    assert not (federation.directory / "no-run").exists()


def test_an_unapproved_protocol_is_refused_and_approval_counts_for_a_site_that_is_joined(federation, sign_as):
    """Without a restart: north approves the new protocol, so that only the others refuse it."""
    path = altered(federation, sign_as)
    north = federation.settings("north")
    north.write_text(
        north.read_text(encoding="utf-8").replace("epsilon_cap = 8.01", "epsilon_cap = 50.0"),
        encoding="utf-8",
    )
    digest = esn("client", "approve", str(north), str(path)).stdout.strip()
    done = federation.run(federation.directory / "approved", protocol=path)
    assert done.returncode == StudyError.exit_status
    # The settings are read anew as well: with the old cap it would refuse for its budget.
    assert "north: refused" not in done.stderr
    assert "south: refused (ProtocolError)" in done.stderr
    esn("client", "withdraw", str(north), digest[:16])
    done = federation.run(federation.directory / "withdrawn", protocol=path)
    assert "north: refused (ProtocolError)" in done.stderr


def test_a_revoked_site_is_neither_run_with_nor_enrolled_again(federation):
    centre = federation.directory / "centre"
    esn("server", "revoke", str(centre), "west", "--yes")
    done = federation.run(federation.directory / "without-west")
    assert done.returncode == ProtocolError.exit_status
    assert "the node key of west was revoked on" in done.stderr
    request = federation.settings("west").parent / "state" / "enrolment.toml"
    again = esn("server", "enrol", str(centre), str(request), check=False)
    assert again.returncode == ProtocolError.exit_status
    assert "the node key of west was revoked on" in again.stderr


def scores_in(text, scores):
    """What in a text may be the GASE of children of one table.

    One digit stands in every log: it is looked for beside its name, standardised, and with its neighbours.
    """
    found = re.findall(
        r"(?i)\b(?:gase|severity|scores?)\b[\W_]{0,4}(?:of |is |was )?-?[1-7](?!\.{0,2}\d)\b", text
    )
    # (GASE - 4) / 1.5, whatever number of digits; a time that something took is none.
    found += re.findall(r"(?<![\d.])-?(?:0\.66+7?|1\.33+)(?!\d|\s?m?s\b)", text)
    for place in range(len(scores) - 4):
        run = r"\D{1,4}".join(scores[place : place + 5])
        found += re.findall(rf"(?<![\d.]){run}(?!\d)", text)
    return found


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("left out a child with GASE 5", True),
        ("{'gase': 5}", True),
        ("severity of -0.6666666666666666", True),
        ("scores [7, 5, 3, 2, 6, 1] of the training children", True),
        ("array([5., 3., 2., 6., 1.])", True),
        ("standardised -1.3333, then 0.6667", True),
        ("Fleet.PullMessages in 0.667 ms and 1.330412 ms on 127.0.0.1, attempt 5 of 3", False),
        ("12:03:05 attempt 5, 3 sites of 2, round 6", False),
        ("gase of 1..7; score.py:52 severity", False),
    ],
)
def test_a_score_in_a_log_would_be_seen(text, seen):
    assert bool(scores_in(text, ["7", "5", "3", "2", "6", "1", "4"])) == seen


def test_no_log_holds_a_label_a_directory_an_age_or_a_score(federation):
    """At debug level, whoever wrote it: ours, Flower's, and what a service manager would keep of stderr."""
    files = [p for p in federation.directory.rglob("*.log*") if p.is_file()]
    assert {p.name for p in files} >= {"answers.log", "supernode.log", "superlink.log", "join.log"}
    text = "\n".join(p.read_text(errors="replace") for p in files)
    assert " DEBUG " in text
    forbidden = set()
    for site in SITES:
        data = federation.directory / site
        forbidden |= {str(data / "bids"), str(data / "derivatives")}
        head, *lines = (data / "bids" / "participants.tsv").read_text().splitlines()
        columns = head.split("\t")
        rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
        assert scores_in(text, [row["gase"] for row in rows if row["group"] == "dre"]) == []
        forbidden |= {row["participant_id"] for row in rows} | {
            row["age"] for row in rows if "." in row["age"]
        }
    assert len(forbidden) > 3 * CHILDREN
    found = {word for word in forbidden if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text)}
    assert found == set()
