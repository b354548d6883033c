"""Kinds of scans: which of a site's visits were scanned alike, as far as a connectome can tell.

With fewer directions, another b-value or thicker slices other connectomes are found in the same brain; what
differs so between children, or between them and the controls who judge them, may be taken for illness.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any, Self, TypeVar

DIRECTIONS_FACTOR = 1.25
"""Scans are alike where the larger number of directions is so many times the smaller one at most."""
B_VALUE_FACTOR = 1.1
VOXEL_FACTOR = 1.1
"""The same for the b-value, and for each side of a voxel, the shortest with the shortest."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, order=True)
class ScanKind:
    """How a scan was made.

    Attributes
    ----------
    directions : int
        Different ones, of the shell that tensors are fitted to.
    b_value_s_per_mm2 : float
        Of that shell.
    voxel_mm : tuple of three float
        From the shortest side of a voxel to the longest: axes may be stored in any order.
    susceptibility : str
        Whether it was corrected.

    """

    directions: int
    b_value_s_per_mm2: float
    voxel_mm: tuple[float, ...]
    susceptibility: str

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self | None:
        """Read how a visit was scanned; None where its record does not say."""
        said = record.get("ScanKind")
        if said is None:
            return None
        return cls(
            int(said["Directions"]),
            float(said["BValue"]),
            tuple(sorted(float(side) for side in said["VoxelMm"])),
            str(record.get("Susceptibility", "not said")),
        )

    def is_like(self, other: "ScanKind") -> bool:
        """Tell whether two scans differ by no more than scans of one protocol do."""
        return (
            _within(self.directions, other.directions, DIRECTIONS_FACTOR)
            and _within(self.b_value_s_per_mm2, other.b_value_s_per_mm2, B_VALUE_FACTOR)
            and all(_within(a, b, VOXEL_FACTOR) for a, b in zip(self.voxel_mm, other.voxel_mm, strict=True))
            and (self.susceptibility == "corrected") == (other.susceptibility == "corrected")
        )

    @property
    def words(self) -> str:
        """The kind in a few words, such as ``64 directions, b 1000, 2.4 x 2.4 x 2.4 mm``."""
        sides = " x ".join(f"{side:.3g}" for side in self.voxel_mm)
        corrected = ", susceptibility corrected" if self.susceptibility == "corrected" else ""
        return f"{self.directions} directions, b {self.b_value_s_per_mm2:.0f}, {sides} mm{corrected}"


def kinds_of(scans: Mapping[Key, ScanKind | None]) -> dict[Key, str]:
    """Name the kind of each scan, so that scans which are alike share a name.

    Parameters
    ----------
    scans : mapping to ScanKind or None
        By visit or by whatever names a scan.

    Returns
    -------
    dict to str
        The words of the most frequent scan of each kind; scans of which nothing is known are left out.

    """
    known = {key: scan for key, scan in scans.items() if scan is not None}
    often = Counter(known.values())
    heads: list[ScanKind] = []
    for scan in sorted(often, key=lambda one: (-often[one], one)):
        if not any(scan.is_like(head) for head in heads):
            heads.append(scan)
    return {key: next(head for head in heads if scan.is_like(head)).words for key, scan in known.items()}


def _within(one: float, other: float, factor: float) -> bool:
    """Tell whether two positive numbers differ by a factor at most, and rounding does not decide."""
    return abs(log(one / other)) <= log(factor) + 1e-9
