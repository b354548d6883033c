"""The verdict: what a result's figures show, and what they do not, in plain words."""

import math

from esn_core.privacy.accounting import odds_in_words
from esn_core.statistics.intervals import Z_95
from esn_server.report.result import Evaluation, PrivacySummary
from esn_server.report.wording import fixed, interval


def interval_with_noise(evaluation: Evaluation) -> tuple[float, float] | None:
    """Widen the interval of r by the privacy noise.

    The variances add on Fisher's scale z = atanh(r), where the noise has standard deviation
    ``r_noise_sd / (1 - r^2)`` to first order.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    (float, float) or None
        About 95 %, for the choice of children and the noise together. Fisher's interval itself where no
        noise was added; None where r, its interval or its noise is unknown, or abs(r) is 1.

    """
    if evaluation.r is None or evaluation.r_interval is None or evaluation.r_noise_sd is None:
        return None
    if evaluation.r_noise_sd == 0:
        return evaluation.r_interval
    low, high = evaluation.r_interval
    if max(abs(low), abs(high), abs(evaluation.r)) >= 1:
        return None
    sampling = (math.atanh(high) - math.atanh(low)) / (2 * Z_95)
    noise = evaluation.r_noise_sd / (1 - evaluation.r**2)
    half = Z_95 * math.hypot(sampling, noise)
    middle = (math.atanh(high) + math.atanh(low)) / 2
    return math.tanh(middle - half), math.tanh(middle + half)


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
    if evaluation.r_noise_sd is None:
        return [
            "With as much privacy noise again, r is often undefined, so what the noise did to it is unknown.",
            "Do not rely on this r.",
            f"The interval {interval(evaluation.r_interval)} is for the choice of children alone.",
        ]
    if evaluation.r_noise_sd == 0:
        return [_against_zero(evaluation.r_interval, "The 95 % interval")]
    widened = interval_with_noise(evaluation)
    apart = (
        f"The choice of children alone gives the interval {interval(evaluation.r_interval)};"
        f" the privacy noise moves r by {fixed(evaluation.r_noise_sd)} besides (one standard deviation)."
    )
    if widened is None:
        return [apart, "Both together allow no interval at this r. Do not rely on it."]
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
