"""One world of each kind: what the table of the bars says on average holds there as well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_pooling_reaches_unseen_sites_and_permuted_scores_teach_nothing():
    script = Path(__file__).with_name("severity_bars.py")
    command = [sys.executable, str(script), "--json", "--worlds", "1", "--published", "0"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["r"]
    r = {name: {label: row[0] for label, row in rows.items()} for name, rows in said.items()}
    clinical, other = r["clinical"], r["non-additive"]
    # Means over eight worlds: .832 and .720; between worlds the first moves by .04.
    unseen = clinical["DCNN+RN, pooled, sites left out one by one"]
    assert unseen > 0.75
    assert unseen > clinical["ridge, one site alone"]
    # Ten permutations of 180 children: standard error .024.
    assert abs(clinical["DCNN+RN, pooled, permuted scores"]) < 0.1
    # The sites' sums are those of the pooled children, on a grid of fixed-point numbers.
    assert abs(clinical["federated without noise less pooled"]) < 0.001
    # Means over eight worlds: .681 and .572.
    assert other["DCNN+RN, federated, without noise"] > other["weighted sum, federated, without noise"]
