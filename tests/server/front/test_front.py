"""The front before a stand-in for the SuperLink: floods and silence lock no enrolled site out."""

import asyncio
import contextlib
import datetime
import select
import socket
import ssl
import threading
import time
from base64 import b64encode

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node

from esn_client.site.keys import create_node_key
from esn_server.enrolment.centre_keys import create_authority, read_node_key
from esn_server.front import server
from esn_server.front.callers import Callers
from esn_server.front.held_polls import Turns
from esn_server.front.server import Front, listen, server_context

HEARTBEAT = SendNodeHeartbeatRequest(node=Node(node_id=5), heartbeat_interval=30.0).SerializeToString()


class StandIn:
    """Answers as the SuperLink does: a poll finds nothing, everything else is well."""

    def __init__(self):
        self.asked, self.content = [], b""

    async def healthy(self):
        return True

    async def call(self, request, body):
        self.asked.append((request.target, body))
        return 200, [], self.content


class Running:
    """A front in a thread, with two enrolled sites."""

    def __init__(self, directory):
        create_authority(directory, names=["localhost"])
        (directory / "sites").mkdir(exist_ok=True)
        self.keys = {}
        for name in ("north", "south", "stranger"):
            create_node_key(directory / name / "node_key")
            private = load_ssh_private_key((directory / name / "node_key").read_bytes(), password=None)
            self.keys[name] = (private, read_node_key(directory / name / "node_key.pub"))
            if name != "stranger":
                public = (directory / name / "node_key.pub").read_bytes()
                (directory / "sites" / f"{name}.pub").write_bytes(public)
        self.trust = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        self.upstream = StandIn()
        context = server_context(directory / "server.crt", directory / "server.key")
        self.front = Front(self.upstream, context, Turns(lambda: True), Callers(directory))
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(asyncio.CancelledError):
            self._task = self._loop.create_task(self.front.serve(self.listener))
            self._loop.run_until_complete(self._task)

    def stop(self):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()
        self.listener.close()

    def client(self):
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=self.trust, trust_env=False, timeout=60.0
        )

    def silent(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60.0)

    def headers(self, name):
        private, public = self.keys[name]
        stamp = datetime.datetime.now(datetime.UTC).isoformat()
        signature = private.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": b64encode(public).decode(),
            "flwr-timestamp": stamp,
            "flwr-signature": b64encode(signature).decode(),
        }

    def call(self, client, name, target="/v1/fleet/send-node-heartbeat", body=HEARTBEAT):
        return client.post(target, content=body, headers=self.headers(name))


@pytest.fixture
def front(tmp_path):
    running = Running(tmp_path / "centre")
    yield running
    running.stop()


def test_silent_connections_lock_no_site_out(front):
    """More of them than the front has places for, from the address that the site has as well."""
    places = server._SILENT + server._STRANGERS + 8
    with contextlib.ExitStack() as stack, front.client() as before, front.client() as after:
        assert front.call(before, "north").status_code == 200
        for _ in range(places):
            stack.enter_context(front.silent())
        assert front.call(after, "south").status_code == 200  # a new connection
        assert front.call(before, "north").status_code == 200  # one that was there


def test_a_refusal_reaches_whoever_sends_the_rest_of_the_call_after_it(front):
    head = b"POST /v1/fleet/send-node-heartbeat HTTP/1.1\r\nhost: centre\r\ncontent-length: 9000000\r\n\r\n"
    with front.silent() as plain, front.trust.wrap_socket(plain, server_hostname="localhost") as stranger:
        stranger.sendall(head)
        select.select([stranger], [], [])  # until it was refused
        stranger.sendall(bytes(9_000_000))
        assert stranger.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_reply_says_whether_the_connection_goes_on(front):
    with front.silent() as plain, front.trust.wrap_socket(plain, server_hostname="localhost") as watcher:
        for unread, ends in ((b"", False), (b"", False), (b"content-length: 9\r\n", True)):
            watcher.sendall(b"GET /health HTTP/1.1\r\nhost: centre\r\n" + unread + b"\r\n")
            reply = b""
            while not reply.endswith(b"ok\n"):
                reply += (piece := watcher.recv(65536))
                assert piece, "closed without a reply"
            assert (b"connection: close" in reply) == ends


def test_strangers_that_call_without_end_slow_no_site_down(front):
    with front.client() as flood, front.client() as site:
        front.front._of_address._burst = 1
        front.front._of_address._calls_per_s = 0.001
        assert flood.get("/health").status_code == 200
        assert flood.get("/health").status_code == 429
        assert front.call(flood, "stranger").status_code == 429
        assert front.call(site, "north").status_code == 200


def test_a_site_that_calls_too_often_uses_up_nobody_elses_calls(front):
    front.front._of_site._burst = 3
    front.front._of_site._calls_per_s = 0.001
    with front.client() as greedy, front.client() as modest:
        assert [front.call(greedy, "north").status_code for _ in range(3)] == [200] * 3
        assert front.call(greedy, "north").status_code == 429
        assert front.call(modest, "south").status_code == 200


def test_no_call_of_a_stranger_and_no_call_twice_reaches_the_superlink(front):
    with front.client() as client:
        assert client.post("/v1/fleet/pull-messages", content=b"").status_code == 401
        assert front.call(client, "stranger").status_code == 401
        assert front.call(client, "north", "/v1/fleet/register-node").status_code == 404
        assert not front.upstream.asked
        overheard = front.headers("north")
        for status in (200, 401):
            reply = client.post("/v1/fleet/send-node-heartbeat", content=HEARTBEAT, headers=overheard)
            assert reply.status_code == status
        assert front.upstream.asked == [(b"/v1/fleet/send-node-heartbeat", HEARTBEAT)]


def test_a_newer_poll_of_a_site_ends_the_one_before(front):
    """Polls take turns: a site with many of them would have more turns than others."""
    ended = []

    def poll():
        with front.client() as client:
            ended.append(front.call(client, "north", "/v1/fleet/pull-messages", b"").status_code)

    first = threading.Thread(target=poll)
    first.start()
    while not front.upstream.asked:
        time.sleep(0.01)
    second = threading.Thread(target=poll)
    second.start()
    first.join()
    assert ended == [200]
    front.upstream.content = b"a question"
    second.join()
    assert ended == [200, 200]


def test_a_poll_comes_round_the_later_the_longer_it_was_held():
    order = []

    async def held():
        turns = Turns(lambda: True)

        async def poll(name, held_s):
            await turns.take(held_s)
            order.append(name)

        async with asyncio.TaskGroup() as tasks:
            for name, held_s in (("long", 60.0), ("some", 2.0), ("new", 0.0)):
                tasks.create_task(poll(name, held_s))
            giving = asyncio.ensure_future(turns.run())
            while len(order) < 3:
                await asyncio.sleep(0.01)
            giving.cancel()

    asyncio.run(held())
    assert order == ["new", "some", "long"]


def test_a_large_body_is_read_only_where_an_answer_is_expected(front):
    with front.client() as client:
        large = bytes(2**17)
        assert front.call(client, "north", "/v1/fleet/push-object", large).status_code == 413
        assert not front.upstream.asked
