"""A study of patients by the guides alone, from scans as hospitals have them to the report.

Three hospitals with raw scans that nothing marks as simulated, controls of their own and labels of their own;
a fourth without controls. One scans 15 directions, and one has a child from whom a lobe was taken.
"""

import json

import nibabel as nib
import numpy as np
import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

SITES = ("north", "south", "west", "east")
ATLAS = "desikan-killiany-83"
LOBE = ("R_inferiortemporal", "R_middletemporal", "R_superiortemporal", "R_temporalpole")
CHILDREN = {"north": 19, "south": 19, "west": 19, "east": 10}
CONTROLS = {"north": 5, "south": 5, "west": 5, "east": 0}

# All analyses that patients' protocols may ask for. Three small hospitals with 3,000 streamlines, so that a
# machine of two cores prepares them: what the study finds is not the matter here.
ANALYSES = (
    "--cohort-summary --cross-site --folds 3 --random-scores 1 --subgroups --explanation "
    "--network --exact network --neurocognition"
)
CHANGES = {
    "centre.example.org": "127.0.0.1",
    "--n-procs 2": "--n-procs 2 --skip-pages",  # which other tests look at, and which cost half of the time
    '"agreed by all sites"': "test-118",  # which leaves 13 children or more to be trained on at each site
    "--votes --out": "--votes --scan few-directions --pool-controls --without-controls east --out",
    "--candidates votes-1": f"--without-controls east {ANALYSES} --training-rounds 2 --candidates votes-1",
}
CONSENTS = {
    "control_sums = false": "control_sums = true",
    "control_reference = false": "control_reference = true",
    "exact_sums = false": "exact_sums = true",
}
FEWER = {"minimum_children = 33": "minimum_children = 13", "null_draws = 60": "null_draws = 20"}


def scan(site, rehearsal):
    """Give a hospital the scans that it has had all along: nothing says that these people do not exist."""
    site.follow(
        f"esn-client simulate bids --protocol {rehearsal} --site north --seed {SITES.index(site.name)} "
        f"--world-seed 7 --children {CHILDREN[site.name]} --controls {CONTROLS[site.name]} --n-procs=2"
    )
    for place, kind in (("bids", "raw"), ("bids/derivatives/labels", "derivative")):
        description = {"Name": site.name, "BIDSVersion": "1.10.0", "DatasetType": kind}
        description |= {"GeneratedBy": [{"Name": "drawn by hand"}]} if kind == "derivative" else {}
        (site.home / place / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")


def scan_few_directions(bids):
    """Leave 15 of the directions in every scan, spread over all that there were."""
    for path in sorted(bids.glob("sub-*/dwi/*_dwi.nii.gz")):
        stem = path.name.removesuffix(".nii.gz")
        b_values, vectors = (np.loadtxt(path.with_name(f"{stem}.{kind}")) for kind in ("bval", "bvec"))
        weighted = np.flatnonzero(b_values > 50)
        kept = np.sort(
            [*np.flatnonzero(b_values <= 50), *weighted[np.linspace(0, len(weighted) - 1, 15).astype(int)]]
        )
        image = nib.load(path)
        fewer = np.asarray(image.dataobj)[..., kept]
        nib.save(nib.Nifti1Image(fewer, image.affine, image.header), path)
        np.savetxt(path.with_name(f"{stem}.bval"), b_values[None, kept], fmt="%g")
        np.savetxt(path.with_name(f"{stem}.bvec"), vectors[:, kept], fmt="%.8f")


def resect(bids, child):
    """Mark a lobe as lost, as the guide says how."""
    labels = bids / "derivatives" / "labels"
    (volume,) = labels.glob(f"{child}/dwi/*_dseg.nii.gz")
    (table,) = labels.glob("*_dseg.tsv")
    index = {
        name: int(number) for number, name in (row.split("\t") for row in table.read_text().split("\n")[1:-1])
    }
    image = nib.load(volume)
    lost = np.isin(np.asarray(image.dataobj), [index[name] for name in LOBE]).astype(np.uint8)
    mask = bids / "derivatives" / "masks" / child / "dwi" / f"{child}_label-resection_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(lost, image.affine), mask)
    description = (labels / "dataset_description.json").read_text(encoding="utf-8")
    (bids / "derivatives" / "masks" / "dataset_description.json").write_text(description, encoding="utf-8")


def written(site):
    """When each matrix of a hospital was written."""
    return {path: path.stat().st_mtime_ns for path in (site.home / "connectomes").rglob("*_relmat.dense.tsv")}


def test_hospitals_run_a_study_on_scans_of_their_own(founded, commands):
    draft_votes, sign_votes, vote, draft_study = commands("centre-guide.md", "A study of patients")
    _, judge, sign, run, status, report, verify = commands("centre-guide.md", "A study")
    review, prepare, quality, approve, check, join, afterwards = commands("site-guide.md", "For each study")
    for_votes = [block.replace("severity-1", "votes-1") for block in (review, prepare, quality, approve)]

    consortium = founded(SITES, CHANGES)
    centre, sites = consortium.centre, dict(zip(SITES, consortium.sites, strict=True))
    centre.follow(
        "esn-server protocol new centre --study rehearsal --epsilon 8 --delta 0.001 --split-salt any "
        f"--simulated --candidates template --atlas {ATLAS} --scan few-directions --neurocognition "
        "--out rehearsal.toml"
    )
    consortium.send("rehearsal.toml")
    for site in sites.values():
        site.edit("site/site.toml", CONSENTS)
        scan(site, "rehearsal.toml")
    scan_few_directions(sites["west"].home / "bids")
    resect(sites["north"].home / "bids", "sub-001")

    centre.follow(draft_votes)
    centre.edit("votes-1.toml", {"seeds = 1000000": "seeds = 3000"})
    centre.follow(sign_votes)
    consortium.send("votes-1.toml")
    reviews = {name: site.follow(for_votes[0]) for name, site in sites.items() if name != "east"}
    assert all("becomes PUBLIC" in said for said in reviews.values())
    consortium.each(for_votes[1])
    (record,) = (sites["north"].home / "connectomes").glob("sub-001/dwi/*_meas-count_relmat.json")
    lost = json.loads(record.read_text(encoding="utf-8"))["RegionsWithoutTissue"]
    assert lost == list(LOBE)
    consortium.each(for_votes[2])
    for name, site in sites.items():
        if name != "east":
            site.follow(for_votes[3])
        site.start(join)
    centre.follow(vote)

    centre.follow(draft_study)
    centre.edit("severity-1.toml", FEWER)
    centre.follow(judge)
    centre.follow(sign)
    consortium.send("severity-1.toml")
    for said in consortium.each(review):
        assert "The children are real patients." in said
        assert "WITHOUT OWN CONTROLS, judged by it: east." in said
    made = [written(site) for site in sites.values()]
    consortium.each(prepare)
    assert [written(site) for site in sites.values()] == made  # nothing is prepared twice
    for site in sites.values():
        site.follow(approve)
        assert "FAIL" not in site.follow(check)

    centre.follow(run)
    assert "finished" in centre.follow(status)
    centre.follow(report)
    found = json.loads((centre.home / "severity-1" / "result.json").read_text(encoding="utf-8"))
    page = (centre.home / "report.html").read_text(encoding="utf-8")
    assert "Of east, which have too few controls" in found["harmonisation"]["note"]
    assert "off by half a step" in page
    assert found["simulated"] is False
    assert set(found["absent"]) == {"local_only", "baselines"}  # both need pooled children
    privacy = found["privacy"]  # the exact network is of the training children
    assert (privacy["epsilon_training_child"], privacy["exact_phases"]) == (None, ["network", "network-null"])
    assert privacy["epsilon_held_out_child"] == pytest.approx(8.0, abs=1e-6)
    for name, site in sites.items():
        site.follow(afterwards)
        site.give(f"{name}.audit.jsonl", centre)
        assert "questions and" in centre.follow(verify.replace("north", name))
        said = json.loads(site.follow("esn-client ledger show site/site.toml --json 2>/dev/null"))
        # At east its six held-out children alone: nobody trains there.
        charged = 6 if name == "east" else CHILDREN[name]
        assert (said["patients"], said["controls"]) == (charged, CONTROLS[name])
