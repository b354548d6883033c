"""The layers of the house: who may import what, and what a wheel holds."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"esn_core": ROOT, "esn_client": ROOT / "client", "esn_server": ROOT / "server"}

# Which of our modules may import a package directly; a name ending in a dot means everything below it.
ALLOWED = {
    "flwr": ("esn_client.app", "esn_client.guard", "esn_server.app", "esn_server.link"),
    "dipy": ("esn_client.imaging.",),
    "nibabel": ("esn_client.imaging.",),
    "opacus": ("esn_client.training",),
    "opendp": ("esn_client.egress",),
    "torch": ("esn_core.learning.", "esn_client.training", "esn_server.pretraining"),
}
PRIVATE_FLOWER = ("esn_client.guard", "esn_server.link")
PUBLIC_FLOWER = {"flwr", "flwr.app", "flwr.clientapp", "flwr.serverapp"}


def modules():
    for package, base in PACKAGES.items():
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            yield name, path.read_text(encoding="utf-8")


def imports(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def trespasses(name, source):
    """Name the imports of a module that its place does not allow."""
    found = []
    for imported in imports(source):
        top = imported.partition(".")[0]
        allowed = ALLOWED.get(top)
        if allowed is not None and not any(
            name == a or (a.endswith(".") and name.startswith(a)) for a in allowed
        ):
            found.append(f"{name} imports {imported}")
        elif top == "flwr" and imported not in PUBLIC_FLOWER and name not in PRIVATE_FLOWER:
            found.append(f"{name} imports {imported}, a private part of Flower")
    return found


def test_each_library_is_imported_in_its_place_only():
    assert [fault for name, source in modules() for fault in trespasses(name, source)] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("esn_client.answers", "import flwr"),
        ("esn_server.study", "from flwr.app import Message"),
        ("esn_client.app", "from flwr.supercore.constant import TaskType"),
        ("esn_client.cohort", "import nibabel as nib"),
        ("esn_core.connectome", "from dipy.tracking import utils"),
        ("esn_client.answers", "def f():\n    import torch"),
        ("esn_server.study", "from opacus import GradSampleModule"),
    ],
)
def test_a_trespass_is_seen(name, source):
    assert len(trespasses(name, source)) == 1


def test_flower_is_handed_bytes_only():
    """The ClientApp has no array type at hand: what it sends is the bytes that the gate gave out."""
    source = (ROOT / "client/esn_client/app.py").read_text(encoding="utf-8")
    assert not {"numpy", "torch"} & {name.partition(".")[0] for name in imports(source)}
    assert "ArrayRecord" not in source
    assert "MetricRecord" not in source


def test_answers_leave_through_the_gate_only():
    """`Answer`, the type of what crosses, is made in the gate and nowhere else at a site."""
    makers = [name for name, source in modules() if name.startswith("esn_client") and "Answer(" in source]
    assert makers == ["esn_client.egress"]


@pytest.mark.slow
def test_the_wheel_holds_three_packages_and_their_data(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for data in (
        "esn_core/atlases/phantom-28.tsv",
        "esn_core/atlases/phantom-28.template.tsv",
        "esn_core/learning/pretrained/compact-1.safetensors",
        "esn_core/learning/pretrained/compact-2.safetensors",
        "esn_core/learning/pretrained/compact-2.json",
        "esn_client/site.toml.template",
        "esn_server/protocol.toml.j2",
        "esn_server/report/page.html.j2",
        "esn_server/flower_app/pyproject.toml",
    ):
        assert data in names
