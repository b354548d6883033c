"""What stands beside a report: numbers as CSV, figures as SVG, the network in 3-D, one page in short."""

import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esn_core.connectome.atlas import Atlas
from esn_core.system.files import write_whole
from esn_core.system.pages import templates_of
from esn_server.report.figures.shown import Shown
from esn_server.report.paragraphs import headline
from esn_server.report.result import StudyResult
from esn_server.report.tables import tables_of
from esn_server.report.verdict import privacy_in_words
from esn_server.report.wording import fixed, interval, signed

TABLES, FIGURES, NETWORK, SUMMARY = "tables", "figures", "network.html", "summary.html"
MOST_EDGES = 120
"""In 3-D; more hide each other."""
_LABELS = {'<select id="select-view"': "Seen from", '<input id="opacity-range"': "Opacity of the brain"}
"""Of the controls of nilearn's page."""
_SIMULATED = (
    "<p><strong>Simulated children.</strong> "
    "The figure shows how the method behaves; it is no evidence about patients.</p>"
)
_NAMESPACES = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def write_beside(
    result: StudyResult, atlas: Atlas, figures: Mapping[str, Shown], directory: Path
) -> list[Path]:
    """Write everything beside a report; return the files.

    Parameters
    ----------
    result : StudyResult
    atlas : Atlas
        Holds every region that the severity network names.
    figures : dict of str to Shown
        Those of the page.
    directory : Path

    """
    files = {directory / TABLES / f"{name}.csv": text for name, text in tables_of(result).items()}
    for name, shown in figures.items():
        svg = shown.drawing.svg.replace("<svg", _NAMESPACES, 1)
        files[directory / FIGURES / f"{name}.svg"] = f"{svg}\n"
    files[directory / SUMMARY] = summary_text(result, figures)
    if result.severity_network.edges:
        files[directory / NETWORK] = network_text(result, atlas)
    for path, text in files.items():
        write_whole(path, text.encode())
    return list(files)


def network_text(result: StudyResult, atlas: Atlas) -> str:
    """Return a page with the network in 3-D, to be turned by hand; it asks for no other file."""
    from nilearn.plotting import view_connectome  # takes seconds to load

    place = {name: i for i, name in enumerate(atlas.names)}
    matrix = np.zeros((len(atlas.names),) * 2)
    for edge in sorted(result.severity_network.edges, key=lambda edge: -abs(edge.weight))[:MOST_EDGES]:
        a, b = place[edge.region_a], place[edge.region_b]
        matrix[a, b] = matrix[b, a] = edge.weight
    view = view_connectome(
        matrix,
        atlas.centroids_mm,
        linewidth=4.0,
        node_size=4.0,
        node_color="black",
        title="Severity network: blue is weaker when severe, red stronger",
    )
    return _with_landmarks(view.get_standalone(), result)


def _with_landmarks(page: str, result: StudyResult) -> str:
    """Give nilearn's page its language, a main part, a heading, whose children, and labelled controls."""
    head, start, body = page.replace("<html>", '<html lang="en">', 1).rpartition("<body>")
    body = body.replace("</body>", "</main></body>")
    for control, label in _LABELS.items():
        body = body.replace(control, f"<label>{label} {control}")
    body = body.replace("</select>", "</select></label>").replace('value="30" />', 'value="30" /></label>')
    study = html.escape(result.study)
    notice = _SIMULATED if result.simulated else ""
    return f"{head}{start}<main><h1>Severity network in 3-D: study {study}</h1>{notice}{body}"


def summary_text(result: StudyResult, figures: Mapping[str, Shown]) -> str:
    """Return one page for a steering committee."""
    templates = templates_of("esn_server.report")
    templates.filters |= {"fixed": fixed, "interval": interval, "signed": signed}
    edges = sorted(result.severity_network.edges, key=lambda edge: -abs(edge.weight))
    return templates.get_template("summary.html.j2").render(
        result=result,
        headline=headline(result.evaluation),
        privacy_sentence=privacy_in_words(result.privacy),
        brain=figures["severity_network_brain"].drawing,
        prediction=figures["prediction"].drawing,
        strongest=edges[:5],
    )
