"""What is deployed: units that systemd understands, and a wheelhouse that installs with the index off."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")


def load_maker():
    spec = importlib.util.spec_from_file_location("wheelhouse", ROOT / "deploy" / "wheelhouse" / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["wheelhouse"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(ANALYZE is None, reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_a_unit_and_calls_it_hardened(unit, tmp_path):
    """On a copy with a program and an account that this machine has."""
    text = re.sub(r"/opt/esn-federated/bin/esn-\w+", "/bin/true", unit.read_text())
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^User=.*$", "User=daemon", text, flags=re.MULTILINE))
    checked = subprocess.run([ANALYZE, "verify", "--man=no", copy], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    judged = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager", copy], capture_output=True, text=True
    )
    assert float(re.search(r"exposure level .*: ([\d.]+)", judged.stdout)[1]) <= 1.5


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_there_is(unit):
    from typer.main import get_command

    from esn_client.cli.main import app as client
    from esn_server.cli.main import app as server

    words = re.search(r"^ExecStart=(.*)$", unit.read_text(), flags=re.MULTILINE)[1].split()
    top = get_command({"esn-client": client, "esn-server": server}[Path(words[0]).name])
    context = top.make_context(words[0], words[1:])
    name, *own = [*context._protected_args, *context.args]
    top.commands[name].make_context(name, own)


@pytest.fixture
def house(tmp_path):
    """A wheelhouse of two small wheels, one of them called ours, and the module that made it."""
    maker, out = load_maker(), tmp_path / "house"
    out.mkdir()
    for name, needs in (("esn_federated", "Provides-Extra: client\nRequires-Dist: tiny\n"), ("tiny", "")):
        said = f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: 0.1\n{needs}"
        said += "License-Expression: MIT\n" if name == "tiny" else "License: mine\n"
        inside = f"{name}-0.1.dist-info"
        files = {
            f"{name}.py": "def main():\n    print('esn-federated 0.1')\n",
            f"{inside}/METADATA": said,
            f"{inside}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{inside}/licenses/LICENSE": f"licence of {name}",
            f"{inside}/entry_points.txt": "[console_scripts]\nesn-client = esn_federated:main\n"
            if name == "esn_federated"
            else "",
        }
        files[f"{inside}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{inside}/RECORD"])
        with zipfile.ZipFile(out / f"{name}-0.1-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)
    maker.write_house(out)
    return out, maker


def install(house, target, *more):
    environment = {"PATH": os.environ["PATH"], "PIP_INDEX_URL": "https://127.0.0.1:1/simple"}
    return subprocess.run(
        [house / "install-offline", target, *more], capture_output=True, text=True, env=environment
    )


def test_a_house_lists_names_and_licences_of_all_that_is_in_it(house):
    out, _ = house
    said = json.loads((out / "sbom.cdx.json").read_text())
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["metadata"]["component"]["purl"] == "pkg:pypi/esn-federated@0.1"
    (tiny,) = said["components"]
    wheel = (out / "tiny-0.1-py3-none-any.whl").read_bytes()
    assert tiny["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel).hexdigest()}]
    assert tiny["licenses"] == [{"license": {"name": "MIT"}}]
    assert (out / "licences" / "licences.tsv").read_text().splitlines()[1:] == [
        "esn-federated\t0.1\tmine\t1",
        "tiny\t0.1\tMIT\t1",
    ]
    assert (out / "licences" / "tiny-0.1" / "licenses_LICENSE").read_text() == "licence of tiny"
    listed = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    everything = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert listed == everything - {"SHA256SUMS"}


def test_it_installs_with_the_index_off_and_not_where_something_is(house, tmp_path):
    out, _ = house
    done = install(out, tmp_path / "here", "client", sys.executable)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "esn-federated 0.1"), done.stderr
    assert install(out, tmp_path / "here").returncode == 1
    assert "say client, server" in install(out, tmp_path / "there", "everything").stderr


def test_a_changed_wheel_is_not_installed(house, tmp_path):
    out, _ = house
    with (out / "tiny-0.1-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"\0")
    done = install(out, tmp_path / "here", "client", sys.executable)
    assert (done.returncode, "a file was changed" in done.stderr) == (1, True)
    assert not (tmp_path / "here").exists()
