"""The centre remembers the end of each site's ledger, from study to study."""

import pytest

from esn_core.errors import ConfigError, ProtocolError
from esn_core.messages.facts import LedgerMark
from esn_server.run.checkpoints import RunStore
from esn_server.run.memory import Memory


def mark(entries, letter="a"):
    return LedgerMark(entries=entries, head=letter * 64)


@pytest.fixture
def open_memory(tmp_path):
    """A function that opens the centre's memory in another run."""
    stores = []

    def open_run(name="run"):
        stores.append(RunStore(tmp_path / f"{name}.sqlite", protocol_sha256="a" * 64))
        return Memory(tmp_path / "centre", stores[-1])

    yield open_run
    for store in stores:
        store.close()


def test_a_site_that_was_never_seen_has_an_empty_ledger(open_memory):
    assert open_memory().ledger_seen("north") == mark(0, "0")


def test_the_newest_entry_is_kept_for_the_next_study(open_memory):
    memory = open_memory("first")
    for entries in (3, 7, 5):  # an answer that was paid for long ago comes again
        memory.see_ledger("north", mark(entries))
    memory.see_ledger("south", mark(1, "b"))
    again = open_memory("second")
    assert (again.ledger_seen("north"), again.ledger_seen("south")) == (mark(7), mark(1, "b"))


def test_another_entry_of_the_same_number_is_refused(open_memory):
    memory = open_memory()
    memory.see_ledger("north", mark(7))
    memory.see_ledger("north", mark(7))
    with pytest.raises(ProtocolError, match="entry 7 of its ledger is not the one that this centre saw"):
        memory.see_ledger("north", mark(7, "b"))
    assert memory.ledger_seen("north") == mark(7)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"entries": -1, "head": "x"}'])
def test_a_damaged_memory_is_refused_and_not_taken_for_an_empty_one(open_memory, tmp_path, content):
    memory = open_memory()
    memory.see_ledger("north", mark(7))
    (tmp_path / "centre" / "sites" / "north.ledger.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"north\.ledger\.json: cannot be read"):
        memory.ledger_seen("north")


def test_seeds_are_remembered_with_the_run(open_memory):
    memory = open_memory()
    memory.finalise("q1", ("north", "west", "south"))
    assert open_memory().final_set("q1") == ("north", "west", "south")
    assert open_memory("other").final_set("q1") is None
