"""A list of candidates from this site's controls: for a study to take as public, before it asks anybody.

Controls alone are read; no child with epilepsy is. The list tells of them: of few controls, one who lacks an
edge keeps it out of the list.
"""

from collections.abc import Sequence
from pathlib import Path

from esn_client.cohort.members import strengths_in
from esn_client.cohort.participants import Participant
from esn_client.cohort.scoring import mean_over_visits
from esn_client.imaging.quality.site_table import read_exclusions
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.severity_network.candidate_list import CandidateList, Origin, pairs_of, present_in_most

FEWEST_CONTROLS = 10
"""With fewer, what one of them has decides too much of the list."""


def candidates_of_controls(
    participants: Sequence[Participant], derivatives: Path, recipe: ImagingRecipe, *, note: str
) -> CandidateList:
    """List the edges that nearly all controls of a cohort have.

    Parameters
    ----------
    participants : sequence of Participant
    derivatives : Path
        Their connectomes, by the recipe.
    recipe : ImagingRecipe
    note : str
        Whose cohort it is, for everybody who reads the list.

    Raises
    ------
    DataError
        Fewer than ten controls have a usable connectome, or they have no edge in common.

    """
    excluded = read_exclusions(derivatives, recipe)
    found = [
        strengths_in(derivatives, recipe, person.label, excluded)
        for person in participants
        if person.group == "control"
    ]
    usable = [visits for visits in found if visits]
    if len(usable) < FEWEST_CONTROLS:
        raise DataError(
            f"{len(usable)} controls have a usable connectome by this recipe; {FEWEST_CONTROLS} or more make "
            "a list that does not hang on one of them"
        )
    atlas = recipe.parcellation
    chosen = present_in_most(mean_over_visits(usable))
    if not chosen.any():
        raise DataError(f"no edge has streamlines in nearly all of the {len(usable)} controls")
    return CandidateList(
        format=1,
        atlas=recipe.atlas,
        recipe_sha256=recipe.sha256,
        origin=Origin(kind="prepared", people=len(usable), note=note),
        pairs=tuple(pairs_of(atlas, chosen)),
    )
