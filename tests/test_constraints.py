"""`constraints.txt` names every package that this software brings, and nothing else."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# Only torch's CUDA builds bring these, each release its own; the CPU build, which is the default, has none.
OF_CUDA = re.compile(r"nvidia-|cuda-|triton")


def asked():
    """What `make setup` installs by name: the package with both extras, the group dev, and pip."""
    text = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = text["project"]
    extras = project["optional-dependencies"]
    lists = (project["dependencies"], extras["client"], extras["server"], text["dependency-groups"]["dev"])
    return [
        Requirement(line) for lines in (*lists, text["build-system"]["requires"], ["pip"]) for line in lines
    ]


def with_all_they_bring(requirements, requires):
    """Follow requirements to the end, as pip does on this machine: markers and extras count."""
    seen, left = set(), list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            left += [
                found
                for found in map(Requirement, requires(name))
                if (found.marker is None or found.marker.evaluate({"extra": extra}))
                and not OF_CUDA.match(canonicalize_name(found.name))
            ]
    return {name for name, _ in seen}


def requires(name):
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def faults(lines, needed, version_of):
    """Say what is wrong with the lines of a constraints file."""
    pins, found = {}, []
    for line in lines:
        name, equals, version = line.partition("==")
        if not equals or not re.fullmatch(r"[\w.]+", version):
            found.append(f"{line}: not one version")
        pins[canonicalize_name(name)] = version
    for name in sorted(needed | set(pins)):
        installed = version_of(name)
        if name not in needed:
            found.append(f"{name}: nothing brings it")
        elif name not in pins:
            found.append(f"{name}: not pinned; {installed} is installed")
        elif installed is None:
            found.append(f"{name}: not installed")
        # A build of torch has a local version, such as +cpu.
        elif Version(installed).public != pins[name]:
            found.append(f"{name}: pinned at {pins[name]}; {installed} is installed")
    return found


def test_the_constraints_name_what_is_installed_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines, key=str.casefold)
    assert faults(lines, with_all_they_bring(asked(), requires), version_of) == []


WORLD = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "attrs": "23.2.0"}
PINS = ["attrs==23.2.0", "numpy==2.4.6", "torch==2.13.0"]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (PINS, None),
        (PINS[1:], "attrs: not pinned; 23.2.0 is installed"),
        ([*PINS, "pybids==0.22.0"], "pybids: nothing brings it"),
        (["attrs==23.1.0", *PINS[1:]], "attrs: pinned at 23.1.0; 23.2.0 is installed"),
        ([*PINS[:2], "torch==2.12.0"], "torch: pinned at 2.12.0; 2.13.0+cpu is installed"),
        (["attrs>=23.2.0", *PINS[1:]], "attrs>=23.2.0: not one version"),
        (["attrs==23.*", *PINS[1:]], "attrs==23.*: not one version"),
    ],
)
def test_each_fault_of_a_constraints_file_is_seen(lines, fault):
    found = faults(lines, set(WORLD), WORLD.get)
    assert fault in found if fault else found == []


def test_a_package_that_is_not_installed_is_seen():
    assert faults([*PINS, "wrapt==2.5.2"], {*WORLD, "wrapt"}, WORLD.get) == ["wrapt: not installed"]


def test_markers_and_extras_are_followed():
    metadata = {
        "a": ['b; python_version < "3"', "c[fast]", 'd; extra == "never"'],
        "c": ['e; extra == "fast"', 'f; extra == "slow"'],
        "e": ["A", "nvidia-nccl-cu13==2.28"],
    }
    names = with_all_they_bring([Requirement("a")], lambda name: metadata.get(name, []))
    assert names == {"a", "c", "e"}
