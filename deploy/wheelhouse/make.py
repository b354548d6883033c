"""Make a wheelhouse: all wheels of this software in one directory, to be installed without a network.

Usage: python deploy/wheelhouse/make.py [--torch cpu|cuda] [--out dist/wheelhouse-cpu] [--tar]

Needs an index, or a mirror as pip is told of one, and the environment of `make setup`. Writes the wheels, the
installer, SHA256SUMS, an SBOM (sbom.cdx.json, CycloneDX 1.6) and licences/ with what each wheel says of its
licence. Versions are those of constraints.txt.
"""

import argparse
import email.parser
import email.policy
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLER = Path(__file__).with_name("install-offline")
_TORCH_PAGE = "https://download.pytorch.org/whl/cpu/torch/"
# Where a wheel keeps its licence: PEP 639's directory, or files of such names beside the metadata.
_LICENCE_NAMES = ("license", "licence", "copying", "notice", "authors")


@dataclass(frozen=True)
class Wheel:
    """One wheel of the house.

    Attributes
    ----------
    path : Path
    name, version : str
    licence : str
        As its metadata say: an expression, a text of one line, or classifiers.
    texts : dict of str to bytes
        Its files on licences, by their names in the wheel.

    """

    path: Path
    name: str
    version: str
    licence: str
    texts: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def read_wheel(path: Path) -> Wheel:
    """Read what a wheel says of itself."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = [n for n in names if n.endswith(".dist-info/METADATA") and n.count("/") == 1]
        said = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(archive.read(metadata))
        inside = metadata.rpartition("/")[0] + "/"
        texts = {
            n.removeprefix(inside): archive.read(n)
            for n in names
            if n.startswith(inside) and Path(n).name.lower().startswith(_LICENCE_NAMES)
        }
    return Wheel(path, str(said["Name"]), str(said["Version"]), _licence(said), texts)


def _licence(said: "email.message.Message[str, str]") -> str:
    if said["License-Expression"]:
        return str(said["License-Expression"])
    classifiers = [
        str(line).rpartition(" :: ")[2]
        for line in said.get_all("Classifier", [])
        if str(line).startswith("License ::")
    ]
    first = str(said["License"] or "").strip().splitlines()[:1]
    return "; ".join(classifiers) or (first[0][:100] if first else "") or "see its files"


def sbom(wheels: list[Wheel]) -> str:
    """Return the bill of materials, CycloneDX 1.6; equal wheels give equal bytes."""
    ours = next(w for w in wheels if w.name == "esn-federated")

    def component(wheel: Wheel) -> dict[str, object]:
        purl = f"pkg:pypi/{wheel.name.lower().replace('_', '-')}@{wheel.version}"
        return {
            "type": "application" if wheel is ours else "library",
            "bom-ref": purl,
            "name": wheel.name,
            "version": wheel.version,
            "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
            "licenses": [{"license": {"name": wheel.licence}}],
        }

    said = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(ours)},
        "components": [component(wheel) for wheel in wheels if wheel is not ours],
    }
    return json.dumps(said, indent=1) + "\n"


def write_house(out: Path) -> list[Wheel]:
    """Write everything that stands beside the wheels; SHA256SUMS last, over all of it."""
    wheels = sorted((read_wheel(path) for path in out.glob("*.whl")), key=lambda wheel: wheel.name.lower())
    shutil.copy(INSTALLER, out / "install-offline")
    (out / "sbom.cdx.json").write_text(sbom(wheels), encoding="utf-8")
    lines = ["name\tversion\tlicence\tfiles"]
    for wheel in wheels:
        folder = out / "licences" / f"{wheel.name}-{wheel.version}"
        for name, text in wheel.texts.items():
            path = folder / name.replace("/", "_")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        lines.append(f"{wheel.name}\t{wheel.version}\t{wheel.licence}\t{len(wheel.texts)}")
    (out / "licences").mkdir(exist_ok=True)
    (out / "licences" / "licences.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(out).as_posix()}" for p in files]
    (out / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    return wheels


def fetch(out: Path, *, torch: str) -> None:
    """Build our wheel, and download those that it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    ours = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(ours, check=True)
    (wheel,) = out.glob("esn_federated-*.whl")
    pin = next(
        line.partition("==")[2]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("torch==")
    )
    # A mirror may have the build for CPUs already; else the one page that lists it is asked.
    wanted = f"torch=={pin}+cpu" if torch == "cpu" else f"torch==={pin}"
    page = ["--find-links", _TORCH_PAGE] if torch == "cpu" and not _offered(pip, f"{pin}+cpu") else []
    asked = [f"{wheel}[client,server]", wanted, "pip"]
    limits = ["--only-binary", ":all:", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "download", "--quiet", *limits, *page, "--dest", str(out), *asked], check=True)


def _offered(pip: list[str], version: str) -> bool:
    command = [*pip, "index", "versions", "torch", "--only-binary", ":all:"]
    return version in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main() -> None:
    """Make the house."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tar", action="store_true", help="pack it, for a disk or a stick")
    said = parser.parse_args()
    out: Path = said.out or ROOT / "dist" / f"wheelhouse-{said.torch}"
    if out.exists() and any(out.iterdir()):
        sys.exit(f"{out} is not empty; a wheelhouse needs a directory of its own")
    out.mkdir(parents=True, exist_ok=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    fetch(out, torch=said.torch)
    wheels = write_house(out)
    size = sum(wheel.path.stat().st_size for wheel in wheels)
    print(f"esn-federated {version}: {len(wheels)} wheels, {size / 1e9:.2f} GB, in {out}")
    if said.tar:
        packed = out.with_suffix(".tar")
        with tarfile.open(packed, "w") as archive:
            archive.add(out, arcname=out.name)
        print(packed)


if __name__ == "__main__":
    main()
