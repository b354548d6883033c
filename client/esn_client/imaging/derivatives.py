"""Derivatives: connectomes on disk, as BIDS wants them, each with the record of how it was made."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from esn_client.imaging.scans import segmentation_of
from esn_core.atlas import Atlas, load_atlas
from esn_core.connectome import Connectome
from esn_core.errors import DataError
from esn_core.files import write_whole
from esn_core.recipe import ImagingRecipe

BIDS_VERSION = "1.10.0"
SOFTWARE = ("esn-federated", "dipy", "nibabel", "numpy", "scipy")


@dataclass(frozen=True)
class Derivative:
    """The files of one prepared participant: ``<stem>.dense.tsv`` and ``<stem>.json``.

    The matrix is written first; the record, which holds the matrix's digest, makes it valid.

    Attributes
    ----------
    out : Path
        The derivative dataset.
    participant : str
    recipe : ImagingRecipe

    """

    out: Path
    participant: str
    recipe: ImagingRecipe

    @property
    def matrix(self) -> Path:
        """The counts, tab-separated, without a header; the record names the nodes."""
        return self._path(".dense.tsv")

    @property
    def record(self) -> Path:
        """How the matrix was made."""
        return self._path(".json")

    def _path(self, suffix: str) -> Path:
        segmentation = segmentation_of(self.recipe.atlas)
        name = f"{self.participant}_seg-{segmentation}_meas-count_relmat{suffix}"
        return self.out / self.participant / "dwi" / name

    def is_current(self, sources: Mapping[str, str]) -> bool:
        """Tell whether what is on disk was made whole, from these inputs, by this recipe and release.

        Parameters
        ----------
        sources : mapping of str to str
            Digest of each input file by its path inside the dataset.

        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            matrix = hashlib.sha256(self.matrix.read_bytes()).hexdigest()
            return bool(
                record["Sources"] == dict(sources)
                and record["RecipeSha256"] == self.recipe.sha256
                and record["AtlasSha256"] == load_atlas(self.recipe.atlas).sha256
                and record["Software"]["esn-federated"] == version("esn-federated")
                and record["MatrixSha256"] == matrix
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(
        self, connectome: Connectome, *, sources: Mapping[str, str], details: Mapping[str, Any]
    ) -> None:
        """Write the matrix, then the record that makes it valid.

        Parameters
        ----------
        connectome : Connectome
        sources : mapping of str to str
        details : mapping
            What else the record should say: stages, response, streamlines.

        """
        text = io.StringIO()
        np.savetxt(text, connectome.counts, fmt="%d", delimiter="\t")
        matrix = text.getvalue().encode()
        record = {
            "Participant": self.participant,
            "RelationshipMeasure": "number of streamlines",
            "Weighted": True,
            "Directed": False,
            "ValidDiagonal": True,
            "StorageFormat": "Full",
            "Atlas": self.recipe.atlas,
            "AtlasSha256": load_atlas(self.recipe.atlas).sha256,
            "Nodes": list(connectome.regions),
            "MatrixSha256": hashlib.sha256(matrix).hexdigest(),
            "Recipe": self.recipe.model_dump(),
            "RecipeSha256": self.recipe.sha256,
            "Sources": dict(sources),
            "Software": {name: version(name) for name in SOFTWARE},
            **details,
        }
        self.matrix.parent.mkdir(parents=True, exist_ok=True)
        self.record.unlink(missing_ok=True)
        write_whole(self.matrix, matrix)
        write_whole(self.record, (json.dumps(record, indent=2) + "\n").encode())


def load_connectome(out: Path, participant: str, recipe: ImagingRecipe) -> Connectome:
    """Read a prepared connectome, if it is what its record says and was made by this recipe.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    participant : str
        With ``sub-``.
    recipe : ImagingRecipe

    Returns
    -------
    Connectome

    Raises
    ------
    DataError
        There is none, it was changed after it was made, or another recipe made it.

    """
    files = Derivative(out, participant, recipe)
    try:
        record = json.loads(files.record.read_text(encoding="utf-8"))
        matrix = files.matrix.read_bytes()
        made_by, digest = record["RecipeSha256"], record["MatrixSha256"]
    except FileNotFoundError as error:
        raise DataError(f"{participant}: no connectome; {Path(error.filename).name} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{participant}: {files.record.name} is not a record of a connectome") from None
    if made_by != recipe.sha256:
        raise DataError(
            f"{participant}: the connectome was made by recipe {str(made_by)[:12]}; the study's recipe is "
            f"{recipe.sha256[:12]}; prepare it again"
        )
    if hashlib.sha256(matrix).hexdigest() != digest:
        raise DataError(f"{participant}: {files.matrix.name} was changed after it was made; prepare it again")
    atlas: Atlas = load_atlas(recipe.atlas)
    return Connectome(np.loadtxt(io.BytesIO(matrix), dtype=np.float64, ndmin=2), atlas.names)


def write_description(out: Path, *, source: Path) -> None:
    """Write the derivative dataset's ``dataset_description.json``, and what validators should pass over."""
    description = {
        "Name": "Structural connectomes",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "esn-client prepare", "Version": version("esn-federated")}],
        "SourceDatasets": [{"URL": source.resolve().as_uri()}],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "dataset_description.json", (json.dumps(description, indent=2) + "\n").encode())
    # Relation matrices are a proposal (BEP017), which the validator does not know yet.
    write_whole(out / ".bidsignore", b"*_relmat.*\n")
