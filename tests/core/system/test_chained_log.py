"""A log that shows where it was changed, and bears with a process that was killed."""

import multiprocessing

import pytest

from esn_core.system.chained_log import BrokenChainError, ChainedLog, read_chain


@pytest.fixture
def log(tmp_path):
    log = ChainedLog(tmp_path / "log.jsonl")
    for number in range(5):
        log.append(event="sent", number=number)
    return log


def numbers(lines):
    return [line.facts["number"] for line in read_chain(list(lines))]


def test_a_log_is_read_as_it_was_written(log, tmp_path):
    assert numbers(log.lines()) == [0, 1, 2, 3, 4]
    assert list(ChainedLog(tmp_path / "none").lines()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:1], lines[1].replace(b'"number": 1', b'"number": 7'), *lines[2:]], 3),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: [*lines[:3], b"{half", *lines[3:]], 4),
    ],
    ids=["changed", "removed", "first removed", "moved", "added", "half a line added"],
)
def test_a_change_is_seen_and_named(log, change, line):
    with pytest.raises(BrokenChainError, match=f"^line {line} "):
        read_chain(change(list(log.lines())))


@pytest.mark.parametrize("torn", [b"{", b'{"at": "2026', b'{"event": "sent"}', b"\xff\x00"])
def test_what_a_kill_left_stays_and_the_log_goes_on(log, tmp_path, torn):
    path = tmp_path / "log.jsonl"
    with path.open("ab") as file:
        file.write(torn)
    if torn != b'{"event": "sent"}':
        assert numbers(log.lines()) == [0, 1, 2, 3, 4]
        log.append(event="sent", number=5)
        assert numbers(log.lines()) == [0, 1, 2, 3, 4, 5]
        assert path.read_bytes().splitlines()[5] == torn
    else:  # a whole line that follows nothing is no accident
        with pytest.raises(BrokenChainError, match=r"^line 6 "):
            read_chain(list(log.lines()))


def write(path, name):
    log = ChainedLog(path)
    for number in range(20):
        log.append(name=name, number=number)


def test_several_processes_write_one_chain(tmp_path):
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = read_chain(list(ChainedLog(path).lines()))
    for name in "abc":
        assert [line.facts["number"] for line in found if line.facts["name"] == name] == list(range(20))
