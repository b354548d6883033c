"""The figure of one impairment: its ROC curves, calibration and net benefit, clinical beside predicted."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esn_core.figures.drawing import BLUE, GREY, INK, VERMILLION, Drawing, draw, style
from esn_core.protocol.analyses import SEVERITIES
from esn_server.report.analyses import Estimated
from esn_server.report.figures.scores import FEW_CHILDREN
from esn_server.report.impairment import ModelSummary, NeurocognitionSummary
from esn_server.report.wording import fixed, interval

_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)
_DASHED = (0, (4, 3))
_DOTTED = (0, (1, 2))
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9-]")
"""What a name may not hold that becomes a file's."""
_SAID_FROM = (0.2, 0.5)
"""Thresholds whose net benefit stands in the words for those who cannot see the figure."""


@dataclass(frozen=True)
class _Curve:
    """One model with how it is drawn."""

    model: ModelSummary
    label: str
    colour: str
    marker: str


def impairments(found: NeurocognitionSummary) -> dict[str, Drawing]:
    """Draw each impairment that a model of the report's comparisons has curves of.

    Parameters
    ----------
    found : NeurocognitionSummary

    Returns
    -------
    dict of str to Drawing
        By the names of their files, in the order of the models. Of each impairment the models of its primary
        comparison are drawn, or of its first one; one whose curves are all lost in the noise has no figure.

    """
    drawn = {}
    for number, outcome in enumerate(dict.fromkeys(model.outcome for model in found.models), start=1):
        curves = [c for c in _rivals(found, outcome) if c.model.roc or _groups(c) or _benefits(c)]
        if curves:
            drawing = _impairment(curves, found.called_impaired_from, name=f"impairment-{number}")
            drawn[f"impairment_{number}_{_NOT_IN_A_NAME.sub('', outcome)}"] = drawing
    return drawn


def _rivals(found: NeurocognitionSummary, outcome: str) -> list[_Curve]:
    """Return the models of the comparison of an impairment, the clinical severity first."""
    contests = sorted((c for c in found.contests if c.outcome == outcome), key=lambda c: not c.primary)
    others = contests[0].others if contests else []
    besides = f" with {', '.join(others)}".replace("_", " ") if others else ""
    return [
        _Curve(model, f"{words} severity{besides}", colour, marker)
        for severity, words, colour, marker in zip(
            SEVERITIES, ("clinical", "predicted"), (VERMILLION, BLUE), "so", strict=True
        )
        for model in found.models
        if model.outcome == outcome and set(model.predictors) == {severity, *others}
    ]


def _impairment(curves: Sequence[_Curve], called_from: float | None, *, name: str) -> Drawing:
    panels: tuple[tuple[Callable[[Axes, Sequence[_Curve]], bool], str], ...] = (
        (_roc, "ROC"),
        (_calibration, "Calibration"),
        (_net_benefit, "Decision curve"),
    )
    outcome = curves[0].model.outcome
    with style():
        figure = Figure(figsize=(9.0, 3.9), layout="constrained")
        figure.suptitle(f"{outcome.capitalize()} impairment", x=0.01, ha="left", fontsize=11)
        for axes, (panel, title) in zip(figure.subplots(1, 3), panels, strict=True):
            axes.set_box_aspect(1)
            if not panel(axes, curves):
                axes.clear()
                axes.text(
                    0.5, 0.5, "lost in the noise,\nor not computed", ha="center", va="center", color=GREY
                )
                axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
            elif panel is _net_benefit and called_from is not None:
                axes.axvline(called_from, color=GREY, linewidth=1.2, linestyle=_DOTTED)
            axes.set_title(title, fontsize=10, loc="left", color=INK)
        marks = [axes.plot([], [], color=c.colour, marker=c.marker, label=c.label)[0] for c in curves]
        figure.legend(
            handles=marks, loc="outside lower left", ncols=1 if len(marks[0].get_label()) > 40 else 2
        )
        return draw(figure, name=name, alt=_in_words(curves), note=_note(curves, called_from))


def _roc(axes: Axes, curves: Sequence[_Curve]) -> bool:
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=_DASHED)
    drawn = [curve for curve in curves if curve.model.roc]
    for row, curve in enumerate(reversed(drawn)):
        axes.plot(
            [point.false_positive_rate for point in curve.model.roc],
            [point.true_positive_rate for point in curve.model.roc],
            color=curve.colour,
            linewidth=1.6,
            marker=curve.marker,
            markersize=2.5,
        )
        area = f"area {fixed(curve.model.auc, 2)} ({interval(curve.model.auc_interval, 2)})"
        axes.text(1.0, 0.03 + 0.09 * row, area, color=curve.colour, ha="right", fontsize=8)
    _shares(axes, "1 − specificity", "sensitivity")
    return bool(drawn)


def _calibration(axes: Axes, curves: Sequence[_Curve]) -> bool:
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=_DASHED)
    for curve in curves:
        for predicted, observed, ends, children in _groups(curve):
            axes.plot((predicted, predicted), ends, color=curve.colour, linewidth=1.2)
            axes.plot(
                [predicted],
                [observed],
                marker=curve.marker,
                color=curve.colour,
                markersize=5.5,
                markerfacecolor="white" if children < FEW_CHILDREN else curve.colour,
            )
    _shares(axes, "predicted probability", "share with the impairment")
    return any(_groups(curve) for curve in curves)


def _net_benefit(axes: Axes, curves: Sequence[_Curve]) -> bool:
    drawn = [curve for curve in curves if _benefits(curve)]
    if not drawn:
        return False
    highest = 0.0
    for curve in drawn:
        points = _benefits(curve)
        at = [threshold for threshold, _, _ in points]
        benefit = [100 * found.value for _, found, _ in points]
        low, high = zip(*(found.interval for _, found, _ in points), strict=True)
        axes.fill_between(at, [100 * x for x in low], [100 * x for x in high], color=curve.colour, alpha=0.12)
        axes.plot(
            at, benefit, color=curve.colour, linewidth=1.6, marker=curve.marker, markersize=2.5, zorder=3
        )
        highest = max(highest, *benefit)
    everyone = [(threshold, 100 * of_all) for threshold, _, of_all in _benefits(drawn[0])]
    highest = max(highest, *(benefit for _, benefit in everyone), 1.0)
    axes.plot(*zip(*everyone, strict=True), color=INK, linewidth=1, linestyle=_DASHED)
    axes.axhline(0, color=INK, linewidth=1)
    axes.text(1.0, -0.02 * highest, "nobody", ha="right", va="top", fontsize=8)
    lowest = next((threshold for threshold, benefit in everyone if benefit < -0.3 * highest), 0.0)
    axes.text(lowest + 0.02, -0.32 * highest, "everybody", ha="left", va="bottom", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.35 * highest, 1.15 * highest))
    axes.set(xticks=_TICKS, xlabel="called impaired from", ylabel="net benefit, a hundred children")
    return True


def _shares(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, xticks=_TICKS, yticks=_TICKS)


def _groups(curve: _Curve) -> list[tuple[float, float, tuple[float, float], float]]:
    """Return predicted and observed share, its interval and the children of each group that has them."""
    return [
        (group.predicted, group.observed, group.interval or (group.observed, group.observed), group.children)
        for group in curve.model.calibration
        if group.predicted is not None and group.observed is not None and group.children is not None
    ]


def _benefits(curve: _Curve) -> list[tuple[float, Estimated, float]]:
    """Return threshold, net benefit and that of calling everybody, where noise left both."""
    return [
        (point.threshold, point.net_benefit, point.net_benefit_of_all)
        for point in sorted(curve.model.operating_points, key=lambda point: point.threshold)
        if point.net_benefit is not None and point.net_benefit_of_all is not None
    ]


def _note(curves: Sequence[_Curve], called_from: float | None) -> str:
    known = [group for curve in curves for group in _groups(curve)]
    notes = []
    if any(children < FEW_CHILDREN for *_, children in known):
        notes.append(f"Hollow: a group of fewer than {FEW_CHILDREN:g} children.")
    if len(known) < sum(len(curve.model.calibration) for curve in curves):
        notes.append("Groups of too few children are left out.")
    if called_from is not None:
        notes.append("Dotted: the probability from which the protocol would call a child impaired.")
    return " ".join(notes)


def _in_words(curves: Sequence[_Curve]) -> str:
    said = []
    for curve in curves:
        model = curve.model
        parts = [f"area {fixed(model.auc, 2, 'not known')}"]
        if groups := _groups(curve):
            pairs = ", ".join(f"{fixed(p, 2)} and {fixed(o, 2)}" for p, o, *_ in groups)
            parts.append(f"predicted and observed share {pairs}")
        parts += [
            f"net benefit from {fixed(threshold, 2)} on {fixed(100 * found.value, 1)} "
            f"a hundred children, of all {fixed(100 * of_all, 1)}"
            for threshold, found, of_all in _benefits(curve)
            if any(abs(threshold - at) < 1e-9 for at in _SAID_FROM)
        ]
        said.append(f"{curve.label.capitalize()}: {'; '.join(parts)}.")
    return f"{curves[0].model.outcome.capitalize()} impairment. {' '.join(said)}"
