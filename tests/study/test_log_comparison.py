"""Both sides log every message: crashes are no difference, and everything else is."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tomli_w

from esn_client.gate.audit_log import AuditLog
from esn_core.errors import AuditError, ConfigError
from esn_core.system.chained_log import ChainedLog, hash_of
from esn_server.link.log_comparison import compare_with_exports
from esn_server.link.message_log import LoggedLink, log_of
from esn_server.run.checkpoints import RunStore
from esn_server.run.memory import Memory
from esn_server.study.rounds import Rounds
from esn_server.study.study import run_study


class Pair:
    """A study with a logged link, and what both sides wrote."""

    def __init__(self, consortium, directory, keys):
        self.consortium = consortium
        self.directory = directory
        self.keys = keys
        self.centre = directory / "centre"
        (self.centre / "sites").mkdir(parents=True)
        for entry in consortium.protocol.roster:
            (self.centre / "sites" / f"{entry.site}.toml").write_text(tomli_w.dumps(entry.model_dump()))

    def run(self, *, link=None):
        """Run the study, or go on with it: the run's name stays."""
        consortium = self.consortium
        nodes = {site: node for node, site in enumerate(consortium.protocol.sites, start=1)}
        with RunStore(self.directory / "own.sqlite", protocol_sha256=consortium.protocol.sha256) as store:
            rounds = Rounds(
                LoggedLink(link or consortium.link, nodes, centre=self.centre),
                nodes,
                protocol=consortium.signed,
                signing_key=consortium.link.centre_key,
                memory=Memory(self.centre, store),
                clock=consortium.link.clock,
                sleep=consortium.link.sleep,
            )
            run_study(
                consortium.signed,
                run="r1",
                asking=rounds,
                rng=np.random.default_rng(0),
            )

    def export(self, site):
        path = self.directory / f"{site}.export.jsonl"
        log = AuditLog(self.directory / f"{site}.jsonl", site=site)
        path.write_text("".join(f"{line}\n" for line in log.export(self.keys[site][0])))
        return path

    def compare(self):
        return compare_with_exports(
            self.centre, [self.export(site) for site in self.consortium.protocol.sites]
        )

    def rewrite(self, path, change):
        """Write a log again with a chain of its own, as whoever owns the file could."""
        said = change([json.loads(line) for line in path.read_bytes().splitlines()])
        last, lines = None, []
        for facts in said:
            facts["previous"] = hash_of(last)
            last = json.dumps(facts, sort_keys=True).encode()
            lines.append(last)
        path.write_bytes(b"".join(line + b"\n" for line in lines))


@pytest.fixture(scope="module")
def finished(build_consortium, tmp_path_factory, more_sites):
    """A study that was run to its end, and all that both sides wrote."""
    opened, directory = [], tmp_path_factory.mktemp("finished")
    pair = Pair(build_consortium(directory, opened, trust="secure-sum"), directory, more_sites[1])
    pair.run()
    yield pair
    for file in opened:
        file.close()


@pytest.fixture
def pair(finished, tmp_path):
    """The same, in a copy that a test may change."""
    mine = copy.copy(finished)
    mine.directory = shutil.copytree(finished.directory, tmp_path / "copy")
    mine.centre = mine.directory / "centre"
    return mine


QUESTIONS = 8  # roll call, centre, association, three gradients, calibration, evaluation


def test_the_logs_of_a_study_agree(pair):
    found = pair.compare()
    assert [c.site for c in found] == ["north", "south", "west"]
    assert {(c.questions, c.answers, c.lost_questions, c.lost_answers) for c in found} == {
        (QUESTIONS, QUESTIONS, 0, 0)
    }


def test_no_log_names_a_child_or_a_number(pair):
    for path in (log_of(pair.centre), *(pair.export(s) for s in pair.consortium.protocol.sites)):
        assert "sub-" not in path.read_text()


def drop(event, place=2):
    def change(said):
        places = [n for n, facts in enumerate(said) if facts.get("event") == event]
        return said[: places[place]] + said[places[place] + 1 :]

    return change


def edit(event, place=2):
    def change(said):
        line = [facts for facts in said if facts.get("event") == event][place]
        line["sha256"] = "f" * 64
        return said

    return change


def swap(said):
    """Pretend that two questions were answered the other way round."""
    return [*said[:4], *said[6:8], *said[4:6], *said[8:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            drop("sent"),
            r"south: the answer of .*association/0 at .* came to the centre .* and was never sent",
        ),
        (edit("sent"), r"south: the answer of .* came to the centre .* and was never sent"),
        (edit("received"), r"south: .*association/0, attempt 0 at .* has sha256 f{16} at the site .* and"),
        (swap, r"south: the centre asked .* after it had the answer to .*; at the site it is the other way"),
        (
            lambda said: said[:-4],
            r"south: its log ends before .*calibration/0 at .*: export it again, or its",
        ),
    ],
    ids=["answer dropped", "answer changed", "question changed", "order changed", "cut short"],
)
def test_a_site_that_writes_its_log_anew_is_found_out(pair, change, words):
    pair.rewrite(pair.directory / "south.jsonl", change)
    with pytest.raises(AuditError, match=words):
        pair.compare()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            drop("asked", 4),
            r"south: the question of .*centre/0, .* came to the site .* never asked by the centre",
        ),
        (edit("answered", 4), r"south: the answer of .*centre/0 .* came to the centre .* and was never sent"),
    ],
    ids=["question dropped", "answer changed"],
)
def test_a_centre_that_writes_its_log_anew_is_found_out(pair, change, words):
    pair.rewrite(log_of(pair.centre), change)
    with pytest.raises(AuditError, match=words):
        pair.compare()


def test_a_last_answer_that_the_site_does_not_know_is_named(pair):
    pair.rewrite(log_of(pair.centre), edit("answered", -1))
    with pytest.raises(AuditError, match="west: its log ends before"):
        pair.compare()


@pytest.mark.parametrize("side", ["centre", "site"])
def test_a_line_that_was_changed_in_its_place_is_named(pair, side):
    path = log_of(pair.centre) if side == "centre" else pair.directory / "south.jsonl"
    path.write_bytes(path.read_bytes().replace(b"association", b"dissociatio", 1))
    with pytest.raises(AuditError, match=r"line \d+ does not follow the one before it"):
        pair.compare()


def test_an_export_that_was_changed_on_its_way_is_not_believed(pair):
    path = pair.export("north")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-3], *lines[-1:]]))
    with pytest.raises(AuditError, match="was changed after north exported it, or north did not sign it"):
        compare_with_exports(pair.centre, [path])
    path.write_text("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="its last line is missing"):
        compare_with_exports(pair.centre, [path])


class Fragile:
    """A link that is cut at one place: before a question leaves, or before its answer is here."""

    def __init__(self, link, *, before_sending=None, before_receiving=None):
        self.link = link
        self.before_sending, self.before_receiving = before_sending, before_receiving
        self.sent = self.received = 0

    def send(self, node_id, body):
        if self.sent == self.before_sending:
            raise KeyboardInterrupt
        self.sent += 1
        return self.link.send(node_id, body)

    def receive(self):
        if self.received == self.before_receiving:
            self.link.receive()  # they are lost with the process
            raise KeyboardInterrupt
        self.received += 1
        return self.link.receive()

    def online(self):
        return self.link.online()


@pytest.mark.parametrize("cut", [{"before_sending": 7}, {"before_receiving": 2}, {"before_receiving": 5}])
def test_a_centre_that_was_killed_and_started_again_agrees_with_its_sites(
    make_consortium, tmp_path, more_sites, cut
):
    pair = Pair(make_consortium(trust="secure-sum"), tmp_path, more_sites[1])
    with pytest.raises(KeyboardInterrupt):
        pair.run(link=Fragile(pair.consortium.link, **cut))
    pair.run()
    found = pair.compare()
    lost = (sum(c.lost_questions for c in found), sum(c.lost_answers for c in found))
    # The question that was about to leave, and the answer to the one before; or the answers of all sites.
    assert lost == ((1, 1) if "before_sending" in cut else (0, 3))


def test_a_site_that_was_killed_while_it_worked_agrees(make_consortium, tmp_path, more_sites):
    pair = Pair(make_consortium(trust="secure-sum"), tmp_path, more_sites[1])
    hospital, killed = pair.consortium.link.hospitals[2], []
    real = hospital.reply
    link = pair.consortium.link

    def reply(body):
        if len(killed) == 3:
            killed.append(1)
            hospital._gate.receive(_question(pair, body), body)
            link.lost_one = True
            return b""
        killed.append(1)
        return real(body)

    hospital.reply = reply
    original = link.receive

    def receive():
        return [r if r.body else replace(r, body=None, error="SiteCrashed") for r in original()]

    link.receive = receive
    pair.run()
    (south,) = [c for c in pair.compare() if c.site == "south"]
    assert (south.questions, south.answers) == (QUESTIONS + 1, QUESTIONS)
    with (tmp_path / "south.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-11')  # and killed once more, in the midst of a line
    ChainedLog(tmp_path / "south.jsonl").append(site="south", event="approved", protocol="a" * 64)
    pair.compare()


def _question(pair, body):
    from esn_core.messages.question import Question

    return Question.from_bytes(body, pair.consortium.link.centre_key.public_key())


def test_a_message_that_cannot_be_logged_is_not_sent(make_consortium, tmp_path, more_sites):
    pair = Pair(make_consortium(trust="secure-sum"), tmp_path, more_sites[1])
    path = log_of(pair.centre)
    path.mkdir()
    before = len(pair.consortium.link.carried)
    with pytest.raises(Exception, match="the log of messages cannot be written to"):
        pair.run()
    assert len(pair.consortium.link.carried) == before
