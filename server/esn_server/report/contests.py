"""Contests: predicted against clinical severity as explanations of impairment, in words."""

from esn_core.analyses.neurocognition import CLINICAL, PREDICTED
from esn_core.protocol.analyses import SEVERITIES, Comparison
from esn_core.statistics.intervals import Z_95
from esn_server.report.impairment import Contest
from esn_server.study.neurocognition import Neurocognition, Rivalry

_SURE = 0.05


def contests_of(found: Neurocognition, primary: Comparison | None) -> list[Contest]:
    """Return every comparison with its verdict.

    A verdict rests on one test, Vuong's. The p of the primary comparison stands for itself; those of all
    others are held to their number by Holm's method (Holm 1979, as statsmodels computes it), so that the
    chance of any sure verdict among them is 5 % where all scores are equally good.
    """
    alone = [_is(rivalry, found, primary) for rivalry in found.rivalries]
    shared = [
        r.vuong.p_value
        for r, first in zip(found.rivalries, alone, strict=True)
        if r.vuong is not None and not first
    ]
    held = iter(_holm(shared))
    said = []
    for rivalry, first in zip(found.rivalries, alone, strict=True):
        p = None if rivalry.vuong is None else rivalry.vuong.p_value if first else next(held)
        said.append(_contest(rivalry, found, p, primary=first))
    return said


def _is(rivalry: Rivalry, found: Neurocognition, primary: Comparison | None) -> bool:
    model = found.models[rivalry.predicted].model
    return (
        primary is not None
        and model.outcome.name == primary.outcome
        and model.others == frozenset(primary.others)
    )


def verdict_of(rivalry: Rivalry, p_held: float | None, *, primary: bool = False) -> str:
    """Say in plain words which severity explains an impairment better, no surer than the test is.

    Parameters
    ----------
    rivalry : Rivalry
    p_held : float or None
        p of Vuong's test, held to the number of comparisons that share 5 %.
    primary : bool
        Whether it is the comparison that the study was planned for.

    """
    if rivalry.separated:
        return _separated(rivalry)
    if rivalry.aic_difference is None or rivalry.vuong is None or p_held is None:
        why = rivalry.failed or "one of them could not be fitted, or they say the same"
        return f"The two models cannot be compared: {why}."
    apart, noise = rivalry.aic_difference, rivalry.criterion_noise_sd or 0.0
    better, other = ("predicted", "clinical") if apart < 0 else ("clinical", "predicted")
    severity = PREDICTED if better == "predicted" else CLINICAL
    smallest = (
        " With 80 % power a study like this one finds differences of "
        f"{2 * rivalry.vuong.detectable:.1f} units of AIC or more."
    )
    if abs(apart) < Z_95 * noise:
        return (
            f"The privacy noise hides which severity fits better: the difference of {apart:+.1f} units "
            f"of AIC has a noise of {noise:.1f} (one standard deviation).{smallest}"
        )
    if severity in rivalry.wrong_way:
        return (
            f"The {better} severity runs the wrong way: children who are more severe by it are less often "
            f"impaired. Its better fit by {abs(apart):.1f} units of AIC speaks against it, not for it."
        )
    said = f"The {better} severity fits better by {abs(apart):.1f} units of AIC"
    if noise:
        said += f" (the privacy noise moves this by {noise:.1f})"
    p = f"p {rivalry.vuong.p_value:.2g}" + ("" if primary else f", {p_held:.2g} among all comparisons")
    same_side = (rivalry.vuong.z > 0) == (apart < 0)
    if p_held >= _SURE or not same_side:
        return (
            f"{said}, but Vuong's test does not tell it from the {other} one ({p}): these children do "
            f"not decide.{smallest}"
        )
    way = (
        " Whether it goes with more impairment is lost in the noise." if severity in rivalry.way_lost else ""
    )
    return f"{said}; Vuong's test agrees ({p}).{way}"


def _separated(rivalry: Rivalry) -> str:
    """Say what it means that one severity, or both, tell every child's outcome."""
    if len(rivalry.separated) == len(SEVERITIES):
        said = (
            "Both severities tell every one of these children apart: a tie. So few children do not decide, "
            "and no test holds for them."
        )
    else:
        said = (
            f"The {_word(rivalry.separated[0])} severity tells every one of these children apart, and the "
            "other one does not. No test of this holds: it may be chance in so few children."
        )
    for severity in rivalry.separated:
        if severity in rivalry.wrong_way:
            said += (
                f" The {_word(severity)} severity runs the wrong way: children who are more severe by it "
                "are the ones who are not impaired."
            )
    return said


def _word(severity: str) -> str:
    return "predicted" if severity == PREDICTED else "clinical"


def _contest(rivalry: Rivalry, found: Neurocognition, p_held: float | None, *, primary: bool) -> Contest:
    model = found.models[rivalry.predicted].model
    area, vuong = rivalry.area, rivalry.vuong
    return Contest(
        outcome=model.outcome.name,
        others=[name for name in model.predictors if name not in SEVERITIES],
        aic_difference=rivalry.aic_difference,
        bic_difference=rivalry.bic_difference,
        criterion_noise_sd=rivalry.criterion_noise_sd,
        vuong_z=None if vuong is None else vuong.z,
        vuong_p=None if vuong is None else vuong.p_value,
        vuong_p_held=p_held,
        smallest_aic_difference=None if vuong is None else 2 * vuong.detectable,
        auc_difference=None if area is None else area.value,
        auc_difference_interval=None if area is None else area.interval,
        auc_difference_p=None if area is None else area.p_value,
        added_p=None if rivalry.added is None else rivalry.added.p_value,
        failed=rivalry.failed,
        primary=primary,
        verdict=verdict_of(rivalry, p_held, primary=primary),
    )


def _holm(p_values: list[float]) -> list[float]:
    if not p_values:
        return []
    # Imported here: statsmodels takes a second, and most programs compare nothing.
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
