"""The public port: what strangers try there, and what sites and orchestrators need there."""

import contextlib
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from datetime import UTC, datetime

import grpc
import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.main import create_app
from grpc_health.v1 import health_pb2, health_pb2_grpc

from esn_client.site.keys import create_node_key
from esn_server.front.site_calls import MAX_BODY_BYTES
from esn_server.link.bundle import build_bundle, bundle_sha256
from esn_server.link.flower_run import open_flower_run, open_study
from esn_server.link.registration import control_client
from esn_server.service.superlink import answers

pytestmark = pytest.mark.slow


def all_calls():
    """Every method and path that Flower's SuperLink serves, the hidden ones too."""
    routes = {
        (method, re.sub(r"\{[^}]*\}", "1", path))
        for path, operations in create_app().openapi()["paths"].items()
        for method in map(str.upper, operations)
    }
    return sorted(routes | set(PROTOBUF_REQUEST_TYPES))


CALLS = all_calls()
FOREIGN = [(method, path) for method, path in CALLS if not path.startswith("/v1/fleet/")]


@pytest.fixture(scope="module")
def client(centre):
    """Anybody who reaches the public port and has the centre's certificate."""
    context = ssl.create_default_context(cafile=str(centre.ca_certificate))
    with httpx.Client(base_url=f"https://{centre.public}", verify=context, trust_env=False) as client:
        yield client


def raw(centre, sent, *, timeout_s=60.0):
    """Send bytes over TLS and return everything that comes back until the front closes."""
    host, _, port = centre.public.partition(":")
    context = ssl.create_default_context(cafile=str(centre.ca_certificate))
    with (
        socket.create_connection((host, int(port)), timeout=timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=host) as stream,
    ):
        received = b""
        try:
            stream.sendall(sent)
            while piece := stream.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            pass  # closed, maybe while we still sent
        return received


def state_of(centre):
    with control_client(centre.directory, centre.address) as control:
        runs = control.ListRuns(ListRunsRequest()).run_dict
        return sorted(runs), [n.node_id for n in control.ListNodes(ListNodesRequest()).nodes_info]


def test_flowers_services_are_all_in_the_list():
    prefixes = {path.split("/")[2] for _, path in CALLS if path.startswith("/v1/")}
    assert {"fleet", "control", "runtime"} <= prefixes
    assert sum("/control/" in path for _, path in CALLS) > 20
    assert sum("/runtime/" in path for _, path in CALLS) > 8


def test_every_control_and_runtime_path_is_not_found_and_changes_nothing(centre, client):
    before = state_of(centre)
    for method, path in FOREIGN:
        if path == "/health":
            continue
        reply = client.request(method, path, content=b"\x08\x01")
        assert (reply.status_code, reply.content) == (404, b"not found\n"), (method, path)
    assert state_of(centre) == before


@pytest.fixture(scope="module")
def signed(centre, let_in, tmp_path_factory):
    """The key of an enrolled site, and the headers of a call that it signs now."""
    directory = tmp_path_factory.mktemp("signed")
    create_node_key(directory / "node_key")
    node = let_in(centre, directory)
    key = load_ssh_private_key((directory / "node_key").read_bytes(), password=None)

    def headers():
        timestamp = datetime.now(UTC).isoformat()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
            TIMESTAMP_HEADER: timestamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, timestamp.encode())).decode(),
            "content-type": "application/protobuf",
        }

    return node, public_key_to_bytes(key.public_key()), headers


def test_a_sites_own_credentials_start_no_run_and_list_nothing(centre, client, signed):
    """What a site may do with its key is what Flower's Fleet API offers, and nothing else."""
    node, public, headers = signed
    before = state_of(centre)
    run = StartRunRequest(fab=Fab(hash_str=bundle_sha256(), content=build_bundle())).SerializeToString()
    for method, path in FOREIGN:
        if method == "POST":
            assert client.post(path, content=run, headers=headers()).status_code == 404, path
    assert state_of(centre) == before
    # The credentials are good: where a site belongs, they are taken.
    hello = ActivateNodeRequest(public_key=public, heartbeat_interval=30.0).SerializeToString()
    reply = client.post("/v1/fleet/activate-node", content=hello, headers=headers())
    assert reply.status_code == 200
    assert ActivateNodeResponse.FromString(reply.content).node_id == node


def test_who_reaches_the_superlink_on_loopback_without_the_centres_secret_is_told_nothing(centre, signed):
    """Another account of the centre's machine; with a site's key, it could go around the front."""
    _, _, headers = signed
    before = state_of(centre)
    context = ssl.create_default_context(cafile=str(centre.ca_certificate))
    with httpx.Client(base_url=f"https://{centre.address}", verify=context, trust_env=False) as local:
        for method, path in [*CALLS, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/no-such-path")]:
            for said in ({}, headers(), {**headers(), "x-esn-centre": "0" * 64}):
                status = local.request(method, path, content=b"", headers=said).status_code
                assert status == (200 if path == "/health" else 401), (method, path)
    assert state_of(centre) == before


TRICKS = [
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/%2E%2E%2Fcontrol%2Flist-runs",
    "/v1/fleet/..;/control/list-runs",
    "/v1/fleet/../../v1/runtime/acquire-task",
    "/v1/fleet\\..\\control\\list-runs",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet/./../control/list-runs",
    "/V1/CONTROL/LIST-RUNS",
    "/v1/Control/list-runs",
    "/v1/fleet/",
    "/v1/fleet",
    "/v1/fleet/list-runs?path=/v1/control/list-runs",
    "/v1/fleet/pull-messages#/v1/control/list-runs",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/Pull-messages",
    "/v1/fleet/-",
    "https://127.0.0.1/v1/control/list-runs",
    "https://127.0.0.1/v1/fleet/pull-messages",
    "http://127.0.0.1:1/v1/fleet/pull-messages",
    "*",
    "127.0.0.1:22",
    "/docs",
    "/openapi.json",
    "/health/",
    "/health?x",
    "/",
]


@pytest.mark.parametrize("target", TRICKS)
def test_a_path_that_only_looks_like_a_sites_is_not_found(centre, target):
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert raw(centre, head.encode()).split(b"\r\n")[0] in (b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PATCH"])
def test_a_site_only_posts(centre, method):
    head = f"{method} /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    assert raw(centre, head.encode()).startswith(b"HTTP/1.1 404 ")


HIDDEN = b"POST /v1/control/list-runs HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
SMUGGLED = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(HIDDEN),
    "two lengths in one": b"Content-Length: 0, %d\r\n" % len(HIDDEN),
    "length and chunks": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(HIDDEN),
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "odd chunks": b"Transfer-Encoding: xchunked\r\n",
    "chunks with a tab": b"Transfer-Encoding:\tchunked\r\n",
    "a space before the colon": b"Content-Length : 4\r\n",
    "a folded line": b"X: 1\r\n Content-Length: 4\r\nContent-Length: 0\r\n",
    "a signed length": b"Content-Length: +4\r\n",
    "a hexadecimal length": b"Content-Length: 0x4\r\n",
    "a bare line end": b"X: 1\nContent-Length: 4\r\n",
    "an upgrade": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
}


@pytest.mark.parametrize("headers", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_request_hidden_in_another_is_never_answered(centre, headers):
    head = b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    received = raw(centre, head + HIDDEN)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert statuses
    # Refused at once; or taken for what it is, whereupon the second one is not found as any other.
    assert all(status[:1] == b"4" or status == b"501" for status in statuses), received
    assert b"run_dict" not in received
    assert b"application/protobuf" not in received


def test_a_call_without_a_sites_signature_goes_no_further_than_the_front(client):
    unsigned = {"activate-node": 412, "register-node": 404, "unregister-node": 404}
    for method, path in CALLS:
        if path.startswith("/v1/fleet/"):
            reply = client.request(
                method, path, content=b"", headers={"content-type": "application/protobuf"}
            )
            assert reply.status_code == unsigned.get(path.rpartition("/")[2], 401), path


def test_a_body_over_the_bound_is_refused_before_it_is_sent(centre):
    length = MAX_BODY_BYTES + 1
    head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    assert raw(centre, head.encode()).startswith(b"HTTP/1.1 413 ")
    gigabyte = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {2**30}\r\n\r\n".encode()
    front = next(
        c for c in psutil.Process(centre.process.pid).children() if "esn_server.front.server" in c.cmdline()
    )
    raw(centre, gigabyte + bytes(2**26))
    assert front.memory_info().rss < 300 * 2**20


def test_a_head_over_the_bound_is_refused(centre):
    received = raw(centre, b"POST /v1/fleet/get-run HTTP/1.1\r\nX: " + b"x" * 100_000)
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")


def test_slow_clients_are_cut_off_in_head_and_in_body(centre, signed):
    """Three connections that send a byte now and then: the front ends each of them, within half a minute.

    Bytes that go on coming buy no time. The bound here is for a machine that does much else as well.
    """
    signature = "".join(f"{name}: {value}\r\n" for name, value in signed[2]().items()).encode()
    sent = {
        "nothing": b"",
        "head": b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\n",
        "body": b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        + signature
        + b"\r\n",
    }
    ended = set()

    def dribble(name):
        host, _, port = centre.public.partition(":")
        context = ssl.create_default_context(cafile=str(centre.ca_certificate))
        until_s = time.monotonic() + 240
        with (
            socket.create_connection((host, int(port)), timeout=120) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            stream.sendall(sent[name])
            stream.settimeout(0.5)
            while time.monotonic() < until_s and name not in ended:
                try:
                    if stream.recv(1024) == b"":
                        ended.add(name)
                except TimeoutError:
                    if name != "nothing":
                        with contextlib.suppress(OSError):  # that it ended is seen at the next look
                            stream.sendall(b"X")
                except OSError:
                    ended.add(name)

    threads = [threading.Thread(target=dribble, args=(name,)) for name in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == set(sent)


def test_a_client_that_shows_no_tls_is_let_go(centre):
    host, _, port = centre.public.partition(":")
    with socket.create_connection((host, int(port)), timeout=120) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert b"ok" not in plain.recv(1024)
    context = ssl.create_default_context(cafile=str(centre.ca_certificate))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((host, int(port)), timeout=120) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname=host)


def test_health_is_ok_for_load_balancers_and_for_orchestrators(centre, client):
    reply = client.get("/health")
    assert (reply.status_code, reply.text) == (200, "ok\n")
    with grpc.insecure_channel(centre.health) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        serving = health_pb2.HealthCheckResponse.SERVING

        def status(service):
            return check(health_pb2.HealthCheckRequest(service=service)).status

        assert status("") == status("fleet") == serving
        assert status("study") == health_pb2.HealthCheckResponse.NOT_SERVING
        with open_study(centre.directory):
            deadline_s = time.monotonic() + 120
            while status("study") != serving:
                assert time.monotonic() < deadline_s
                time.sleep(0.1)


@pytest.mark.faults
@pytest.mark.parametrize("which", ["flower_superlink", "esn_server.front.server"])
def test_a_killed_superlink_or_front_comes_back_and_sites_go_on(centre, three_sites, ask, which):
    supervisor = psutil.Process(centre.process.pid)
    with open_flower_run(centre.directory, centre.address) as transport:
        ask(transport, three_sites, b"before")
    victim = next(c for c in supervisor.children() if which in " ".join(c.cmdline()))
    victim.kill()
    deadline_s = time.monotonic() + 300
    while True:
        names = [" ".join(c.cmdline()) for c in supervisor.children() if c.pid != victim.pid]
        if any(which in name for name in names) and answers(centre.public, centre.ca_certificate):
            break
        assert time.monotonic() < deadline_s
        time.sleep(0.3)
    with open_flower_run(centre.directory, centre.address) as transport:
        replies = ask(transport, three_sites, b"after")
    assert {reply.body for reply in replies.values()} == {b"echo:after"}
