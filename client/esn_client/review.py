"""A protocol in plain words: what leaves, how often, from whom, and what it costs each child."""

import math

from esn_core.price import PhasePrice, price_of
from esn_core.protocol import Protocol

_WHAT_LEAVES = {
    "centre": "the number of training children and the sum of their severity scores",
    "association": "for each candidate edge, the sum of edge strength times severity",
    "gradient": "the sum of the children's clipped gradients, and of their losses",
    "calibration": "five sums of predicted and clinical severity",
    "evaluation": "by clinical GASE: number of held-out children, sums of predictions, squares, errors",
}


def review(protocol: Protocol) -> str:
    """Return the review of a protocol as text, for whoever has to approve it."""
    price = price_of(protocol)
    exact = protocol.privacy.noise == "none"
    minimum = protocol.cohort.minimum_children
    lines = [
        f"Study {protocol.study}, protocol {protocol.sha256}",
        f"Sites: {', '.join(protocol.sites)}. "
        + ("All children are simulated." if protocol.simulated else "The children are real patients."),
        "",
        "What leaves this site",
        "  First, at roll call: software versions, hashes of recipe and atlas, and the number of children",
        "  as a band such as 16-31. This band is not protected by noise.",
    ]
    for phase in price.phases:
        lines += [f"  {phase.phase}, {_times(phase)} from the {phase.children} children:"]
        lines += [f"    {_WHAT_LEAVES[phase.phase]}"]
        lines += [f"    {_noise(phase, price.epsilon_alone(phase))}"]
    lines += [
        f"  No sum over fewer than {minimum} children leaves. No image, connectome or score of one child",
        "  does.",
        "  A site that has fewer refuses, and the refusal itself tells that a split is below the minimum.",
        "",
        "What it costs one child",
    ]
    if exact:
        lines += [
            "  There is NO differential privacy: the sums leave exactly as they are. Whoever knows all",
            "  other children of a sum can compute this child's part of it. The site must consent to this",
            "  in its own settings (limits.exact_sums), or it answers nothing.",
        ]
    else:
        training, held_out = price.epsilon("training"), price.epsilon("held-out")
        lines += [
            f"  A training child: epsilon {training:.2f}; a held-out child: epsilon {held_out:.2f};",
            f"  at delta {price.delta:g}, adding or removing one child (all its scans).",
            f"  Exchanging one child for another: epsilon {price.replace_one_epsilon('training'):.2f}.",
            "  An attacker who watches everything raises the odds of a right guess about one child's",
            f"  presence at most {_factor(training)}-fold, except with probability {price.delta:g}.",
            "  Trust 'local': this site adds all of the noise itself, and need trust nobody.",
        ]
    lines += [
        "",
        "What is not covered",
        "  Healthy controls: each site's offsets are estimated from its own controls, who take part in",
        "  every sum without a bound. The participation of the site itself, and the band above.",
        "",
        "This approval is for one run of this protocol. The site's own cap on epsilon holds in any case.",
    ]
    return "\n".join(lines)


def _times(phase: PhasePrice) -> str:
    return "once" if phase.releases == 1 else f"{phase.releases} times"


def _noise(phase: PhasePrice, epsilon: float) -> str:
    if phase.noise_multiplier == 0:
        return "exactly as it is, without noise"
    return (
        f"with noise of {phase.noise_multiplier:.2f} times the largest part of one child; "
        f"alone epsilon {epsilon:.2f}"
    )


def _factor(epsilon: float) -> str:
    return f"{math.exp(epsilon):.0f}" if epsilon < 10 else "more than 20,000"
