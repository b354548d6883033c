"""Gradient tables: how strongly, and along which voxel axes, each volume is diffusion weighted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.preprocessing.table_files import LEAST_LENGTH, Convention, TableFiles, read_table
from esn_core.errors import DataError

B0_MAX_S_PER_MM2 = 50.0
"""Volumes up to this b-value count as not diffusion weighted."""
B0_ALONE_MAX_S_PER_MM2 = 65.0
"""Where no volume is that low, those up to this b-value: some scanners weight every volume a little."""
SHELL_WIDTH = 0.1
"""Weighted b-values may differ by this share of their median and still be one shell."""
LEAST_THIRD_DIMENSION = 0.02
"""The least eigenvalue of the mean of g g^T: 1/3 for directions all around, 0 for directions in a plane."""

LEAST_DIRECTIONS = 6
"""Of a tensor: no diffusion scan has fewer weighted volumes."""

BUnit = Literal["s/mm2", "ms/um2", "s/m2"]
# Largest b-values that people use, in s/mm2, in each unit; the ranges do not meet.
B_UNITS: dict[BUnit, tuple[float, float, float]] = {
    "ms/um2": (0.2, 20.0, 1e3),
    "s/mm2": (100.0, 50_000.0, 1.0),
    "s/m2": (1e8, 5e10, 1e-6),
}
"""Least and largest plausible maximum of a table in each unit, and the factor to s/mm2."""


@dataclass(frozen=True)
class Gradients:
    """The gradient table of one scan.

    Attributes
    ----------
    b_values_s_per_mm2 : (V,) float64
    directions : (V, 3) float64
        Unit vectors along the voxel axes i, j, k of the image as it is stored; zero where there is no
        weighting. This is the frame in which DIPY fits and tracks.

    """

    b_values_s_per_mm2: NDArray[np.float64]
    directions: NDArray[np.float64]

    @property
    def b0_max_s_per_mm2(self) -> float:
        """The largest b-value that counts as not diffusion weighted."""
        return b0_max_of(self.b_values_s_per_mm2)

    @property
    def is_b0(self) -> NDArray[np.bool_]:
        """Which volumes are not diffusion weighted."""
        return self.b_values_s_per_mm2 <= self.b0_max_s_per_mm2

    def with_shell(self, b_value_s_per_mm2: float) -> NDArray[np.bool_]:
        """Tell which volumes are b0s, or of the shell of this b-value."""
        near = np.abs(self.b_values_s_per_mm2 - b_value_s_per_mm2) <= SHELL_WIDTH * b_value_s_per_mm2
        return self.is_b0 | near

    def __getitem__(self, volumes: NDArray[np.bool_]) -> "Gradients":
        """Give the table of some volumes."""
        return Gradients(self.b_values_s_per_mm2[volumes], self.directions[volumes])


def shells_of(gradients: Gradients) -> tuple[tuple[float, ...], NDArray[np.int64]]:
    """Split the weighted volumes into shells.

    Parameters
    ----------
    gradients : Gradients
        With a weighted volume or more.

    Returns
    -------
    medians : tuple of float
        The b-values of the shells, ascending.
    numbers : (V,) int64
        The shell of each volume; -1 for b0s.

    """
    b = gradients.b_values_s_per_mm2
    shells = _split(b, ~gradients.is_b0)
    numbers = np.full(len(b), -1)
    for number, shell in enumerate(shells):
        numbers[shell] = number
    return tuple(float(np.median(b[shell])) for shell in shells), numbers


def _split(b: NDArray[np.float64], weighted: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Give the places of the volumes of each shell, ascending: gaps in the b-values part them."""
    order = np.flatnonzero(weighted)
    order = order[np.argsort(b[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(b[order]) > SHELL_WIDTH * b[order][:-1]) + 1)


def b0_max_of(b_values_s_per_mm2: NDArray[np.float64]) -> float:
    """Give the b-value up to which the volumes of a scan count as not diffusion weighted."""
    lowest = float(b_values_s_per_mm2.min(initial=np.inf))
    return B0_MAX_S_PER_MM2 if lowest <= B0_MAX_S_PER_MM2 else B0_ALONE_MAX_S_PER_MM2


def count_weighted(b_values: NDArray[np.float64]) -> int:
    """Count diffusion-weighted volumes by their b-values, in whatever unit; b0s alone have none."""
    unit = _unit_of_weighted(b_values)
    if unit is None:
        return 0
    b = b_values * B_UNITS[unit][2]
    return int((b > b0_max_of(b)).sum())


def _unit_of_weighted(b_values: NDArray[np.float64]) -> BUnit | None:
    """Recognise the unit of a table; None where it has b0s alone, or one in no unit."""
    largest = float(b_values.max(initial=0))
    for unit, (least, most, _) in B_UNITS.items():
        # A b0 series may have b-values of a few s/mm2, which look like ms/um2.
        if least <= largest <= most and (unit != "ms/um2" or (b_values >= least).sum() >= LEAST_DIRECTIONS):
            return unit
    return None


def coefficients_of_order(sh_order_max: int) -> int:
    """Count the even spherical harmonics up to an order."""
    return (sh_order_max + 1) * (sh_order_max + 2) // 2


@dataclass(frozen=True)
class Shell:
    """The volumes of a scan that are used: its b0s and one shell, or all.

    Attributes
    ----------
    gradients : Gradients
        Of the K volumes that are kept, in the order of the image.
    kept : (K,) int64
        Their places in the image.
    b_value_s_per_mm2 : float
        The median of the shell's; of several, of the one that was asked for.
    unit : 's/mm2', 'ms/um2' or 's/m2'
        In which the file gave its b-values.
    dropped_s_per_mm2 : tuple of float
        The shells that are not used.
    conventions : tuple of Convention
        Of each run's vectors, as they were read.
    traces : tuple of int
        Places of volumes of the shells that have no direction and are not used.

    """

    gradients: Gradients
    kept: NDArray[np.int64]
    b_value_s_per_mm2: float
    unit: BUnit
    dropped_s_per_mm2: tuple[float, ...]
    conventions: tuple[Convention, ...]
    traces: tuple[int, ...]


def read_gradients(
    tables: Sequence[TableFiles],
    *,
    affine: NDArray[np.float64],
    sh_order_max: int,
    shell_s_per_mm2: float | None = None,
    shell_width: float = SHELL_WIDTH,
    all_shells: bool = False,
) -> Shell:
    """Read the gradient tables of an image that is stored with a given affine.

    A scanner may add the mean over the directions of a shell to its series (Philips does): a volume with the
    shell's b-value and no direction, one in each run. It is left out.

    Parameters
    ----------
    tables : sequence of TableFiles
        Of each run, in order: b0s, shell and directions are those of all together.
    affine : (4, 4) float64
        Of the image.
    sh_order_max : int
        Order that the directions must support.
    shell_s_per_mm2 : float, optional
        Which shell to use; None where there must be only one.
    shell_width : float
        By which share the shell that is used may differ from it.
    all_shells : bool
        Whether the others are kept too.

    Returns
    -------
    Shell

    Raises
    ------
    DataError
        A file cannot be read, the counts differ, b-values are in no known unit, a vector is no direction, the
        directions lie in a plane, there is no b0, not the shell, or too few directions for the order.

    """
    read = [read_table(files, affine) for files in tables]
    b = np.concatenate([table[0] for table in read])
    vectors = np.concatenate([table[1] for table in read])
    bval, bvec = tables[0].bval, tables[0].scanner or tables[0].bvec
    unit = _unit_of(b, bval.name)
    _check_units(tables, [table[0] for table in read], unit)
    b = b * B_UNITS[unit][2]
    weighted = b > b0_max_of(b)
    if weighted.all():
        raise DataError(
            f"{bval.name}: no b0; one volume of b <= {B0_MAX_S_PER_MM2:g} s/mm2 or more is needed"
        )
    chosen, others = _choose_shell(b, weighted, shell_s_per_mm2, bval.name, width=shell_width)
    b_value = float(np.median(b[chosen]))
    lengths = np.linalg.norm(vectors, axis=1)
    used = weighted if all_shells else chosen
    traces = np.flatnonzero(used & (lengths < LEAST_LENGTH))
    if len(traces) <= len(tables) * (1 + len(others) * all_shells):
        used = used & (lengths >= LEAST_LENGTH)
        chosen &= used
    bad = np.flatnonzero(used & (np.abs(lengths - 1) > 0.05))
    if bad.size:
        raise DataError(
            f"{bvec.name}: volume {bad[0]} has b = {b[bad[0]]:g} and a vector of length "
            f"{lengths[bad[0]]:.3g}; 1 is needed"
        )
    directions = np.where(used[:, None], vectors / np.where(lengths > 0, lengths, 1)[:, None], 0.0)
    unique = count_distinct(directions[chosen])
    needed = coefficients_of_order(sh_order_max)
    if unique < needed:
        raise DataError(
            f"{bvec.name}: {unique} distinct directions; order {sh_order_max} needs {needed} or more"
        )
    third = float(np.linalg.eigvalsh(directions[chosen].T @ directions[chosen] / chosen.sum())[0])
    if third < LEAST_THIRD_DIMENSION:
        raise DataError(
            f"{bvec.name}: all directions lie near one plane (least eigenvalue of their mean product "
            f"{third:.2g}; {LEAST_THIRD_DIMENSION} or more is needed)"
        )
    kept = np.flatnonzero(used | ~weighted)
    return Shell(
        Gradients(b[kept], directions[kept]),
        kept,
        b_value,
        unit,
        () if all_shells else others,
        conventions=tuple(table[2] for table in read),
        traces=tuple(traces.tolist()),
    )


def _unit_of(b: NDArray[np.float64], name: str) -> BUnit:
    """Recognise the unit of b-values by the largest of them."""
    largest = float(b.max(initial=0))
    for unit, (least, most, _) in B_UNITS.items():
        if least <= largest <= most:
            return unit
    ranges = "; ".join(f"{least:g} to {most:g} {unit}" for unit, (least, most, _) in B_UNITS.items())
    raise DataError(f"{name}: the largest b-value is {largest:g}; a scan has one of {ranges}")


def _check_units(tables: Sequence[TableFiles], runs: Sequence[NDArray[np.float64]], unit: BUnit) -> None:
    """Refuse runs whose b-values are in two units: one of them would pass for b0s."""
    for files, b in zip(tables, runs, strict=True):
        own = _unit_of_weighted(b)
        if own not in (None, unit):
            raise DataError(
                f"{files.bval.name}: b-values of up to {b.max():g}, in {own}, beside a run's in {unit}; one "
                "unit is needed in all runs of a series"
            )


def _choose_shell(
    b: NDArray[np.float64], weighted: NDArray[np.bool_], wanted: float | None, name: str, *, width: float
) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    """Split weighted volumes into shells and choose one; tell which were left out."""
    shells = _split(b, weighted)
    medians = [float(np.median(b[shell])) for shell in shells]
    found = ", ".join(f"{value:g}" for value in dict.fromkeys(round(m, -1) for m in medians))
    for shell, median in zip(shells, medians, strict=True):
        if (np.abs(b[shell] - median) > SHELL_WIDTH * median).any():
            raise DataError(
                f"{name}: no shells; b-values from {b[shell[0]]:g} to {b[shell[-1]]:g} s/mm2 run into "
                "each other"
            )
    if wanted is None:
        if len(shells) > 1:
            raise DataError(f"{name}: one shell is needed; found b near {found} s/mm2, and none was chosen")
        place = 0
    else:
        near = [k for k, m in enumerate(medians) if abs(m - wanted) <= width * wanted]
        if not near:
            raise DataError(
                f"{name}: a shell near b = {wanted:g} s/mm2 (within {width:.0%}) is asked for; found b "
                f"near {found}"
            )
        place = min(near, key=lambda k: abs(medians[k] - wanted))
    chosen = np.zeros(len(b), dtype=bool)
    chosen[shells[place]] = True
    return chosen, tuple(m for k, m in enumerate(medians) if k != place)


def count_distinct(directions: NDArray[np.float64]) -> int:
    """Count directions that differ by more than two degrees; opposite ones are the same."""
    cosine = np.abs(directions @ directions.T)
    same = np.triu(cosine > np.cos(np.radians(2.0)), k=1)
    return int(len(directions) - same.any(axis=0).sum())
