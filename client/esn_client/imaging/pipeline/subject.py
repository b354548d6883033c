"""One subject: from the files of a visit to connectomes on disk, stage by stage."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.scan_files import ScanFiles
from esn_client.imaging.bids.scans import Scan, load_scan
from esn_client.imaging.pipeline.reconstruction import Reconstruction, reconstruct
from esn_client.imaging.pipeline.record import details_of
from esn_client.imaging.quality.anatomy import Anatomy
from esn_client.imaging.quality.residuals import PlainTensor, fit_plainly
from esn_client.imaging.regions.parcellation import grow_regions
from esn_client.imaging.stages import Stages
from esn_core.connectome.atlas import Atlas
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
    atlas = recipe.parcellation
    scan = load_scan(files, atlas=atlas, recipe=recipe)
    stages = Stages(work)
    made = reconstruct(
        scan,
        recipe,
        stages=stages,
        device=making.device,
        tractogram=derivative.tractogram if making.tractograms else None,
    )
    plain = fit_plainly(
        made.signal[..., made.in_shell],
        made.gradients[made.in_shell],
        made.maps.mask,
        slice_axis=scan.slice_axis,
    )
    if not current:
        derivative.page.unlink(missing_ok=True)
        derivative.write(
            made.matrices,
            sources=sources,
            details=details_of(files, scan, made, plain, bids=making.bids, stages=stages.log),
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
        absent=made.region_tissue.absent,
        scanned_directions=scan.gradients.directions,
        turned_directions=made.gradients.directions,
        transforms=made.transforms,
        weighted_before=scan.signal[..., ~made.gradients.is_b0].mean(axis=3, dtype=np.float64),
        weighted_after=made.signal[..., ~made.gradients.is_b0].mean(axis=3, dtype=np.float64),
        template=made.template,
    )
