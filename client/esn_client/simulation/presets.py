"""Presets: the scanners of the simulated hospitals."""

import hashlib
from dataclasses import dataclass

import numpy as np

from esn_client.simulation.nifti import Orientation
from esn_core.simulation.diffusion import Scheme


@dataclass(frozen=True)
class SitePreset:
    """The scanner of one simulated hospital.

    Attributes
    ----------
    orientation : 'LAS' or 'RAS'
        How images are stored.
    directions : int
        Diffusion-weighted volumes, of one shell.
    b0_every : int or None
        A b0 comes before each so many weighted volumes; None puts all of them first.
    b0_volumes : int
        How many come first if they all do.
    b_value_s_per_mm2 : float
    turn_deg : float
        Turns the gradient table about z: another vendor, another table.
    signal_to_noise : float
        Of tissue in the b0.
    motion_mm : float
        Sd of the head's movement between volumes.

    """

    orientation: Orientation
    directions: int
    b0_every: int | None
    b0_volumes: int
    b_value_s_per_mm2: float
    turn_deg: float
    signal_to_noise: float
    motion_mm: float

    def scheme(self) -> Scheme:
        """Spread the directions over a half sphere and place the b0s among them."""
        k = np.arange(self.directions)
        height = 1 - (k + 0.5) / self.directions
        angle = np.pi * (3 - np.sqrt(5)) * k + np.radians(self.turn_deg)
        ring = np.sqrt(1 - height**2)
        weighted = np.column_stack([ring * np.cos(angle), ring * np.sin(angle), height])
        every = self.b0_every or self.directions
        volumes = [(0.0, 0.0, 0.0)] * (0 if self.b0_every else self.b0_volumes - 1)
        for start in range(0, self.directions, every):
            volumes += [(0.0, 0.0, 0.0), *map(tuple, weighted[start : start + every].tolist())]
        directions = np.array(volumes, dtype=np.float64)
        b_values = np.where(directions.any(axis=1), self.b_value_s_per_mm2, 0.0)
        return Scheme(b_values, directions)


SITES = {
    "north": SitePreset("LAS", 30, None, 4, 1000.0, 0.0, 28.0, 0.1),
    "south": SitePreset("RAS", 32, None, 4, 1000.0, 70.0, 26.0, 0.1),
    "west": SitePreset("LAS", 40, 10, 4, 900.0, 140.0, 20.0, 0.15),
    "east": SitePreset("RAS", 36, 12, 4, 1000.0, 35.0, 24.0, 0.1),
    "coast": SitePreset("LAS", 32, None, 4, 1000.0, 105.0, 26.0, 0.1),
}


def scanner_of(site: str) -> str:
    """Return the name in `SITES` of a hospital's scanner: its own, or one that its name decides."""
    if site in SITES:
        return site
    digest = hashlib.sha256(site.encode()).digest()
    return tuple(SITES)[digest[0] % len(SITES)]
