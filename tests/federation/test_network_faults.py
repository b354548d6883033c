"""Proxies, cuts, wrong clocks and doubles: what lies between a site and its centre."""

import contextlib
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from flwr.proto.control_pb2 import UnregisterNodeRequest

from esn_client.site.keys import create_node_key
from esn_core.errors import LinkError
from esn_core.system.loopback import free_port
from esn_server.enrolment.centre_keys import create_authority
from esn_server.link.flower_run import open_flower_run
from esn_server.link.registration import control_client
from esn_server.service.address import read_address

pytestmark = pytest.mark.slow
ECHO_SITE = Path(__file__).parent / "echo_site.py"


class Relay:
    """A TCP relay, or a CONNECT proxy, that can be told to drop everything without a word."""

    def __init__(self, target=None):
        self.target, self.cut, self.seen = target, False, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError):
            target = self.target
            if target is None:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(4096) or b"\r\n\r\n"
                method, where = head.split(b" ")[:2]
                self.seen.append((method, where.decode()))
                if method != b"CONNECT":
                    client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    return
                target = where.decode()
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                other = {client: server, server: client}
                while True:
                    for ready in select.select([client, server], [], [], 0.2)[0]:
                        if self.cut:
                            time.sleep(0.2)  # nothing is read, nothing is closed
                            continue
                        piece = ready.recv(65536)
                        if not piece:
                            return
                        other[ready].sendall(piece)


class Inspector(Relay):
    """A proxy that ends TLS, reads everything, and shows a certificate of its own authority."""

    def __init__(self, target, *, authority, ca_certificate):
        self._shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._shown.load_cert_chain(authority / "server.crt", authority / "server.key")
        self._asked = ssl.create_default_context(cafile=ca_certificate)
        super().__init__(target)

    def _serve(self, client):
        host, _, port = self.target.rpartition(":")
        with (
            contextlib.suppress(OSError),
            self._shown.wrap_socket(client, server_side=True) as near,
            socket.create_connection((host, int(port))) as plain,
            self._asked.wrap_socket(plain, server_hostname=host) as far,
        ):
            other = {near: far, far: near}
            while True:
                waiting = [one for one in other if one.pending()]
                for ready in waiting or select.select([near, far], [], [], 0.2)[0]:
                    ready.settimeout(0.2)  # a part of a record may be all that is there
                    with contextlib.suppress(TimeoutError):
                        piece = ready.recv(65536)
                        if not piece:
                            return
                        self.seen.append(piece)
                        other[ready].settimeout(60)
                        other[ready].sendall(piece)


@pytest.fixture
def relay(centre):
    relay = Relay(centre.public)
    yield relay
    relay.close()


def start(directory, address, ca, *, environment=None):
    from esn_server.link.bundle import bundle_sha256

    command = [sys.executable, ECHO_SITE, directory, address, ca, bundle_sha256()]
    with (directory / "log").open("a") as log:
        return subprocess.Popen(command, stderr=log, cwd=directory, env={**os.environ, **(environment or {})})


@contextlib.contextmanager
def site(centre, let_in, directory, *, address=None, environment=None):
    """An enrolled echoing site; yields its node and its process."""
    create_node_key(directory / "node_key")
    node = let_in(centre, directory)
    process = start(directory, address or centre.public, centre.ca_certificate, environment=environment)
    try:
        yield node, process
    finally:
        process.terminate()
        process.wait(120)


def wait_for(condition, *, timeout_s=300.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def echo(transport, node, body, *, timeout_s=300.0):
    """Ask one site as the centre does: again if it is silent."""
    deadline_s, replies, asked_s = time.monotonic() + timeout_s, [], 0.0
    while not any(reply.body == b"echo:" + body for reply in replies):
        assert time.monotonic() < deadline_s, replies
        if time.monotonic() - asked_s > 15 and node in transport.online():
            transport.send(node, body)
            asked_s = time.monotonic()
        replies += transport.receive()
        time.sleep(0.1)


def test_a_site_behind_a_proxy_that_allows_connect_alone_answers(let_in, tmp_path_factory, tmp_path):
    proxy = Relay()
    directory = tmp_path / "centre"
    create_authority(directory, names=["127.0.0.2"])
    port = str(free_port())
    command = [sys.executable, "-m", "esn_server.cli.main", "start", directory, "--host", "127.0.0.2"]
    ports = ["--port", port, "--health-port", str(free_port())]
    with subprocess.Popen([*command, *ports]) as centre_process:
        try:
            wait_for((directory / "link.json").exists, timeout_s=300)
            superlink = read_address(directory).superlink
            own = tmp_path / "site"
            create_node_key(own / "node_key")
            node = let_in(SimpleNamespace(directory=directory, address=superlink), own)
            environment = {"HTTPS_PROXY": f"http://{proxy.address}", "NO_PROXY": "", "no_proxy": ""}
            process = start(own, f"127.0.0.2:{port}", directory / "ca.crt", environment=environment)
            try:
                with open_flower_run(directory, superlink) as transport:
                    wait_for(lambda: node in transport.online())
                    echo(transport, node, b"through the proxy")
            finally:
                process.terminate()
                process.wait(120)
        finally:
            centre_process.terminate()
    proxy.close()
    assert set(proxy.seen) == {(b"CONNECT", f"127.0.0.2:{port}")}
    assert len(proxy.seen) >= 2  # our own look, and the SuperNode


@pytest.mark.faults
def test_a_site_behind_a_proxy_that_inspects_tls_answers_once_it_names_the_proxys_authority(
    centre, let_in, tmp_path
):
    create_authority(tmp_path / "proxy", names=["127.0.0.1"])
    proxy = Inspector(centre.public, authority=tmp_path / "proxy", ca_certificate=centre.ca_certificate)
    both = tmp_path / "authorities.crt"
    both.write_bytes(centre.ca_certificate.read_bytes() + (tmp_path / "proxy" / "ca.crt").read_bytes())
    own = tmp_path / "site"
    create_node_key(own / "node_key")
    node = let_in(centre, own)
    process = start(own, proxy.address, centre.ca_certificate)
    assert process.wait(120) == LinkError.exit_status
    assert "is not who it should be" in (own / "log").read_text()
    process = start(own, proxy.address, both)
    try:
        with open_flower_run(centre.directory, centre.address) as transport:
            wait_for(lambda: node in transport.online())
            echo(transport, node, b"read on the way")
    finally:
        process.terminate()
        process.wait(120)
    proxy.close()
    assert b"read on the way" in b"".join(proxy.seen)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_network_that_drops_everything_for_three_minutes_is_survived(centre, let_in, relay, tmp_path):
    with (
        site(centre, let_in, tmp_path, address=relay.address) as (node, process),
        open_flower_run(centre.directory, centre.address) as transport,
    ):
        wait_for(lambda: node in transport.online())
        echo(transport, node, b"before")
        relay.cut = True
        transport.send(node, b"lost")
        time.sleep(180)  # longer than a node's lease
        relay.cut = False
        echo(transport, node, b"after")
        assert process.poll() is None


SKEWED = """
import os, sys, time
if os.path.exists(os.environ["ESN_SKEWED"]):
    import datetime
    real = time.time
    time.time = lambda: real() + 600
    class datetime_(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=600)
    datetime.datetime = datetime_
"""


@pytest.mark.faults
def test_a_clock_ten_minutes_off_is_named_and_cured(centre, let_in, tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(SKEWED)
    skewed = tmp_path / "skewed"
    skewed.touch()
    environment = {
        "PYTHONPATH": f"{tmp_path / 'python'}:{os.environ.get('PYTHONPATH', '')}",
        "ESN_SKEWED": str(skewed),
    }
    create_node_key(tmp_path / "node_key")
    node = let_in(centre, tmp_path)

    def process():
        return start(tmp_path, centre.public, centre.ca_certificate, environment=environment)

    first = process()
    try:
        log = tmp_path / "log"
        wait_for(lambda: "clock is" in log.read_text())
        assert re.search(r"this machine's clock is (599|60\d) s ahead of the centre's", log.read_text())
        assert "keeps trying" in log.read_text()
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    skewed.unlink()  # the clock is set right
    second = process()
    try:
        with open_flower_run(centre.directory, centre.address) as transport:
            wait_for(lambda: node in transport.online())
            echo(transport, node, b"cured")
    finally:
        second.terminate()
        second.wait(120)


@pytest.mark.faults
def test_a_second_process_with_a_sites_key_is_refused_and_the_first_goes_on(centre, let_in, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with (
        site(centre, let_in, tmp_path / "first") as (node, _),
        open_flower_run(centre.directory, centre.address) as transport,
    ):
        wait_for(lambda: node in transport.online())
        for name in ("node_key", "node_key.pub"):
            shutil.copy(tmp_path / "first" / name, tmp_path / "second" / name)
        second = start(tmp_path / "second", centre.public, centre.ca_certificate)
        with second:
            assert second.wait(300) == LinkError.exit_status
        words = (tmp_path / "second" / "log").read_text().splitlines()[-1]
        assert "another process of this site is connected with it" in words
        echo(transport, node, b"unharmed")


@pytest.mark.faults
def test_a_site_whose_key_was_taken_from_the_register_ends_with_a_word(centre, let_in, tmp_path):
    with site(centre, let_in, tmp_path) as (node, process):
        with open_flower_run(centre.directory, centre.address) as transport:
            wait_for(lambda: node in transport.online())
        with control_client(centre.directory, centre.address) as control:
            control.UnregisterNode(UnregisterNodeRequest(node_id=node))
        assert process.wait(300) == LinkError.exit_status
        assert "does not accept the key" in (tmp_path / "log").read_text().splitlines()[-1]


def test_no_secret_stands_on_a_command_line(centre, let_in, tmp_path):
    with (
        site(centre, let_in, tmp_path) as (node, _),
        open_flower_run(centre.directory, centre.address) as transport,
    ):
        wait_for(lambda: node in transport.online())
        secrets = [centre.directory / "superexec.secret", tmp_path / "state" / "superexec.secret"]
        held = [path.read_bytes() for path in secrets]
        lines = [
            b"\0".join(map(os.fsencode, p.info["cmdline"] or [])) for p in psutil.process_iter(["cmdline"])
        ]
        assert any(os.fsencode(tmp_path) in line for line in lines)
        for secret in held:
            for shown in (secret, secret.hex().encode()):
                assert not any(shown in line for line in lines)
        assert not any(b"--token" in line for line in lines if os.fsencode(centre.directory) in line)
        for path in secrets:
            assert path.stat().st_mode & 0o077 == 0
