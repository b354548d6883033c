"""Simulated hospitals: raw scans of simulated children, as a BIDS dataset on disk."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.derivatives import BIDS_VERSION
from esn_client.imaging.bids.simulated_mark import SIMULATOR
from esn_client.imaging.bids.visits import segmentation_of
from esn_client.imaging.pipeline.workers import undisturbed, worker_pool
from esn_client.simulation.nifti import write_image, write_scan_files
from esn_client.simulation.presets import SITES, SitePreset, scanner_of
from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.errors import ConfigError
from esn_core.protocol.data_dictionary import MISSING, Phenotype, Phenotypes
from esn_core.protocol.protocol import Protocol
from esn_core.simulation.cohort import OUTCOMES, Subject, draw_site
from esn_core.simulation.diffusion import draw_phantom
from esn_core.simulation.world import World

ATLAS = "phantom-28"
VOXEL_SIZE_MM = 5.0


def write_site(
    directory: Path,
    *,
    site: str,
    seed: int,
    children: int,
    controls: int,
    truth: Path | None,
    n_procs: int = 1,
    world_seed: int | None = None,
    protocol: Protocol | None = None,
) -> None:
    """Write one simulated hospital's raw data.

    All sites of one world's seed share a world: the same anatomy and the same hidden severity network.

    Parameters
    ----------
    directory : Path
        The BIDS dataset, which must not exist, or be empty. Label volumes lie on the scans' grids, in
        ``derivatives/labels``.
    site : str
        Any name; another name is another hospital. Those in `SITES` have a scanner of their own.
    seed : int
        Equal seeds give equal bytes, whatever `n_procs`.
    children, controls : int
    truth : Path or None
        Where the hidden truth goes, as ``.npz``, outside of the dataset; None writes none.
    n_procs : int
    world_seed : int or None
        Of the world; None takes `seed`.
    protocol : Protocol, optional
        Whose atlas and columns are taken; phantom-28 without one.

    Raises
    ------
    ConfigError
        The directory is in use, or the truth would lie inside the dataset.

    """
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty; a simulated site needs a directory of its own")
    if truth is not None and truth.resolve().is_relative_to(directory.resolve()):
        raise ConfigError(f"{truth} lies inside the dataset; the truth must be kept outside of {directory}")
    atlas = load_atlas(ATLAS) if protocol is None else protocol.atlas
    world = World.draw(atlas, rng=generator(seed if world_seed is None else world_seed, "world"))
    subjects = draw_site(world, children=children, controls=controls, rng=generator(seed, site))
    preset = SITES[scanner_of(site)]
    write_dataset(
        directory,
        subjects,
        atlas=atlas,
        preset=preset,
        name=site,
        seed=seed,
        n_procs=n_procs,
        phenotypes={} if protocol is None else protocol.phenotypes,
    )
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
    scanned: int | None = None,
    phenotypes: Phenotypes = MappingProxyType({}),
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
    scanned : int or None
        How many have scans, the first ones; the others are in the table alone. None: all.
    phenotypes : dict of str to Phenotype
        Further columns; see `write_table`.

    """
    labels = directory / "derivatives" / "labels"
    labels.mkdir(parents=True)
    write_table(directory, subjects, name=name, seed=seed, phenotypes=phenotypes)
    _write_json(
        labels / "dataset_description.json",
        {
            "Name": f"Label volumes of simulated hospital {name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": SIMULATOR}],
        },
    )
    rows = "".join(f"{region.index}\t{region.name}\n" for region in atlas.regions)
    (labels / f"seg-{segmentation_of(atlas.name)}_dseg.tsv").write_text(
        "index\tname\n" + rows, encoding="utf-8"
    )
    tasks = [(directory, s.participant, s.log_weights, atlas, preset, name, seed) for s in subjects[:scanned]]
    if n_procs == 1:
        for task in tasks:
            _write_scan(*task)
        return
    with worker_pool(n_procs) as pool:
        with undisturbed():
            written = [pool.submit(_write_scan, *task) for task in tasks]
        for future in written:
            future.result()


def write_table(
    directory: Path,
    subjects: Sequence[Subject],
    *,
    name: str,
    seed: int,
    phenotypes: Phenotypes = MappingProxyType({}),
) -> None:
    """Write what a dataset says of itself and of its participants.

    Parameters
    ----------
    directory : Path
        Exists.
    subjects : sequence of Subject
    name : str
        Of the site.
    seed : int
    phenotypes : dict of str to Phenotype
        Further columns that a protocol explains: drawn over their range, and so with nothing to be found in
        them.

    """
    _write_json(
        directory / "dataset_description.json",
        {
            "Name": f"Simulated hospital {name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": [SIMULATOR],
            "GeneratedBy": [{"Name": SIMULATOR}],
        },
    )
    (directory / "README").write_text(_README.format(site=name, seed=seed), encoding="utf-8")
    _write_json(directory / "participants.json", _PARTICIPANTS)
    columns = ["participant_id", "age", "sex", "group", "gase", "duration", "medicines", *OUTCOMES]
    more = {column: phenotype for column, phenotype in phenotypes.items() if column not in columns}
    rng = generator(seed, name, "phenotypes")
    lines = ["\t".join([*columns, *more])]
    for s in subjects:
        illness = [MISSING if x is None else str(x) for x in (s.gase, s.duration_years, s.medicines)]
        scores = [f"{s.outcomes[outcome]:.0f}" for outcome in OUTCOMES]
        drawn = [_drawn(phenotype, rng) for phenotype in more.values()]
        known = [s.participant, f"{s.age_years:.1f}", s.sex, s.group]
        lines.append("\t".join([*known, *illness, *scores, *drawn]))
    (directory / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _drawn(phenotype: Phenotype, rng: np.random.Generator) -> str:
    """Draw a value that a column may have."""
    if phenotype.kind == "category":
        return str(rng.choice(phenotype.codes))
    return f"{rng.uniform(*phenotype.span):.6g}"


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


def generator(seed: int, *names: str) -> np.random.Generator:
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
        rng=generator(seed, name, participant),
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


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_README = """Simulated hospital "{site}" (seed {seed}), written by esn-client simulate.

No child stands behind these data. Raw diffusion phantoms: bundles between the regions of an atlas,
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
    "duration": {"Description": "Time since the first seizure; n/a for controls", "Units": "years"},
    "medicines": {"Description": "Antiseizure medicines taken at the scan, counted; n/a for controls"},
    "global_score": _SCORE | {"Description": "Global neurocognition. " + _SCORE["Description"]},
    "verbal_score": _SCORE | {"Description": "Verbal neurocognition. " + _SCORE["Description"]},
    "nonverbal_score": _SCORE | {"Description": "Nonverbal neurocognition. " + _SCORE["Description"]},
}
