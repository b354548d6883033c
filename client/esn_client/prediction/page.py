"""Pages of predictions: one child on one printed page, and many in one table; each file asks for no other."""

from collections.abc import Sequence
from dataclasses import dataclass

from esn_client.prediction.findings import RESEARCH_USE, Driver, Prediction, Risk
from esn_client.prediction.personal_findings import Edge, PersonalFindings
from esn_core.connectome.atlas import Atlas
from esn_core.figures.brain import Wording, glass_brain
from esn_core.gase import GASE_LEVELS
from esn_core.released_model.archive import ReleasedModel
from esn_core.system.pages import templates_of

DRAWN = 15
"""Connections on the brain and, the first six, in the table: the page prints on one sheet."""
_LISTED = 6
_WORDS = Wording(
    what="What drives the prediction", negative="towards less severe", positive="towards more severe"
)


_OF_NETWORK = Wording(
    what="The hospital's own severity network",
    negative="weaker in severe epilepsy",
    positive="stronger in severe epilepsy",
)


@dataclass(frozen=True)
class _Shown:
    edges: Sequence[Driver] | Sequence[Edge]


def page_of(found: Prediction, model: ReleasedModel) -> str:
    """Return a child's page, HTML."""
    atlas = model.protocol.atlas
    drawn = _Shown([driver for driver in found.drivers[:DRAWN] if driver.weight])
    return _rendered(
        "child.html.j2",
        found=found,
        content=model.content,
        brain=glass_brain(drawn, atlas, words=_WORDS),
        listed=found.drivers[:_LISTED],
        rest=sum(driver.weight for driver in found.drivers[_LISTED:]),
    )


def table_of(found: Sequence[Prediction], model: ReleasedModel) -> str:
    """Return the table of many children, HTML."""
    outcomes = list(dict.fromkeys(risk.outcome for one in found for risk in one.risks))
    first: list[dict[str, Risk]] = [{risk.outcome: risk for risk in reversed(one.risks)} for one in found]
    rows = sorted(zip(found, first, strict=True), key=lambda row: -row[0].predicted_gase)
    return _rendered("children.html.j2", rows=rows, outcomes=outcomes, content=model.content)


def personal_page(found: PersonalFindings, atlas: Atlas) -> str:
    """Return the page of a hospital's personal model, HTML."""
    heaviest = _Shown([edge for edge in found.edges[:DRAWN] if edge.weight])
    held_out = "own held-out"
    return _rendered(
        "personal.html.j2",
        found=found,
        rows=[
            ("this personal model", held_out, found.personal),
            ("the consortium’s model", held_out, found.consortium),
            ("this model without partners", held_out, found.alone),
            ("this personal model", "cross-validated", found.cross_validated),
        ],
        brain=glass_brain(heaviest, atlas, words=_OF_NETWORK),
        listed=found.edges[:_LISTED],
    )


def _rendered(name: str, **given: object) -> str:
    templates = templates_of("esn_client.prediction")
    templates.filters["fixed"] = _fixed
    templates.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "−")
    templates.filters["percent"] = lambda value: f"{100 * value:.0f} %"
    templates.filters["place"] = _place
    return templates.get_template(name).render(warning=RESEARCH_USE, levels=GASE_LEVELS, **given)


def _fixed(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _place(gase: float) -> str:
    """Return where a GASE lies on its scale, in percent of its length."""
    low, high = GASE_LEVELS[0], GASE_LEVELS[-1]
    return f"{100 * (gase - low) / (high - low):.2f}"
