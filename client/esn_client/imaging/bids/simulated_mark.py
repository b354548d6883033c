"""The mark by which a dataset says that its people do not exist.

A rehearsal and a study of patients look alike: the same table, the same labels. Their budgets are kept apart
by what the protocol says, and this mark shows that it says so of the right people.
"""

import json
from pathlib import Path
from typing import Any

SIMULATOR = "esn-client simulate"
"""Among a dataset's `GeneratedBy` or its `Authors`, as `dataset_description.json` says."""


def is_simulated(dataset: Path) -> bool:
    """Tell whether a dataset says that its people are simulated; one that says nothing is of real people."""
    try:
        said = json.loads((dataset / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    makers = _list_in(said, "GeneratedBy")
    names = [maker.get("Name") for maker in makers if isinstance(maker, dict)]
    return SIMULATOR in [*_list_in(said, "Authors"), *names]


def _list_in(said: object, name: str) -> list[Any]:
    """Return a list that a description holds; an empty one where it holds something else."""
    found = said.get(name) if isinstance(said, dict) else None
    return found if isinstance(found, list) else []


def misfit(simulated_people: bool, simulated_study: bool) -> str | None:
    """Say why a study is not for a dataset's people; None where it is.

    Parameters
    ----------
    simulated_people : bool
        What the dataset says.
    simulated_study : bool
        What the protocol says.

    """
    if simulated_people == simulated_study:
        return None
    if simulated_study:
        return (
            "the protocol is for simulated children, and the site's dataset is not marked as simulated: a "
            f"rehearsal is of people made by '{SIMULATOR}' (dataset_description.json, GeneratedBy)"
        )
    return (
        f"the protocol is for real patients, and the site's dataset is marked as made by '{SIMULATOR}' "
        "(dataset_description.json): give the hospital's own dataset in the settings"
    )
