"""A centre and three hospitals over TLS, each a real process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from flwr.proto.control_pb2 import ListRunsRequest

from esn_client.link import guard, supernode
from esn_client.site.keys import create_node_key
from esn_client.worker import executor, following
from esn_core.errors import LinkError
from esn_core.system.loopback import free_port
from esn_server.enrolment.centre_keys import create_authority
from esn_server.link import flower_run as link
from esn_server.link import grid
from esn_server.link.flower_run import open_flower_run, open_study
from esn_server.link.registration import control_client, register_site, unregister_site
from esn_server.service.address import read_address
from esn_server.service.superlink import run_superlink

pytestmark = pytest.mark.slow


def files_of(directory: Path) -> set[Path]:
    """Return every file below a directory except logs."""
    return {path for path in directory.rglob("*") if path.suffix != ".log"}


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 300.0) -> None:
    """Wait until a condition holds, or fail."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_three_sites_answer_through_tls_with_authentication(centre, three_sites, ask, let_in, tmp_path):
    create_node_key(tmp_path / "node_key")
    never_started = let_in(centre, tmp_path)
    with open_flower_run(centre.directory, centre.address) as transport:
        replies = ask(transport, three_sites, b"\x00question\xff")
        # Hospitals of the tests before may still count as online for a while: the centre is shared. On a busy
        # machine a heartbeat comes late, and its site counts again from the next one on.
        wait_until(lambda: transport.online() >= {site.node_id for site in three_sites})
        assert never_started not in transport.online()
    assert [replies[site.node_id].body for site in three_sites] == [b"echo:\x00question\xff"] * 3
    assert [replies[site.node_id].error for site in three_sites] == [None] * 3


def test_of_an_exception_only_the_name_of_its_class_travels(centre, three_sites, ask):
    with open_flower_run(centre.directory, centre.address) as transport:
        reply = ask(transport, three_sites[:1], b"fail")[three_sites[0].node_id]
    assert (reply.body, reply.error) == (None, "ValueError")
    for file in centre.directory.rglob("*"):
        assert not file.is_file() or b"sub-0042" not in file.read_bytes(), file


def test_an_answer_that_never_becomes_whole_keeps_nobody_waiting(centre, three_sites, ask):
    greedy, *others = three_sites
    with open_flower_run(centre.directory, centre.address) as transport:
        ask(transport, three_sites, b"before")
        transport.send(greedy.node_id, b"large")  # more than the front lets through
        said, until_s = [], time.monotonic() + 3.0
        while time.monotonic() < until_s:
            said += transport.receive()
        assert said == []
        # It ends when these two answers and no other one have come.
        replies = ask(transport, others, b"meanwhile")
        assert [replies[site.node_id].body for site in others] == [b"echo:meanwhile"] * 2
        assert ask(transport, [greedy], b"after")[greedy.node_id].body == b"echo:after"


def test_a_bundle_with_code_or_unknown_hash_is_refused_and_leaves_no_trace(
    centre, three_sites, ask, bundle_with_code, monkeypatch
):
    with open_flower_run(centre.directory, centre.address) as transport:
        ask(transport, three_sites, b"before")
    before = [files_of(site.directory) for site in three_sites]
    with monkeypatch.context() as patch:
        patch.setattr(link, "build_bundle", lambda: bundle_with_code)
        with open_flower_run(centre.directory, centre.address) as transport:
            replies = ask(transport, three_sites, b"never answered")
    assert {reply.error for reply in replies.values()} == {"ProtocolError"}
    assert {reply.body for reply in replies.values()} == {None}
    assert [files_of(site.directory) for site in three_sites] == before
    audits = [(site.directory / "audit.log").read_text() for site in three_sites]
    assert ["is not one that this site has agreed to" in audit for audit in audits] == [True, True, False]
    assert "holds files beside" in audits[2]
    assert "pushed_code" not in "".join(audits)
    with open_flower_run(centre.directory, centre.address) as transport:
        replies = ask(transport, three_sites, b"imported")
    assert {reply.body for reply in replies.values()} == {b"False"}


def test_a_key_that_was_taken_back_is_put_out_and_stays_out(centre, enrolled_site, ask):
    site = enrolled_site()
    with open_flower_run(centre.directory, centre.address) as transport:
        ask(transport, [site], b"before")
        for _ in range(2):  # once more changes nothing
            unregister_site(centre.directory, centre.address, site.directory / "node_key.pub")
        wait_until(lambda: site.node_id not in transport.online())
        with pytest.raises(LinkError, match="is it registered"):
            transport.send(site.node_id, b"after")
        time.sleep(5.0)  # longer than a SuperNode waits between its calls
        assert site.node_id not in transport.online()


def statuses(centre) -> list[str]:
    """Return how each run of a centre has ended, the oldest first."""
    with control_client(centre.directory, centre.address) as control:
        runs = control.ListRuns(ListRunsRequest()).run_dict.values()
    assert not any("sub-0042" in run.status.details for run in runs)
    return [run.status.sub_status for run in sorted(runs, key=lambda run: run.pending_at)]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "completed"), (RuntimeError, "failed"), (KeyboardInterrupt, "stopped")]
)
def test_a_run_ends_with_its_true_status(centre, error, status):
    with (
        contextlib.suppress(RuntimeError, KeyboardInterrupt),
        open_flower_run(centre.directory, centre.address),
    ):
        if error is not None:
            raise error("/data/sub-0042")
    assert statuses(centre)[-1] == status


def test_a_run_whose_process_died_before_it_began_is_failed_and_not_mistaken_for_ours(centre):
    link._submit(centre.directory, centre.address)
    with open_flower_run(centre.directory, centre.address):
        assert statuses(centre)[-2:] == ["failed", ""]
    assert statuses(centre)[-2:] == ["failed", "completed"]


def test_one_study_at_a_time_is_open(centre):
    with (
        open_study(centre.directory),
        pytest.raises(LinkError, match="another study is running"),
        open_study(centre.directory),
    ):
        pass


def test_a_registered_key_keeps_its_node(centre, tmp_path):
    create_node_key(tmp_path / "key")
    first = register_site(centre.directory, centre.address, tmp_path / "key.pub")
    assert register_site(centre.directory, centre.address, tmp_path / "key.pub") == first


def test_a_site_with_an_unknown_key_gets_nothing(centre, site_process, tmp_path):
    create_node_key(tmp_path / "node_key")
    site = site_process(tmp_path)
    _, words = site.communicate(timeout=300)
    assert site.returncode == LinkError.exit_status
    assert "does not accept the key" in words.splitlines()[-1]
    assert "Traceback" not in words


def test_a_site_refuses_a_centre_with_another_authority(centre, site_process, tmp_path):
    create_authority(tmp_path / "other", names=["localhost"])
    create_node_key(tmp_path / "node_key")
    site = site_process(tmp_path, ca=tmp_path / "other" / "ca.crt")
    _, words = site.communicate(timeout=300)
    assert site.returncode == LinkError.exit_status
    (line,) = words.splitlines()
    assert "is not who it should be" in line
    assert not (tmp_path / "state").exists()


def test_the_centre_refuses_a_superlink_with_another_authority(centre, tmp_path):
    create_authority(tmp_path / "other", names=["localhost"])
    (tmp_path / "other" / "superexec.secret").write_bytes(b"x" * 32)
    run = open_flower_run(tmp_path / "other", centre.address)
    with pytest.raises(LinkError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
        run.__enter__()


def test_a_wrong_secret_opens_no_run(centre, tmp_path):
    (tmp_path / "ca.crt").write_bytes(centre.ca_certificate.read_bytes())
    (tmp_path / "superexec.secret").write_bytes(b"guessed")
    with pytest.raises(LinkError, match="another secret"):
        open_flower_run(tmp_path, centre.address).__enter__()


def test_a_port_in_use_is_one_line(centre):
    port = int(centre.address.rpartition(":")[2])
    superlink = run_superlink(centre.directory, port=port)
    with pytest.raises(LinkError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: .*choose another port"):
        superlink.__enter__()


def test_a_missing_certificate_is_one_line(tmp_path, free_tcp_port):
    superlink = run_superlink(tmp_path, port=free_tcp_port)
    with pytest.raises(LinkError, match=r"ca\.crt is missing"):
        superlink.__enter__()


def kill_superlink(port: int) -> None:
    """Kill the SuperLink that this process started on a port."""
    for child in psutil.Process().children():
        if str(port) in child.cmdline():
            child.kill()
            child.wait()


def use_a_superlink_that_dies(directory: Path, port: int) -> None:
    """Lose the SuperLink in the middle of a run."""
    with (
        run_superlink(directory, port=port) as superlink,
        open_flower_run(directory, superlink.address) as transport,
    ):
        kill_superlink(port)
        with pytest.raises(LinkError, match=r"^the SuperLink at .* cannot be reached: "):
            transport.online()


def test_a_superlink_that_dies_in_a_run_is_reported_with_its_last_line(tmp_path, free_tcp_port, monkeypatch):
    monkeypatch.setattr(grid, "_RETRY_S", 1.0)
    create_authority(tmp_path / "centre", names=["localhost"])
    with pytest.raises(LinkError, match=r"^the SuperLink ended: .+ \(log: .*superlink\.log\)$"):
        use_a_superlink_that_dies(tmp_path / "centre", free_tcp_port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_centre_serves_until_it_is_asked_to_stop(tmp_path, free_tcp_port, number):
    directory = tmp_path / "centre"
    create_authority(directory, names=["localhost"])
    ports = ("--port", str(free_tcp_port), "--health-port", str(free_port()))
    command = [sys.executable, "-m", "esn_server.cli.main", "start", directory, *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"the centre is ready at 127.0.0.1:{free_tcp_port}\n"
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        assert read_address(directory).pid == process.pid
        process.send_signal(number)
        assert process.wait(timeout=120) == 0
    assert not any(child.is_running() for child in children)
    with pytest.raises(LinkError, match="is not started; run 'esn-server start"):
        read_address(directory)


@pytest.mark.faults
def test_a_supernode_that_ends_is_started_again(centre, three_sites, ask):
    site = three_sites[1]
    with open_flower_run(centre.directory, centre.address) as transport:
        ask(transport, [site], b"before")
        (supernode,) = psutil.Process(site.process.pid).children()
        supernode.terminate()
        wait_until(lambda: site.node_id not in transport.online())
        assert ask(transport, [site], b"again")[site.node_id].body == b"echo:again"


def test_a_site_that_is_asked_to_stop_answers_first(centre, enrolled_site):
    site = enrolled_site()
    replies = []
    with open_flower_run(centre.directory, centre.address) as transport:
        wait_until(lambda: site.node_id in transport.online())
        message_id = transport.send(site.node_id, b"slow")
        wait_until((site.directory / "busy").exists)
        site.process.terminate()
        wait_until(lambda: bool(replies.extend(transport.receive()) or replies))
    assert [(reply.message_id, reply.body) for reply in replies] == [(message_id, b"echo:slow")]
    assert site.process.wait(timeout=120) == 0


def test_an_idle_site_that_is_asked_to_stop_waits_for_nothing(enrolled_site):
    """It takes three seconds at most, on a machine with nothing else to do (docs/benchmarks.md)."""
    waits = (guard._LONGEST_POLL_S, supernode._SHORT_GOODBYE_S, executor._END_S, following._LOOK_S)
    assert sum(waits) < 3
    site = enrolled_site()
    wait_until((site.directory / "state" / "connected").exists)
    site.process.terminate()
    assert site.process.wait(timeout=60) == 0


@pytest.mark.faults
def test_no_process_of_a_site_stays_behind_however_it_ends(enrolled_site):
    sites = {number: enrolled_site() for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)}
    for number, site in sites.items():
        wait_until((site.directory / "state" / "connected").exists)
        (supernode,) = psutil.Process(site.process.pid).children()
        os.kill(site.process.pid, number)
        site.process.wait(timeout=120)
        psutil.wait_procs([supernode], timeout=120)
        assert not supernode.is_running(), number
