"""The figures that a report shows, in one list: the page and the folder beside it take them from here."""

from dataclasses import dataclass

from esn_core.connectome.atlas import Atlas
from esn_core.figures.brain import connectogram, glass_brain
from esn_core.figures.drawing import Drawing
from esn_server.report.figures.correlations import correlations
from esn_server.report.figures.forest import forest
from esn_server.report.figures.impairment import impairments
from esn_server.report.figures.scores import learning_curve, predicted_against_clinical, price_by_phase
from esn_server.report.figures.stability import stability
from esn_server.report.result import StudyResult


@dataclass(frozen=True)
class Shown:
    """One figure of a report.

    Attributes
    ----------
    number : str
        On the page, such as 2, or 2b for the second figure of one subject.
    drawing : Drawing

    """

    number: str
    drawing: Drawing


def figures_of(result: StudyResult, atlas: Atlas, *, no_noise: StudyResult | None = None) -> dict[str, Shown]:
    """Draw every figure that a result has the numbers of.

    Parameters
    ----------
    result : StudyResult
    atlas : Atlas
        Holds every region that the severity network names.
    no_noise : StudyResult, optional
        The same study run without privacy noise, where the report sets it beside `result`.

    Returns
    -------
    dict of str to Shown
        By the names of their files, in the order of their numbers.

    Raises
    ------
    ProtocolError
        The severity network names a region that `atlas` does not have.

    """
    studies = [study for study in (result, no_noise) if study is not None]
    exact = next((study.exact_network for study in studies if study.exact_network is not None), None)
    crossed = next(
        (study.cross_site for study in studies if study.cross_site and study.cross_site.by_site), None
    )
    compared = (result.cross_site, result.cross_validation, result.random_score, result.local_only)
    network, impaired = result.severity_network, result.neurocognition
    subjects: list[dict[str, Drawing | None]] = [
        {"privacy_price": price_by_phase(result.privacy)},
        {
            "prediction": predicted_against_clinical(result.evaluation),
            "prediction_without_noise": None
            if no_noise is None
            else predicted_against_clinical(no_noise.evaluation, name="exact"),
        },
        {"severity_network_brain": glass_brain(network, atlas)},
        {
            "severity_network_circle": connectogram(network, atlas),
            "stability": None if exact is None else stability(exact),
        },
        {
            "correlations": correlations(result, no_noise=no_noise) if any(compared) else None,
            "forest": None if crossed is None else forest(crossed),
        },
        {} if impaired is None else {**impairments(impaired)},
        {"learning_curve": learning_curve(result.learning_curve) if result.learning_curve else None},
    ]
    return _numbered(subjects)


def _numbered(subjects: list[dict[str, Drawing | None]]) -> dict[str, Shown]:
    """Give each subject with a figure the next number, and its further figures letters."""
    found: dict[str, Shown] = {}
    number = 0
    for subject in subjects:
        drawn = {name: drawing for name, drawing in subject.items() if drawing is not None}
        number += bool(drawn)
        for name, letter in zip(drawn, " bcdefghijklmnopqrstuvwxyz", strict=False):
            found[name] = Shown(f"{number}{letter.strip()}", drawn[name])
    return found
