"""Atlases: the regions of the brain that are a connectome's nodes."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from esn_core.errors import ConfigError, DataError

Hemisphere = Literal["L", "R", "M"]
"""Left, right, or across the midline."""
SHIPPED = Path(str(files("esn_core.connectome").joinpath("atlases")))
TABLE, VOLUME = ".tsv", ".nii.gz"
SIMULATED_HEADS = frozenset({"phantom-28"})
"""Shipped atlases that no real brain has."""
COLUMNS = ("index", "name", "hemisphere", "x_mm", "y_mm", "z_mm", "module")


@dataclass(frozen=True)
class Region:
    """One region of an atlas.

    Attributes
    ----------
    index : int
        Value of the region in a label volume, 1 or more.
    name : str
        Unique in its atlas.
    hemisphere : 'L', 'R' or 'M'
        'M' for a region that lies across the midline, such as the brainstem.
    x_mm, y_mm, z_mm : float
        Centroid in the atlas's own RAS+ space.
    module : str
        The group of neighbouring regions, of one hemisphere or of the midline, that the region belongs to.

    """

    index: int
    name: str
    hemisphere: Hemisphere
    x_mm: float
    y_mm: float
    z_mm: float
    module: str

    def __post_init__(self) -> None:
        if self.index < 1:
            raise DataError(f"region {self.name!r} has index {self.index}; a label is 1 or more")
        if self.hemisphere not in ("L", "R", "M"):
            raise DataError(f"region {self.name!r} has hemisphere {self.hemisphere!r}, not 'L', 'R' or 'M'")
        if not np.isfinite([self.x_mm, self.y_mm, self.z_mm]).all():
            raise DataError(f"region {self.name!r} has a centroid that is not finite")

    @property
    def stem(self) -> str:
        """The name without the mark of its hemisphere: equal for the two of a homotopic pair."""
        return self.name.removeprefix(f"{self.hemisphere}_").removesuffix(f"_{self.hemisphere}")


@dataclass(frozen=True)
class Atlas:
    """The regions that a connectome's rows and columns stand for, in their order.

    Attributes
    ----------
    name : str
    regions : tuple of R Region
        Names and indices are unique; there are two regions or more.

    """

    name: str
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        if len(self.regions) < 2:
            raise DataError(f"atlas {self.name!r} has {len(self.regions)} regions; 2 or more make a network")
        for what, values in (("name", self.names), ("index", tuple(r.index for r in self.regions))):
            repeated = sorted((value for value, times in Counter(values).items() if times > 1), key=str)
            if repeated:
                raise DataError(f"atlas {self.name!r} repeats the region {what} {repeated[0]!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the regions, in order."""
        return tuple(region.name for region in self.regions)

    @property
    def centroids_mm(self) -> NDArray[np.float64]:
        """The (R, 3) centroids of the regions in the atlas's RAS+ space."""
        return np.array([(r.x_mm, r.y_mm, r.z_mm) for r in self.regions], dtype=np.float64)

    @property
    def edges(self) -> NDArray[np.int64]:
        """The (E, 2) pairs of region positions above the diagonal, in the order of ``np.triu_indices``."""
        return np.column_stack(np.triu_indices(len(self.regions), k=1)).astype(np.int64)

    @cached_property
    def sha256(self) -> str:
        """The hex digest of what the atlas says: its name and every field of every region."""
        rows = [[getattr(region, column) for column in COLUMNS] for region in self.regions]
        return hashlib.sha256(json.dumps([self.name, rows], separators=(",", ":")).encode()).hexdigest()


def module_pairs(atlas: Atlas) -> NDArray[np.int64]:
    """Return, for each of the atlas's edges, a code of the pair of modules that it joins."""
    modules = {name: code for code, name in enumerate(dict.fromkeys(r.module for r in atlas.regions))}
    code = np.array([modules[region.module] for region in atlas.regions])
    ends = np.sort(code[atlas.edges], axis=1)
    pairs: NDArray[np.int64] = ends[:, 0] * len(modules) + ends[:, 1]
    return pairs


def load_atlas(name: str) -> Atlas:
    """Load an atlas that ships with this package; `ImagingRecipe.parcellation` knows a study's own too.

    Parameters
    ----------
    name : str
        For example ``phantom-28``.

    Returns
    -------
    Atlas

    Raises
    ------
    ConfigError
        No atlas of this name ships with the package, and the message lists those that do.

    """
    tables = {
        entry.name.removesuffix(TABLE): entry
        for entry in SHIPPED.iterdir()
        if entry.name.endswith(TABLE) and "template" not in entry.name
    }
    if name not in tables:
        raise ConfigError(
            f"unknown atlas {name!r}; there are: {', '.join(sorted(tables))}; one of your own is a public "
            "input of the study's protocol"
        )
    return parse_atlas(name, tables[name].read_text(encoding="utf-8"))


def label_volume(name: str) -> Path:
    """Find the label volume, in MNI space, of an atlas that ships.

    Parameters
    ----------
    name : str

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        There is none: a subject needs a ready label volume then.

    """
    path = SHIPPED / f"{name}{VOLUME}"
    if not path.is_file():
        raise ConfigError(
            f"atlas {name!r} has no label volume in MNI space ({path.name}); "
            "each subject needs a ready one of its own"
        )
    return path


def parse_atlas(name: str, table: str) -> Atlas:
    """Read an atlas from the text of its tab-separated table.

    Parameters
    ----------
    name : str
    table : str
        A header line with the columns ``index name hemisphere x_mm y_mm z_mm module``, in any order, then
        one line for each region.

    Returns
    -------
    Atlas

    Raises
    ------
    DataError
        A column is missing, a number cannot be read, or the regions are not an atlas.

    """
    try:
        return _of_lines(name, csv.DictReader(table.splitlines(), delimiter="\t"))
    except csv.Error as error:
        raise DataError(f"atlas {name!r}: is no table: {error}") from None


def _of_lines(name: str, reader: "csv.DictReader[str]") -> Atlas:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"atlas {name!r}: column {missing[0]!r} is missing; needed: {', '.join(COLUMNS)}")
    regions = []
    for row in reader:
        try:
            index, x, y, z = int(row["index"]), float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])
        except (TypeError, ValueError) as error:
            raise DataError(f"atlas {name!r}, line {reader.line_num}: {error}") from None
        hemisphere = cast("Hemisphere", row["hemisphere"])
        regions.append(Region(index, row["name"], hemisphere, x, y, z, row["module"]))
    return Atlas(name, tuple(regions))
