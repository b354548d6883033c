"""Connectomes made elsewhere: read with the names of their regions, and put into the atlas's order.

MRtrix's ``tck2connectome`` writes numbers parted by commas or spaces, one row a node, and without
``-symmetric`` the upper triangle alone; the names stand in a table of its own (``labelconvert``). A relation
matrix of BIDS (BEP017) has them in its sidecar.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.derivatives import Derivative, write_description
from esn_client.imaging.bids.visits import Visit
from esn_core.connectome.atlas import Atlas
from esn_core.connectome.connectome import Connectome
from esn_core.errors import ConfigError, DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Read a matrix of numbers parted by commas, tabs or spaces, whole or its upper triangle.

    Returns
    -------
    (N, N) float64
        Symmetric and not negative.

    Raises
    ------
    DataError
        It cannot be read, is not square, negative, without a connection, or neither symmetric nor an upper
        triangle.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
        rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
        matrix = np.array(rows, dtype=np.float64)
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror}") from cause
    except ValueError as cause:
        raise DataError(
            f"{path.name}: is no matrix of numbers parted by commas, tabs or spaces, one row a region and "
            "without a heading"
        ) from cause
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        columns = len(rows[0]) if rows else 0
        raise DataError(f"{path.name}: has {len(rows)} rows and {columns} columns")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise DataError(f"{path.name}: its numbers must be finite and not negative")
    if not (np.triu(matrix, 1).any() or np.tril(matrix, -1).any()):
        raise DataError(f"{path.name}: joins no two regions")
    if not np.tril(matrix, -1).any():
        return np.asarray(matrix + np.triu(matrix, 1).T, dtype=np.float64)
    # Rounding of what was written by others; a matrix of directed connections is far from it.
    if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0):
        raise DataError(f"{path.name}: is neither symmetric nor an upper triangle")
    return np.asarray((matrix + matrix.T) / 2, dtype=np.float64)


def read_nodes(path: Path) -> tuple[str, ...]:
    """Read the names of a matrix's regions, in the order of its rows.

    Parameters
    ----------
    path : Path
        A table whose lines begin with a number from 1 on and a name, lines with ``#`` and 0 left out, as
        MRtrix's are; or the sidecar of a relation matrix, with ``Nodes``.

    Raises
    ------
    DataError
        It cannot be read, or its numbers are not 1 to N.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return tuple(str(name) for name in json.loads(text)["Nodes"])
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise DataError(f"{path.name}: is no text, and names no regions") from cause
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise DataError(f"{path.name}: is no sidecar of a relation matrix: it names no 'Nodes'") from cause
    named: dict[int, str] = {}
    for line in text.splitlines():
        cells = line.split("\t") if "\t" in line else line.split()
        if len(cells) > 1 and re.fullmatch(r"0*[1-9][0-9]{0,5}", cells[0].strip()):
            named[int(cells[0])] = cells[1].strip()
    if sorted(named) != list(range(1, len(named) + 1)) or not named:
        raise DataError(f"{path.name}: its lines do not number the regions from 1 on")
    return tuple(named[index] for index in sorted(named))


def in_order(matrix: NDArray[np.float64], nodes: tuple[str, ...], atlas: Atlas) -> NDArray[np.float64]:
    """Return a matrix in the order of an atlas's regions.

    Raises
    ------
    DataError
        The matrix has another number of rows than names, or the names are not the atlas's.

    """
    if len(matrix) != len(nodes):
        raise DataError(f"the matrix has {len(matrix)} rows, and {len(nodes)} regions are named")
    at = {name: place for place, name in enumerate(nodes)}
    missing = [name for name in atlas.names if name not in at]
    strange = [name for name in nodes if name not in set(atlas.names)]
    if missing or strange or len(at) != len(nodes):
        said = [f"{len(missing)} are missing ({missing[0]})"] if missing else []
        said += [f"{len(strange)} are none of it ({strange[0]})"] if strange else []
        said += ["a name stands twice"] if len(at) != len(nodes) else []
        raise DataError(f"the regions are not those of the atlas {atlas.name}: {'; '.join(said)}")
    order = np.array([at[name] for name in atlas.names])
    return np.asarray(matrix[np.ix_(order, order)], dtype=np.float64)


def import_connectome(
    source: Path, out: Path, visit: Visit, recipe: ImagingRecipe, *, nodes: Path | None
) -> Path:
    """Take a connectome in, with the digest of where it came from; return the matrix that was written.

    Parameters
    ----------
    source : Path
    out : Path
        The derivative dataset.
    visit : Visit
    recipe : ImagingRecipe
        Of the study: one that is made elsewhere.
    nodes : Path or None
        Names of the rows; None for the sidecar of a relation matrix.

    Raises
    ------
    ConfigError
        The study's connectomes are prepared by this software.
    DataError
        The matrix or its regions cannot be used, or the visit has a connectome already.

    """
    if recipe.made_elsewhere is None:
        raise ConfigError(
            "the study's recipe is one of this software, and a connectome by another one cannot be told from "
            "it in a sum: prepare the scan, or agree on a protocol whose [imaging] says 'made_elsewhere'"
        )
    derivative, atlas = Derivative(out, visit, recipe), recipe.parcellation
    if derivative.record.exists():
        raise DataError(f"{visit.label}: has a connectome already; remove it first")
    names = nodes or source.with_name(source.name.removesuffix(".dense.tsv") + ".json")
    matrix = in_order(read_matrix(source), read_nodes(names), atlas)
    connectome = Connectome(matrix, atlas.names)  # refuses what is none
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (source, names)}
    derivative.write(
        {"count": connectome.counts},
        sources=digests,
        details={"Origin": f"made elsewhere: {recipe.made_elsewhere}"},
    )
    if not (out / "dataset_description.json").exists():
        write_description(out, source=source.parent)
    return derivative.matrix("count")
