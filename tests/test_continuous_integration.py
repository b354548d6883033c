"""What continuous integration lets in: its stages are stubs here, and the order and the ends are its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUB = "#!/bin/sh\n"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Write a program that is found before any other."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def write(name, body, at=directory):
        at.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(STUB + body)
        (at / name).chmod(0o755)

    return write


@pytest.fixture
def repository(tmp_path):
    directory = tmp_path / "repository"
    (directory / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", directory / ".ci" / "run")
    me = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "."), (*me, "commit", "--quiet", "-m", "t")):
        subprocess.run(["git", *words], cwd=directory, check=True)
    return directory


# 124 and 137 are of 'timeout' when the time is over; 5 is of pytest, which finds nothing that had failed.
@pytest.mark.parametrize(
    ("faults", "again", "status"),
    [(0, None, 0), (2, 0, 0), (2, 1, 1), (2, 5, 5), (124, None, 1), (137, None, 1)],
)
def test_what_fails_twice_or_was_cut_off_does_not_go_in(
    programs, repository, tmp_path, faults, again, status
):
    programs("make", f"echo $1 >>'{tmp_path}/said'\n")
    programs("chromium", "")
    programs(
        "timeout",
        f"shift 3\necho $1 >>'{tmp_path}/said'\n[ $1 != make ] || exit {faults}\nexit {again or 0}\n",
    )
    done = subprocess.run(
        [repository / ".ci" / "run"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    stages = ["setup", "test", "test-pages", "mutate", "test-science", "make"]
    more = [] if again is None else [".venv/bin/python"]
    assert (tmp_path / "said").read_text().split() == [*stages, *more]


@pytest.fixture
def show_pages(programs, tmp_path):
    """Run 'make test-pages' in an environment that is made already, and whose python is a stub."""
    venv = tmp_path / "venv"
    programs("python", 'echo "judged by <$AXE_CORE>"\n', at=venv / "bin")
    (venv / ".installed-cpu").touch()

    def run():
        command = ["make", "--no-print-directory", "test-pages", f"VENV={venv}"]
        environment = {**os.environ, "AXE_CORE": "/of/another"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return venv, run


def test_pages_are_not_judged_where_npm_gives_nothing_and_it_is_said(programs, show_pages):
    _, run = show_pages
    programs("npm", "exit 1\n")
    done = run()
    assert done.returncode == 0, done.stderr
    assert "judged by <>" in done.stdout
    assert "pages are not judged by it" in done.stderr


def test_another_axe_core_than_the_one_that_was_read_is_a_fault(programs, show_pages):
    venv, run = show_pages
    pack = "mkdir package && echo 'evil()' >package/axe.min.js && tar -czf axe-core-4.14.1.tgz package"
    programs("npm", f"{pack} && rm -r package\n")
    for _ in range(2):  # fetched, and found there the next time
        done = run()
        assert done.returncode != 0
        assert "FAILED" in done.stdout + done.stderr
        assert "judged by" not in done.stdout
    assert list(venv.glob("*.tgz")) == []
