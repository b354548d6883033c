"""Record: what is written down of a visit beside its matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esn_client.imaging.bids.scan_files import ScanFiles
from esn_client.imaging.bids.scans import Scan
from esn_client.imaging.pipeline.reconstruction import Reconstruction
from esn_client.imaging.preprocessing.gradient_table import count_distinct
from esn_client.imaging.quality import numbers
from esn_client.imaging.quality.residuals import PlainTensor
from esn_core.arrays import Floats


def details_of(
    files: ScanFiles,
    scan: Scan,
    made: Reconstruction,
    plain: PlainTensor,
    *,
    bids: Path,
    stages: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Say what was scanned, what was found, and what somebody should know of it.

    Parameters
    ----------
    files : ScanFiles
    scan : Scan
    made : Reconstruction
    plain : PlainTensor
    bids : Path
        The dataset; names of files are inside it.
    stages : sequence of mapping
        As they ran.

    Returns
    -------
    dict
        JSON.

    """
    warp, gone = files.susceptibility, made.regions_without_tissue
    warnings = [*scan.warnings, *([made.gradient_doubt] if made.gradient_doubt else [])]
    if gone:
        warnings.append(
            f"{len(gone)} regions have next to no tissue, so that their edges are missing: {', '.join(gone)}"
        )
    return {
        "PreprocessedBy": files.preprocessed_by,
        "SeriesLeftOut": [_inside(path, bids) for path in files.left_out],
        "Sides": scan.sides,
        "Warnings": warnings,
        "Remarks": [*scan.remarks, *([warp.words] if warp else [])],
        "Scanned": _scanned(files, scan),
        "ScanKind": _kind(made, scan),
        "Susceptibility": warp.state if warp else "not said",
        "ReversePhaseUnused": [_inside(path, bids) for path in warp.unused] if warp else [],
        "LesionMask": _inside(files.lesion, bids) if files.lesion else None,
        "BrainVoxels": int(made.maps.mask.sum()),
        "RegionTissue": _tissue_of(made),
        "ResponseEigenvalues": [float(f"{v:.6g}") for v in made.response.eigenvalues_mm2_per_s],
        "Streamlines": made.measures.streamlines,
        "StreamlinesAssigned": made.measures.assigned,
        "Quality": measure_quality(scan, made, plain),
        "Stages": list(stages),
    }


def _inside(path: Path, bids: Path) -> str:
    return path.relative_to(bids).as_posix()


def _scanned(files: ScanFiles, scan: Scan) -> dict[str, Any]:
    """Say what was scanned, in the words that a page shows."""
    b, weighted = scan.gradients.b_values_s_per_mm2, ~scan.gradients.is_b0
    run = files.runs[0]
    if files.labels:
        regions = f"ready labels, {files.labels.name}"
    elif files.anatomy:
        regions = f"{files.anatomy.labels.name}, through {files.anatomy.t1w.name}"
    else:
        regions = "the atlas, through the FA"
    return {
        "Grid": " x ".join(map(str, scan.signal.shape[:3])),
        "VoxelMm": " x ".join(f"{size:.3g}" for size in scan.voxel_size_mm),
        "Volumes": f"{scan.stored_volumes or len(b)} in {len(files.runs)} series, {len(b)} used",
        "B0": f"{int((~weighted).sum())}, b up to {b[~weighted].max():g} s/mm2",
        "Shell": f"{int(weighted.sum())} volumes, b {_range(b[weighted])} s/mm2",
        "ShellsDropped": ", ".join(f"b {value:g}" for value in scan.dropped_s_per_mm2) or "none",
        "SliceAxis": "ijk"[scan.slice_axis],
        "PhaseEncoding": run.phase_encoding or "not said",
        "ReadoutSeconds": "not said" if run.readout_s is None else f"{run.readout_s:g}",
        "Regions": regions,
    }


def _kind(made: Reconstruction, scan: Scan) -> dict[str, Any]:
    """Say by what scans are compared."""
    shell = scan.gradients[made.in_shell]
    weighted = ~shell.is_b0
    return {
        "Directions": count_distinct(shell.directions[weighted]),
        "BValue": float(np.median(shell.b_values_s_per_mm2[weighted])),
        "VoxelMm": [round(float(size), 3) for size in scan.voxel_size_mm],
    }


def _range(values: Floats) -> str:
    low, high = f"{values.min():g}", f"{values.max():g}"
    return low if low == high else f"{low} to {high}"


def measure_quality(scan: Scan, made: Reconstruction, plain: PlainTensor) -> dict[str, float]:
    """Give the numbers that a protocol's limits judge, those that this scan has."""
    mask, response = made.maps.mask, made.response.eigenvalues_mm2_per_s
    found = {
        "brain_ml": numbers.volume_ml(mask & ~made.tissue.fluid & ~made.tissue.lesion, scan.voxel_size_mm),
        "fluid_ml": numbers.volume_ml(made.tissue.fluid, scan.voxel_size_mm),
        "labels_outside_percent": made.region_tissue.outside_percent,
        "labels_in_fluid_percent": made.region_tissue.fluid_percent,
        "regions_without_tissue": float(made.region_tissue.absent.sum()),
        "cut_off_percent": numbers.cut_off_percent(mask, scan.affine),
        "signal_to_noise": numbers.signal_to_noise(scan, mask),
        **_displacements(made),
        "contrast_to_noise": plain.contrast_to_noise,
        "neighbour_correlation": numbers.neighbour_correlation(
            made.signal[..., made.in_shell], made.gradients[made.in_shell], mask
        ),
        "bad_volumes_percent": plain.bad_volumes_percent,
        "gradient_margin_percent": made.gradient_margin_percent,
        **made.registration,
        "response_ratio": float(response[0] / response[1]),
        "assigned_percent": 100.0 * made.measures.assigned_fraction,
        "density_percent": 100.0 * numbers.joined_share(made.measures.connectome, made.region_tissue.absent),
    }
    return {name: round(value, 6) for name, value in found.items() if value is not None}


def _tissue_of(made: Reconstruction) -> dict[str, dict[str, float]]:
    """Say of each region how large it was labelled, and in percent what lies where."""
    found = made.region_tissue
    columns = {
        "LabelledMm3": found.labelled_mm3,
        "TissuePercent": 100.0 * found.tissue_share,
        "OutsideMaskPercent": 100.0 * found.outside_share,
        "FluidPercent": 100.0 * found.fluid_share,
        "LesionPercent": 100.0 * found.lesion_share,
    }
    return {
        name: {column: round(float(values[place]), 1) for column, values in columns.items()}
        for place, name in enumerate(made.measures.connectome.regions)
    }


def _displacements(made: Reconstruction) -> dict[str, float]:
    """Average the head's displacement, that of its b0s alone, and what eddy currents added."""
    moved = made.displacement
    if moved is None:
        return {}
    found = {"displacement_mm": float(moved.head_mm.mean())}
    if len(moved.b0_mm):
        found["displacement_b0_mm"] = float(moved.b0_mm.mean())
    weighted = ~made.gradients.is_b0
    return found | {"eddy_shift_mm": float(moved.eddy_mm[weighted].mean())}
