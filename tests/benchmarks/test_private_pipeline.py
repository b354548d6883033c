"""One world of the private pipeline's benchmark: what its table says on average holds there as well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "candidates",
    [pytest.param(("template",), marks=pytest.mark.slow), pytest.param((), marks=pytest.mark.long)],
    ids=["template", "all"],
)
def test_a_private_consortium_predicts_severity_better_than_one_hospital_could(candidates):
    script = Path(__file__).with_name("private_pipeline.py")
    command = [sys.executable, str(script), "--json", "--worlds", "1", "--epsilon", "8", "--seed", "7"]
    command += [word for source in candidates for word in ("--candidates", source)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    r = {(x["epsilon"], x["trust"], x["candidates"], x["model"]): x["r"] for x in said["rows"]}
    assert {"epsilon", "trust", "candidates", "model", "r", "r_low", "r_high", "mae"} <= set(said["rows"][0])
    alone = r[None, "none", "template", "one site alone, ridge"]
    exact = r[None, "none", "template", "CPM"]
    # Means over eight worlds: alone .76, pooled .84, secure sum .84, local .77; between worlds, and
    # from one noise to the next, a difference moves by .03.
    assert r[8.0, "secure-sum", "template", "CPM"] > alone - 0.03
    assert candidates or r[8.0, "secure-sum", "list", "CPM"] > alone - 0.03
    assert exact > r[8.0, "secure-sum", "template", "CPM"] - 0.03
    assert r[8.0, "secure-sum", "template", "CPM"] > r[8.0, "local", "template", "CPM"]
    assert r[8.0, "secure-sum", "template", "DCNN+RN"] > r[8.0, "secure-sum", "template", "CPM"] - 0.1
