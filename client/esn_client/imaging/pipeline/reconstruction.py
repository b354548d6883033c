"""Reconstruction: every stage from a scan to its connectomes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.scans import Anatomy, Scan
from esn_client.imaging.fibres.fodf import Fodf, fit_fodf
from esn_client.imaging.fibres.gradient_check import check_gradient_table
from esn_client.imaging.fibres.lobes import find_lobes
from esn_client.imaging.fibres.multi_shell import ShellResponses, estimate_shell_responses, fit_shells
from esn_client.imaging.fibres.response import Response, estimate_response
from esn_client.imaging.fibres.tensor import TensorMaps, fit_tensor
from esn_client.imaging.preprocessing.denoise import denoise, divide_bias, remove_gibbs_ringing
from esn_client.imaging.preprocessing.displacement import Displacement
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import check_brain, find_brain
from esn_client.imaging.preprocessing.motion import correct_motion
from esn_client.imaging.regions.atlas_volume import checked_labels
from esn_client.imaging.regions.connectivity import Assignments, assign, connect
from esn_client.imaging.regions.freesurfer import from_freesurfer
from esn_client.imaging.regions.parcellation import grow_regions, measure_volumes
from esn_client.imaging.regions.registration import register_atlas, require_all
from esn_client.imaging.regions.t1_labels import T1Anatomy, brain_of, lay_t1_labels
from esn_client.imaging.regions.tissue import RegionTissue, Tissue, find_tissue, keep_tissue, measure_tissue
from esn_client.imaging.stages import Arrays, Stage, Stages, digest_of
from esn_client.imaging.tracking.density import count_visits
from esn_client.imaging.tracking.device import choose_device
from esn_client.imaging.tracking.streamline_weights import Visits, record_visits, weigh_streamlines
from esn_client.imaging.tracking.tracking import TrackingRules, find_reach, find_seeds, least_amplitude, track
from esn_client.imaging.tracking.tractogram import write_tractogram
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.edge_measures import EdgeMeasures
from esn_core.protocol.imaging_recipe import ImagingRecipe

_NO_NUMBERS = ("labels", "template")
"""What the labels' stage makes besides numbers of quality."""


@dataclass(frozen=True)
class Reconstruction:
    """What the stages made of one scan.

    Attributes
    ----------
    measures : EdgeMeasures
        Each streamline counts once.
    weights : (R, R) float64 or None
        Sums of the streamlines' weights, if the recipe asks for them.
    signal : (X, Y, Z, V) float32
        Denoised and aligned.
    gradients : Gradients
        Turned with the head.
    in_shell : (V,) bool
        The volumes that the tensor was fitted to.
    maps : TensorMaps
    response : Response
    labels : (X, Y, Z) int64
        Region indices of the atlas in tissue, before they grow.
    tissue : Tissue
    region_tissue : RegionTissue
        How much of each region, as it was labelled, is tissue.
    gradient_margin_percent : float
        By how much better fibres run on under the gradient table than under any other.
    gradient_doubt : str
        In words, where another seems better and the scan is too poor to tell; else empty.
    registration : dict of str to float
        Quality numbers of the registration; none where labels were ready.
    density : (X, Y, Z) uint32
        Streamlines through each voxel.
    displacement : Displacement or None
        None if the scan was not aligned here.
    transforms : (V, 4, 4) float64 or None
        Of the alignment; each takes a point of the still head to where it was in the volume.
    template : (X, Y, Z) float32 or None
        The FA of the atlas's template, bent to the subject; None where regions came from elsewhere.

    """

    measures: EdgeMeasures
    weights: Floats | None
    signal: NDArray[np.float32]
    gradients: Gradients
    in_shell: NDArray[np.bool_]
    maps: TensorMaps
    response: Response
    labels: NDArray[np.int64]
    tissue: Tissue
    region_tissue: RegionTissue
    gradient_margin_percent: float
    gradient_doubt: str
    registration: dict[str, float]
    density: NDArray[np.uint32]
    displacement: Displacement | None
    transforms: Floats | None
    template: NDArray[np.float32] | None

    @property
    def regions_without_tissue(self) -> tuple[str, ...]:
        """Their names, in the atlas's order."""
        names = self.measures.connectome.regions
        return tuple(name for name, away in zip(names, self.region_tissue.absent, strict=True) if away)

    @property
    def matrices(self) -> dict[str, Floats]:
        """The matrices, by the ``meas-`` label of their files; NaN where a region has no tissue."""
        weights = {} if self.weights is None else {"weight": self.weights}
        known = {
            **weights,
            "count": self.measures.connectome.counts,
            "meanlength": self.measures.mean_length_mm,
            "countperlength": self.measures.count_per_length,
            "countpervolume": self.measures.count_per_volume,
            "meanfa": self.measures.mean_fa,
        }
        absent = self.region_tissue.absent
        return {name: np.where(absent[:, None] | absent, np.nan, matrix) for name, matrix in known.items()}


def reconstruct(
    scan: Scan, recipe: ImagingRecipe, *, stages: Stages, device: str = "cpu", tractogram: Path | None = None
) -> Reconstruction:
    """Run every stage from the scan to its connectomes.

    Parameters
    ----------
    scan : Scan
    recipe : ImagingRecipe
    stages : Stages
        Finds what is there already, and is told of each stage.
    device : 'auto', 'cpu' or 'cuda'
        Where streamlines are followed.
    tractogram : Path, optional
        Where all streamlines are written, as ``.trx``.

    Returns
    -------
    Reconstruction

    Raises
    ------
    DataError
        A stage cannot use what it is given.
    ConfigError
        The device is 'cuda' and there is none.

    """
    atlas = recipe.parcellation
    clean = _clean(scan, recipe, stages)
    key, shell = clean.key, scan.in_shell
    signal, gradients = clean.signal[..., shell] if not shell.all() else clean.signal, clean.gradients[shell]
    tensor = stages.run("tensor", lambda: vars(fit_tensor(signal, gradients)), inputs=[key], parameters={})
    maps = TensorMaps(**tensor.arrays)
    check_brain(maps.mask, scan.affine)
    checked = stages.run(
        "gradients",
        lambda: _check_gradients(signal, gradients, maps, scan),
        inputs=[tensor.key],
        parameters={},
    )
    fibre = stages.run(
        "response",
        lambda: vars(estimate_response(maps, voxels=recipe.response_voxels)),
        inputs=[checked.key],
        parameters=_settings(recipe, "response_voxels"),
    )
    response = Response(fibre["eigenvalues_mm2_per_s"], float(fibre["b0"]))
    fodf = _deconvolve(clean, maps, response, recipe, stages, inputs=[key, fibre.key])
    labelled = _find_labels(
        scan,
        maps,
        recipe,
        stages,
        inputs=[tensor.key, digest_of({"affine": scan.affine}), *_digest_of_lesion(scan)],
    )
    size_mm, tissue = scan.voxel_size_mm, find_tissue(maps, scan.lesion)
    regions = measure_tissue(labelled["labels"], atlas, mask=maps.mask, tissue=tissue, voxel_size_mm=size_mm)
    labels = keep_tissue(labelled["labels"], atlas, tissue=tissue, absent=regions.absent)
    grown = stages.run(
        "parcellation",
        lambda: {
            "regions": grow_regions(labels, atlas, voxel_size_mm=size_mm, growth_mm=recipe.label_growth_mm)
        },
        inputs=[labelled.key, digest_of({"labels": labels})],
        parameters={"atlas": atlas.sha256, **_settings(recipe, "label_growth_mm")},
    )
    tracked = _track(
        scan,
        recipe,
        stages,
        maps=maps,
        fodf=Fodf(**fodf.arrays),
        regions=grown["regions"],
        inputs=[tensor.key, fodf.key, grown.key],
        device=device,
        tractogram=tractogram,
    )
    found = Assignments(tracked["ends"], tracked["lengths_mm"], tracked["mean_fa"])
    volumes_mm3 = measure_volumes(labels, atlas, voxel_size_mm=size_mm)
    weighted = None
    if recipe.weight_iterations:
        weighted = connect(found, atlas=atlas, volumes_mm3=volumes_mm3, weights=tracked["weights"])
    return Reconstruction(
        measures=connect(found, atlas=atlas, volumes_mm3=volumes_mm3),
        weights=None if weighted is None else weighted.connectome.counts,
        signal=clean.signal,
        gradients=clean.gradients,
        in_shell=shell,
        maps=maps,
        response=response,
        labels=labels,
        tissue=tissue,
        region_tissue=regions,
        gradient_margin_percent=float(checked["margin_percent"]),
        gradient_doubt=str(checked["doubt"]),
        registration={name: float(n) for name, n in labelled.arrays.items() if name not in _NO_NUMBERS},
        density=tracked["density"],
        displacement=clean.displacement,
        transforms=clean.transforms,
        template=labelled.arrays.get("template"),
    )


@dataclass(frozen=True)
class _Clean:
    """A scan that tensors can be fitted to, the key of its last stage, and how it was aligned."""

    key: str
    signal: NDArray[np.float32]
    gradients: Gradients
    displacement: Displacement | None
    transforms: Floats | None


def _clean(scan: Scan, recipe: ImagingRecipe, stages: Stages) -> _Clean:
    """Denoise, remove ringing and align, unless that was done elsewhere."""
    signal, gradients, displacement, transforms = scan.signal, scan.gradients, None, None
    key = digest_of(
        {"signal": signal, "b": gradients.b_values_s_per_mm2, "g": gradients.directions, "a": scan.affine}
    )
    if scan.preprocessed:
        return _Clean(key, signal, gradients, None, None)
    if recipe.denoise != "none":
        method, noisy = recipe.denoise, signal
        found = stages.run(
            "denoise",
            lambda: vars(denoise(noisy, gradients, _brain(noisy, gradients), method=method)),
            inputs=[key],
            parameters=_settings(recipe, "denoise"),
        )
        key, signal = found.key, found["signal"]
    if recipe.gibbs:
        ringing, slice_axis = signal, scan.slice_axis
        found = stages.run(
            "gibbs",
            lambda: {"signal": remove_gibbs_ringing(ringing, slice_axis=slice_axis)},
            inputs=[key],
            parameters={"slice_axis": slice_axis},
        )
        key, signal = found.key, found["signal"]
    if recipe.motion != "none":
        moving = signal
        found = stages.run(
            "motion",
            lambda: _align(moving, gradients, scan.affine),
            inputs=[key],
            parameters=_settings(recipe, "motion"),
        )
        key, signal = found.key, found["signal"]
        displacement = Displacement(found["head_mm"], found["eddy_mm"], found["b0_mm"])
        transforms = found["transforms"]
        gradients = replace(gradients, directions=found["directions"])
    if recipe.bias != "none":
        uneven, turned = signal, gradients
        found = stages.run(
            "bias",
            lambda: {"signal": divide_bias(uneven, turned, _brain(uneven, turned))},
            inputs=[key],
            parameters=_settings(recipe, "bias"),
        )
        key, signal = found.key, found["signal"]
    return _Clean(key, signal, gradients, displacement, transforms)


def _deconvolve(
    clean: _Clean,
    maps: TensorMaps,
    response: Response,
    recipe: ImagingRecipe,
    stages: Stages,
    *,
    inputs: list[str],
) -> Stage:
    """Fit fODFs where a streamline can come to, to one shell or to all."""
    where = find_reach(maps.fa, maps.mask, stop_threshold=recipe.fa_stop_threshold)
    order = recipe.sh_order_max
    settings = _settings(recipe, "sh_order_max", "fa_stop_threshold")
    if recipe.shells == "one":
        signal, gradients = clean.signal, clean.gradients

        def one() -> Arrays:
            return vars(fit_fodf(signal, gradients, response=response, where=where, sh_order_max=order))

        return stages.run("fodf", one, inputs=inputs, parameters=settings)
    found = stages.run(
        "responses",
        lambda: vars(
            estimate_shell_responses(clean.signal, clean.gradients, maps, voxels=recipe.response_voxels)
        ),
        inputs=inputs,
        parameters=_settings(recipe, "response_voxels"),
    )
    responses = ShellResponses(**found.arrays)

    def every() -> Arrays:
        return vars(
            fit_shells(clean.signal, clean.gradients, responses=responses, where=where, sh_order_max=order)
        )

    return stages.run("fodf", every, inputs=[found.key], parameters={**settings, "shells": "all"})


def _align(signal: NDArray[np.float32], gradients: Gradients, affine: Floats) -> Arrays:
    still = correct_motion(signal, gradients, affine, _brain(signal, gradients))
    return {
        "signal": still.signal,
        "directions": still.gradients.directions,
        **vars(still.displacement),
        "transforms": still.transforms,
    }


def _check_gradients(
    signal: NDArray[np.float32], gradients: Gradients, maps: TensorMaps, scan: Scan
) -> Arrays:
    found = check_gradient_table(signal, gradients, maps.mask, scan.affine, convention=scan.convention)
    return {
        "margin_percent": np.array(100.0 * found.margin),
        "pairs": np.array(found.pairs),
        "doubt": np.array(found.doubt),
    }


def _find_labels(
    scan: Scan, maps: TensorMaps, recipe: ImagingRecipe, stages: Stages, *, inputs: list[str]
) -> Stage:
    """Take the ready labels, or lay the atlas over the subject's FA; registration has numbers of its own."""
    atlas, volume = recipe.parcellation, recipe.own_volume
    if scan.labels is not None:
        ready = scan.labels
        return stages.run(
            "labels",
            lambda: {"labels": ready},
            inputs=[digest_of({"labels": ready})],
            parameters={"source": "ready"},
        )
    if scan.anatomy is not None:
        anatomy = scan.anatomy
        t1: Arrays = {"image": anatomy.image, "labels": anatomy.labels, "affine": anatomy.affine}
        return stages.run(
            "labels",
            lambda: _carry_labels(anatomy, scan, maps, atlas),
            inputs=[*inputs, digest_of(t1)],
            parameters={"source": "T1", "freesurfer": anatomy.freesurfer, "atlas": atlas.sha256},
        )

    def make() -> Arrays:
        found = register_atlas(
            maps.fa, maps.mask, scan.affine, atlas=atlas, volume=volume, lesion=scan.lesion
        )
        require_all(found.missing, atlas)
        ratio = np.maximum(found.volume_ratio, 1 / found.volume_ratio)
        return {
            "labels": found.labels,
            "template": found.template_fa,
            "registration_correlation": np.array(found.correlation),
            "registration_rotation_deg": np.array(found.rotation_deg),
            "misplaced_percent": np.array(100.0 * found.misplaced_fraction),
            "label_volume_ratio": np.array(ratio.max()),
        }

    laid = {"source": "atlas", "atlas": atlas.sha256}
    if volume is not None:
        laid["volume"] = hashlib.sha256(volume).hexdigest()
    return stages.run("labels", make, inputs=inputs, parameters=laid)


def _carry_labels(anatomy: Anatomy, scan: Scan, maps: TensorMaps, atlas: Atlas) -> Arrays:
    """Carry labels from T1 space to the scan."""
    volume = anatomy.labels.astype(np.float64)
    if anatomy.freesurfer:
        labels = from_freesurfer(volume, atlas, name=anatomy.name)
    else:
        labels = checked_labels(volume, atlas, name=anatomy.name)
    found = lay_t1_labels(
        T1Anatomy(anatomy.image.astype(np.float64), labels, brain_of(volume > 0), anatomy.affine),
        maps.b0,
        maps.mask,
        scan.affine,
        atlas=atlas,
        lesion=scan.lesion,
    )
    ratio = found.volume_ratio[found.volume_ratio > 0]
    return {
        "labels": found.labels,
        "t1_overlap": np.array(found.overlap),
        "sides_margin_percent": np.array(found.sides_margin_percent),
        "registration_rotation_deg": np.array(found.rotation_deg),
        "misplaced_percent": np.array(100.0 * found.misplaced_fraction),
        "label_volume_ratio": np.array(np.maximum(ratio, 1 / ratio).max(initial=1.0)),
    }


def _track(
    scan: Scan,
    recipe: ImagingRecipe,
    stages: Stages,
    *,
    maps: TensorMaps,
    fodf: Fodf,
    regions: NDArray[np.int64],
    inputs: list[str],
    device: str,
    tractogram: Path | None,
) -> Stage:
    """Follow streamlines and look up where they end, a batch at a time."""
    names = ("step_size_mm", "max_angle_deg", "min_length_mm", "max_length_mm", "fodf_threshold", "sphere")
    rules = TrackingRules(stop_threshold=recipe.fa_stop_threshold, **_settings(recipe, *names))

    def make() -> Arrays:
        density = np.zeros(maps.mask.shape, dtype=np.uint32)
        start = find_seeds(
            maps.fa, maps.mask, threshold=recipe.fa_seed_threshold, depth_voxels=recipe.seed_depth_voxels
        )
        batches = track(
            fodf,
            maps.fa,
            seed_mask=start,
            voxel_size_mm=scan.voxel_size_mm,
            rules=rules,
            seeds=recipe.seeds,
            random_seed=recipe.random_seed,
            device=device,
        )
        if tractogram is not None:
            tractogram.parent.mkdir(parents=True, exist_ok=True)
            batches = write_tractogram(batches, tractogram, affine=scan.affine, shape=maps.mask.shape)
        visits: list[Visits] = []
        if recipe.weight_iterations:
            lobes = find_lobes(fodf, sphere=rules.sphere, least_amplitude=least_amplitude(fodf, start, rules))
            batches = record_visits(batches, lobes, voxel_size_mm=scan.voxel_size_mm, into=visits)
        found = assign(
            count_visits(batches, density),
            regions,
            fa=maps.fa,
            voxel_size_mm=scan.voxel_size_mm,
            forward_search_mm=recipe.end_search_mm,
        )
        made: dict[str, NDArray[Any]] = {
            "ends": found.regions,
            "lengths_mm": found.lengths_mm,
            "mean_fa": found.mean_fa,
            "density": density,
        }
        if recipe.weight_iterations:
            fit = weigh_streamlines(visits, lobes, iterations=recipe.weight_iterations)
            made["weights"] = fit.weights
        return made

    return stages.run(
        "tracking",
        make,
        inputs=inputs,
        parameters={
            "device": choose_device(device),
            "tractogram": tractogram is not None,
            **_settings(
                recipe,
                *("fa_seed_threshold", "seed_depth_voxels", "fa_stop_threshold", "seeds", "random_seed"),
                *("end_search_mm", "weight_iterations", *names),
            ),
        },
    )


def _digest_of_lesion(scan: Scan) -> list[str]:
    return [] if scan.lesion is None else [digest_of({"lesion": scan.lesion})]


def _brain(signal: NDArray[np.float32], gradients: Gradients) -> NDArray[np.bool_]:
    b0, weighted = (
        signal[..., kind].mean(axis=3, dtype=np.float64) for kind in (gradients.is_b0, ~gradients.is_b0)
    )
    return find_brain(b0, weighted)


def _settings(recipe: ImagingRecipe, *names: str) -> Mapping[str, Any]:
    return {name: getattr(recipe, name) for name in names}
