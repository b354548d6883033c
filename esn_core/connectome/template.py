"""Templates: public mean, spread and age slope of each edge's strength, and the scores against them.

An edge's strength is the log of its share of a subject's streamlines (`edge_strengths`). Its score is how far
that lies from what the template expects at the subject's age and sex (`edge_scores`). A score is computed
from one subject and public numbers alone: no other patient enters, which is what the bounds of privacy
stand on.

>>> template = Template(
...     "three-edges",
...     mean=np.array([6.0, 5.0, 4.0]),
...     sd=np.array([0.5, 0.5, 0.5]),
...     age_slope=np.array([0.1, 0.0, 0.0]),
...     sex_slope=np.zeros(3),
...     present=np.array([True, True, True]),
...     sha256="",
... )
>>> edge_scores(np.array([6.2, 5.0, 3.0]), template, age_years=12.0, sex=1.0)
array([ 0.,  0., -2.])
"""

import csv
import hashlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from esn_core.connectome.atlas import Atlas, load_atlas
from esn_core.connectome.connectome import Connectome
from esn_core.errors import ConfigError, DataError

SHARE_SCALE = 10_000
"""An edge's strength is the log of its share of all streamlines, counted in ten-thousandths."""

REFERENCE_AGE_YEARS = 10.0
"""The age at which a template's mean is quoted."""

TEMPLATE_COLUMNS = ("region_a", "region_b", "mean", "sd", "age_slope", "sex_slope", "present")


@dataclass(frozen=True)
class Template:
    """The edge strengths of a public population, by which a subject's own are judged.

    Attributes
    ----------
    atlas : str
        Name of the atlas whose edges these are, in the order of ``Atlas.edges``.
    mean : (E,) float64
        Edge strength at ten years of age, midway between the sexes.
    sd : (E,) float64
        Between subjects, positive.
    age_slope : (E,) float64
        Per year.
    sex_slope : (E,) float64
        Boys minus girls.
    present : (E,) bool
        The edges with enough streamlines to be measured.
    sha256 : str
        Hex digest of the table that the template was read from.

    """

    atlas: str
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    age_slope: NDArray[np.float64]
    sex_slope: NDArray[np.float64]
    present: NDArray[np.bool_]
    sha256: str

    def __post_init__(self) -> None:
        for name in ("sd", "age_slope", "sex_slope", "present"):
            shape = getattr(self, name).shape
            if shape != self.mean.shape or self.mean.ndim != 1:
                raise DataError(
                    f"template {name} must have the shape of its mean, {self.mean.shape}: {shape}"
                )
        if not np.isfinite([self.mean, self.sd, self.age_slope, self.sex_slope]).all():
            raise DataError("a template's numbers must be finite")
        if not (self.sd > 0).all():
            raise DataError(f"a template's sd must be positive; the least is {self.sd.min():g}")
        if not self.present.any():
            raise DataError("a template without a present edge cannot centre a subject")


def edge_strengths(connectome: Connectome) -> NDArray[np.float64]:
    """Give each edge the log of its share of a subject's streamlines.

    Parameters
    ----------
    connectome : Connectome

    Returns
    -------
    (E,) float64
        ``log1p(10,000 * counts / their sum)`` above the diagonal, in the order of ``Atlas.edges``; NaN for an
        edge of a region without tissue, which is unknown and not weak.

    Raises
    ------
    DataError
        No streamline joins two regions.

    """
    strengths = strengths_of_counts(connectome.counts[np.triu_indices(len(connectome.regions), k=1)])
    return np.where(connectome.known_edges, strengths, np.nan)


def strengths_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute edge strengths from the counts above the diagonal, of one subject or of many.

    Parameters
    ----------
    counts : (..., E) float64

    Returns
    -------
    (..., E) float64

    Raises
    ------
    DataError
        No streamline of some subject joins two regions.

    """
    total = counts.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise DataError("no streamline joins two regions; one or more are needed")
    return np.asarray(np.log1p(SHARE_SCALE * counts / total), dtype=np.float64)


def edge_scores(
    strengths: NDArray[np.float64],
    template: Template,
    *,
    age_years: float | NDArray[np.float64],
    sex: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Judge a subject's edge strengths by a public template; no other patient's statistics enter.

    Parameters
    ----------
    strengths : (..., E) float64
        NaN where there is no tissue for an edge.
    template : Template
        Of the same atlas.
    age_years : float, or one for each subject
    sex : float, or one for each subject
        0 female, 1 male.

    Returns
    -------
    (..., E) float64
        Deviation from what is expected at this age and sex, in the template's standard deviations, less the
        subject's own median over the present edges (a scan's gain is no finding); 0 where the template
        has no edge, and where it is not known.

    Raises
    ------
    DataError
        The number of edges is not the template's, age or sex is not finite, or there is tissue for none of
        the present edges.

    """
    if strengths.shape[-1:] != template.mean.shape:
        raise DataError(f"strengths have {strengths.shape[-1]} edges; the template has {template.mean.size}")
    if not (np.isfinite(age_years).all() and np.isfinite(sex).all()):
        raise DataError(f"age and sex must be finite, not {age_years} and {sex}")
    older = np.asarray(age_years, dtype=np.float64)[..., None] - REFERENCE_AGE_YEARS
    male = np.asarray(sex, dtype=np.float64)[..., None] - 0.5
    expected = template.mean + template.age_slope * older + template.sex_slope * male
    scores = (strengths - expected) / template.sd
    known = np.isfinite(scores) & template.present
    if not known.any(axis=-1).all():
        raise DataError("there is tissue for none of the edges that the template has")
    middle = np.nanmedian(np.where(known, scores, np.nan), axis=-1, keepdims=True)
    return np.where(known, scores - middle, 0.0)


def load_template(name: str, *, simulated: bool = False) -> Template:
    """Load the public template of an atlas that ships with this package.

    Parameters
    ----------
    name : str
        Name of the atlas, for example ``phantom-28``.
    simulated : bool
        Whether a template of simulated controls will do: in a study of simulated children, and never of real
        ones.

    Returns
    -------
    Template

    Raises
    ------
    ConfigError
        No template of this atlas ships with the package.
    DataError
        The table does not describe the atlas's edges.

    """
    entry = files("esn_core.connectome").joinpath("atlases", f"{name}.template.tsv")
    if simulated and not entry.is_file():
        entry = files("esn_core.connectome").joinpath("atlases", f"{name}.simulated-template.tsv")
    if not entry.is_file():
        of_whom = "" if simulated else " of real children"
        raise ConfigError(f"no public template{of_whom} for the atlas {name!r} ships with esn-federated")
    return parse_template(load_atlas(name), entry.read_text(encoding="utf-8"))


def parse_template(atlas: Atlas, table: str) -> Template:
    """Read an atlas's template from the text of its tab-separated table, one line for each edge in order.

    Raises
    ------
    DataError
        A column is missing, an edge is not where the atlas has it, or a number cannot be read.

    """
    name = atlas.name
    reader = csv.DictReader(table.splitlines(), delimiter="\t")
    if tuple(reader.fieldnames or ()) != TEMPLATE_COLUMNS:
        raise DataError(f"template {name!r} must have the columns {', '.join(TEMPLATE_COLUMNS)}")
    rows = list(reader)
    pairs = [(atlas.names[a], atlas.names[b]) for a, b in atlas.edges]
    if [(row["region_a"], row["region_b"]) for row in rows] != pairs:
        raise DataError(f"template {name!r} does not list the {len(pairs)} edges of its atlas in order")
    try:
        numbers = {c: np.array([float(row[c]) for row in rows]) for c in TEMPLATE_COLUMNS[2:]}
    except (TypeError, ValueError) as error:
        raise DataError(f"template {name!r}: {error}") from None
    present = numbers.pop("present") > 0
    return Template(name, **numbers, present=present, sha256=hashlib.sha256(table.encode()).hexdigest())
