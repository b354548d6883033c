"""How sure the test of a gradient table is: few, badly spread directions of the real subject, thick slices.

Each line is one table that is right, and two that are wrong: by what ratio the best of 23 other tables fits
better, and how many of the jackknife's standard errors that is.

Usage: python tests/benchmarks/gradient_doubt.py DIRECTORY
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from real_subject import fetch

from esn_client.imaging.fibres import gradient_check
from esn_client.imaging.preprocessing.gradient_table import Gradients, read_gradients
from esn_client.imaging.preprocessing.table_files import TableFiles

DIRECTIONS = 15
LEAST_B0 = 250
"""A mask that is good enough here: the b0's brain is brighter."""
WRONG = {"x negated": 3, "x and y exchanged": 8}
"""Places among the variants."""


def subsets(directions, rng):
    """Give 15 of the directions, well and badly spread."""
    yield "the first 15", np.arange(DIRECTIONS)
    for axis, name in ((2, "up"), (0, "right"), (1, "front")):
        near = np.argsort(-np.abs(directions[:, axis]))[:25]
        yield f"around {name}", np.sort(rng.choice(near, DIRECTIONS, replace=False))
    yield "near a plane", np.argsort(np.abs(directions[:, 2]))[:DIRECTIONS]


def measure(signal, gradients, mask, affine):
    """Give the best other table's log ratio and the jackknife's standard error."""
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    fitted = gradient_check._principal_directions(signal, gradients, mask)
    found = gradient_check._compare(fitted, size_mm)[1].min(axis=0)
    best = 1 + int(np.argmax(found[1:]))
    error = gradient_check._standard_error(signal, gradients, fitted, size_mm, best)
    return float(np.log(found[best])), error


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    subject = fetch(parser.parse_args().directory)
    image = nib.load(subject.dwi)
    voxels, affine = np.asarray(image.dataobj), image.affine
    files = TableFiles(subject.bval, subject.bvec, voxels.shape[3])
    table = read_gradients([files], affine=affine, sh_order_max=8).gradients
    weighted, b0 = np.flatnonzero(~table.is_b0), np.flatnonzero(table.is_b0)[:1]
    print("| directions | slices, mm | right table | " + " | ".join(WRONG) + " |")
    for thick in (1, 2, 3):
        slices = voxels.shape[2] // thick
        part = voxels[:, :, : slices * thick].reshape(*voxels.shape[:2], slices, thick, -1)
        grid = affine @ np.diag([1.0, 1, thick, 1])
        rng = np.random.default_rng(0)
        for name, chosen in subsets(table.directions[weighted], rng):
            volumes = np.concatenate([b0, weighted[chosen]])
            signal = part[..., volumes].mean(axis=3, dtype=np.float32)
            mask = signal[..., 0] > LEAST_B0
            right = Gradients(table.b_values_s_per_mm2[volumes], table.directions[volumes])
            cells = []
            for number in (0, *WRONG.values()):
                turned = right.directions @ gradient_check.variants()[number].T
                ratio, error = measure(signal, Gradients(right.b_values_s_per_mm2, turned), mask, grid)
                cells.append(f"{np.exp(ratio):.2f}, {ratio / error:.1f} s.e.")
            print(f"| {name} | {2.4 * thick:.1f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
