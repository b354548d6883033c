"""The verdict: what a result's figures show, and what they do not, in plain words."""

from esn_core.privacy.accounting import odds_in_words
from esn_server.report.analyses import Correlation, Estimated
from esn_server.report.result import Evaluation, PrivacySummary
from esn_server.report.wording import interval

_TRAINED_ON_GASE = (
    "The prediction was trained on GASE, so that it repeats what GASE says, its errors included: agreement"
    " with it shows that connections carry the clinical score, not that the prediction knows more than a"
    " clinician."
)


def likely_r(found: Evaluation | Correlation) -> Estimated | None:
    """Return r with an interval for the choice of children and the noise together.

    A result of an earlier release has no estimates: there, the released r and Fisher's interval serve where
    no noise was added, and nothing else.
    """
    if found.estimates is not None:
        return found.estimates.r
    if found.r is None or found.r_interval is None or found.r_noise_sd != 0:
        return None
    return Estimated(value=found.r, interval=found.r_interval)


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
    likely = likely_r(evaluation)
    if likely is None:
        why = evaluation.undefined_because or "the sums hold no interval of r that includes the privacy noise"
        return [
            f"The correlation of predicted and clinical GASE is unknown: {why}.",
            "This run shows nothing about the prediction, neither for it nor against it.",
        ]
    if evaluation.r_noise_sd == 0:
        return [_against_zero(likely.interval, "The 95 % interval"), _TRAINED_ON_GASE]
    both = (
        "Taking the choice of children and the privacy noise together,"
        f" the 95 % interval of r is {interval(likely.interval)}."
    )
    said = [both, _against_zero(likely.interval, "It")]
    if evaluation.r is not None and evaluation.r_interval is not None:
        said.append(
            "The choice of children alone would give an interval as wide as "
            f"{interval(evaluation.r_interval)}."
        )
    return [*said, _TRAINED_ON_GASE]


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
        return " ".join(_promised(privacy, children) for children in ("training", "held-out"))
    worst = max(training, held_out)
    return (
        f"The whole study costs one training child ε = {training:.3f} and one held-out child"
        f" ε = {held_out:.3f} at δ = {privacy.delta:g}: apart from a probability of about δ,"
        " nobody outside the child's own hospital who sees all that was released can change their odds that"
        f" the child took part by more than a factor of {odds_in_words(worst)}."
    )


def _promised(privacy: PrivacySummary, children: str) -> str:
    """Say what one child of a kind is promised, where exact sums leave another kind without a bound."""
    epsilon = privacy.epsilon_training_child if children == "training" else privacy.epsilon_held_out_child
    if epsilon is not None:
        return f"The whole study costs one {children} child ε = {epsilon:.3f} at δ = {privacy.delta:g}."
    exact = [phase.phase for phase in privacy.phases if phase.children == children and phase.epsilon is None]
    return f"One {children} child is promised nothing: the sums of {', '.join(exact)} are exact."


def _against_zero(ends: tuple[float, float], subject: str) -> str:
    low, high = ends
    if low > 0:
        return f"{subject} lies above 0: in held-out children the prediction follows the clinical score."
    if high < 0:
        return f"{subject} lies below 0: the prediction runs against the clinical score."
    return f"{subject} includes 0: this run does not show that the prediction follows the clinical score."
