"""What a model lacks before it may be released: each control that has to stand beside a prediction."""

from collections.abc import Iterator

from esn_core.protocol.protocol import Protocol
from esn_server.report.result import StudyResult

FEWEST_CHILDREN = 20
"""Held-out children: of fewer, an error says next to nothing."""


def missing_controls(protocol: Protocol, result: StudyResult) -> list[str]:
    """Say what keeps a model from being released; nothing where all controls are there."""
    return list(_missing(protocol, result))


def _missing(protocol: Protocol, result: StudyResult) -> Iterator[str]:
    if result.protocol_sha256 != protocol.sha256:
        yield "the run's result.json is of another protocol than its protocol.toml"
    if protocol.cohort.harmonisation == "combat":
        yield (
            "a study with harmonisation 'combat' judges each child by the others: its model predicts no "
            "other child"
        )
    found = result.evaluation.estimates
    if found is None or found.r is None or found.rmse is None:
        yield "held-out evaluation: r or the error of prediction is unknown"
    elif found.children.value < FEWEST_CHILDREN:
        yield (
            f"held-out evaluation: about {found.children.value:.0f} held-out children, fewer than "
            f"{FEWEST_CHILDREN}"
        )
    elif found.r.interval[0] <= 0:
        low, high = found.r.interval
        yield (
            f"held-out evaluation: r lies between {low:.2f} and {high:.2f}, so that the study does not show "
            "that the prediction follows the score"
        )
    if result.random_score is None:
        why = result.absent.get("random_score", "it was not computed")
        yield f"random scores: {why}; the protocol asks for them by 'random_scores'"
