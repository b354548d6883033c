"""One subject: from the files of a scan to a connectome on disk, stage by stage."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.connectivity import assign, connect
from esn_client.imaging.derivatives import Derivative
from esn_client.imaging.fodf import fit_fodf
from esn_client.imaging.parcellation import grow_regions, measure_volumes
from esn_client.imaging.response import Response, estimate_response
from esn_client.imaging.scans import Scan, find_scan, load_scan
from esn_client.imaging.tensor import fit_tensor
from esn_client.imaging.tracking import TrackingRules, find_reach, find_seeds, track
from esn_core.atlas import load_atlas
from esn_core.connectome import Connectome
from esn_core.recipe import ImagingRecipe


@dataclass
class StageLog:
    """What each stage took and made, in order.

    Attributes
    ----------
    stages : list of dict
        Name, wall and CPU seconds, and the digest of the stage's result.

    """

    stages: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[list[NDArray[Any]]]:
        """Time a stage; append its result to the yielded list to have its digest recorded."""
        results: list[NDArray[Any]] = []
        wall, cpu = time.perf_counter(), time.process_time()
        yield results
        seconds = {
            "WallSeconds": round(time.perf_counter() - wall, 3),
            "CpuSeconds": round(time.process_time() - cpu, 3),
        }
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()
        self.stages.append({"Name": name, **seconds, "Sha256": digest})


@dataclass(frozen=True)
class Reconstruction:
    """What the stages made of one scan.

    Attributes
    ----------
    connectome : Connectome
    response : Response
    brain_voxels, streamlines : int
        `streamlines` counts those of allowed length, assigned or not.

    """

    connectome: Connectome
    response: Response
    brain_voxels: int
    streamlines: int

    def describe(self) -> dict[str, Any]:
        """Give what the record of the connectome should say about its making."""
        assigned = int(np.triu(self.connectome.counts).sum())
        return {
            "BrainVoxels": self.brain_voxels,
            "ResponseEigenvalues": [float(f"{v:.6g}") for v in self.response.eigenvalues_mm2_per_s],
            "Streamlines": self.streamlines,
            "StreamlinesAssigned": assigned,
        }


def reconstruct(scan: Scan, recipe: ImagingRecipe, *, log: StageLog) -> Reconstruction:
    """Run every stage from the tensor to the connectome.

    Parameters
    ----------
    scan : Scan
    recipe : ImagingRecipe
    log : StageLog
        Is told of each stage.

    Returns
    -------
    Reconstruction

    Raises
    ------
    DataError
        A stage cannot use what it is given.

    """
    atlas = load_atlas(recipe.atlas)
    with log.stage("tensor") as result:
        maps = fit_tensor(scan.signal, scan.gradients)
        result.append(maps.fa)
    with log.stage("response") as result:
        response = estimate_response(maps, voxels=recipe.response_voxels)
        result.append(response.eigenvalues_mm2_per_s)
    with log.stage("fodf") as result:
        fodf = fit_fodf(
            scan.signal,
            scan.gradients,
            response=response,
            where=find_reach(maps.fa, maps.mask, stop_threshold=recipe.fa_stop_threshold),
            sh_order_max=recipe.sh_order_max,
        )
        result.append(fodf.coefficients)
    with log.stage("parcellation") as result:
        regions = grow_regions(
            scan.labels, atlas, voxel_size_mm=scan.voxel_size_mm, growth_mm=recipe.label_growth_mm
        )
        volumes_mm3 = measure_volumes(scan.labels, atlas, voxel_size_mm=scan.voxel_size_mm)
        result.append(regions)
    with log.stage("tracking") as result:
        batches = track(
            fodf,
            maps.fa,
            seed_mask=find_seeds(maps.fa, maps.mask, threshold=recipe.fa_seed_threshold, depth_voxels=0),
            voxel_size_mm=scan.voxel_size_mm,
            rules=TrackingRules(
                step_size_mm=recipe.step_size_mm,
                max_angle_deg=recipe.max_angle_deg,
                min_length_mm=recipe.min_length_mm,
                max_length_mm=recipe.max_length_mm,
                stop_threshold=recipe.fa_stop_threshold,
                fodf_threshold=recipe.fodf_threshold,
                sphere=recipe.sphere,
            ),
            seeds=recipe.seeds,
            random_seed=recipe.random_seed,
        )
        assignments = assign(
            batches, regions, fa=maps.fa, voxel_size_mm=scan.voxel_size_mm, forward_search_mm=0.0
        )
        result.append(assignments.regions)
    with log.stage("connectivity") as result:
        measures = connect(assignments, atlas=atlas, volumes_mm3=volumes_mm3)
        result.append(measures.connectome.counts)
    return Reconstruction(measures.connectome, response, int(maps.mask.sum()), measures.streamlines)


def prepare_subject(bids: Path, out: Path, participant: str, recipe: ImagingRecipe) -> bool:
    """Make one participant's connectome, unless it is there and current.

    Parameters
    ----------
    bids, out : Path
    participant : str
        With ``sub-``.
    recipe : ImagingRecipe

    Returns
    -------
    bool
        Whether anything was made.

    Raises
    ------
    DataError
        The participant's files cannot be used.

    """
    files = find_scan(bids, participant, atlas=recipe.atlas)
    sources = files.sha256s(bids)
    derivative = Derivative(out, participant, recipe)
    if derivative.is_current(sources):
        return False
    log = StageLog()
    with log.stage("reading") as result:
        scan = load_scan(files, atlas=load_atlas(recipe.atlas), sh_order_max=recipe.sh_order_max)
        result += [scan.signal, scan.labels]
    made = reconstruct(scan, recipe, log=log)
    derivative.write(made.connectome, sources=sources, details={**made.describe(), "Stages": log.stages})
    return True
