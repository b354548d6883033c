"""Simulated hospitals: raw scans of simulated children, as a BIDS dataset on disk."""

import gzip
import hashlib
import io
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.derivatives import BIDS_VERSION
from esn_client.imaging.scans import segmentation_of
from esn_core.atlas import Atlas, load_atlas
from esn_core.errors import ConfigError
from esn_core.simulation.cohort import OUTCOMES, Subject, World
from esn_core.simulation.diffusion import Phantom, Scheme, draw_phantom

ATLAS = "phantom-28"
VOXEL_SIZE_MM = 5.0
GZIP_TIME = 0
"""The modification time in every gzip header: equal seeds give equal bytes."""


@dataclass(frozen=True)
class SitePreset:
    """The scanner of one simulated hospital.

    Attributes
    ----------
    orientation : 'LAS' or 'RAS'
        How images are stored.
    directions : int
        Diffusion-weighted volumes, of one shell.
    b0_every : int or None
        A b0 comes before each so many weighted volumes; None puts all of them first.
    b0_volumes : int
        How many come first if they all do.
    b_value_s_per_mm2 : float
    turn_deg : float
        Turns the gradient table about z: another vendor, another table.
    signal_to_noise : float
        Of tissue in the b0.
    motion_mm : float
        Sd of the head's movement between volumes.

    """

    orientation: Literal["LAS", "RAS"]
    directions: int
    b0_every: int | None
    b0_volumes: int
    b_value_s_per_mm2: float
    turn_deg: float
    signal_to_noise: float
    motion_mm: float

    def scheme(self) -> Scheme:
        """Spread the directions over a half sphere and place the b0s among them."""
        k = np.arange(self.directions)
        height = 1 - (k + 0.5) / self.directions
        angle = np.pi * (3 - np.sqrt(5)) * k + np.radians(self.turn_deg)
        ring = np.sqrt(1 - height**2)
        weighted = np.column_stack([ring * np.cos(angle), ring * np.sin(angle), height])
        every = self.b0_every or self.directions
        volumes = [(0.0, 0.0, 0.0)] * (0 if self.b0_every else self.b0_volumes - 1)
        for start in range(0, self.directions, every):
            volumes += [(0.0, 0.0, 0.0), *map(tuple, weighted[start : start + every].tolist())]
        directions = np.array(volumes, dtype=np.float64)
        b_values = np.where(directions.any(axis=1), self.b_value_s_per_mm2, 0.0)
        return Scheme(b_values, directions)


SITES = {
    "north": SitePreset("LAS", 30, None, 4, 1000.0, 0.0, 28.0, 0.1),
    "south": SitePreset("RAS", 32, None, 4, 1000.0, 70.0, 26.0, 0.1),
    "west": SitePreset("LAS", 40, 10, 4, 900.0, 140.0, 20.0, 0.15),
}


def write_site(
    directory: Path,
    *,
    site: str,
    seed: int,
    children: int,
    controls: int,
    truth: Path | None,
    n_procs: int = 1,
) -> None:
    """Write one simulated hospital's raw data.

    All sites of one seed share a world: the same anatomy and the same hidden severity network.

    Parameters
    ----------
    directory : Path
        The BIDS dataset, which must not exist, or be empty. Label volumes lie on the scans' grids, in
        ``derivatives/labels``.
    site : str
        A name in `SITES`.
    seed : int
        Equal seeds give equal bytes, whatever `n_procs`.
    children, controls : int
    truth : Path or None
        Where the hidden truth goes, as ``.npz``, outside of the dataset; None writes none.
    n_procs : int

    Raises
    ------
    ConfigError
        There is no such site, the directory is in use, or the truth would lie inside the dataset.

    """
    if site not in SITES:
        raise ConfigError(f"unknown site {site!r}; there are: {', '.join(SITES)}")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty; a simulated site needs a directory of its own")
    if truth is not None and truth.resolve().is_relative_to(directory.resolve()):
        raise ConfigError(f"{truth} lies inside the dataset; the truth must be kept outside of {directory}")
    atlas = load_atlas(ATLAS)
    world = World.draw(atlas, rng=_generator(seed, "world"))
    subjects = world.site(children=children, controls=controls, rng=_generator(seed, site))
    write_dataset(directory, subjects, atlas=atlas, preset=SITES[site], name=site, seed=seed, n_procs=n_procs)
    if truth is not None:
        write_truth(truth, world, subjects)


def write_dataset(
    directory: Path,
    subjects: Sequence[Subject],
    *,
    atlas: Atlas,
    preset: SitePreset,
    name: str,
    seed: int,
    n_procs: int,
) -> None:
    """Write given subjects as a BIDS dataset, scanned by a given scanner.

    Parameters
    ----------
    directory : Path
    subjects : sequence of Subject
    atlas : Atlas
    preset : SitePreset
    name : str
        Of the site.
    seed : int
        Of heads, bundles' places and noise; each participant has a stream of its own.
    n_procs : int

    """
    labels = directory / "derivatives" / "labels"
    labels.mkdir(parents=True)
    _write_json(
        directory / "dataset_description.json",
        {
            "Name": f"Simulated hospital {name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["esn-client simulate"],
        },
    )
    (directory / "README").write_text(_README.format(site=name, seed=seed), encoding="utf-8")
    _write_json(
        labels / "dataset_description.json",
        {
            "Name": f"Label volumes of simulated hospital {name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "esn-client simulate"}],
        },
    )
    rows = "".join(f"{region.index}\t{region.name}\n" for region in atlas.regions)
    (labels / f"seg-{segmentation_of(atlas.name)}_dseg.tsv").write_text(
        "index\tname\n" + rows, encoding="utf-8"
    )
    _write_json(directory / "participants.json", _PARTICIPANTS)
    lines = ["\t".join(["participant_id", "age", "sex", "group", "gase", *OUTCOMES])]
    for s in subjects:
        gase = "n/a" if s.gase is None else str(s.gase)
        scores = [f"{s.outcomes[outcome]:.0f}" for outcome in OUTCOMES]
        lines.append("\t".join([s.participant, f"{s.age_years:.1f}", s.sex, s.group, gase, *scores]))
    (directory / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tasks = [(directory, s.participant, s.log_weights, atlas, preset, name, seed) for s in subjects]
    if n_procs == 1:
        for task in tasks:
            _write_scan(*task)
        return
    with ProcessPoolExecutor(n_procs, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_write_scan, *task) for task in tasks]:
            future.result()


def write_truth(path: Path, world: World, subjects: Sequence[Subject]) -> None:
    """Write what no analysis may see: severity network, slopes, severities and log weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        severity_edges=world.severity_edges,
        severity_slope=world.severity_slope,
        edge_sd=world.sd,
        present=world.present,
        participants=np.array([s.participant for s in subjects]),
        severity=np.array([s.severity for s in subjects]),
        log_weights=np.array([s.log_weights for s in subjects]),
    )


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Make the random stream of a name under a seed."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _write_scan(
    directory: Path,
    participant: str,
    log_weights: NDArray[np.float64],
    atlas: Atlas,
    preset: SitePreset,
    name: str,
    seed: int,
) -> None:
    """Simulate and write one participant's scan and labels."""
    scheme = preset.scheme()
    phantom = draw_phantom(
        atlas,
        log_weights,
        scheme,
        voxel_size_mm=VOXEL_SIZE_MM,
        signal_to_noise=preset.signal_to_noise,
        rng=_generator(seed, name, participant),
        motion_mm=preset.motion_mm,
    )
    stem = directory / participant / "dwi" / f"{participant}_dwi"
    labels = directory / "derivatives" / "labels" / participant / "dwi"
    stem.parent.mkdir(parents=True)
    labels.mkdir(parents=True)
    write_scan_files(stem, phantom, scheme, orientation=preset.orientation)
    write_image(
        labels / f"{participant}_seg-{segmentation_of(atlas.name)}_dseg.nii.gz",
        phantom.labels,
        phantom.affine,
        orientation=preset.orientation,
    )
    _write_json(
        stem.with_suffix(".json"),
        {
            "Manufacturer": "Simulated",
            "InstitutionName": name,
            "PhaseEncodingDirection": "j",
            "EchoTime": 0.09,
        },
    )


def write_scan_files(
    stem: Path, phantom: Phantom, scheme: Scheme, *, orientation: Literal["LAS", "RAS"]
) -> None:
    """Write ``stem.nii.gz``, ``stem.bval`` and ``stem.bvec`` by the conventions of NIfTI and FSL.

    Parameters
    ----------
    stem : Path
        Without suffix.
    phantom : Phantom
    scheme : Scheme
    orientation : 'LAS' or 'RAS'
        RAS images are stored as the phantom is; LAS ones run from right to left.

    """
    signal = np.clip(np.rint(phantom.signal), 0, np.iinfo(np.int16).max).astype(np.int16)
    write_image(stem.with_suffix(".nii.gz"), signal, phantom.affine, orientation=orientation)
    # FSL negates x where the affine's determinant is positive. Stored LAS, x along the voxel axis is
    # negative already: both files hold -x of the RAS direction.
    vectors = scheme.directions * np.array([-1.0, 1.0, 1.0])
    b = " ".join(f"{value:g}" for value in scheme.b_values_s_per_mm2)
    stem.with_suffix(".bval").write_text(b + "\n", encoding="utf-8")
    text = io.StringIO()
    np.savetxt(text, vectors.T + 0.0, fmt="%.6f")
    stem.with_suffix(".bvec").write_text(text.getvalue(), encoding="utf-8")


def write_image(
    path: Path, data: NDArray[np.int16], affine: NDArray[np.float64], *, orientation: Literal["LAS", "RAS"]
) -> None:
    """Write a NIfTI image whose bytes depend on nothing but its content."""
    if orientation == "LAS":
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = data.shape[0] - 1
        data, affine = data[::-1], affine @ flip
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_qform(affine, code=1)
    image.header.set_sform(affine, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=GZIP_TIME))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_README = """Simulated hospital "{site}" (seed {seed}), written by esn-client simulate.

No child stands behind these data. Raw diffusion phantoms: bundles between the regions of atlas phantom-28,
multi-tensor signal, Rician noise. Label volumes on the scans' grids are in derivatives/labels.
"""

_SCORE = {"LongName": "Standard score", "Description": "Mean 100, standard deviation 15 in the population"}

_PARTICIPANTS: dict[str, Any] = {
    "age": {"Description": "Age at the scan", "Units": "years"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "group": {
        "Description": "Group",
        "Levels": {"dre": "drug-resistant epilepsy", "control": "healthy control"},
    },
    "gase": {
        "LongName": "Global Assessment of Severity of Epilepsy",
        "Description": "1 to 7; n/a for controls",
    },
    "global_score": _SCORE | {"Description": "Global neurocognition. " + _SCORE["Description"]},
    "verbal_score": _SCORE | {"Description": "Verbal neurocognition. " + _SCORE["Description"]},
    "nonverbal_score": _SCORE | {"Description": "Nonverbal neurocognition. " + _SCORE["Description"]},
}
