"""The pipeline can be imported without what its workers alone need."""

import subprocess
import sys


def test_dipy_is_not_imported_before_it_is_used():
    heavy = {"dipy", "matplotlib", "pandas", "torch"}
    program = "import sys, esn_client.imaging.pipeline.dataset_run as _; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}
