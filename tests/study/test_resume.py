"""A run that was stopped goes on, from a copy of its directory too, and never by accident."""

import shutil

import numpy as np
import pytest

from esn_core.errors import ConfigError
from esn_core.messages.facts import LedgerMark
from esn_core.protocol.protocol import Protocol
from esn_server.run.checkpoints import Checkpoints, RunStore
from esn_server.run.directory import open_directory
from esn_server.run.memory import Memory
from esn_server.study.rounds import Rounds
from esn_server.study.study import run_study


@pytest.fixture
def protocol_file(tmp_path, protocol_content):
    import tomli_w

    path = tmp_path / "protocol.toml"
    path.write_text(tomli_w.dumps(protocol_content))
    return path, Protocol.model_validate(protocol_content)


def test_a_first_start_takes_an_empty_directory_and_keeps_the_protocol_in_it(tmp_path, protocol_file):
    path, protocol = protocol_file
    open_directory(tmp_path / "run", path, protocol, resume=False)
    assert (tmp_path / "run" / "protocol.toml").read_bytes() == path.read_bytes()
    open_directory(tmp_path / "run", path, protocol, resume=True)


def test_a_second_start_says_how_to_go_on(tmp_path, protocol_file):
    path, protocol = protocol_file
    open_directory(tmp_path / "run", path, protocol, resume=False)
    with pytest.raises(ConfigError, match="holds a run already; '--resume' goes on with it"):
        open_directory(tmp_path / "run", path, protocol, resume=False)


def test_a_directory_with_something_else_is_left_alone(tmp_path, protocol_file):
    path, protocol = protocol_file
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty; a run needs a directory of its own"):
        open_directory(tmp_path / "run", path, protocol, resume=False)
    with pytest.raises(ConfigError, match=r"holds no run that could go on\. If its directory was moved"):
        open_directory(tmp_path / "run", path, protocol, resume=True)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_another_protocol_cannot_go_on_with_a_run(tmp_path, protocol_file):
    path, protocol = protocol_file
    open_directory(tmp_path / "run", path, protocol, resume=False)
    other = protocol.model_copy(update={"study": "other"})
    with pytest.raises(ConfigError, match=r"holds a run of protocol .* \(study test\), not of"):
        open_directory(tmp_path / "run", path, other, resume=True)


class StopsAfter:
    """Asks, and is interrupted after so many sums."""

    def __init__(self, asking, sums):
        self._asking, self._left = asking, sums

    def roll_call(self, question):
        return self._asking.roll_call(question)

    def sum(self, question, kind):
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._asking.sum(question, kind)


def test_a_copied_run_goes_on_where_the_other_stopped(make_consortium, tmp_path):
    """All that the centre wrote is copied, the original is gone, and nobody pays or is asked twice."""
    consortium = make_consortium(trust="secure-sum")
    first = tmp_path / "first"
    first.mkdir()
    digest = consortium.protocol.sha256

    def start(place, *, sums=99):
        with RunStore(place / "run.sqlite", protocol_sha256=digest) as store:
            rounds = Rounds(
                consortium.link,
                {site: node for node, site in enumerate(consortium.protocol.sites, start=1)},
                protocol=consortium.signed,
                signing_key=consortium.link.centre_key,
                memory=Memory(place / "centre", store),
                clock=consortium.link.clock,
                sleep=consortium.link.sleep,
            )
            return run_study(
                consortium.signed,
                run=store.run,
                asking=StopsAfter(Checkpoints(store, rounds), sums),
                rng=np.random.default_rng(0),
            )

    with pytest.raises(KeyboardInterrupt):
        start(first, sums=3)
    asked_before = len(consortium.link.carried)
    shutil.copytree(first, tmp_path / "second")
    shutil.rmtree(first)
    found = start(tmp_path / "second")
    # Roll call again, then only what was not finished: centre, association and one gradient were. The sites
    # say once that they lack the sum of that gradient, and are shown nothing else again.
    assert len(consortium.link.carried) - asked_before == 3 * (1 + 1 + 2 + 1 + 1)
    shown = [consortium.link.read(body).offset for _, body, _ in consortium.link.carried[asked_before + 6 :]]
    assert min(shown) > 0
    again = start(tmp_path / "second")
    assert np.array_equal(found.weights, again.weights)
    assert {len(ledger.entries()) for ledger in consortium.ledgers.values()} == {1 + 1 + 3 + 1 + 1}


def test_a_copied_run_knows_the_sites_ledgers_without_the_centres_directory(tmp_path):
    seen = LedgerMark(entries=7, head="a" * 64)
    with RunStore(tmp_path / "run.sqlite", protocol_sha256="a" * 64) as store:
        Memory(tmp_path / "centre", store).see_ledger("north", seen)
        assert Memory(tmp_path / "elsewhere", store).ledger_seen("north") == seen
        other = Memory(tmp_path / "third", store)
        (tmp_path / "third" / "sites").mkdir(parents=True)
        foreign = LedgerMark(entries=7, head="b" * 64)
        (tmp_path / "third" / "sites" / "north.ledger.json").write_text(foreign.model_dump_json())
        with pytest.raises(ConfigError, match="entry 7 of the ledger of north is another one in the run's"):
            other.ledger_seen("north")
