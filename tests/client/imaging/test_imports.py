"""The pipeline can be imported without what its workers alone need."""

import subprocess
import sys


def test_dipy_is_not_imported_before_it_is_used():
    program = (
        "import sys, esn_client.imaging.pipeline.dataset_run;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'dipy', 'matplotlib', 'pandas', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
