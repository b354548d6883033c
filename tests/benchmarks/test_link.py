"""What the link costs a study: seconds of overhead per question, and seconds until the first one."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esn_client.site.keys import create_node_key
from esn_core.system.child_process import ChildProcess
from esn_core.system.files import write_whole
from esn_core.system.loopback import free_port
from esn_server.enrolment.centre_keys import create_authority
from esn_server.enrolment.sites import node_key_of
from esn_server.link.bundle import bundle_sha256
from esn_server.link.flower_run import open_flower_run
from esn_server.link.registration import register_site
from esn_server.link.transport import Transport
from esn_server.service.address import read_address

pytestmark = pytest.mark.long

ECHO_SITE = Path(__file__).parents[1] / "federation" / "echo_site.py"
# The size of the compact model's weights, about: what a question of the training phase carries.
BODY = bytes(200_000)
# flwr 1.41, supernode/start_client_internal.py.
_SUPERNODES_PAUSE_S = 3.0


@contextlib.contextmanager
def started_federation(directory: Path) -> Iterator[tuple[Transport, set[int]]]:
    """Start a centre and three sites that echo; they are online when the block is entered."""
    create_authority(directory / "centre", names=["localhost"])
    with contextlib.ExitStack() as stack:
        ports = ("--port", str(free_port()), "--health-port", str(free_port()))
        command = [sys.executable, "-m", "esn_server.cli.main", "start", str(directory / "centre"), *ports]
        log = directory / "centre.log"
        centre = stack.enter_context(ChildProcess(command, log_file=log, environment={}))
        assert centre.wait_until((directory / "centre" / "link.json").exists, timeout_s=300)
        where = read_address(directory / "centre")
        nodes = set()
        for name in ("north", "south", "east"):
            site = directory / name
            create_node_key(site / "node_key")
            key = node_key_of(directory / "centre", name)
            write_whole(key, (site / "node_key.pub").read_bytes())
            nodes.add(register_site(directory / "centre", where.superlink, key))
            command = [sys.executable, ECHO_SITE, site, where.public, directory / "centre" / "ca.crt"]
            process = stack.enter_context(subprocess.Popen([*command, bundle_sha256()], cwd=site))
            stack.callback(process.terminate)
        transport = stack.enter_context(open_flower_run(directory / "centre", where.superlink))
        while transport.online() != nodes:
            time.sleep(0.1)
        yield transport, nodes


def ask(transport: Transport, nodes: set[int]) -> float:
    """Ask every site one question, wait for the slowest and return the seconds that it took."""
    start_s = time.monotonic()
    missing = {transport.send(node, BODY) for node in nodes}
    while missing:
        for reply in transport.receive():
            assert reply.error is None
            missing.remove(reply.message_id)
        time.sleep(0.05)
    return time.monotonic() - start_s


def test_overhead_per_question(benchmark, tmp_path):
    start_s = time.monotonic()
    with started_federation(tmp_path) as (transport, nodes):
        cold_start_s = time.monotonic() - start_s
        ask(transport, nodes)
        benchmark.extra_info["cold_start_s"] = cold_start_s
        benchmark.pedantic(ask, args=(transport, nodes), rounds=6, iterations=1)
        # Of the pause that a SuperNode makes by itself between two looks for questions.
        benchmark.extra_info["of_a_supernodes_pause"] = ask(transport, nodes) / _SUPERNODES_PAUSE_S
