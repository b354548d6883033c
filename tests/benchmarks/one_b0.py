"""How far a scan of one b0 is laid beside it: the real subject, each of its six b0s alone against all six.

Usage: python tests/benchmarks/one_b0.py DIRECTORY
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from real_subject import fetch

from esn_client.imaging.preprocessing.gradient_table import Gradients, read_gradients
from esn_client.imaging.preprocessing.mask import find_brain
from esn_client.imaging.preprocessing.motion import correct_motion
from esn_client.imaging.preprocessing.rigid import shift_of, turn_of
from esn_client.imaging.preprocessing.table_files import TableFiles


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    subject = fetch(parser.parse_args().directory)
    image = nib.load(subject.dwi)
    signal, affine = np.asarray(image.dataobj, dtype=np.float32), image.affine
    files = TableFiles(subject.bval, subject.bvec, signal.shape[3])
    table = read_gradients([files], affine=affine, sh_order_max=8).gradients
    mask = find_brain(signal[..., table.is_b0].mean(axis=3, dtype=np.float64))
    centre = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]

    def follow(volumes):
        part = Gradients(table.b_values_s_per_mm2[volumes], table.directions[volumes])
        return correct_motion(signal[..., volumes], part, affine, mask)

    every = follow(np.arange(signal.shape[3]))
    moved = every.displacement
    print(
        f"head {moved.head_mm.mean():.2f} mm, eddy {moved.eddy_mm[~table.is_b0].mean():.2f} mm, "
        f"between b0s {moved.b0_mm.mean():.2f} mm"
    )
    print("| b0 | shift, mm | turn, degrees |")
    for b0 in np.flatnonzero(table.is_b0):
        volumes = np.flatnonzero(~table.is_b0 | (np.arange(signal.shape[3]) == b0))
        alone = follow(volumes).transforms
        weighted = volumes[volumes != b0]
        # Both are seen from the same b0: what is left is the join.
        rest = [
            np.linalg.inv(every.transforms[v] @ np.linalg.inv(every.transforms[b0])) @ alone[k]
            for k, v in enumerate(volumes)
            if v in weighted
        ]
        shift = np.median([shift_of(r, centre) for r in rest], axis=0)
        turn = np.degrees(np.median([turn_of(r) for r in rest], axis=0))
        print(
            f"| {b0} | {', '.join(f'{s:.2f}' for s in shift)} | {', '.join(f'{t:.2f}' for t in turn)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
