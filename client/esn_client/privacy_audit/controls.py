"""What leaves that hangs on the site's own controls: sums over children, judged by them, and the site's vote.

No noise is sized for a control. The attacker knows all but one thing: every child, every other control and
what colluding sites know; not whether one control was among those by whom the children are judged. What hides
that is the noise which a release has for its children. The odds of that noise with and without the control
are the strongest test there is, so that no attack on one release does better.
"""

from collections.abc import Sequence

import numpy as np

from esn_client.answers.hospital import rows_of
from esn_client.answers.study import Study
from esn_client.privacy_audit.arguments import arguments_of
from esn_client.privacy_audit.attacks import area, area_bound, area_error
from esn_client.privacy_audit.findings import ControlExposure, VotesTurned
from esn_core.arrays import Floats
from esn_core.connectome.own_controls import ControlReference
from esn_core.privacy.release import clip_rows
from esn_core.protocol.phases import PhaseName
from esn_core.severity_network.candidate_list import present_in_most

FEWEST_CONTROLS = 4
"""One is left out, and of fewer than three a spread says nothing."""

FEWEST_SUMS = 20
"""Of fewer, the area says nothing: the noise of one sum is the same for all controls."""


def attack_on_controls(
    phase: PhaseName,
    study: Study,
    without: Sequence[Study],
    *,
    total: Floats,
    noise: Floats,
    noise_sd: float,
) -> ControlExposure | None:
    """Ask of each control whether the children of a release were judged by it too.

    Parameters
    ----------
    phase : str
    study : Study
        Of all controls.
    without : sequence of k Study
        The same, without each of the controls in turn.
    total : (d,) float64
        Sum of the phase's rows over everybody, judged by all controls.
    noise : (R, d) float64
        What R releases of the phase had beside their rows.
    noise_sd : float
        Of each number, as the price says.

    Returns
    -------
    ControlExposure or None
        None where no number of the release depends on a control.

    """
    shifts = total - np.array([sum_of(phase, one) for one in without])
    sizes = np.linalg.norm(shifts, axis=1)
    if not sizes.any():
        return None
    # The odds of each release, were it without a control and with: the same noise stands in both.
    along, half = noise @ shifts.T, sizes**2 / 2
    odds = np.concatenate([along - half, along + half], axis=1) / noise_sd**2
    present = np.repeat([[False, True]], len(without), axis=1).repeat(len(noise), axis=0)
    mu = sizes / noise_sd
    few = len(noise) < FEWEST_SUMS
    read = phase == "association" and not few
    reconstruction = _reconstruction(study, shifts, noise) if read else None
    return ControlExposure(
        controls=len(without),
        sums=len(noise),
        area=None if few else area(odds, present),
        area_error=None if few else area_error(odds, present),
        mu=tuple(mu.tolist()),
        area_of_most=area_bound(float(mu.max())),
        reconstruction=reconstruction,
    )


def votes_turned(strengths: Floats) -> VotesTurned:
    """Leave out one of the (n, E) controls at a time, and count the edges where the vote differs."""
    vote = present_in_most(strengths)
    others = (present_in_most(np.delete(strengths, k, axis=0)) for k in range(len(strengths)))
    return VotesTurned(len(vote), tuple(int((vote != other).sum()) for other in others))


def sum_of(phase: PhaseName, study: Study) -> Floats:
    """Sum a phase's rows over everybody, without noise."""
    rows = rows_of(arguments_of(phase, study), study)
    total: Floats = clip_rows(rows.values, rows.kind.l2_bound).sum(axis=0)
    return total


def _reconstruction(study: Study, shifts: Floats, noise: Floats) -> tuple[float, float] | None:
    """Return r of a control's scores with what the release tells of them, and its standard error.

    Each edge's sum moves nearly in proportion to the control's own score there, by a factor that all edges
    and controls of the site share: the attacker takes it from the controls whom it knows.
    """
    strengths, edges = study.cohort.control_strengths, study.candidates.edges
    if study.protocol.cohort.harmonisation != "site-controls" or study.candidates.grouped:
        return None
    own = np.array(
        [
            ControlReference.of_controls(np.delete(strengths, k, axis=0)).scores(strengths[k])[edges]
            for k in range(len(shifts))
        ]
    )
    own = _standardised(own)
    # Of the shifts alone, and of each release of them: (k,) and (R, k).
    alike = (own * shifts).sum(axis=1)
    towards = np.sign(alike.sum() - alike)
    seen = [towards * (own * _standardised(shifts + one)).mean(axis=1) for one in noise]
    each = np.array(seen).mean(axis=1)  # of one release: its noise is the same for all controls
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def _standardised(values: Floats) -> Floats:
    """Return (k, d) rows with mean 0 and standard deviation 1; one that does not vary stays 0."""
    values = values - values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    return np.asarray(values / np.where(spread > 0, spread, 1.0))
