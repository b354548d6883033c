"""The layers of the house: who may import what, and what a wheel holds."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from esn_core.protocol.phases import PHASES

ROOT = Path(__file__).parents[1]
PACKAGES = {"esn_core": ROOT, "esn_client": ROOT / "client", "esn_server": ROOT / "server"}

# Which of our modules may import a package directly; a name ending in a dot means everything below it.
ALLOWED = {
    "flwr": (
        "esn_client.app",
        "esn_client.link.guard",
        "esn_server.app",
        "esn_server.link.grid",
        "esn_server.link.flower_run",
        "esn_server.link.superlink_api",
        "esn_server.link.registration",
        "esn_server.link.flower_superlink",
        "esn_server.front.site_calls",
    ),
    "dipy": ("esn_client.imaging.",),
    "nibabel": ("esn_client.imaging.", "esn_client.simulation.nifti"),
    "opacus": ("esn_client.answers.training",),
    "opendp": ("esn_client.gate.noise",),
    "torch": ("esn_core.learning.", "esn_client.answers.training", "esn_server.simulation.pretraining"),
}
PRIVATE_FLOWER = (
    "esn_client.link.guard",
    "esn_server.link.flower_run",
    "esn_server.link.superlink_api",
    "esn_server.link.grid",
    "esn_server.link.registration",
    "esn_server.link.flower_superlink",
    "esn_server.front.site_calls",
)
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


def test_the_guard_loads_neither_torch_nor_what_reads_children():
    """It waits for days beside a hospital's other work; what it needs of the site is loaded with it."""
    parts = (
        *("cli.main", "link.guard", "worker.executor", "site.settings", "approval.approvals"),
        *("gate.audit_log", "site.centre_kit"),
    )
    program = f"""
import sys
{"; ".join(f"import esn_client.{part}" for part in parts)}
print(*sorted({{"torch", "opacus", "dipy", "pandas", "nibabel", "statsmodels"}} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("esn_client.answers.hospital", "import flwr"),
        ("esn_server.study.study", "from flwr.app import Message"),
        ("esn_client.app", "from flwr.supercore.constant import TaskType"),
        ("esn_client.cohort.cohort", "import nibabel as nib"),
        ("esn_core.connectome.connectome", "from dipy.tracking import utils"),
        ("esn_client.answers.hospital", "def f():\n    import torch"),
        ("esn_server.study.study", "from opacus import GradSampleModule"),
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
    assert makers == ["esn_client.gate.gate"]


# --- no array reaches Flower but through the gate ---------------------------------------------------------

# The module that makes answers; those that may read one back, to see what an attacker would; and those that
# hand messages to Flower, with all that these may know of our own code.
GATE = "esn_client.gate.gate"
READERS = ("esn_client.privacy_audit.rehearsal",)
CARRIERS = {
    "esn_client.app": {"esn_core.errors"},
    "esn_client.link.guard": {
        "esn_client.app",
        "esn_client.link.bundle",
        "esn_client.link.centre_probe",
        "esn_client.link.supernode",
        "esn_core.errors",
        "esn_core.system.loopback",
    },
}
ARRAYS = {"numpy", "torch", "pandas", "safetensors", "scipy", "pickle"}
WHOLE = {
    ("esn_core", "messages"),
    ("esn_core.messages", "answer"),
    ("esn_core.messages", "envelope"),
    ("esn_client", "app"),
}
FLOWER_RECORDS = {"ArrayRecord", "MetricRecord", "ConfigRecord", "RecordDict", "Message", "Error"}


def bypasses(name, source):
    """Name the ways by which a module of a site could send something that the gate has not seen."""
    tree = ast.parse(source)
    found = []
    found += [f"{name} knows {i}" for i in imports(source) if name in CARRIERS and not may_know(name, i)]
    if name in (GATE, *CARRIERS):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = {alias.name for alias in node.names}
            if named & {
                "esn_core.messages.answer",
                "esn_core.messages.envelope",
                "esn_core.messages",
                "esn_core",
                "esn_client.app",
                "safetensors",
                "safetensors.numpy",
            }:
                found.append(f"{name} imports {', '.join(sorted(named))} whole")
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            module = node.module or ""
            if node.level or names == {"*"} or module.startswith("safetensors"):
                found.append(f"{name} imports {', '.join(sorted(names))} of {module or '.'}")
            if (module, *names & {"messages", "answer", "envelope", "app"}) in WHOLE:
                found.append(f"{name} imports {', '.join(sorted(names))} whole")
            if module == "esn_core.messages.envelope" and names & {"pack", "seal"}:
                found.append(f"{name} imports what packs a message")
            if module == "esn_core.messages.answer":
                renamed = any(alias.asname for alias in node.names if alias.name == "Answer")
                if renamed or name not in READERS:
                    found.append(f"{name} imports what makes answers")
            if module == "esn_client.app":
                found.append(f"{name} imports the ClientApp")
        elif isinstance(node, ast.Name) and node.id in ("__import__", "importlib", "exec", "eval"):
            found.append(f"{name} uses {node.id}")
    if name in READERS:
        read = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "from_bytes"]
        used = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "Answer"]
        found += [f"{name} does more with an answer than read it" for n in used if n not in read]
        found += [f"{name} packs a message" for _, attribute in calls(tree) if attribute == "to_bytes"]
    return found


def may_know(name, imported):
    top = imported.partition(".")[0]
    return top not in ARRAYS and (top not in PACKAGES or imported in CARRIERS[name])


def calls(tree):
    """Yield every call with the name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            yield node, called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def messages_of_the_app(source):
    """Name what is wrong with the ClientApp: it may wrap what the installed function returns, and no more."""
    tree = ast.parse(source)
    found = [
        f"a message is made of {what}" for what in records(tree) - {"RecordDict", "ConfigRecord", "Message"}
    ]
    made = [ast.unparse(node) for node, called in calls(tree) if called in FLOWER_RECORDS]
    right = "Message(RecordDict({'answer': ConfigRecord({'body': answer(body)})}), reply_to=message)"
    # The call, the record in it, and the record in that.
    if sorted(made, key=len, reverse=True)[:1] != [right] or len(made) != 3:
        found.append(f"what is sent is not what was answered: {made}")
    bound = [
        ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Assign) and "answer" in names_bound(n)
    ]
    if bound != ["answer, = _installed"] and bound != ["(answer,) = _installed"]:
        found.append(f"'answer' is not the installed function alone: {bound}")
    kept = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AugAssign))]
    if "_installed[:] = [answer]" not in kept:
        found.append("the installed function is not kept as it came")
    return found


def records(tree):
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.endswith(("Record", "Dict"))}


def names_bound(assignment):
    return {n.id for target in assignment.targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def replies_beside_the_gate(source):
    """Name each `return` of the hospital's two answering methods that is not what a gate's method gave."""
    hospital = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Hospital")
    methods = {m.name: m for m in hospital.body if isinstance(m, ast.FunctionDef)}
    found = []
    for name in ("reply", "_answer"):
        given = {
            target
            for node in ast.walk(methods[name])
            if isinstance(node, ast.Assign) and of_the_gate(node.value)
            for target in names_bound(node)
        }
        rebound = {
            target
            for node in ast.walk(methods[name])
            if isinstance(node, ast.Assign) and not of_the_gate(node.value)
            for target in names_bound(node)
        }
        for node in ast.walk(methods[name]):
            if isinstance(node, ast.Return):
                value = node.value
                known = isinstance(value, ast.Name) and value.id in given - rebound
                if not (known or of_the_gate(value) or ast.unparse(node) == "return self._answer(question)"):
                    found.append(f"{name}: {ast.unparse(node)}")
    return found


def of_the_gate(value):
    return isinstance(value, ast.Call) and ast.unparse(value.func).startswith("self._gate.")


def test_only_the_gate_makes_answers_and_only_the_guard_reaches_the_app():
    sites = [(name, source) for name, source in modules() if name.partition(".")[0] == "esn_client"]
    found = [fault for name, source in sites for fault in bypasses(name, source)]
    assert found == []
    assert {GATE, *READERS, *CARRIERS} <= {name for name, _ in sites}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("esn_client.answers.hospital", "from esn_core.messages.answer import Answer"),
        ("esn_client.answers.hospital", "from esn_core.messages.answer import Answer as A"),
        ("esn_client.answers.hospital", "from esn_core.messages.answer import *"),
        ("esn_client.answers.hospital", "from esn_core.messages import answer"),
        ("esn_client.answers.hospital", "import esn_core.messages.answer"),
        ("esn_client.answers.training", "from esn_core.messages.envelope import pack"),
        ("esn_client.answers.training", "from safetensors.numpy import save"),
        ("esn_client.answers.hospital", "from esn_client.app import install"),
        ("esn_client.answers.hospital", "from esn_client import app"),
        ("esn_client.answers.hospital", "from . import app"),
        ("esn_client.answers.hospital", "flwr = __import__('flwr')"),
        ("esn_client.app", "import numpy as np"),
        ("esn_client.app", "from esn_client.cohort.cohort import load_cohort"),
        ("esn_client.link.guard", "from esn_client.answers.hospital import Hospital"),
        ("esn_client.link.guard", "from safetensors.numpy import save"),
        ("esn_client.privacy_audit.rehearsal", "from esn_core.messages.answer import Answer\nAnswer(1, 2)"),
        ("esn_client.privacy_audit.rehearsal", "from esn_core.messages.answer import Answer as A"),
        ("esn_client.privacy_audit.rehearsal", "def f(answer):\n    return answer.to_bytes()"),
    ],
)
def test_a_way_round_the_gate_is_seen(name, source):
    assert bypasses(name, source)


def source_of(name):
    return next(source for module, source in modules() if module == name)


def test_the_app_sends_what_the_installed_function_returned():
    assert messages_of_the_app(source_of("esn_client.app")) == []


@pytest.mark.parametrize(
    ("honest", "changed"),
    [
        ('"body": answer(body)', '"body": answer(body) + more'),
        ('"body": answer(body)', '"body": body'),
        ('{"body": answer(body)}', '{"body": answer(body), "more": b""}'),
        ('ConfigRecord({"body": answer(body)})', 'ArrayRecord({"body": answer(body)})'),
        ("(answer,) = _installed", "answer = other"),
        ("(answer,) = _installed", "(answer,) = _installed\n    answer = other"),
        ("_installed[:] = [answer]", "_installed[:] = [other]"),
    ],
)
def test_an_app_that_sends_something_else_is_seen(honest, changed):
    source = source_of("esn_client.app")
    assert honest in source
    assert messages_of_the_app(source.replace(honest, changed))


def test_a_hospital_returns_what_the_gate_gave_it():
    assert replies_beside_the_gate(source_of("esn_client.answers.hospital")) == []


@pytest.mark.parametrize(
    ("honest", "changed"),
    [
        ("return before", "return before + b'x'"),
        ("return before", "before = rows.tobytes()\n            return before"),
        ("return self._gate.refuse(question, error)", "return str(error).encode()"),
        ("return self._gate.refuse(question, error)", "return self._rows(question)"),
    ],
)
def test_a_hospital_that_answers_by_itself_is_seen(honest, changed):
    source = source_of("esn_client.answers.hospital")
    assert honest in source
    assert replies_beside_the_gate(source.replace(honest, changed))


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
        "esn_core/connectome/atlases/phantom-28.tsv",
        "esn_core/connectome/atlases/phantom-28.simulated-template.tsv",
        "esn_client/privacy_audit/page.html.j2",
        "esn_core/learning/pretrained/compact-3.safetensors",
        "esn_core/learning/pretrained/compact-3.json",
        "esn_client/site/site.toml.template",
        "esn_server/protocol/protocol.toml.j2",
        "esn_server/report/page.html.j2",
        "esn_server/status/page/page.html.j2",
        "esn_server/status/page/page.css",
        "esn_server/status/page/page.js",
        "esn_server/link/flower_app/pyproject.toml",
    ):
        assert data in names


# --- one table of phases ---------------------------------------------------------------------------------

# Who lists phases beside the table: the site, which has a function for each of them; and the analyses, two of
# which are called as their phase.
LISTING = ("esn_client.answers.hospital", "esn_core.protocol.analyses", "esn_core.protocol.phases")


def listed_phases(source):
    """Return the phases in each list, set, tuple or dict of a module that names two or more."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        names = {part.value for part in parts if isinstance(part, ast.Constant)} & set(PHASES)
        if len(names) > 1:
            found.append(sorted(names))
    return found


def test_phases_are_listed_in_their_table_alone():
    assert [name for name, source in modules() if listed_phases(source)] == sorted(LISTING, key=_place)


def _place(name):
    return [module for module, _ in modules()].index(name)


@pytest.mark.parametrize(
    "source",
    [
        "SHARES = {'centre': 0.1, 'association': 0.9}",
        "def f(phase):\n    return phase in ('association', 'rerun-association')",
        "EXACT = frozenset(['combat', 'local-update'])",
    ],
)
def test_a_second_list_of_phases_is_seen(source):
    assert len(listed_phases(source)) == 1


def test_the_centre_reads_the_sum_of_every_phase():
    asked = {
        node.value
        for name, source in modules()
        if name.startswith(("esn_server.study.", "esn_core.transcript."))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
    }
    assert set(PHASES) <= asked
