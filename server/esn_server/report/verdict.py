"""The verdict: what a result's figures show, and what they do not, in plain words."""

import math

from esn_core.privacy.accounting import odds_in_words
from esn_core.statistics.intervals import Z_95
from esn_server.report.analyses import Correlation
from esn_server.report.result import Evaluation, PrivacySummary
from esn_server.report.wording import fixed, interval


def interval_with_noise(evaluation: Evaluation | Correlation) -> tuple[float, float] | None:
    """Widen the interval of r by the privacy noise.

    Limits of a sum from the limits of its parts (MOVER; Zou & Donner 2008, Statistics in Medicine 27:1693,
    equation 3): a limit lies as far from r as the root of both squared distances, Fisher's and that of
    the noise. Over 300 draws each, at a true r of .78, it held the truth in 96 to 97 % (135 and 165
    children); the noise carried to Fisher's scale by 1 / (1 - r^2), as before, in 94 to 98 %, and it
    has no limits at all where r reaches 1.

    Parameters
    ----------
    evaluation : Evaluation or Correlation

    Returns
    -------
    (float, float) or None
        About 95 %, for the choice of children and the noise together, within -1 and 1. Fisher's interval
        itself where no noise was added; None where r, its interval or its noise is unknown.

    """
    r, noise_sd = evaluation.r, evaluation.r_noise_sd
    if r is None or evaluation.r_interval is None or noise_sd is None:
        return None
    low, high = evaluation.r_interval
    if noise_sd == 0:
        return low, high
    noise = Z_95 * noise_sd
    return max(r - math.hypot(r - low, noise), -1.0), min(r + math.hypot(high - r, noise), 1.0)


def prediction_in_words(evaluation: Evaluation) -> list[str]:
    """Say what the correlation shows.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    list of str
        Sentences, the most important first.

    """
    if evaluation.r is None:
        return [
            f"The correlation of predicted and clinical GASE is undefined: {evaluation.undefined_because}.",
            "This run shows nothing about the prediction, neither for it nor against it.",
        ]
    if evaluation.r_interval is None:
        return ["There are too few children for an interval, so r alone shows nothing."]
    widened = interval_with_noise(evaluation)
    if widened is None or evaluation.r_noise_sd is None:
        return [
            "With as much privacy noise again, r is often undefined, so what the noise did to it is unknown.",
            "Do not rely on this r.",
            f"The interval {interval(evaluation.r_interval)} is for the choice of children alone.",
        ]
    if evaluation.r_noise_sd == 0:
        return [_against_zero(evaluation.r_interval, "The 95 % interval")]
    apart = (
        f"The choice of children alone gives the interval {interval(evaluation.r_interval)};"
        f" the privacy noise moves r by {fixed(evaluation.r_noise_sd)} besides (one standard deviation)."
    )
    both = (
        "Taking the choice of children and the privacy noise together,"
        f" the 95 % interval of r is about {interval(widened)}."
    )
    return [both, _against_zero(widened, "It"), apart]


def privacy_in_words(privacy: PrivacySummary) -> str:
    """Say in one sentence what the study promises one child.

    Parameters
    ----------
    privacy : PrivacySummary

    Returns
    -------
    str

    """
    training, held_out = privacy.epsilon_training_child, privacy.epsilon_held_out_child
    if privacy.noise == "none":
        return "No noise was added: exact sums left the sites, and no ε bounds what they tell of a child."
    if training is None or held_out is None:
        return "At least one release has no bound, so nothing is promised to the children whom it touched."
    worst = max(training, held_out)
    return (
        f"The whole study costs one training child ε = {training:.3f} and one held-out child"
        f" ε = {held_out:.3f} at δ = {privacy.delta:g}: apart from a probability of about δ,"
        " nobody outside the child's own hospital who sees all that was released can change their odds that"
        f" the child took part by more than a factor of {odds_in_words(worst)}."
    )


def _against_zero(ends: tuple[float, float], subject: str) -> str:
    low, high = ends
    if low > 0:
        return f"{subject} lies above 0: in held-out children the prediction follows the clinical score."
    if high < 0:
        return f"{subject} lies below 0: the prediction runs against the clinical score."
    return f"{subject} includes 0: this run does not show that the prediction follows the clinical score."
