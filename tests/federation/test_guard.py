"""What a site refuses before it starts anything."""

import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from esn_client.link import supernode
from esn_client.link.guard import GuardSettings, join
from esn_client.link.supernode import SuperNode, run_supernode
from esn_client.site.keys import create_node_key
from esn_core.errors import ConfigError, LinkError
from esn_core.system.child_process import ChildProcess
from esn_server.enrolment.centre_keys import create_authority


@pytest.fixture
def settings(tmp_path, free_tcp_port):
    """Settings of a site whose centre is not there."""
    create_authority(tmp_path / "centre", names=["localhost"])
    create_node_key(tmp_path / "node_key")
    return {
        "server_address": f"127.0.0.1:{free_tcp_port}",
        "ca_certificate": tmp_path / "centre" / "ca.crt",
        "node_key": tmp_path / "node_key",
        "state_directory": tmp_path / "state",
        "allowed_bundles": frozenset,
        "audit": print,
        "connect_timeout_s": 1.5,
    }


def warnings_of_joining(settings, caplog):
    """Join in a thread, some attempts beyond the first warning; whatever it raises is raised here."""

    def said():
        return [record.getMessage() for record in caplog.records if record.name == "esn_client.link.guard"]

    stop, deadline_s = threading.Event(), time.monotonic() + 120
    with ThreadPoolExecutor(1) as thread:
        joined = thread.submit(join, GuardSettings(**settings), bytes, stop=stop)
        try:
            while not said() and not joined.done():
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            time.sleep(4.0)
        finally:
            stop.set()
        joined.result(timeout=120)
    return said()


def test_a_centre_that_is_not_there_is_one_line_and_waited_for(settings, caplog):
    settings["connect_timeout_s"] = 0.5
    (line,) = warnings_of_joining(settings, caplog)
    assert re.search(
        r"^the centre at .* did not answer within 0 s: .*refused.*; this site keeps trying$", line
    )
    assert not settings["state_directory"].exists()


def test_a_name_that_does_not_exist_is_one_line(settings, caplog):
    settings["server_address"] = "centre.invalid:9092"
    (line,) = warnings_of_joining(settings, caplog)
    assert line.startswith("the centre at centre.invalid:9092 did not answer")


def test_a_file_that_is_no_certificate_is_one_line(settings):
    settings["ca_certificate"].write_text("no certificate")
    with pytest.raises(LinkError, match=r"ca\.crt cannot be used as an authority's certificate"):
        join(GuardSettings(**settings), bytes)


def test_every_setting_that_cannot_be_used_is_named_at_once(settings, tmp_path):
    settings |= {
        "server_address": "https://centre:99999",
        "node_key": tmp_path / "nowhere",
        "connect_timeout_s": 0.0,
    }
    with pytest.raises(ConfigError) as refusal:
        GuardSettings(**settings)
    for words in (
        "server_address must be",
        "node_key",
        "connect_timeout_s must",
    ):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    "words",
    [
        "WARNING :   Giving up reconnection after 30.39 seconds.",
        "SSL/TLS handshake error",
        "ERROR :     Server error '500 ' for url 'https://127.0.0.1:1/v1/fleet/pull-messages'",
    ],
)
def test_a_supernode_that_gave_up_and_lingers_counts_as_ended(tmp_path, words):
    program = """
import sys, time
print("hello", flush=True)
time.sleep(1)
print(sys.argv[1], flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", program, words]
    with ChildProcess(command, log_file=tmp_path / "log", environment={}) as process:
        node = SuperNode("127.0.0.1:1", b"", process)
        assert process.wait_until(lambda: "hello" in process.log_lines(), timeout_s=120)
        assert node.running
        assert process.wait_until(lambda: not node.running, timeout_s=120)
        assert process.running
        assert not node.running  # and stays so


def test_an_answer_that_never_left_does_not_hold_an_idle_site():
    """Its run had ended, or its question was withdrawn, while it was on its way."""
    waited = []
    process = SimpleNamespace(wait_until=lambda ready, *, timeout_s: waited.append((ready(), timeout_s)))
    process.log_lines = lambda: ["INFO : Sending: query message (ID: 1f)", "INFO : Sent successfully"]
    node = SuperNode("", b"", process)
    node.drain("2f", last_s=time.monotonic())
    node.drain("2f", last_s=time.monotonic() - 61)
    node.drain("1f", last_s=time.monotonic())
    (just_now, (_, long_ago), (left, _)) = waited
    assert (just_now, left) == ((False, supernode._DRAIN_S), True)
    assert long_ago < 0


def test_an_answer_has_left_when_it_was_sent_itself_or_given_up_not_when_another_was():
    """The SuperNode also sends errors of its own, for questions that could not be taken."""
    of_its_own = ["INFO : Sending: query message (ID: 1f)", "INFO : Sent successfully"]
    begun = [*of_its_own, "INFO : Sending: query message (ID: 2f)"]
    given_up = (
        "INFO : Run ID 7 is not in `RUNNING` status. Ignoring reply message 2f.",
        "ERROR : Failed to send message 2f: gone",
    )
    assert not supernode._has_left("2f", of_its_own)
    assert not supernode._has_left("2f", begun)
    assert all(supernode._has_left("2f", [*begun, line]) for line in ("INFO : Sent successfully", *given_up))


@pytest.mark.parametrize("polite", [True, False])
def test_a_supernode_that_was_killed_before_it_said_goodbye_has_its_lease_to_wait_for(
    tmp_path, monkeypatch, polite
):
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_DFL if sys.argv[1] == "True" else signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", program, str(polite)]
    with ChildProcess(command, log_file=tmp_path / "log", environment={}) as process:
        assert process.wait_until(lambda: "ready" in process.log_lines(), timeout_s=120)
        monkeypatch.setattr(supernode, "_connect", lambda *_: SuperNode("", b"", process))
        monkeypatch.setattr(supernode, "_SHORT_GOODBYE_S", 60.0 if polite else 0.1)
        about = dict.fromkeys(("server_address", "ca_certificate", "node_key"))
        place = {"state_directory": tmp_path, "connect_timeout_s": 1.0}
        with run_supernode(**about, **place, stopped=lambda: True):
            assert (tmp_path / "connected").exists()
        assert (process.running, (tmp_path / "connected").exists()) == (False, not polite)
