"""The centre's status from a real SuperLink, and three studies in its queue."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import pytest
import tomli_w

from esn_core.errors import ConfigError
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.protocol.protocol import Protocol
from esn_server.run.progress import ProgressFile
from esn_server.service.address import read_address
from esn_server.status.status import status_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_site(centre, lasting_site, more_sites):
    """A connected site, enrolled under a name."""
    site = lasting_site()
    identity, mask = more_sites[1]["north"]
    node_key = " ".join((site.directory / "node_key.pub").read_text().split()[:2])
    entry = {
        "site": "north",
        "node_key": node_key,
        "identity_key": identity_text(identity.public_key()),
        "mask_key": mask_text(mask.public_key()),
    }
    (centre.directory / "sites").mkdir(exist_ok=True)
    (centre.directory / "sites" / "north.toml").write_text(tomli_w.dumps(entry))
    (centre.directory / "sites" / "north.pub").write_text(f"{node_key}\n")
    return site


def test_a_connected_site_is_seen_with_the_time_of_its_last_word(centre, one_site):
    deadline = time.monotonic() + 300
    while not (found := status_of(centre.directory, []).sites[0]).connected:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert found.name == "north"
    status = status_of(centre.directory, [])
    assert 0 <= (status.at - status.sites[0].last_heard_at).total_seconds() < 60
    assert status.superlink is None


def test_a_superlink_that_is_gone_leaves_the_rest(centre, one_site, free_tcp_port, tmp_path):
    gone = tmp_path / "centre"
    shutil.copytree(centre.directory, gone)
    replace(read_address(gone), superlink=f"127.0.0.1:{free_tcp_port}").write(gone)
    status = status_of(gone, [])
    assert "cannot be reached" in status.superlink
    assert [(site.name, site.connected) for site in status.sites] == [("north", None)]


def test_the_command_line_shows_runs_for_people_and_machines(centre, one_site, protocol_content, tmp_path):
    file = ProgressFile(tmp_path / "progress.json", protocol=Protocol.model_validate(protocol_content))
    file.ended(ValueError("a reason"))

    def esn_server(*words):
        command = [sys.executable, "-m", "esn_server.cli.main", "status", centre.directory, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = esn_server(tmp_path, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["runs"][0]["progress"]["state"]) == (0, "failed")
    words = esn_server(tmp_path).stdout
    assert "ValueError: a reason" in words
    assert "north" in words


@contextlib.contextmanager
def looking(centre, *words, stdout):
    """The command, until it is interrupted: it ends at once, without a traceback."""
    command = [sys.executable, "-m", "esn_server.cli.main", "status", str(centre.directory), *words]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode in (0, 130)
    assert "Traceback" not in said


def test_watching_draws_the_table_again_and_again(centre, one_site):
    terminal, stdout = pty.openpty()
    with looking(centre, "--watch", stdout=stdout):
        drawn, deadline = b"", time.monotonic() + 300
        while drawn.count(b"north") < 3:
            assert time.monotonic() < deadline, drawn
            drawn += os.read(terminal, 4096)
    os.close(stdout)
    os.close(terminal)


def test_the_page_shows_the_sites_of_a_real_centre(centre, one_site, free_tcp_port):
    with looking(centre, "--web", "--port", str(free_tcp_port), stdout=subprocess.PIPE) as process:
        address = process.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{free_tcp_port}/"
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                page = httpx.get(address, trust_env=False)
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert page.status_code == 200
        assert "north" in page.text


def test_a_directory_without_a_run_is_one_line(centre, tmp_path):
    with pytest.raises(ConfigError, match="no run was started there"):
        status_of(centre.directory, [tmp_path])
