"""Provenance: what a connectome depends on besides its scan and its recipe.

Each step that makes numbers has a version, a whole number that we raise by
hand. The rule: a change after which a step may give other numbers from the
same inputs raises its version in the same commit; a step that is added raises
the version of the step that follows it. Moving, renaming or speeding up code
that gives the same numbers raises nothing, nor does a release. Versions are
compared in two places: stages on disk are used again, and connectomes are
current, only while the versions that made them are today's.

tests/golden/derivative holds a connectome of version 1 of all steps:
a change that forgot to raise a version is seen there.
"""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

STAGE_VERSIONS = {
    "denoise": 1,
    "gibbs": 2,
    "motion": 3,
    "bias": 1,
    "tensor": 2,
    "gradients": 3,
    "response": 1,
    "responses": 1,
    "fodf": 1,
    "labels": 4,
    "parcellation": 2,
    "tracking": 1,
}
"""Of the steps whose results are kept on disk while a subject is made."""

STEP_VERSIONS = {
    "scan": 3,
    "matrices": 2,
    "quality": 2,
}
"""Of what is done before and after the stages: reading a scan, adding up streamlines, measuring quality."""

SOFTWARE = ("dipy", "nibabel", "numpy", "scipy")
"""Another release of one of these may make another result: stages on disk are not used across them."""

CODE_OF_VERSION_1 = (
    # The flat modules of esn_client/imaging at 7257ccb, and at 12c8853, the last commit before they moved
    # into folders: between the two, files are found and workers ended in other ways, and every step computes
    # the same.
    "c23f29efbf76358956a4ed083b6f72c9cea3197c709e017db0a0a5009daf8c0a",
    "78a65c5a7e1f2a486141cd9b521eeb37e82a1466a5956d1071c209e86a6ad228",
)
"""Digests of the code that records of derivative format 1 name, where it gives version 1 of every step."""


def version_of(stage: str) -> int:
    """Give a stage's version.

    Raises
    ------
    KeyError
        The stage has none: whoever adds a stage gives it a version.

    """
    if stage not in STAGE_VERSIONS:
        raise KeyError(f"stage '{stage}' has no version in STAGE_VERSIONS")
    return STAGE_VERSIONS[stage]


def versions_of(stages: Iterable[str]) -> dict[str, int]:
    """Give today's versions of all steps behind a connectome; none where no stage made it.

    Parameters
    ----------
    stages : iterable of str
        The stages that ran, or were found on disk.

    """
    found = {stage: version_of(stage) for stage in stages}
    return STEP_VERSIONS | found if found else {}


@cache
def versions_of_software() -> dict[str, str]:
    """Give the releases of `SOFTWARE` that run here."""
    return {name: version(name) for name in SOFTWARE}
