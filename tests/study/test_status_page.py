"""The status page while a study of three sites goes on: in a real browser, and against those who knock."""

import datetime
import json
import re
import shutil
import subprocess
import threading
import time

import httpx
import numpy as np
import pytest

from esn_core.errors import LinkError
from esn_core.system.loopback import free_port
from esn_server.run.checkpoints import RunStore
from esn_server.run.memory import Memory
from esn_server.run.progress import ProgressFile, read_progress
from esn_server.status.page import serving
from esn_server.status.page.serving import page_server
from esn_server.status.status import CentreStatus, RunStatus, SiteStatus, eta_of
from esn_server.study import exchange
from esn_server.study.rounds import Rounds
from esn_server.study.study import run_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


class Watched:
    """A study in a thread, which stops before a question until it is let go on; and its page."""

    def __init__(self, consortium, directory, stop_at=("gradient", 2)):
        self.directory = directory
        self.path = directory / "progress.json"
        self.file = ProgressFile(self.path, protocol=consortium.protocol)
        self.consortium = consortium
        self.stop_at = stop_at
        self.reached, self.go = threading.Event(), threading.Event()
        self.clock, self.sleep = consortium.link.clock, consortium.link.sleep
        self.thread = threading.Thread(target=self._study)
        self.broken = None

    def _study(self):
        # A run's store belongs to the thread that opened it.
        with RunStore(
            self.directory / "own.sqlite", protocol_sha256=self.consortium.protocol.sha256
        ) as store:
            self.rounds = Rounds(
                self.consortium.link,
                {site: node for node, site in enumerate(self.consortium.protocol.sites, start=1)},
                protocol=self.consortium.signed,
                signing_key=self.consortium.link.centre_key,
                memory=Memory(self.directory / "own", store),
                observer=self,
                clock=lambda: self.clock(),
                sleep=lambda seconds: self.sleep(seconds),
            )
            run_study(
                self.consortium.signed,
                run="r1",
                asking=self.rounds,
                rng=np.random.default_rng(0),
                observer=self,
            )
        self.file.ended(None)

    def began(self, phase, round_, rounds):
        self.file.began(phase, round_, rounds)
        if (phase, round_) == self.stop_at:
            self.consortium.link.down = {2: lambda _: not self.go.is_set()}
            self.clock, self.sleep = time.monotonic, lambda _: (self.reached.set(), time.sleep(0.01))
            self.rounds._deadline_s = 60.0

    def progressed(self, question):
        self.file.progressed(question)

    def learned(self, round_, loss):
        self.file.learned(round_, loss)

    def look(self):
        if self.broken:
            raise LinkError(self.broken)
        now = datetime.datetime.now(datetime.UTC)
        progress = read_progress(self.path)
        sites = tuple(
            SiteStatus(
                name=entry.site,
                fingerprint=entry.fingerprint,
                connected=entry.site != "south" or self.go.is_set(),
                last_heard_at=now - datetime.timedelta(seconds=8),
                ledger_entries=3,
            )
            for entry in self.consortium.protocol.roster
        )
        run = RunStatus(
            directory="/srv/runs/<test>", progress=progress, alive=True, phase_eta_at=eta_of(progress)
        )
        return CentreStatus(
            centre="/srv/esn", at=now, superlink=None, sites=sites, runs=(run,), queue=(progress.study,)
        )


@pytest.fixture
def watched(make_consortium, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_RETRY_AFTER_S", 0.1)
    study = Watched(make_consortium(), tmp_path)
    study.thread.start()
    assert study.reached.wait(60)
    yield study
    study.go.set()
    study.thread.join(60)


@pytest.fixture
def address(watched):
    port = free_port()
    server = page_server(lambda: watched.look(), port=port)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 240
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


def browse(url, profile, *, width=1200):
    """Return the DOM once scripts had some time, and what the browser's console said."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
        *(f"--user-data-dir={profile}", f"--window-size={width},1500", "--enable-logging=stderr"),
        "--virtual-time-budget=4000",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_tells_who_is_waited_for_and_what_was_learnt(watched, address):
    page = httpx.get(address).text
    assert re.search(r"<dt>Waiting for</dt><dd>south \(lost", page)
    assert "gradient, round 3 of 3" in page
    assert len(re.findall("<circle", page)) == 2
    assert "/srv/runs/&lt;test&gt;" in page  # names are no markup
    assert "no answer (SiteUnavailable)" in page


@pytest.mark.axe
def test_a_screen_reader_and_a_keyboard_miss_nothing_of_the_page(watched, address, barriers_of):
    page = httpx.get(address).text
    style = f"<style>{httpx.get(f'{address}/page.css').text}</style></head>"
    assert barriers_of(re.sub(r"<(link|script)[^>]*>", "", page).replace("</head>", style)) == []


@in_a_browser
def test_the_page_follows_the_study_by_itself(watched, address, tmp_path):
    dom, console = browse(address, tmp_path / "profile")
    assert "gradient, round 3 of 3" in dom
    assert console == ""
    before = httpx.get(f"{address}/now").text
    watched.go.set()
    watched.thread.join(60)
    time.sleep(1.1)
    after = httpx.get(f"{address}/now").text
    assert "finished at" in after
    assert len(re.findall("<circle", after)) == len(re.findall("<circle", before)) + 1
    dom, console = browse(address, tmp_path / "profile")
    assert "finished at" in dom
    assert console == ""


@in_a_browser
def test_the_script_replaces_what_it_was_given(watched, address, tmp_path, monkeypatch):
    """The page as served says one thing, a second later the browser shows another."""
    served, said = watched.look(), []

    def look():
        said.append(1)
        changed = served.runs[0].progress.model_copy(update={"study": f"look-{len(said)}"})
        return served.model_copy(update={"runs": (served.runs[0].model_copy(update={"progress": changed}),)})

    # The browser's seconds are shorter than ours.
    monkeypatch.setattr(serving, "_FRESH_S", 0.0)
    monkeypatch.setattr(watched, "look", look)
    dom, console = browse(address, tmp_path / "profile")
    shown = int(re.search(r"<h1>look-(\d+)</h1>", dom)[1])
    served_first = int(re.search(r"<title>look-(\d+)", dom)[1])
    assert shown > served_first
    assert console == ""


@in_a_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_fits_its_window(watched, address, tmp_path, width):
    """Measured in the browser, on a copy that allows a ruler."""
    ruler = """<script>addEventListener("load", () => { const root = document.documentElement;
      document.title = JSON.stringify({wider: root.scrollWidth - root.clientWidth,
        sites: document.querySelectorAll(".sites > li").length}); });</script>"""
    css = httpx.get(f"{address}/page.css").text
    page = re.sub(r"<(script|link|noscript).*?>(.*?</(script|noscript)>)?", "", httpx.get(address).text)
    page = page.replace("</head>", f"<style>{css}</style>{ruler}</head>")
    path = tmp_path / "page.html"
    path.write_text(page)
    dom, _ = browse(path.as_uri(), tmp_path / "profile", width=width)
    assert json.loads(re.search(r"<title>(.*?)</title>", dom)[1]) == {"wider": 0, "sites": 3}


def test_a_name_that_was_rebound_to_this_machine_is_refused(address):
    for host in ("evil.example.org", "evil.example.org:80", "127.0.0.1.nip.io"):
        for path in ("/", "/now", "/page.js"):
            assert httpx.get(f"{address}{path}", headers={"Host": host}).status_code == 400
    assert httpx.get(address, headers={"Host": "localhost"}).status_code == 200


def test_nothing_but_reading_is_possible(address):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert httpx.request(method, address).status_code == 405


def test_every_answer_forbids_what_the_page_does_not_need(address):
    for path in ("/", "/now", "/page.js", "/page.css", "/icon.svg", "/nothing"):
        headers = httpx.get(f"{address}{path}").headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    page = httpx.get(address).text
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"/page.js", "/page.css", "/icon.svg"}
    assert " style=" not in page


def test_a_status_that_cannot_be_gathered_is_one_line(watched, address):
    time.sleep(1.1)
    watched.broken = "it is gone"
    response = httpx.get(address)
    assert (response.status_code, response.text) == (503, "LinkError: it is gone")
    watched.broken = None
