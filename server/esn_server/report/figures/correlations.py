"""The figure of correlations: the federation beside pooling, one site alone, other sites, and chance."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from esn_core.figures.drawing import BLUE, GREEN, GREY, INK, VERMILLION, Drawing, draw, style
from esn_server.report.analyses import Correlation
from esn_server.report.result import Evaluation, StudyResult
from esn_server.report.verdict import likely_r
from esn_server.report.wording import fixed, interval

_ROW_INCHES = 0.3


@dataclass(frozen=True)
class Line:
    """One correlation with its interval; `simulated` where it is of no release of the study."""

    label: str
    r: float | None
    interval: tuple[float, float] | None
    colour: str
    simulated: bool = False


def correlations(result: StudyResult, *, no_noise: StudyResult | None) -> Drawing:
    """Draw every correlation of a study with its 95 % interval, the privacy noise included.

    Returns
    -------
    Drawing
        One row for each; a correlation that is undefined has words in place of a marker.

    """
    lines = lines_of(result, no_noise=no_noise)
    with style():
        figure = Figure(figsize=(7.4, 0.9 + _ROW_INCHES * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for row, line in enumerate(lines):
            if line.interval is not None:
                axes.plot(line.interval, (row, row), color=line.colour, linewidth=1.6, solid_capstyle="butt")
            if line.r is not None:
                axes.plot([line.r], [row], marker="o", color=line.colour, markersize=6)
            else:
                axes.text(0.02, row, "undefined", va="center", color=GREY, fontsize=8)
        axes.set_yticks(range(len(lines)), [line.label for line in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(-1, 1)
        axes.set_xlabel("r of predicted and clinical (or drawn) GASE", color=INK)
        axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{line.label}: {fixed(line.r, 2)} {interval(line.interval)}" for line in lines)
    return draw(figure, name="correlations", alt=f"Correlations with 95 % intervals. {said}.")


def lines_of(result: StudyResult, *, no_noise: StudyResult | None) -> list[Line]:
    """Return the rows of the figure, in order."""
    found = result.evaluation
    lines = [_line("this study, held-out children", found, BLUE)]
    if no_noise is not None:
        lines.append(_line("the same without noise", no_noise.evaluation, GREEN))
    for study, suffix, colour in ((result, "", BLUE), (no_noise, ", no noise", GREEN)):
        if study is None:
            continue
        if study.cross_site is not None:
            lines.append(_line(f"unseen sites{suffix}", study.cross_site.together, colour))
        if study.cross_validation is not None:
            lines.append(_line(f"cross-validation{suffix}", study.cross_validation, colour))
    if result.local_only is not None:
        alone = result.local_only
        lines.append(Line("pooled, in simulation", alone.pooled_r, alone.pooled_r_interval, INK, True))
        lines += [
            Line(f"   {site.site} alone, in simulation", site.r, site.r_interval, INK, True)
            for site in alone.by_site
        ]
    for study, suffix in ((result, ""), (no_noise, ", no noise")):
        if study is not None and study.random_score is not None:
            lines += [
                _line(f"random scores, draw {number}{suffix}", draw, VERMILLION)
                for number, draw in enumerate(study.random_score.draws, start=1)
            ]
    if result.random_score is not None and result.random_score.simulated is not None:
        chance = result.random_score.simulated
        label = f"{chance.times} permutations, in simulation"
        lines.append(Line(label, chance.mean, chance.interval, VERMILLION, True))
    return lines


def _line(label: str, found: Evaluation | Correlation, colour: str) -> Line:
    likely = likely_r(found)
    return (
        Line(label, None, None, colour)
        if likely is None
        else Line(label, likely.value, likely.interval, colour)
    )
