"""The page: report.html, one self-contained file for a methods reviewer and a coordinator."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from esn_core.connectome.atlas import Atlas
from esn_core.protocol.phases import PHASES
from esn_core.system.files import write_whole
from esn_core.system.pages import templates_of
from esn_server.report.figures.shown import Shown, figures_of
from esn_server.report.figures.stability import stable_edges
from esn_server.report.paragraphs import REFERENCES, headline, methods, results
from esn_server.report.result import NetworkEdge, StudyResult
from esn_server.report.verdict import likely_r, prediction_in_words, privacy_in_words
from esn_server.report.wording import chance, count, fixed, interval, signed

STRONGEST = 12
"""Edges in the table that is always open; the table below it, folded, holds all of them."""


def write_page(
    result: StudyResult, figures: Mapping[str, Shown], path: Path, *, no_noise: StudyResult | None = None
) -> None:
    """Write report.html.

    Parameters
    ----------
    result : StudyResult
        What the page tells.
    figures : dict of str to Shown
        As `figures_of` draws them, of the same studies.
    path : Path
        The file; it is replaced in one step once the new content is on disk.
    no_noise : StudyResult, optional
        The same study run without privacy noise, set beside `result` to show what privacy costs.

    """
    write_whole(path, _text(result, figures, no_noise).encode())


def page_text(result: StudyResult, atlas: Atlas, *, no_noise: StudyResult | None = None) -> str:
    """Draw the figures, and return the HTML that `write_page` writes; see there."""
    return _text(result, figures_of(result, atlas, no_noise=no_noise), no_noise)


def _text(result: StudyResult, figures: Mapping[str, Shown], no_noise: StudyResult | None) -> str:
    templates = templates_of("esn_server.report")
    templates.filters["fixed"] = fixed
    templates.filters["signed"] = signed
    templates.filters["interval"] = interval
    templates.filters["chance"] = chance
    templates.filters["count"] = count
    templates.filters["likely_r"] = likely_r
    templates.filters["ordered"] = ordered
    templates.filters["ranked"] = lambda rows: list(enumerate(rows, start=1))
    exact = result.exact_network or (no_noise.exact_network if no_noise is not None else None)
    edges = sorted(result.severity_network.edges, key=lambda edge: -abs(edge.weight))
    return templates.get_template("page.html.j2").render(
        result=result,
        no_noise=no_noise,
        phases=PHASES,
        edges=edges,
        strongest=edges[:STRONGEST],
        likely=likely_r(result.evaluation),
        headline=headline(result.evaluation),
        methods=methods(result),
        results=results(result),
        references=REFERENCES,
        flow=_flow(result),
        verdict=prediction_in_words(result.evaluation),
        privacy_sentence=privacy_in_words(result.privacy),
        figures=figures,
        exact_network=exact,
        stable=0 if exact is None else stable_edges(exact),
        shared=_shared(result.severity_network.edges, no_noise.severity_network.edges) if no_noise else 0,
    )


def ordered(rows: Sequence[tuple[int, object]], fields: str, *, descending: bool) -> list[tuple[int, object]]:
    """Return ranked rows by fields of theirs, first to last or last to first; what has no value comes last.

    Parameters
    ----------
    rows : sequence of (int, object)
    fields : str
        Names, parted by spaces; without any, the rank.
    descending : bool

    """

    def key(row: tuple[int, object]) -> tuple[object, ...]:
        return tuple(getattr(row[1], name) for name in fields.split()) or (row[0],)

    known = [row for row in rows if None not in key(row)]
    return [*sorted(known, key=key, reverse=descending), *(row for row in rows if None in key(row))]


def _shared(edges: list[NetworkEdge], others: list[NetworkEdge]) -> int:
    pairs = {frozenset((edge.region_a, edge.region_b)) for edge in edges}
    return len(pairs & {frozenset((edge.region_a, edge.region_b)) for edge in others})


def _flow(result: StudyResult) -> list[tuple[str, float, float | None]]:
    """Return how many children the largest model of each impairment has, and how many it lacks."""
    found: dict[str, tuple[str, float, float | None]] = {}
    for model in result.neurocognition.models if result.neurocognition is not None else ():
        if model.children is not None and model.children > found.get(model.outcome, ("", 0.0, None))[1]:
            found[model.outcome] = (model.outcome, model.children, model.left_out)
    return list(found.values())
