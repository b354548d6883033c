"""The figures of scores, losses and prices."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from esn_core.figures.drawing import BLUE, GREEN, GREY, INK, PALE, VERMILLION, Drawing, draw, style
from esn_server.report.result import Evaluation, GaseBin, PrivacySummary, RoundLoss
from esn_server.report.wording import fixed

FEW_CHILDREN = 5.0
"""Below this released count a step's mean and sd say little; its marker is hollow."""

_AXIS = (0.5, 7.5)
_MARKER_POINTS2_PER_CHILD = 16.0


def predicted_against_clinical(evaluation: Evaluation, *, name: str = "prediction") -> Drawing:
    """Draw mean and sd of the prediction at each step of clinical GASE.

    Parameters
    ----------
    evaluation : Evaluation
        The binned sums; no point is a child.
    name : str
        Prefix of the identifiers in the SVG.

    Returns
    -------
    Drawing
        One marker per step that has a mean, its area proportional to the released count, hollow below
        `FEW_CHILDREN`. Steps without a mean are left out; the note names them.

    """
    rows = sorted(evaluation.by_gase, key=lambda row: row.gase)
    exact = evaluation.r_noise_sd == 0
    with style():
        figure = Figure(figsize=(5.6, 5.2), layout="constrained")
        axes = figure.add_subplot(aspect="equal")
        axes.plot(_AXIS, _AXIS, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.text(
            7.3,
            7.1,
            "prediction = score",
            color=GREY,
            ha="right",
            va="top",
            fontsize=8,
            rotation=45,
            rotation_mode="anchor",
        )
        for row in rows:
            if row.mean_prediction is None:
                continue
            few = row.children < FEW_CHILDREN
            if row.sd_prediction is not None:
                axes.errorbar(
                    row.gase,
                    row.mean_prediction,
                    yerr=row.sd_prediction,
                    color=BLUE,
                    linewidth=1.2,
                    capsize=4,
                    zorder=2,
                )
            axes.scatter(
                row.gase,
                row.mean_prediction,
                s=_MARKER_POINTS2_PER_CHILD * max(row.children, 1.0),
                facecolor="white" if few else BLUE,
                edgecolor=BLUE,
                linewidth=1.4,
                zorder=3,
                gid=f"level-{row.gase}",
            )
        for row in rows:
            axes.annotate(
                f"n = {row.children:.0f}" if exact else f"n ≈ {fixed(row.children, 1)}",
                (row.gase, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK if row.mean_prediction is not None else GREY,
            )
        axes.set(
            xlim=_AXIS,
            ylim=(_AXIS[0] - 0.4, _AXIS[1]),
            xticks=range(1, 8),
            yticks=range(1, 8),
            xlabel="clinical GASE",
            ylabel="predicted GASE, mean ± sd",
        )
        alt = "Predicted against clinical GASE. " + " ".join(_level_in_words(row) for row in rows)
        return draw(figure, name=name, alt=alt, note=_levels_note(rows))


def learning_curve(rounds: list[RoundLoss]) -> Drawing:
    """Draw the training loss by round; rounds without a loss are gaps.

    Parameters
    ----------
    rounds : list of RoundLoss
        In any order.

    Returns
    -------
    Drawing

    """
    rows = sorted(rounds, key=lambda row: row.round)
    losses = [float("nan") if row.loss is None else row.loss for row in rows]
    known = [row for row in rows if row.loss is not None]
    with style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y", color=PALE, linewidth=0.7)
        if any(loss < 0 for loss in losses):
            axes.axhline(0, color=GREY, linewidth=0.8)
        axes.plot(
            [row.round for row in rows],
            losses,
            color=BLUE,
            linewidth=1.6,
            marker="o",
            markersize=4,
            gid="losses",
        )
        axes.set(xlabel="training round", ylabel="training loss per child")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if known:
            first, last = known[0], known[-1]
            alt = (
                f"Training loss by round: {first.loss:.4g} in round {first.round}, "
                f"{last.loss:.4g} in round {last.round}."
            )
        else:
            alt = "Training loss by round: no round has a loss."
        missing = [str(row.round) for row in rows if row.loss is None]
        note = f"Without a loss: round {', '.join(missing)}." if missing else ""
        return draw(figure, name="learning", alt=alt, note=note)


def price_by_phase(privacy: PrivacySummary) -> Drawing:
    """Draw ε of each phase alone, and of the whole study for both kinds of children.

    Parameters
    ----------
    privacy : PrivacySummary
        A phase without a bound gets words in place of a bar.

    Returns
    -------
    Drawing

    """
    bars = [(phase.phase, phase.epsilon, phase.children) for phase in privacy.phases]
    bars.append(("whole study, training child", privacy.epsilon_training_child, "training"))
    bars.append(("whole study, held-out child", privacy.epsilon_held_out_child, "held-out"))
    colours = {"training": BLUE, "held-out": VERMILLION, "controls": GREEN, "none": GREEN}
    longest = max([epsilon for _, epsilon, _ in bars if epsilon is not None], default=0.0) or 1.0
    with style():
        figure = Figure(figsize=(7.2, 0.7 + 0.34 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, epsilon, children) in enumerate(bars):
            whole = place >= len(privacy.phases)
            axes.barh(
                place,
                epsilon or 0.0,
                height=0.62,
                color=colours[children] if whole else "white",
                edgecolor=colours[children],
                hatch=None if whole else ("///" if children == "training" else "..."),
                linewidth=1.2,
                gid=f"price-{place}",
            )
            axes.text(
                (epsilon or 0.0) + 0.012 * longest,
                place,
                fixed(epsilon, absent="no bound"),
                va="center",
                fontsize=9,
            )
        axes.axhline(len(privacy.phases) - 0.5, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(bars)), [phase for phase, _, _ in bars])
        axes.set(xlim=(0, 1.13 * longest), ylim=(len(bars) - 0.4, -0.6), xlabel=f"ε at δ = {privacy.delta:g}")
        axes.tick_params(axis="y", length=0)
        in_words = ", ".join(f"{phase} {fixed(epsilon, absent='no bound')}" for phase, epsilon, _ in bars)
        return draw(figure, name="price", alt=f"Privacy price ε: {in_words}.")


def _level_in_words(row: GaseBin) -> str:
    if row.mean_prediction is None:
        return f"GASE {row.gase}: not drawn (released count {fixed(row.children, 1)})."
    spread = "" if row.sd_prediction is None else f" ± {row.sd_prediction:.2f}"
    return f"GASE {row.gase}: {row.mean_prediction:.2f}{spread}, {row.children:.1f} children."


def _levels_note(rows: list[GaseBin]) -> str:
    absent = [f"{row.gase} (count {fixed(row.children, 1)})" for row in rows if row.mean_prediction is None]
    hollow = [row for row in rows if row.mean_prediction is not None and row.children < FEW_CHILDREN]
    bare = [str(row.gase) for row in rows if row.mean_prediction is not None and row.sd_prediction is None]
    notes = []
    if absent:
        notes.append(f"Left out, because the released sums allow no mean: GASE {', '.join(absent)}.")
    if hollow:
        notes.append(f"Hollow: a released count below {FEW_CHILDREN:g}, so mean and sd say little.")
    if bare:
        notes.append(f"Without a bar, because the released sums allow no sd: GASE {', '.join(bare)}.")
    return " ".join(notes)
