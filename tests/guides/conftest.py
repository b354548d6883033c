"""Whoever follows the guides: their commands as they stand, and only the files that they exchange.

Everybody has a directory and a HOME. What is not in the guides is simulated beforehand: the children, and who
reads a fingerprint to whom by telephone.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port

DOCS = Path(__file__).parents[2] / "docs"

CAN_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True).returncode == 0
)


def commands_of(guide: str, *sections: str) -> list[str]:
    """Return the command blocks of some sections of a guide, in order."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    found = []
    for section in sections:
        part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        found += re.findall(r"^ *```bash\n(.*?)^ *```", part, flags=re.DOTALL | re.MULTILINE)
    return found


def read_out(words: str) -> str:
    """Return the fingerprint that a command printed for the telephone."""
    (found,) = re.findall(r"read out:\n\s+(.+)", words)
    return str(found).strip()


@dataclass
class User:
    """Somebody with a machine: a directory, a HOME, and a shell.

    Attributes
    ----------
    name : str
    is_site : bool
        Its name then stands wherever the guides say ``north``.
    home : Path
    changes : dict of str to str
        What the guide says, and what is true here.
    stack : ExitStack
        Ends what was started in the background.
    port : int
        Of the centre's link, in place of the usual one.
    programs : Path or None
        Commands of a machine that reaches no network; None takes those beside this Python.

    """

    name: str
    is_site: bool
    home: Path
    changes: Mapping[str, str]
    stack: ExitStack
    port: int
    programs: Path | None = None

    def __post_init__(self) -> None:
        self.home.mkdir()
        python = ("OMP_NUM_THREADS", "PYTHONPATH", "ESN_TREE")
        beside = {name: os.environ[name] for name in python if name in os.environ}
        programs = self.programs or Path(sys.executable).parent
        path = "/usr/bin:/bin" if self.programs else os.environ["PATH"]
        self.environment = {"PATH": f"{programs}:{path}", "HOME": str(self.home)}
        self.environment |= {} if self.programs else beside

    def follow(self, block: str) -> str:
        """Run a block as it stands in the guide; return what was printed for people."""
        command, text = [str(shutil.which("bash")), "-euc"], self._here(block)
        alone = ["unshare", "--map-root-user", "--net"] if self.programs and CAN_UNSHARE else []
        done = subprocess.run(
            [*alone, *command, text],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, block: str) -> ChildProcess:
        """Start a block that stays, in the background."""
        words = f"cd {self.home}; exec {self._here(block).strip().removesuffix('&')}"
        return self.stack.enter_context(
            ChildProcess(
                [str(shutil.which("bash")), "-c", words],
                log_file=self.home / "background.log",
                environment=self.environment,
            )
        )

    def give(self, path: str, other: "User", name: str | None = None) -> None:
        """Send a file that the guide says to send."""
        shutil.copy(self.home / path, other.home / (name or Path(path).name))

    def edit(self, path: str, changes: Mapping[str, str]) -> None:
        """Edit a file; what is exchanged must be there."""
        file = self.home / path
        text = file.read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in text, f"{path}: {old}"
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")

    def _here(self, block: str) -> str:
        text = block.replace("north", self.name) if self.is_site else block
        for guide, here in self.changes.items():
            text = text.replace(guide, here)
        text = text.replace("9092", str(self.port))
        return text.replace("esn-server start", f"esn-server start --health-port {free_port()}")


@dataclass
class Consortium:
    """A centre whose link runs, and its sites, enrolled."""

    centre: User
    sites: list[User]
    two: ThreadPoolExecutor

    def each(self, block: str) -> list[str]:
        """Let every site follow a block, two at a time."""
        return list(self.two.map(lambda site: site.follow(block), self.sites))

    def send(self, path: str) -> None:
        """Send a file of the centre's to every site."""
        for site in self.sites:
            self.centre.give(path, site)


@pytest.fixture
def commands() -> Callable[..., list[str]]:
    """The command blocks of some sections of a guide."""
    return commands_of


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Callable[..., User]]:
    """Make users, of one consortium."""
    port = free_port()
    with ExitStack() as stack:

        def make(
            name: str, changes: Mapping[str, str], *, is_site: bool = True, programs: Path | None = None
        ) -> User:
            return User(name, is_site, tmp_path / name, changes, stack, port, programs)

        yield make


@pytest.fixture
def founded(user: Callable[..., User]) -> Iterator[Callable[..., Consortium]]:
    """Found a consortium, by the chapters *Before the first study* and *Once*."""
    init, start, enrol = commands_of("centre-guide.md", "Before the first study")
    site_init, kit = commands_of("site-guide.md", "Once")

    def found(names: Sequence[str], changes: Mapping[str, str]) -> Consortium:
        centre = user("centre-home", changes, is_site=False)
        sites = [user(name, changes) for name in names]
        centre.follow(init)
        serving = centre.start(start)
        assert serving.wait_until(lambda: "ready" in " ".join(serving.log_lines()), timeout_s=300)
        for site in sites:
            heard = read_out(site.follow(site_init))
            site.give("site/state/enrolment.toml", centre, f"{site.name}.enrolment.toml")
            centre.environment["HEARD_FROM_NORTH"] = heard
            said = centre.follow(enrol.replace("north", site.name))
            site.environment["HEARD_FROM_CENTRE"] = read_out(said)
            centre.give(f"centre/kits/{site.name}.kit.toml", site)
            site.follow(kit)
        return Consortium(centre, sites, two)

    with ThreadPoolExecutor(2) as two:
        yield found
