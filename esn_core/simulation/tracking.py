"""What the imaging pipeline makes of a phantom's bundles: streamline counts, drawn without the scan.

The bundles that a phantom is drawn with are not what a tracker finds: some cross or touch, some merge with
a neighbour, and every scanner shows them a little differently. How they come out was measured once, on scans
of other worlds that the real pipeline prepared (`tests/golden/make_phantom_tracking.py`).
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from esn_core.arrays import Floats
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import SHARE_SCALE
from esn_core.errors import ConfigError

ATLAS = "phantom-28"
TABLE = Path(__file__).with_name(f"{ATLAS}.tracking.tsv")
_LINE = ("log_share", "slope", "sd")


@dataclass(frozen=True)
class Tracking:
    """How one scanner's scans of a phantom come out of the pipeline.

    Attributes
    ----------
    log_share : (E,) float64
        Log of a bundle's share of all bundles' weights, on average.
    strength : (E,) float64
        Edge strength (`esn_core.connectome.template.strengths_of_counts`) that was found for it, on average.
    slope : (E,) float64
        Change of strength for one unit of the log share.
    sd : (E,) float64
        Of a strength about that line: noise, the head's place, crossings, and the tracker's own chance.

    """

    log_share: Floats
    strength: Floats
    slope: Floats
    sd: Floats

    def counts(self, log_weights: Floats, *, rng: np.random.Generator) -> Floats:
        """Draw what the pipeline would have counted.

        Parameters
        ----------
        log_weights : (n, E) float64
        rng : Generator

        Returns
        -------
        (n, E) float64
            Whole numbers; about `SHARE_SCALE` streamlines for each subject.

        """
        strengths = self.strength + self.slope * (log_shares(log_weights) - self.log_share)
        strengths += self.sd * rng.normal(size=strengths.shape)
        counts: Floats = np.rint(SHARE_SCALE * _shares(np.maximum(strengths, 0.0)))
        return counts


def log_shares(log_weights: Floats) -> Floats:
    """Return the log of each bundle's share of a subject's weights; a tracker sees shares alone."""
    shares: Floats = log_weights - np.log(np.exp(log_weights).sum(axis=-1, keepdims=True))
    return shares


@cache
def tracking(scanner: str) -> Tracking:
    """Load what was measured on one scanner.

    Parameters
    ----------
    scanner : str
        Name of a preset of ``esn-client simulate``, such as 'north'.

    Raises
    ------
    ConfigError
        Nothing was measured on such a scanner.

    """
    with TABLE.open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    names = load_atlas(ATLAS).names
    pairs = [(names[a], names[b]) for a, b in load_atlas(ATLAS).edges]
    if [(row["region_a"], row["region_b"]) for row in rows] != pairs:
        raise ConfigError(f"{TABLE.name} does not list the {len(pairs)} edges of {ATLAS} in order")
    if scanner not in rows[0]:
        there = ", ".join(name for name in rows[0] if name not in ("region_a", "region_b", *_LINE))
        raise ConfigError(f"no tracking was measured on scanner {scanner!r}; there are: {there}")
    log_share, slope, sd, strength = (
        np.array([float(row[column]) for row in rows]) for column in (*_LINE, scanner)
    )
    return Tracking(log_share=log_share, strength=strength, slope=slope, sd=sd)


def _shares(strengths: Floats) -> Floats:
    weights = np.expm1(strengths)
    shares: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return shares
