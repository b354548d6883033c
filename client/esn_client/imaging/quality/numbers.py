"""Quality numbers: what can be said of one subject without looking at it."""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.scans import Scan
from esn_client.imaging.preprocessing.gradient_table import Gradients
from esn_client.imaging.preprocessing.mask import cut_shares
from esn_core.arrays import Floats
from esn_core.connectome.connectome import Connectome


def volume_ml(where: NDArray[np.bool_], voxel_size_mm: Floats) -> float:
    """Measure some voxels, in millilitres."""
    return float(where.sum() * np.prod(voxel_size_mm) / 1000.0)


def joined_share(connectome: Connectome, absent: NDArray[np.bool_]) -> float:
    """Give the share of the pairs of different regions, none of them absent, that a streamline joins."""
    counts = connectome.counts[np.ix_(~absent, ~absent)]
    upper = counts[np.triu_indices(len(counts), k=1)]
    return float((upper > 0).mean()) if upper.size else 0.0


def cut_off_percent(mask: NDArray[np.bool_], affine: Floats) -> float:
    """Measure how much brain lies at an edge of the image.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    affine : (4, 4) float64
        Voxels to RAS+ mm.

    Returns
    -------
    float
        Of the worst side, in percent of the largest section parallel to it. The lower side does not count:
        the neck goes on.

    """
    return 100.0 * max(share for side, share in cut_shares(mask, affine).items() if side != "below")


def neighbour_correlation(
    signal: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_]
) -> float:
    """Correlate each weighted volume with the one whose gradient is nearest.

    Yeh et al. 2019 (NeuroImage 202:116131) call it the neighbouring correlation.

    Parameters
    ----------
    signal : (X, Y, Z, V) float32
    gradients : Gradients
        With two weighted volumes or more.
    mask : (X, Y, Z) bool

    Returns
    -------
    float
        The mean over the weighted volumes.

    """
    weighted = np.flatnonzero(~gradients.is_b0)
    inside, directions = signal[mask][:, weighted], gradients.directions[weighted]
    away = -np.abs(directions @ directions.T) + 3.0 * np.eye(len(weighted))
    together = np.asarray(np.corrcoef(inside, rowvar=False))
    return float(together[np.arange(len(weighted)), away.argmin(axis=1)].mean())


def signal_to_noise(scan: Scan, mask: NDArray[np.bool_]) -> float | None:
    """Compare the first two b0 volumes, as they were scanned.

    Returns
    -------
    float or None
        Median signal in the mask over the sd of the noise, from the median absolute difference; None where
        there is one b0 only.

    """
    first = np.flatnonzero(scan.gradients.is_b0)[:2]
    if len(first) < 2:
        return None
    a, b = (scan.signal[..., volume][mask].astype(np.float64) for volume in first)
    # Of a normal distribution, the median absolute value is .6745 sd; the difference has twice the variance.
    sd = float(np.median(np.abs(a - b - np.median(a - b)))) / 0.6745 / np.sqrt(2.0)
    return float(np.median((a + b) / 2) / sd) if sd > 0 else None
