"""The guides, tried as new users would: their commands as they stand, and only the files that they exchange.

A coordinator, three hospitals and one that took no part, each with a directory and a HOME of its own; the
last one on a machine that was installed from the wheelhouse and reaches no network. What is not in the guides
is simulated beforehand: the children, and who reads a fingerprint to whom by telephone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[2]
SITES = ("north", "south", "west")

# These children are fewer than a study's, so that the noise that epsilon 8 asks for would leave too little to
# release a model; this port is not everybody's, and a few rounds are enough to see it.
CHANGES = {
    "centre.example.org": "127.0.0.1",
    '"agreed by all sites"': "test-119",
    "--epsilon 8 ": "--epsilon 20 ",
    "--epsilon-cap 8 ": "--epsilon-cap 20 ",
    "--simulated": (
        "--simulated --held-out-fraction 0.5 --training-rounds 2 --random-scores 1 --deadline-s 300"
    ),
}
FEWER = {"minimum_children = 5": "minimum_children = 3"}


@pytest.fixture
def offline_programs(tmp_path):
    """The commands of a machine that was installed from the wheelhouse, with the index switched off."""
    house, machine = tmp_path / "house", tmp_path / "machine"
    maker = [sys.executable, ROOT / "deploy" / "wheelhouse" / "make.py", "--out", house]
    subprocess.run(maker, check=True)
    bare = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [house / "install-offline", machine, "client,server", sys.executable],
        capture_output=True,
        text=True,
        env=bare,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(house)
    return machine / "bin"


def test_from_nothing_to_a_report_and_to_a_child_whom_the_study_never_saw(
    founded, user, commands, offline_programs
):
    draft, judge, sign, run, status, report, verify, propose, release = commands(
        "centre-guide.md", "A study", "After the study"
    )
    review, prepare, quality, approve, check, join, afterwards, attack, countersign, predict = commands(
        "site-guide.md", "For each study", "After the study", "Predicting a child"
    )
    simulate = (
        "esn-client simulate bids --site north --seed 7 --children 70 --controls 10 "
        "--scans 1 --connectomes connectomes"
    )
    consortium = founded(SITES, CHANGES)
    centre = consortium.centre
    consortium.each(simulate)
    for site in consortium.sites:
        site.edit("site/site.toml", FEWER)

    centre.follow(draft)
    centre.edit("severity-1.toml", FEWER)
    centre.follow(judge)
    centre.follow(sign)
    consortium.send("severity-1.toml")
    assert all("Study severity-1" in said for said in consortium.each(review))
    consortium.each(prepare)
    for site in consortium.sites:
        site.follow(quality)
        site.follow(approve)
        assert "FAIL" not in site.follow(check)
        site.start(join)

    centre.follow(run)
    assert "finished" in centre.follow(status)
    centre.follow(report)
    assert (centre.home / "report.html").exists()
    for site in consortium.sites:
        site.follow(afterwards)
        site.give(f"{site.name}.audit.jsonl", centre)
        said = centre.follow(verify.replace("north", site.name))
        assert re.search(rf"{site.name}: \d+ questions and \d+ answers agree", said)

    centre.follow(propose)
    consortium.send("severity-1.proposal.esn")
    consortium.each(attack)
    for site in consortium.sites:
        site.follow(countersign)
        site.give(f"{site.name}.countersignature.json", centre)
    published = centre.follow(release)

    clinic = user("quince", CHANGES, programs=offline_programs)
    clinic.environment["PUBLISHED"] = re.search(r"fingerprint beside it:\n\s+(.+)", published)[1].strip()
    clinic.follow(simulate.replace("children 70", "children 3"))
    centre.give("severity-1.esn", clinic)
    assert "Research use only" in clinic.follow(predict)
    (page,) = (clinic.home / "predictions").glob("*.html")
    found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert (found["controls"], page.name) == (10, "sub-001_prediction.html")
