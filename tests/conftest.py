"""What all tests share."""

import os

# Before torch is imported: small models gain nothing from threads that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import datetime
import hashlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.resources import files
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import settings

from esn_core.connectome.atlas import load_atlas
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.protocol.protocol import load_protocol
from esn_core.protocol.signature import signature_of
from esn_core.transcript.arguments import Arguments

# A loaded machine is no defect: no example is timed. The same examples are drawn in every run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# What a script starts in the background ignores Ctrl-C, and so would every process that a test starts
# and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SITES = ("north", "south", "west")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = os.environ.get("AXE_CORE")


def _children():
    """The processes that this one started and has not waited for, ended ones included; Linux says it."""
    found = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # of a thread that has just ended
            found.update(int(pid) for pid in file.read_text().split())
    return found - {resource_tracker._resource_tracker._pid}  # Python's own: one, for all that is shared


@pytest.fixture(autouse=True)
def every_process_is_waited_for():
    """The fault lands on the test that left a process behind, not on whichever runs when it is noticed."""
    before = _children()
    yield
    left = _children() - before
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:200] for pid in left}
    assert not left, f"processes that nobody waited for: {words}"


@pytest.hookimpl(trylast=True)  # when those that were not asked for are gone
def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: two processes then end at about the same time.

    Each process takes a file at a time, or a class that stands for one (`--dist loadscope`). They are ordered
    by the longest time that they ask for, then by whether they are slow at all.
    """
    files = {}
    for item in items:
        files.setdefault((item.path, item.cls), []).append(item)

    def longest_first(tests):
        timeouts = [mark.args[0] for item in tests if (mark := item.get_closest_marker("timeout"))]
        slow = any(item.get_closest_marker("slow") for item in tests)
        return -max(timeouts, default=0), not slow

    items[:] = [item for tests in sorted(files.values(), key=longest_first) for item in tests]


def _secret(purpose, site):
    return hashlib.sha256(f"{purpose} of {site}, for tests".encode()).digest()


@pytest.fixture(scope="session")
def roster_of():
    """Makes a roster as plain data, and each site's private keys for its signature and its masks."""

    def make(sites):
        keys = {
            site: (
                Ed25519PrivateKey.from_private_bytes(_secret("identity", site)),
                X25519PrivateKey.from_private_bytes(_secret("mask", site)),
            )
            for site in sites
        }
        entries = [
            {
                "site": site,
                "node_key": f"ecdsa-sha2-nistp384 {site}=",
                "identity_key": identity_text(identity.public_key()),
                "mask_key": mask_text(mask.public_key()),
            }
            for site, (identity, mask) in keys.items()
        ]
        return entries, keys

    return make


@pytest.fixture(scope="session")
def more_sites(roster_of):
    """Six sites: the roster as plain data, and each one's private keys."""
    return roster_of((*SITES, "east", "isle", "hill"))


@pytest.fixture(scope="session")
def centre_key():
    """The centre's private signing key."""
    return Ed25519PrivateKey.from_private_bytes(_secret("signing", "centre"))


@pytest.fixture(scope="session")
def given_numbers():
    """Makes transcripts by which a hospital is asked with given numbers, whatever was released."""

    class Given:
        received = 0

        def __init__(self, **arrays):
            self.arrays = {name: np.array(array, dtype=float) for name, array in arrays.items()}

        def of(self, protocol, run):
            return self

        def take(self, question):
            return True

        def arguments(self, phase, round_):
            return Arguments(phase, self.arrays)

    return Given


@pytest.fixture(scope="session")
def sign_as():
    """A function that signs a protocol file with a key, whatever it says; a signature in it is replaced."""

    def sign(path, key):
        draft = path.read_text(encoding="utf-8").partition("\n[signature]")[0]
        path.write_text(draft, encoding="utf-8")
        signature = signature_of(load_protocol(path), key).model_dump()
        path.write_text(f"{draft}\n{tomli_w.dumps({'signature': signature})}", encoding="utf-8")
        return path

    return sign


@pytest.fixture(scope="session")
def roster(more_sites):
    """Three sites with their public keys, as plain data."""
    return more_sites[0][: len(SITES)]


@pytest.fixture(scope="session")
def protocol_content(roster):
    """A valid protocol as plain data; tests change a copy."""
    recipe = (files("esn_core.connectome") / "atlases" / "phantom-28.recipe.toml").read_text()
    return {
        "format": 2,
        "study": "test",
        "simulated": True,
        "expires": datetime.date(2099, 12, 31),
        "bundle_sha256": "0" * 64,
        "roster": roster,
        "imaging": tomllib.loads(recipe),
        "cohort": {
            "held_out_fraction": 0.333,
            "split_salt": "test",
            "minimum_children": 5,
            "harmonisation": "site-controls",
        },
        "severity_network": {"candidates": "template"},
        "model": {"name": "compact", "initial_weights": "compact-3"},
        "training": {"rounds": 3, "learning_rate": 0.001, "max_gradient_norm": 1.0},
        "privacy": {
            "trust": "local",
            "colluding_sites": 1,
            "noise": "gaussian",
            "epsilon": 8.0,
            "delta": 1e-3,
            "shares": {
                "centre": 0.05,
                "association": 0.7,
                "gradient": 0.1,
                "calibration": 0.15,
                "evaluation": 1.0,
            },
        },
        "rounds": {"quorum": 3, "deadline_s": 5.0},
    }


@pytest.fixture(scope="session")
def patients_content(protocol_content):
    """The same as a study of real children would be: own controls, and a list of candidates."""
    recipe = (files("esn_core.connectome") / "atlases" / "desikan-killiany-83.recipe.toml").read_text()
    names = load_atlas("desikan-killiany-83").names
    pairs = [[a, b] for a, b in itertools.combinations(names[:12], 2)]
    origin = {"kind": "prepared", "people": 30, "note": "thirty controls of another hospital"}
    return {
        **protocol_content,
        "simulated": False,
        "imaging": tomllib.loads(recipe),
        "severity_network": {"candidates": "list", "pairs": pairs, "origin": origin},
    }


@pytest.fixture
def run_command(monkeypatch, capsys):
    """A function that runs a command line in this process; returns exit status, stdout and stderr."""

    def run(program, main, *words):
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def command_fails(run_command):
    """A function that runs a command which must fail with a status and one line of certain words."""

    def run(program, main, status, words, *command):
        found, out, err = run_command(program, main, *command)
        assert (found, out) == (status, ""), err
        assert err.startswith(f"{program}: ")
        assert err.count("\n") == 1
        for word in words if isinstance(words, tuple) else (words,):
            assert word in err

    return run


@pytest.fixture
def barriers_of(tmp_path):
    """Show a page to axe-core, in a browser; returns the rules that it breaks, and how often."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    if AXE is None:
        pytest.skip("pages are not shown to axe-core: 'make test-pages' fetches it from npm")
    script = Path(AXE).read_text(encoding="utf-8").replace("</script>", "<\\/script>")
    judge = (
        f"<script>{script}</script><script>axe.run({{resultTypes: ['violations']}}).then(found => {{"
        "document.title = 'judged ' + JSON.stringify(found.violations.map(v => [v.id, v.nodes.length]))})"
        "</script></body>"
    )

    def look(page):
        page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        before, _, after = page.rpartition("</body>")  # scripts may hold the word as well
        path = tmp_path / "judged.html"
        path.write_text(f"{before}{judge}{after}", encoding="utf-8")
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={tmp_path / 'judge'}", "--window-size=1200,2000"),
            *("--virtual-time-budget=20000", "--dump-dom", path.as_uri()),
        ]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        return json.loads(re.search(r"<title>judged (.*?)</title>", dom)[1])

    return look
