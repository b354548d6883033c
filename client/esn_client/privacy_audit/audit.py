"""The audit of a protocol at one site: attacks on its releases, against the price of each.

Everything runs on the site's own children, through real gates, in a rehearsal:
nothing is charged, kept or sent.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from esn_client.answers.hospital import rows_of
from esn_client.answers.study import Study
from esn_client.answers.training import device_for
from esn_client.cohort.cohort import Cohort, cohort_of, load_cohort, read_members
from esn_client.cohort.participants import Participant, read_participants
from esn_client.cohort.scoring import judged_by, scoring
from esn_client.cohort.withdrawn import remaining
from esn_client.gate.gate import Rows
from esn_client.privacy_audit.arguments import arguments_of
from esn_client.privacy_audit.attacks import (
    area,
    area_bound,
    area_error,
    best_guesses,
    guess,
    membership_scores,
    mu_interval,
    one_run_epsilon,
    smallest_fault,
    surest,
    true_positive_rate,
)
from esn_client.privacy_audit.cheats import cheats
from esn_client.privacy_audit.controls import FEWEST_CONTROLS, attack_on_controls, votes_turned
from esn_client.privacy_audit.findings import (
    CANARY_DELTA,
    FALSE_POSITIVES,
    Audit,
    Canaries,
    KindAudit,
    Membership,
)
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_client.site.settings import SiteSettings
from esn_client.site.state import open_ledger, read_salt
from esn_core.errors import DataError, GateError
from esn_core.privacy.accounting import NO_NOISE, epsilon_of, true_positives
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.protocol.price import PhasePrice, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.centring import ADJUSTED, LEVELS
from esn_core.statistics.matching import REASONS, Standing

# Of each bound; an audit has three for each of five kinds of release.
ERROR = 5e-5
FEWEST_REPEATS = 20
# Of each child, or its scores without it say nothing.
FEWEST_LEFT_OUT = 3
_MOST_DRAWS = 200
# Each costs the rows of every phase once more.
_MOST_CONTROLS = 5

_CANARIES_PER_REPEAT = 20
_CANARIES_AT_ONCE = 400
# A long sum is formed less often: the exact noise takes some 15 CPU microseconds a number and site.
_NOISE_NUMBERS = 150_000
# A short one holds few canaries. It is formed more often, but not without end: a gate takes milliseconds.
_MOST_SUMS_PER_REPEAT = 4
# Rows of canaries are longer than a row may be: that the gate clips them is audited as well.
_CANARY_LENGTH = 2.0

Progress = Callable[[str, int, int], None]
"""Told what is done, how many are done, and of how many."""


def audit_site(settings: SiteSettings, protocol: Protocol, *, repeats: int, progress: Progress) -> Audit:
    """Audit a protocol on the site's own children; one by which the sites vote, on its own controls.

    Parameters
    ----------
    settings : SiteSettings
    protocol : Protocol
        Approved or not.
    repeats : int
        Sums in each membership attack, at least `FEWEST_REPEATS`.
    progress : Progress

    Raises
    ------
    GateError, PrivacyBudgetError
        The site's own policy forbids a release of the protocol, or too few controls could vote.
    ProtocolError
        The site is not on the roster.
    DataError
        No child has a connectome.

    """
    progress("connectomes read", 0, 1)
    with open_ledger(settings) as ledger:
        people = remaining(read_participants(settings.dataset), ledger, salt=read_salt(settings))
    cohort, without_each = _cohorts(settings, protocol, people)
    progress("connectomes read", 1, 1)
    site = settings.site
    with scratch_directory() as scratch:
        rehearsal = Rehearsal(
            protocol,
            site=settings.site,
            limits=settings.limits,
            scratch=scratch,
        )
        least = rehearsal.minimum_controls
        if protocol.voting and cohort.controls < least:
            raise GateError(
                f"this site has {cohort.controls} controls with a connectome, fewer than the minimum of "
                f"{least}: it would refuse the protocol"
            )
        device = device_for(settings.compute.device)
        study = Study(settings.site, rehearsal.protocol, cohort, device)
        without = [Study(settings.site, rehearsal.protocol, one, device) for one in without_each]
        rng = np.random.default_rng()
        attacked = [
            price
            for price in price_of(rehearsal.protocol).phases
            # At a site without controls no training child is in a sum.
            if price.children != "controls" and (price.children == "held-out" or protocol.trains(site))
        ]
        kinds = tuple(
            audit_kind(
                rehearsal,
                study,
                price,
                repeats=repeats,
                rng=rng,
                progress=partial(_attacked, progress, place, len(attacked)),
                without=without,
            )
            for place, price in enumerate(attacked, start=1)
        )
        attempts = cheats(rehearsal, study, progress=progress)
    return Audit(
        site=settings.site,
        study=protocol.study,
        protocol_sha256=protocol.sha256,
        at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        software=version("esn-federated"),
        price=price_of(protocol),
        trust=protocol.privacy.trust,
        colluding_sites=protocol.privacy.colluding_sites if protocol.masked else 0,
        repeats=repeats,
        kinds=kinds,
        attempts=attempts,
        votes=votes_turned(cohort.control_strengths) if protocol.voting else None,
    )


def _attacked(progress: Progress, place: int, phases: int, phase: str, done: int, sums: int) -> None:
    """Say how many sums of a phase were attacked, and which of the phases it is."""
    progress(f"sums of phase '{phase}' attacked ({place} of {phases} phases)", done, sums)


def _cohorts(
    settings: SiteSettings, protocol: Protocol, people: tuple[Participant, ...]
) -> tuple[Cohort, list[Cohort]]:
    """Return the site's cohort, and the same without each of its controls in turn."""
    site, derivatives = settings.site, settings.derivatives
    if protocol.voting:
        return load_cohort(people, site=site, derivatives=derivatives, protocol=protocol), []
    members = read_members(people, site=site, derivatives=derivatives, protocol=protocol)
    controls = members.of("control")
    cohort = cohort_of(members, scoring(controls, protocol, site=site), protocol)
    if len(controls) < FEWEST_CONTROLS:
        return cohort, []
    others = [controls[:k] + controls[k + 1 :] for k in range(min(len(controls), _MOST_CONTROLS))]
    return cohort, [cohort_of(members, judged_by(left, protocol), protocol) for left in others]


def audit_kind(
    rehearsal: Rehearsal,
    study: Study,
    price: PhasePrice,
    *,
    repeats: int,
    rng: np.random.Generator,
    progress: Progress,
    without: Sequence[Study] = (),
) -> KindAudit:
    """Audit one kind of release.

    Parameters
    ----------
    rehearsal : Rehearsal
    study : Study
        Of the rehearsed protocol.
    price : PhasePrice
        What the protocol claims of it.
    repeats : int
    rng : numpy Generator
        For coins and directions; the noise is the gate's own.
    progress : Progress
    without : sequence of Study
        The study without each of the site's controls in turn; nothing is asked about controls without.

    Raises
    ------
    GateError
        The site has too few children, or its own policy forbids the release.
    DataError
        Too few repeats.

    """
    if repeats < FEWEST_REPEATS:
        raise DataError(f"an audit needs {FEWEST_REPEATS} repeats or more, not {repeats}")
    question = rehearsal.question(price.phase)
    given = rows_of(arguments_of(price.phase, study), study)
    kind, labels = given.kind, given.participants
    if price.children == "controls":
        raise GateError(f"release {price.phase} is about controls, who have no price to audit")
    fewest = rehearsal.minimum(price.children)
    child: Standing = "child"
    standing = given.standing or (child,) * len(labels)
    if standing.count("child") < fewest:
        # Canaries would make up the number; in a study there are none, and the gate refuses.
        raise GateError(
            f"this site has fewer {price.children} children than the minimum of "
            f"{fewest}: it would refuse the protocol"
        )
    controls = standing.count("control")
    if 0 < controls < rehearsal.minimum_controls:
        raise GateError(
            f"this site has {controls} controls, fewer than the minimum of {rehearsal.minimum_controls}: it "
            "would refuse the protocol"
        )
    rows = clip_rows(given.values, kind.l2_bound)
    exact = price.noise_multiplier == NO_NOISE
    sums, at_once = _sums_and_canaries(
        repeats, dimension=kind.dimension, sites=rehearsal.sites_in_a_sum, exact=exact
    )
    fewest_of = {"child": fewest, "control": rehearsal.minimum_controls}
    members = np.empty((sums, len(labels)), dtype=np.bool_)
    for group in dict.fromkeys(standing):
        where = np.array([of == group for of in standing])
        members[:, where] = _members(int(where.sum()), sums, fewest=fewest_of.get(group, 0), rng=rng)
    coins = rng.random((sums, at_once)) < 0.5
    scores = np.empty((sums, at_once))
    products = np.empty((sums, kind.dimension))
    for number in range(sums):
        inside, present = members[number], coins[number]
        directions = _directions(kind, at_once, rng)
        invented = directions[present] * (_CANARY_LENGTH * kind.l2_bound)
        names = tuple(f"sub-canary{i}" for i in range(len(invented)))
        as_children = (child,) * (len(invented) if given.standing else 0)
        seen = rehearsal.view(
            question,
            Rows(
                kind,
                np.concatenate([given.values[inside], invented]),
                (*(label for label, i in zip(labels, inside, strict=True) if i), *names),
                tuple(of for of, i in zip(given.standing, inside, strict=False) if i) + as_children,
            ),
        )
        known = _known(rows, given, inside, exact=exact, fewest=rehearsal.minimum_controls)
        scores[number] = directions @ (seen - known) / kind.l2_bound
        products[number] = seen - kind.l2_bound * directions[present].sum(axis=0)
        progress(price.phase, number + 1, sums)
    mu = math.inf if price.noise_multiplier == NO_NOISE else 1 / price.noise_multiplier
    on_controls = None
    if without and not exact:
        on_controls = attack_on_controls(
            price.phase,
            study,
            without,
            total=rows.sum(axis=0),
            noise=products - members @ rows,
            noise_sd=price.noise_multiplier * kind.l2_bound,
        )
    # Where the gate counts rare levels at others, one child more or less may move all of a level.
    judged = exact and kind not in (LEVELS, ADJUSTED)
    return KindAudit(
        phase=price.phase,
        children=price.children,
        releases=price.releases,
        numbers=kind.dimension,
        noise_multiplier=price.noise_multiplier,
        canaries=None if exact else _canaries(scores.ravel(), coins.ravel(), mu),
        membership=_membership(rows, products, members, mu),
        influence=float(np.abs(scores).max()) if judged else None,
        controls=on_controls,
    )


def _sums_and_canaries(repeats: int, *, dimension: int, sites: int, exact: bool) -> tuple[int, int]:
    """Return how many sums to form, and how many canaries each of them holds."""
    if exact:
        return repeats, 1  # a canary shows the limit of a row; one is as good as many
    wanted = _CANARIES_PER_REPEAT * repeats
    widest = min(dimension, _CANARIES_AT_ONCE)
    most = max(_NOISE_NUMBERS // (dimension * sites), math.ceil(wanted / widest))
    sums = min(max(repeats, math.ceil(wanted / widest)), most, _MOST_SUMS_PER_REPEAT * repeats)
    return sums, min(widest, math.ceil(wanted / sums))


def _known(
    rows: NDArray[np.float64], given: Rows, inside: NDArray[np.bool_], *, exact: bool, fewest: int
) -> NDArray[np.float64]:
    """Return the (d,) sum of those who take part, as an attacker knows it who knows all of them."""
    chosen = inside.copy()
    if exact and given.standing:
        # A reason for being left out that few share is sent as nobody's.
        standing = np.array(given.standing)
        for reason in REASONS:
            if (chosen & (standing == reason)).sum() < fewest:
                chosen &= standing != reason
    total: NDArray[np.float64] = rows[chosen].sum(axis=0)
    return total


def _directions(kind: ReleaseKind, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw (count, d) orthonormal directions: the numbers are dealt out, each with a sign by a coin."""
    directions = np.zeros((count, kind.dimension))
    for direction, numbers in zip(
        directions, np.array_split(rng.permutation(kind.dimension), count), strict=True
    ):
        direction[numbers] = rng.choice([-1.0, 1.0], len(numbers)) / math.sqrt(len(numbers))
    return directions


def _members(children: int, sums: int, *, fewest: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw who is in each sum: (sums, children), each child by a coin of its own, at least `fewest`.

    Drawn again where a child was left out of too few sums to compare it with, unless the gate's minimum
    hardly lets one be left out.
    """
    # Where half would be too few for the gate, the coin is loaded.
    chance = max(0.5, (fewest + 0.5) / children)
    members = np.ones((sums, children), dtype=np.bool_)
    for _ in range(_MOST_DRAWS):
        members = rng.random((sums, children)) < chance
        while (short := members.sum(axis=1) < fewest).any():
            members[short] = rng.random((int(short.sum()), children)) < chance
        if sums < FEWEST_REPEATS or (~members).sum(axis=0).min() >= FEWEST_LEFT_OUT:
            break
    return members


def _canaries(scores: NDArray[np.float64], present: NDArray[np.bool_], mu: float) -> Canaries:
    guesses = best_guesses(mu, canaries=len(scores), delta=CANARY_DELTA, error=ERROR)
    # A canary that is present adds 1 to its score: guess at the middle.
    correct = surest(scores, present, guesses=guesses, threshold=0.5)
    low, high = mu_interval(guess(scores, present, threshold=0.5), error=ERROR)
    return Canaries(
        canaries=len(scores),
        guesses=guesses,
        correct=correct,
        epsilon_proven=one_run_epsilon(
            correct=correct, guesses=guesses, canaries=len(scores), delta=CANARY_DELTA, error=ERROR
        ),
        epsilon_claimed=epsilon_of(mu, CANARY_DELTA),
        mu_low=low,
        mu_high=high if math.isfinite(high) else None,
        mu_claimed=mu,
        smallest_fault=smallest_fault(mu, canaries=len(scores), error=ERROR),
    )


def _membership(
    rows: NDArray[np.float64], totals: NDArray[np.float64], members: NDArray[np.bool_], mu: float
) -> Membership | None:
    if len(totals) < FEWEST_REPEATS or (~members).sum(axis=0).min() < FEWEST_LEFT_OUT:
        return None
    released = membership_scores(rows, totals, members)
    exact = membership_scores(rows, members @ rows, members)
    return Membership(
        children=len(rows),
        summed=float(members.sum(axis=1).mean()),
        repeats=len(totals),
        area=area(released, members),
        area_error=area_error(released, members),
        found=true_positive_rate(released, members, false_positives=FALSE_POSITIVES),
        area_exact=area(exact, members),
        found_exact=true_positive_rate(exact, members, false_positives=FALSE_POSITIVES),
        area_bound=area_bound(mu),
        found_bound=true_positives(mu, false_positives=FALSE_POSITIVES),
    )
