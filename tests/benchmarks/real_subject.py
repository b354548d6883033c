"""The one real subject that benchmarks use: fetched from a package, checked by hash, never committed.

The wheel mappertrac 1.3.1 carries an example subject: 96 x 96 x 63 voxels of 2.4 mm, 6 b0 and 64 directions
of b = 1000 s/mm2. The T1 shows a face and its origin is undocumented: nothing of it belongs into a
repository.

Usage: python tests/benchmarks/real_subject.py DIRECTORY
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

WHEEL = "mappertrac==1.3.1"
SUBJECT = "sub-011591"
INSIDE = f"mappertrac/data/example_inputs/{SUBJECT}"
SHA256 = {
    f"dwi/{SUBJECT}_dwi.nii.gz": "bb99265f6dd7b5c4abc473d8e784b8e178a529c75b494a35bfa28972bb155850",
    f"dwi/{SUBJECT}_dwi.bval": "4c93e312703c3047fcb33473ec44c7bfb0d13790ddfb2074729fe0532ae009cc",
    f"dwi/{SUBJECT}_dwi.bvec": "5418f828f44101fc6a678f47aaaca6579466ddd0eaa618ef3fbc6e2ded21618c",
    f"anat/{SUBJECT}_T1w.nii.gz": "54ced1a4611c90b1b604e1a80081b546324107c4d7240758d3ef538666fef6af",
}


class UnavailableError(Exception):
    """The subject cannot be fetched here; the message says why."""


@dataclass(frozen=True)
class RealSubject:
    """The files of the subject, in a BIDS dataset of one.

    Attributes
    ----------
    bids : Path
        The dataset.
    dwi, bval, bvec, t1w : Path

    """

    bids: Path
    dwi: Path
    bval: Path
    bvec: Path
    t1w: Path


def fetch(directory: Path) -> RealSubject:
    """Fetch the subject into a BIDS dataset, or find it there from before.

    Parameters
    ----------
    directory : Path
        Becomes the dataset; made if it is not there.

    Returns
    -------
    RealSubject
        Every file has the digest that it should have.

    Raises
    ------
    UnavailableError
        No package index here offers the wheel, or it is not the one that we know.

    """
    target = directory / SUBJECT
    if not all(_is_whole(target / name, digest) for name, digest in SHA256.items()):
        _unpack(target)
    description = {"Name": "one real subject", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (directory / "dataset_description.json").write_text(json.dumps(description) + "\n", encoding="utf-8")
    dwi, bval, bvec, t1w = (target / name for name in SHA256)
    return RealSubject(directory, dwi, bval, bvec, t1w)


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _unpack(target: Path) -> None:
    """Download the wheel and take the subject's files out of it."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UnavailableError(f"pip download --no-deps {WHEEL} failed: {last}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name, digest in SHA256.items():
                content = wheel.read(f"{INSIDE}/{name}")
                found = hashlib.sha256(content).hexdigest()
                if found != digest:
                    raise UnavailableError(f"{WHEEL}, {name}: sha256 is {found}, not {digest}")
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def main() -> None:
    """Fetch the subject and print where its files are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    try:
        print(fetch(parser.parse_args().directory))
    except UnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
