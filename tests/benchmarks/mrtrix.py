"""MRtrix3's way from a scan to a connectome, each command with what it took."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MIN_LENGTH_MM, MAX_LENGTH_MM = 20, 250
RADIAL_SEARCH_MM = 4


@dataclass(frozen=True)
class Cost:
    """What one stage took.

    Attributes
    ----------
    cpu_s : float
        User and system time, children included.
    wall_s : float
    peak_memory_gib : float
        Of the largest process.
    reused : bool
        Measured by an earlier run of the same command.

    """

    cpu_s: float
    wall_s: float
    peak_memory_gib: float
    reused: bool = False


def is_installed() -> bool:
    """Whether Debian's package is there."""
    return all(
        shutil.which(command) for command in ("dwidenoise", "dwi2response", "tckgen", "tck2connectome")
    )


def version() -> str:
    """Ask the tracker for its version."""
    lines = subprocess.run(["tckgen", "-version"], capture_output=True, text=True, check=True).stdout
    return lines.splitlines()[0].replace("==", "").strip()


class MRtrix:
    """The commands of one subject, run in one directory.

    Parameters
    ----------
    directory : Path
        Holds ``dwi.nii``, ``dwi.bvec``, ``dwi.bval`` and ``seeds.nii``.
    reuse : bool
        Take the result of a command that was run before, with what it took then.

    """

    def __init__(self, directory: Path, *, reuse: bool) -> None:
        self.directory = directory
        self.reuse = reuse
        self.costs: dict[str, Cost] = {}

    def reconstruct(self, *, seeds: int, random_seed: int) -> None:
        """Run every stage from the scan to the streamlines."""
        fsl = ["-fslgrad", "dwi.bvec", "dwi.bval"]
        self._run("denoise", ["dwidenoise", "dwi.nii", "denoised.mif"], makes="denoised.mif")
        self._run("mask", ["dwi2mask", *fsl, "denoised.mif", "mask.mif"], makes="mask.mif")
        response = ["dwi2response", "tournier", *fsl, "-mask", "mask.mif", "denoised.mif", "response.txt"]
        self._run("response", response, makes="response.txt")
        fod = ["dwi2fod", "csd", *fsl, "-mask", "mask.mif", "denoised.mif", "response.txt", "fod.mif"]
        self._run("fodf", fod, makes="fod.mif")
        tracks = f"tracks-{seeds}.tck"
        limits = ["-minlength", str(MIN_LENGTH_MM), "-maxlength", str(MAX_LENGTH_MM), "-mask", "mask.mif"]
        asked = ["-seed_image", "seeds.nii", "-seeds", str(seeds), "-select", "0"]
        track = ["tckgen", "-algorithm", "iFOD2", *asked, *limits, "fod.mif", tracks]
        self._run("tracking", track, makes=tracks, environment={"MRTRIX_RNG_SEED": str(random_seed)})

    def connect(self, labels: str, *, seeds: int) -> tuple[NDArray[np.float64], float]:
        """Count streamlines between the labels of an image; give the counts and the share assigned.

        Labels are looked up within 4 mm of a streamline's end, tck2connectome's default.
        """
        makes = f"connectome-{Path(labels).stem}-{seeds}.csv"
        assignments = f"assignments-{Path(labels).stem}-{seeds}.txt"
        search = ["-assignment_radial_search", str(RADIAL_SEARCH_MM), "-symmetric"]
        command = [
            "tck2connectome",
            *search,
            "-out_assignments",
            assignments,
            f"tracks-{seeds}.tck",
            labels,
            makes,
        ]
        self._run("connectivity", command, makes=makes)
        counts = np.loadtxt(self.directory / makes, delimiter=",")
        ends = np.loadtxt(self.directory / assignments, dtype=np.int64, comments="#")
        return counts, float((ends > 0).all(axis=1).mean())

    def _run(
        self, stage: str, command: list[str], *, makes: str, environment: dict[str, str] | None = None
    ) -> None:
        """Run a command with one thread unless its result is there; keep what it took beside the result."""
        record = self.directory / f"{makes}.json"
        if self.reuse and record.is_file():
            kept = json.loads(record.read_text(encoding="utf-8"))
            if kept["command"] == command:
                self.costs[stage] = Cost(**{**kept["cost"], "reused": True})
                return
        record.unlink(missing_ok=True)
        with (self.directory / f"{stage}.log").open("wb") as log:
            begin = os.times().elapsed
            process = subprocess.Popen(
                [command[0], "-force", "-nthreads", "1", *command[1:]],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with status {process.returncode}; see {log.name}")
        cost = Cost(
            cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
            wall_s=round(os.times().elapsed - begin, 2),
            peak_memory_gib=round(usage.ru_maxrss / 2**20, 3),
        )
        self.costs[stage] = cost
        record.write_text(json.dumps({"command": command, "cost": asdict(cost)}), encoding="utf-8")
