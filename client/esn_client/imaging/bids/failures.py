"""Failures: why visits have no connectome, kept beside those that have one."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from esn_client.imaging.bids.visits import segmentation_of
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.system.files import write_whole


@dataclass(frozen=True)
class Failure:
    """Why one visit has no connectome.

    Attributes
    ----------
    visit : str
        Label of the participant, and of the session if there is one.
    error_class : str
        ``DataError`` for files that cannot be used; anything else is worth a report to us.
    message : str
        One line; stays at the site, it may hold paths.

    """

    visit: str
    error_class: str
    message: str


def keep_failure(out: Path, recipe: ImagingRecipe, visit: str, failure: Failure | None) -> None:
    """Write down why a visit failed the last time, or that it did not.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe
    visit : str
        Its label.
    failure : Failure or None
        None where it was prepared.

    """
    path = out / f"{visit}_{_name(recipe)}"
    with suppress(OSError):  # a full disk fails visits, and must not end the others
        if failure is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, (json.dumps(asdict(failure), indent=2) + "\n").encode())


def read_failures(out: Path, recipe: ImagingRecipe) -> list[Failure]:
    """Read which visits failed the last time that they were tried.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe
        Failures with other atlases are passed over.

    Returns
    -------
    list of Failure
        By visit.

    """
    failures = []
    for path in sorted(out.glob(f"sub-*_{_name(recipe)}")):
        label = path.name.removesuffix(f"_{_name(recipe)}")
        try:
            found = Failure(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            found = Failure(label, "DataError", f"{path.name} cannot be read; prepare the visit again")
        failures.append(found)
    return failures


def _name(recipe: ImagingRecipe) -> str:
    return f"seg-{segmentation_of(recipe.atlas)}_failure.json"
