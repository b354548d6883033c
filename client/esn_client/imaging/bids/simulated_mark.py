"""The mark by which a dataset says that its people do not exist.

A rehearsal and a study of patients look alike: the same table, the same labels. Their budgets are kept apart
by what the protocol says, and this mark shows that it says so of the right people.
"""

import json
from pathlib import Path

SIMULATOR = "esn-client simulate"
"""Among a dataset's `GeneratedBy` or its `Authors`, as `dataset_description.json` says."""


def is_simulated(dataset: Path) -> bool:
    """Tell whether a dataset says that its people are simulated; one that says nothing is of real people."""
    try:
        said = json.loads((dataset / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(said, dict):
        return False
    makers = said.get("GeneratedBy") if isinstance(said.get("GeneratedBy"), list) else []
    authors = said.get("Authors") if isinstance(said.get("Authors"), list) else []
    return SIMULATOR in authors or any(isinstance(m, dict) and m.get("Name") == SIMULATOR for m in makers)


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
