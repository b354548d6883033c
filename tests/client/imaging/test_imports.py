"""The pipeline can be imported without what its workers, or a graphics card, alone need."""

import subprocess
import sys


def test_nothing_heavy_is_imported_before_it_is_used():
    program = "import sys, esn_client.imaging.pipeline.dataset_run as _; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    heavy = {"dipy", "matplotlib", "pandas", "torch"}
    assert not heavy & {name.partition(".")[0] for name in modules}
    assert "numba.cuda" not in modules, "who asks for no card waits for none"
