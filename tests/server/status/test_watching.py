"""A study that is watched stays in sight when it has ended, with what it found."""

import datetime
from types import SimpleNamespace

import pytest
from rich.console import Console

from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_server.run.progress import ProgressFile
from esn_server.status import status
from esn_server.status.status import Watch
from esn_server.status.terminal import headline, table_of


@pytest.fixture
def centre(tmp_path):
    """A centre without sites."""
    (tmp_path / "centre").mkdir()
    (tmp_path / "centre" / "ca.crt").write_text("")
    return tmp_path / "centre"


def test_a_run_that_leaves_the_queue_is_shown_on_with_its_outcome(
    centre, tmp_path, monkeypatch, protocol_content
):
    run = tmp_path / "run"
    run.mkdir()
    file = ProgressFile(run / "progress.json", protocol=Protocol.model_validate(protocol_content))
    monkeypatch.setattr(status, "known_nodes", lambda *_: {})
    monkeypatch.setattr(status, "read_address", lambda _: SimpleNamespace(superlink=""))
    monkeypatch.setattr(status, "queue", lambda _: [SimpleNamespace(run_directory=str(run), study="test")])
    watch = Watch(centre, [])
    assert [r.outcome for r in watch().runs] == [None]
    monkeypatch.setattr(status, "queue", lambda _: [])
    file.ended(None)
    # By r with its noise, and not as released: the same figure as the report's.
    likely = SimpleNamespace(value=0.5, interval=(0.1, 0.8))
    evaluation = SimpleNamespace(r=0.7, undefined_because=None, estimates=SimpleNamespace(r=likely))
    monkeypatch.setattr(status, "read_result", lambda path: SimpleNamespace(evaluation=evaluation))
    (shown,) = watch().runs
    assert headline(shown, datetime.datetime.now(datetime.UTC)).endswith(
        "UTC: r 0.50 (95 % interval 0.10 to 0.80)"
    )


def test_a_terminal_shows_how_many_of_all_steps_are_done_and_that_a_loss_has_noise(
    centre, tmp_path, monkeypatch, protocol_content
):
    run = tmp_path / "run"
    run.mkdir()
    protocol = Protocol.model_validate(protocol_content)
    file = ProgressFile(run / "progress.json", protocol=protocol)
    file.began("roll-call", 1, 1)
    file.began("centre", 1, 1)
    file.learned(0, -0.25)
    monkeypatch.setattr(status, "known_nodes", lambda *_: {})
    monkeypatch.setattr(status, "read_address", lambda _: SimpleNamespace(superlink=""))
    monkeypatch.setattr(status, "queue", lambda _: [])
    console = Console(width=100)
    with console.capture() as drawn:
        console.print(table_of(Watch(centre, [run])()))
    steps = 1 + sum(phase.releases for phase in price_of(protocol).phases)
    assert f"1 of {steps} at most, in " in drawn.get()
    assert "loss, noise included │ -0.250" in drawn.get()
