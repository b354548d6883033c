"""The documents tell of the tree as it is: paths, records, examples and the version."""

import doctest
import importlib
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "decisions"
NAMING = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)

# What a newcomer opens first; each shows what it does.
EXAMPLES = (
    "esn_core.connectome.connectome",
    "esn_core.connectome.template",
    "esn_core.learning.severity_model",
    "esn_core.messages.question",
    "esn_core.privacy.accounting",
    "esn_core.privacy.fixed_point",
    "esn_core.privacy.release",
    "esn_core.privacy.secure_sum",
    "esn_core.statistics.agreement",
    "esn_client.gate.gate",
)

# A path of this repository as documents name it; what hospitals and centres keep begins otherwise.
_OURS = re.compile(r"(?<![\w/.])((?:esn_core|client|server|tests|docs|deploy|site_configs)/[\w./-]*\w)")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def lost_paths(name, text):
    """Name the paths and links of a document that lead nowhere."""
    paths = {path for path in _OURS.findall(text) if not (ROOT / path).exists()}
    links = {link for link in _LINK.findall(text) if not (ROOT / name).parent.joinpath(link).exists()}
    return sorted(paths | links)


@pytest.mark.parametrize("name", [*NAMING, *(f"docs/decisions/{p.name}" for p in RECORDS.glob("*.md"))])
def test_every_path_that_a_document_names_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert lost_paths(name, text) == []


def test_a_path_that_leads_nowhere_is_seen():
    text = (
        "`esn_core/privacy.py` and [it](no-such.md), but not `derivatives/labels/sub-012` or [us](privacy.md)"
    )
    assert lost_paths("docs/x.md", text) == ["esn_core/privacy.py", "no-such.md"]


def test_every_room_of_the_tree_has_an_owner():
    owned = [line.split()[0] for line in (ROOT / "CODEOWNERS").read_text().splitlines() if line[:1] == "/"]
    assert [path for path in owned if not (ROOT / path.strip("/")).exists()] == []
    rooms = [
        p.parent
        for base in ("esn_core", "client/esn_client", "server/esn_server")
        for p in (ROOT / base).glob("*/__init__.py")
    ]
    unowned = [f"/{room.relative_to(ROOT)}/" for room in rooms if room.name != "cli"]
    assert [room for room in unowned if room not in owned] == []


def line_of(record):
    """The line by which the index lists a record: its number, title and status."""
    title, status = (" ".join(part.split()) for part in record.read_text(encoding="utf-8").split("\n\n")[:2])
    number, _, said = title.removeprefix("# ").partition(" ")
    dated = re.fullmatch(r"\d{4}-\d{2}-\d{2}, ((?:accepted|superseded by \d{4})\b.*)", status)
    assert dated, f"{record.name}: its second paragraph is a date and a status, not {status!r}"
    return f"| [{number}]({record.name}) | {said} | {dated[1]} |"


def test_the_index_lists_every_record_with_its_status():
    index = (RECORDS / "README.md").read_text(encoding="utf-8").splitlines()
    wanted = [line_of(record) for record in sorted(RECORDS.glob("[0-9]*.md"))]
    assert sorted(line for line in index if line.startswith("| [")) == wanted


def test_the_index_says_which_records_are_no_longer_in_force():
    index = (RECORDS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d{4})\]", index, flags=re.MULTILINE)
    superseded = [r.name[:4] for r in sorted(RECORDS.glob("[0-9]*.md")) if "superseded" in line_of(r)]
    assert listed == superseded


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_module_does_what_it_shows(name):
    module = importlib.import_module(name)
    assert ">>>" in module.__doc__
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_citation_has_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation


def test_the_picture_of_a_study_is_the_one_that_is_drawn_now():
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_picture.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_reference_is_compared_with_the_source(tmp_path):
    """A copy of the script and of one package: its pages are made, found equal, and found stale."""
    (tmp_path / "docs").mkdir()
    for name in ("esn_core", "client/esn_client", "server/esn_server"):
        (tmp_path / name).mkdir(parents=True)
    script = tmp_path / "docs" / "make_reference.py"
    script.write_bytes((ROOT / "docs" / "make_reference.py").read_bytes())
    (tmp_path / "esn_core" / "__init__.py").write_text('"""Numbers."""\n')
    module = tmp_path / "esn_core" / "gase.py"
    module.write_text(
        '"""The score."""\n\n\ndef level(gase: float, *, step: int = 1) -> int:\n    """Round."""\n'
    )

    def make(*arguments):
        return subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, check=False
        )

    assert make().returncode == 0
    page = (tmp_path / "docs" / "reference" / "esn_core.md").read_text()
    assert "def level(gase: float, *, step: int = 1) -> int" in page
    assert make("--check").returncode == 0
    module.write_text(module.read_text().replace("Round.", "Round down."))
    stale = make("--check")
    assert stale.returncode == 1
    assert "esn_core.md" in stale.stderr
    assert "python docs/make_reference.py" in stale.stderr


def test_the_readme_sums_up_the_demos_of_the_page():
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/benchmarks.md", "README.md"))
    r = [float(each) for each in re.search(r"r ((?:\.\d{3} ){9}\.\d{3}), median", page)[1].split()]
    least, most, middle = (f"{each(r):.2f}".removeprefix("0") for each in (min, max, statistics.median))
    assert f"gave r of {least} to {most}, a median of {middle};" in readme
