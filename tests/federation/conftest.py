"""Fixtures: a centre and its sites, as real processes on the loopback interface."""

import contextlib
import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from esn_client.site.keys import create_node_key
from esn_core.system.child_process import ChildProcess
from esn_core.system.files import write_whole
from esn_core.system.loopback import free_port
from esn_server.enrolment.centre_keys import create_authority
from esn_server.enrolment.sites import node_key_of
from esn_server.link.bundle import build_bundle, bundle_sha256
from esn_server.link.registration import register_site
from esn_server.link.transport import Transport
from esn_server.service.address import read_address
from esn_server.study.link import Reply


@contextlib.contextmanager
def started_centre(directory: Path, *, host: str = "127.0.0.1") -> Iterator[ChildProcess]:
    """Start the centre of a directory, and stop it when the block is left."""
    command = [
        *(sys.executable, "-m", "esn_server.cli.main", "start", str(directory)),
        *("--host", host, "--port", str(free_port()), "--health-port", str(free_port())),
    ]
    with ChildProcess(command, log_file=directory / "logs" / "centre.log", environment={}) as process:
        assert process.wait_until((directory / "link.json").exists, timeout_s=300), process.last_words()
        yield process


@dataclass(frozen=True)
class Centre:
    """A running centre: where sites connect (`public`), and where its own programs do (`address`)."""

    directory: Path
    address: str
    public: str
    health: str
    ca_certificate: Path
    process: ChildProcess


@dataclass(frozen=True)
class Site:
    """A running hospital."""

    directory: Path
    node_id: int
    process: subprocess.Popen[str]


@pytest.fixture(scope="session")
def centre(
    tmp_path_factory: pytest.TempPathFactory,
    open_centre: Callable[[Path], contextlib.AbstractContextManager[Centre]],
) -> Iterator[Centre]:
    """A centre with certificates, started as an operator starts it; every test of this process may use it."""
    with open_centre(tmp_path_factory.mktemp("centre") / "centre") as centre:
        yield centre


@pytest.fixture(scope="session")
def bundle_with_code() -> bytes:
    """The study's bundle with a module added that leaves traces wherever it is imported."""
    buffer = io.BytesIO(build_bundle())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("pushed_code.py", "from pathlib import Path\nPath('pushed').write_text('here')\n")
        archive.writestr(
            "esn_client/app.py",
            "import pushed_code\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n",
        )
    return buffer.getvalue()


@contextlib.contextmanager
def site_processes(centre: Centre) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start hospitals' processes; what still runs when the block is left is stopped."""
    started: list[subprocess.Popen[str]] = []
    with contextlib.ExitStack() as stack:

        def start(
            directory: Path,
            *,
            address: str = centre.public,
            ca: Path = centre.ca_certificate,
            allowed: tuple[str, ...] = (bundle_sha256(),),
        ) -> subprocess.Popen[str]:
            program = Path(__file__).parent / "echo_site.py"
            command = [sys.executable, program, directory, address, ca, *allowed]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=directory)
            started.append(stack.enter_context(process))
            return process

        try:
            yield start
        finally:
            for process in started:  # all of them at once, and each is waited for
                process.terminate()


def enrolled(centre: Centre, directory: Path) -> int:
    """Enrol the key of a hospital's directory, at the front and at the SuperLink; return its node."""
    key = directory / "node_key.pub"
    name = sha256(key.read_bytes()).hexdigest()[:16]
    write_whole(node_key_of(centre.directory, name), key.read_bytes())
    node_id = register_site(centre.directory, centre.address, key)
    time.sleep(0.3)  # longer than the front takes to look again
    return node_id


@pytest.fixture(scope="session")
def let_in() -> Callable[[Centre, Path], int]:
    """Enrol the key of a hospital's directory, and return its node."""
    return enrolled


def enrolment(
    centre: Centre, start: Callable[..., subprocess.Popen[str]], factory: pytest.TempPathFactory
) -> Callable[..., Site]:
    """Return a function that enrols a new hospital and starts it."""

    def enrol(**settings: object) -> Site:
        directory = factory.mktemp("site")
        create_node_key(directory / "node_key")
        return Site(directory, enrolled(centre, directory), start(directory, **settings))

    return enrol


@pytest.fixture
def site_process(centre: Centre) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a hospital's process, until the end of the test."""
    with site_processes(centre) as start:
        yield start


@pytest.fixture
def enrolled_site(
    centre: Centre,
    site_process: Callable[..., subprocess.Popen[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Site]:
    """Enrol a new hospital and start it, until the end of the test."""
    return enrolment(centre, site_process, tmp_path_factory)


@pytest.fixture(scope="module")
def lasting_site(centre: Centre, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Enrol a new hospital and start it, until the end of the module."""
    with site_processes(centre) as start:
        yield enrolment(centre, start, tmp_path_factory)


@pytest.fixture(scope="module")
def three_sites(lasting_site: Callable[..., Site], bundle_with_code: bytes) -> list[Site]:
    """Three hospitals; the last one has carelessly agreed to the bundle with code."""
    careless = (bundle_sha256(), sha256(bundle_with_code).hexdigest())
    return [lasting_site(), lasting_site(), lasting_site(allowed=careless)]


@pytest.fixture(scope="session")
def open_centre() -> Callable[[Path], contextlib.AbstractContextManager[Centre]]:
    """Start a centre in a directory that does not exist yet."""

    @contextlib.contextmanager
    def open_(directory: Path) -> Iterator[Centre]:
        create_authority(directory, names=["localhost"])
        with started_centre(directory) as process:
            where = read_address(directory)
            ca = directory / "ca.crt"
            yield Centre(directory, where.superlink, where.public, where.health, ca, process)

    return open_


@pytest.fixture(scope="session")
def tiny_guard() -> Callable[[Centre, str, Path], ChildProcess]:
    """Start a hospital of simulated connectomes that is enrolled."""

    def start(centre: Centre, site: str, own: Path) -> ChildProcess:
        program = Path(__file__).parent / "tiny_guard.py"
        command = [sys.executable, str(program), str(own), site, centre.public, str(centre.ca_certificate)]
        return ChildProcess(command, log_file=own / "join.log", environment={})

    return start


@pytest.fixture(scope="session")
def tiny_hospitals(
    tiny_guard: Callable[[Centre, str, Path], ChildProcess],
) -> Callable[..., contextlib.AbstractContextManager[list[ChildProcess]]]:
    """Enrol and start hospitals of simulated connectomes, each in its own directory; yields their guards.

    What they need to know of the studies is written beside their keys and into the centre's own place.
    """

    @contextlib.contextmanager
    def start(
        centre: Centre, study_directory: Path, places: dict[str, Path], content: dict[str, object]
    ) -> Iterator[list[ChildProcess]]:
        nodes = {}
        for site, own in places.items():
            create_node_key(own / "node_key")
            nodes[site] = enrolled(centre, own)
        study_directory.mkdir(parents=True, exist_ok=True)
        for path in (study_directory, *places.values()):
            (path / "content.json").write_text(json.dumps({**content, "nodes": nodes}, default=str))
        with contextlib.ExitStack() as stack:
            guards = [stack.enter_context(tiny_guard(centre, site, own)) for site, own in places.items()]
            yield guards

    return start


@pytest.fixture
def free_tcp_port() -> int:
    """A loopback port that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def ask() -> Callable[[Transport, list[Site], bytes], dict[int, Reply]]:
    """Ask sites one question, once they are online, and wait for all of the replies."""

    def ask(transport: Transport, sites: list[Site], body: bytes) -> dict[int, Reply]:
        deadline_s = time.monotonic() + 300.0
        nodes = {site.node_id for site in sites}
        while not nodes <= transport.online():
            assert time.monotonic() < deadline_s, "a site did not come online"
            time.sleep(0.1)
        expected = {transport.send(node_id, body) for node_id in nodes}
        replies: list[Reply] = []
        while {reply.message_id for reply in replies} != expected:
            assert time.monotonic() < deadline_s, "a site did not answer"
            replies += transport.receive()
            time.sleep(0.1)
        return {reply.node_id: reply for reply in replies}

    return ask
