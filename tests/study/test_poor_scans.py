"""A hospital with poor scans takes part, from scan to result: 15 directions, a child after a resection."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from esn_client.cohort.cohort import load_cohort
from esn_client.cohort.members import kinds_of_scans
from esn_client.cohort.participants import read_participants
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.imaging.pipeline.dataset_run import prepare
from esn_client.imaging.quality.site_table import write_site
from esn_client.simulation.presets import SITES
from esn_client.simulation.scans import generator, write_dataset
from esn_core.connectome.atlas import load_atlas
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.simulation.cohort import draw_site
from esn_core.simulation.world import World

ATLAS = load_atlas("phantom-28")
FEW = replace(SITES["west"], directions=15, b0_every=None, b0_volumes=2, b_value_s_per_mm2=1000.0)
IMAGING = {"sh_order_max": 4, "seeds": 2000}
CHILDREN, CONTROLS = 10, 3
SPLIT = {"held_out_fraction": 0.5, "split_salt": "few-4"}  # five and five of this hospital's children
GONE = "L_temporal_pole"


@pytest.fixture(scope="module")
def west(tmp_path_factory, protocol_content):
    """The hospital's scans and connectomes, its recipe, and the child whose region was resected."""
    place = tmp_path_factory.mktemp("west")
    world = World.draw(ATLAS, rng=generator(1, "world"))
    people = draw_site(world, children=CHILDREN, controls=CONTROLS, rng=generator(1, "west"))
    write_dataset(place / "bids", people, atlas=ATLAS, preset=FEW, name="west", seed=1, n_procs=1)
    child = people[0].participant
    mark_resection(place / "bids", child)
    recipe = ImagingRecipe(**{**protocol_content["imaging"], **IMAGING})
    assert prepare(place / "bids", place / "out", recipe, participants=None, n_procs=1, pages=False) == []
    return place, recipe, child


def mark_resection(bids, child):
    """Draw a mask over a region's labels, as a site does after an operation."""
    labels = nib.load(bids / "derivatives" / "labels" / child / "dwi" / f"{child}_seg-phantom28_dseg.nii.gz")
    (index,) = (region.index for region in ATLAS.regions if region.name == GONE)
    mask = (np.asarray(labels.dataobj) == index).astype(np.uint8)
    image = nib.Nifti1Image(mask, labels.affine)
    image.set_qform(labels.affine, code=1)
    image.set_sform(labels.affine, code=1)
    path = bids / "derivatives" / "labels" / child / "dwi" / f"{child}_label-resection_mask.nii.gz"
    nib.save(image, path)


@pytest.mark.long
def test_scans_of_few_directions_and_a_resection_end_in_a_study(west, make_consortium):
    place, recipe, child = west
    record = Derivative(place / "out", Visit(child, None), recipe).read_record()
    assert record["ScanKind"]["Directions"] == 15
    assert record["RegionsWithoutTissue"] == [GONE]
    rows = {row.visit.participant: row for row in write_site(place / "out", recipe, exclude_failed=False)}
    assert [label for label, row in rows.items() if row.regions_lost] == [child]
    people = read_participants(place / "bids")
    kinds = kinds_of_scans(place / "out", recipe, {person.label for person in people})
    assert len(kinds) == CHILDREN + CONTROLS
    assert {kind for (kind,) in kinds.values()} == {"15 directions, b 1000, 5 x 5 x 5 mm"}

    def read(protocol):
        return load_cohort(people, site="west", derivatives=place / "out", protocol=protocol)

    consortium = make_consortium(
        exact=True, tables={"imaging": IMAGING, "cohort": SPLIT}, read={"west": read}
    )
    cohort = consortium.cohorts["west"]
    scores = {
        label: row
        for split in (cohort.training, cohort.held_out)
        for label, row in zip(split.participants, split.scores, strict=True)
    }
    gone = (ATLAS.edges == ATLAS.names.index(GONE)).any(axis=1)
    assert len(scores) == CHILDREN
    assert (scores[child][gone] == 0).all(), "unknown, not weak"
    assert all(np.isfinite(row).all() and row[~gone].any() for row in scores.values())
    assert any(row[gone].any() for label, row in scores.items() if label != child)
    findings = consortium.study()
    held_out = sum(len(c.held_out.participants) for c in consortium.cohorts.values())
    assert findings.agreement.children == held_out
    assert np.isfinite(findings.agreement.r)
