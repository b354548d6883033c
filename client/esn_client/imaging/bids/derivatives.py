"""Derivatives: connectomes on disk, as BIDS wants them, each with the record of how it was made."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.bids.visits import Visit, segmentation_of
from esn_client.imaging.provenance import CODE_OF_VERSION_1, versions_of, versions_of_software
from esn_core.connectome.connectome import Connectome
from esn_core.errors import DataError
from esn_core.formats import DERIVATIVE
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.system.files import write_whole

BIDS_VERSION = "1.10.0"


@dataclass(frozen=True)
class Measure:
    """One way to say how strongly two regions are joined.

    Attributes
    ----------
    meaning, units : str
    whole : bool
        Whether it counts in whole numbers.

    """

    meaning: str
    units: str
    whole: bool = False


MEASURES = {
    "count": Measure("number of streamlines", "streamlines", whole=True),
    "weight": Measure("sum of the streamlines' weights, fitted to the fODFs", "streamlines"),
    "meanlength": Measure("mean length of the streamlines", "mm"),
    "countperlength": Measure("sum over streamlines of 1 / length", "1/mm"),
    "countpervolume": Measure("number of streamlines by the mean volume of both regions", "1/mm^3"),
    "meanfa": Measure("mean over streamlines of the mean fractional anisotropy along them", "1"),
}
"""By the ``meas-`` label of the file; 'weight' is there if the recipe asks for weights."""


def strength_of(recipe: ImagingRecipe) -> str:
    """Name the measure that a study's edge strengths are computed from."""
    return "count" if recipe.made_elsewhere or not recipe.weight_iterations else "weight"


@dataclass(frozen=True)
class Derivative:
    """The files of one prepared visit: for each measure ``<stem>.dense.tsv`` and ``<stem>.json``.

    The matrices are written first; the record, which holds their digests, makes them valid.

    Attributes
    ----------
    out : Path
        The derivative dataset.
    visit : Visit
    recipe : ImagingRecipe

    """

    out: Path
    visit: Visit
    recipe: ImagingRecipe

    def matrix(self, measure: str) -> Path:
        """Name a measure's matrix: tab-separated, without a header; the record names the nodes."""
        return self._path(measure, ".dense.tsv")

    @property
    def record(self) -> Path:
        """How the matrices were made: the sidecar of the counts."""
        return self._path("count", ".json")

    @property
    def page(self) -> Path:
        """The page on the visit's quality."""
        return self.out / f"{self.visit.label}_seg-{segmentation_of(self.recipe.atlas)}_quality.html"

    @property
    def tractogram(self) -> Path:
        """The streamlines, where they were asked for."""
        return self.out / self.visit.folder / "dwi" / f"{self.visit.label}_tractogram.trx"

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that the recipe asks for."""
        if self.recipe.made_elsewhere:
            return ("count",)
        return tuple(m for m in MEASURES if m != "weight" or self.recipe.weight_iterations)

    def _path(self, measure: str, suffix: str) -> Path:
        segmentation = segmentation_of(self.recipe.atlas)
        name = f"{self.visit.label}_seg-{segmentation}_meas-{measure}_relmat{suffix}"
        return self.out / self.visit.folder / "dwi" / name

    def is_current(self, sources: Mapping[str, str]) -> bool:
        """Tell whether what is on disk was made whole, from these inputs, by this recipe and these steps.

        Parameters
        ----------
        sources : mapping of str to str
            Digest of each input file by its path inside the dataset.

        Raises
        ------
        DataError
            A newer release made it; preparing it again would replace it by an older one's.

        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            self._check_format(record)
            matrices = {m: _sha256(self.matrix(m).read_bytes()) for m in self.measures}
            return bool(
                record["Sources"] == dict(sources)
                and record["RecipeSha256"] == self.recipe.sha256
                and record["AtlasSha256"] == self.recipe.parcellation.sha256
                and _step_versions(record) == versions_of(_stages_in(record))
                and record["MatricesSha256"] == matrices
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def write(
        self,
        matrices: Mapping[str, NDArray[np.float64]],
        *,
        sources: Mapping[str, str],
        details: Mapping[str, Any],
    ) -> None:
        """Write the matrices and their sidecars, then the record that makes them valid.

        Parameters
        ----------
        matrices : mapping of str to (R, R) float64
            By measure; NaN in the rows and columns of regions without tissue.
        sources : mapping of str to str
        details : mapping
            What else the record should say: stages, response, quality.

        """
        atlas = self.recipe.parcellation
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.unlink(missing_ok=True)
        digests = {}
        for measure in self.measures:
            text = io.StringIO()
            # 17 digits: what is read back is what was computed.
            whole = MEASURES[measure].whole and not self.recipe.made_elsewhere
            np.savetxt(text, matrices[measure], fmt="%.0f" if whole else "%.17g", delimiter="\t")
            content = text.getvalue().encode()
            digests[measure] = _sha256(content)
            write_whole(self.matrix(measure), content)
            if measure != "count":
                _write_json(self._path(measure, ".json"), self._sidecar(measure, atlas.names))
        record = {
            **self._sidecar("count", atlas.names),
            "Format": DERIVATIVE.version,
            "RegionsWithoutTissue": _regions_without(matrices["count"], atlas.names),
            "Atlas": self.recipe.atlas,
            "AtlasSha256": atlas.sha256,
            "MatricesSha256": digests,
            "Recipe": self.recipe.model_dump(mode="json"),
            "RecipeSha256": self.recipe.sha256,
            "Sources": dict(sources),
            "StepVersions": versions_of(_stages_in(details)),
            "Software": {"esn-federated": version("esn-federated"), **versions_of_software()},
            **details,
        }
        _write_json(self.record, record)

    def _sidecar(self, measure: str, nodes: tuple[str, ...]) -> dict[str, Any]:
        """Say what BEP017 asks of a relation matrix."""
        return {
            "Participant": self.visit.participant,
            **({"Session": self.visit.session} if self.visit.session else {}),
            "RelationshipMeasure": MEASURES[measure].meaning,
            "Units": MEASURES[measure].units,
            "Weighted": True,
            "Directed": False,
            "ValidDiagonal": True,
            "StorageFormat": "Full",
            "NonNegative": True,
            "MissingValue": "nan: an edge of a region without tissue",
            "Nodes": list(nodes),
        }

    def _check_format(self, record: dict[str, Any]) -> None:
        fault = DERIVATIVE.fault_in(record.get("Format"))
        if fault:
            raise DataError(f"{self.visit.label}: {self.record.name} cannot be read: {fault}")

    def read_record(self) -> dict[str, Any]:
        """Read the record.

        Raises
        ------
        DataError
            There is none, it is damaged, a newer release or another recipe made it.

        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            self._check_format(record)
            made_by, _ = record["RecipeSha256"], record["MatricesSha256"]
            known = is_record(record)
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise DataError(f"{self.visit.label}: no connectome; {missing} is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            known = False
        if not known:
            raise DataError(f"{self.visit.label}: {self.record.name} is not a record of a connectome")
        if made_by != self.recipe.sha256:
            raise DataError(
                f"{self.visit.label}: made by recipe {str(made_by)[:12]}; the study's recipe is "
                f"{self.recipe.sha256[:12]}; prepare it again"
            )
        return dict(record)

    def read_connectome(self) -> Connectome:
        """Read the matrix that the study's edge strengths are computed from.

        Raises
        ------
        DataError
            There is none, it was changed after it was made, another recipe made it, or matrix and record do
            not
            name the same regions without tissue.

        """
        record = self.read_record()
        path = self.matrix(strength_of(self.recipe))
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{self.visit.label}: no connectome; {path.name} is missing") from None
        if record["MatricesSha256"].get(strength_of(self.recipe)) != _sha256(content):
            raise DataError(f"{path.name} was changed after it was made; prepare it again")
        names = self.recipe.parcellation.names
        try:
            rows = [line.split("\t") for line in content.decode().splitlines()] or [[]]
            matrix = np.array(rows, dtype=np.float64)
        except ValueError as cause:
            raise DataError(f"{path.name}: is no matrix of tab-separated numbers") from cause
        # A record of format 2 or older knows of none.
        away = record.get("RegionsWithoutTissue", [])
        if _regions_without(matrix, names) != away:
            raise DataError(
                f"{path.name} and {self.record.name} name different regions without tissue; prepare it again"
            )
        return Connectome(np.where(np.isnan(matrix), 0.0, matrix), names, tuple(away))


def is_record(said: object) -> bool:
    """Tell whether what was read as JSON can be the record of a connectome, by the kinds of its parts."""
    kinds = {
        **dict.fromkeys(("Nodes", "RegionsWithoutTissue", "Warnings"), (list, str)),
        **dict.fromkeys(("MatricesSha256", "Sources"), (dict, str)),
        "Quality": (dict, float | int | None),
    }
    return isinstance(said, dict) and all(
        isinstance(part, whole)
        and all(isinstance(one, kind) for one in (part.values() if isinstance(part, dict) else part))
        for name, (whole, kind) in kinds.items()
        for part in (said.get(name, whole()),)
    )


def scans_of(record: Mapping[str, Any]) -> set[str]:
    """Return the digests of the diffusion scans that a record names; the connectome's where it names none."""
    sources = record.get("Sources", {})
    scans = {
        digest for path, digest in sources.items() if re.search(r"_dwi\.nii(\.gz)?$", path, re.IGNORECASE)
    }
    return scans or {record["MatricesSha256"]["count"]}


def prepared_visits(out: Path, recipe: ImagingRecipe, *, participant: str | None = None) -> list[Visit]:
    """List the visits that have a record for the recipe's atlas, current or not.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe
    participant : str, optional
        Only the visits of this one.

    Returns
    -------
    list of Visit
        Sorted.

    """
    name = f"seg-{segmentation_of(recipe.atlas)}_meas-count_relmat.json"
    visits = set()
    for path in out.glob(f"{participant or 'sub-*'}/**/dwi/sub-*_{name}"):
        label, _, session = path.name.removesuffix(f"_{name}").partition("_")
        visits.add(Visit(label, session or None))
    return sorted(visits, key=lambda visit: visit.label)


def load_connectome(out: Path, participant: str, recipe: ImagingRecipe) -> Connectome:
    """Read the prepared connectome of a participant without sessions.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    participant : str
        With ``sub-``.
    recipe : ImagingRecipe

    Raises
    ------
    DataError
        There is none, it was changed after it was made, or another recipe made it.

    """
    return Derivative(out, Visit(participant, None), recipe).read_connectome()


def write_description(out: Path, *, source: Path) -> None:
    """Write the derivative dataset's ``dataset_description.json``, and what validators should pass over."""
    description = {
        "Name": "Structural connectomes",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "n/a",
        "Authors": ["n/a"],
        "GeneratedBy": [{"Name": "esn-client prepare", "Version": version("esn-federated")}],
        "SourceDatasets": [{"URL": source.resolve().as_uri()}],
    }
    _write_json(out / "dataset_description.json", description)
    # Relation matrices are a proposal (BEP017), which the validator does not know yet.
    ignored = [
        "*_relmat.*",
        "*_quality.*",
        "*_ratings.tsv",
        "quality.*",
        "*_failure.json",
        "*.trx",
        "work/",
        "**/.*.part",
    ]
    write_whole(out / ".bidsignore", ("\n".join(ignored) + "\n").encode())


def _regions_without(matrix: NDArray[np.float64], names: tuple[str, ...]) -> list[str]:
    """Name the regions whose edges a matrix does not know."""
    if matrix.shape != (len(names), len(names)):
        return []
    return [name for name, row in zip(names, matrix, strict=True) if np.isnan(row).all()]


def _stages_in(record: Mapping[str, Any]) -> list[str]:
    """Name the stages that a record logs."""
    return [stage["Name"] for stage in record.get("Stages", [])]


def _step_versions(record: Mapping[str, Any]) -> dict[str, int] | None:
    """Give the versions of the steps that made a record's matrices; None where they are unknown."""
    if "StepVersions" in record:
        return dict(record["StepVersions"])
    if record["CodeSha256"] in CODE_OF_VERSION_1:
        return dict.fromkeys(versions_of(_stages_in(record)), 1)
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
