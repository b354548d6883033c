"""One subject: from the files of a visit to connectomes on disk, stage by stage."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.scans import Scan, ScanFiles, load_scan
from esn_client.imaging.pipeline.reconstruction import Reconstruction, reconstruct
from esn_client.imaging.quality import numbers
from esn_client.imaging.quality.anatomy import Anatomy
from esn_client.imaging.quality.residuals import PlainTensor, fit_plainly
from esn_client.imaging.regions.parcellation import grow_regions
from esn_client.imaging.stages import Stages
from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.system.files import write_whole


@dataclass(frozen=True)
class Making:
    """How one subject is to be made.

    Attributes
    ----------
    bids, out : Path
        The datasets to read and to write.
    recipe : ImagingRecipe
    work : Path
        Where stages are kept until the subject is finished.
    keep_work : bool
        Whether they stay afterwards.
    pages : bool
        Whether a page on the quality is written.
    tractograms : bool
        Whether all streamlines are kept.
    device : 'auto', 'cpu' or 'cuda'
        Where streamlines are followed.

    """

    bids: Path
    out: Path
    recipe: ImagingRecipe
    work: Path
    keep_work: bool
    pages: bool
    tractograms: bool = False
    device: str = "cpu"


def prepare_subject(files: ScanFiles, making: Making) -> bool:
    """Make one visit's connectomes and its page, unless they are there and current.

    Parameters
    ----------
    files : ScanFiles
    making : Making

    Returns
    -------
    bool
        Whether anything was made.

    Raises
    ------
    DataError
        The visit's files cannot be used.

    """
    sources = files.sha256s(making.bids)
    recipe, derivative = making.recipe, Derivative(making.out, files.visit, making.recipe)
    current = derivative.is_current(sources)
    wanted = [derivative.page] * making.pages + [derivative.tractogram] * making.tractograms
    if current and all(path.is_file() for path in wanted):
        return False
    work = making.work / files.visit.label
    atlas = load_atlas(recipe.atlas)
    scan = load_scan(files, atlas=atlas, recipe=recipe)
    stages = Stages(work)
    made = reconstruct(
        scan,
        recipe,
        stages=stages,
        device=making.device,
        tractogram=derivative.tractogram if making.tractograms else None,
    )
    plain = fit_plainly(made.signal, made.gradients, made.maps.mask, slice_axis=scan.slice_axis)
    if not current:
        derivative.page.unlink(missing_ok=True)
        derivative.write(
            made.matrices,
            sources=sources,
            details={
                "PreprocessedBy": files.preprocessed_by,
                "SeriesLeftOut": [path.relative_to(making.bids).as_posix() for path in files.left_out],
                "Sides": scan.sides,
                "Warnings": [*scan.warnings, *([made.gradient_doubt] if made.gradient_doubt else [])],
                "Remarks": list(scan.remarks),
                "BrainVoxels": int(made.maps.mask.sum()),
                "RegionTissue": _tissue_of(made, atlas),
                "ResponseEigenvalues": [float(f"{v:.6g}") for v in made.response.eigenvalues_mm2_per_s],
                "Streamlines": made.measures.streamlines,
                "StreamlinesAssigned": made.measures.assigned,
                "Quality": measure_quality(scan, made, plain),
                "Stages": stages.log,
            },
        )
    if making.pages:
        from esn_client.imaging.quality.page import draw_page

        page = draw_page(
            anatomy_of(scan, made, plain, atlas),
            visit=files.visit.label,
            atlas=atlas,
            recipe=recipe,
            record=derivative.read_record(),
        )
        write_whole(derivative.page, page.encode())
    if not making.keep_work:
        shutil.rmtree(work)
    return True


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
        "bad_volumes_percent": plain.bad_volumes_percent,
        "gradient_margin_percent": made.gradient_margin_percent,
        **made.registration,
        "response_ratio": float(response[0] / response[1]),
        "assigned_percent": 100.0 * made.measures.assigned_fraction,
        "density_percent": 100.0 * numbers.joined_share(made.measures.connectome, made.region_tissue.absent),
    }
    return {name: round(value, 6) for name, value in found.items() if value is not None}


def _tissue_of(made: Reconstruction, atlas: Atlas) -> dict[str, dict[str, float]]:
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
        for place, name in enumerate(atlas.names)
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


def anatomy_of(scan: Scan, made: Reconstruction, plain: PlainTensor, atlas: Atlas) -> Anatomy:
    """Collect what a page shows."""
    return Anatomy(
        affine=scan.affine,
        is_b0=made.gradients.is_b0,
        plain=plain,
        mask=made.maps.mask,
        b0=made.maps.b0,
        fa=made.maps.fa,
        regions=grow_regions(made.labels, atlas, voxel_size_mm=scan.voxel_size_mm, growth_mm=0.0),
        lost=made.tissue.fluid | made.tissue.lesion,
        density=made.density,
        displacement=made.displacement,
        counts=made.measures.connectome.counts,
    )
