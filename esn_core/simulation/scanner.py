"""Scanners: what a site's own device does to every connection that it measures."""

from dataclasses import dataclass

from esn_core.arrays import Floats


@dataclass(frozen=True)
class ScannerRules:
    """From what distribution a site's scanner is drawn.

    Attributes
    ----------
    offset_sd : float
        Added to each edge, in the edge's own sd.
    gain_sd : float
        Added to all edges alike, in log units.
    log_spread_sd : float
        Of the factor on each edge's deviation from the mean.

    """

    offset_sd: float = 0.25
    gain_sd: float = 0.25
    log_spread_sd: float = 0.15


@dataclass(frozen=True)
class Scanner:
    """What one site's scanner does to every log weight that it measures.

    Attributes
    ----------
    offset : (E,) float64
        Added to the log weights.
    gain : (E,) float64
        Multiplies each subject's deviation from the mean, positive.

    """

    offset: Floats
    gain: Floats
