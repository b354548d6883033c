"""Every phase of the table: its noise is what the price says, and the ledger has what the review printed.

A phase that is added to the table is tried here by itself.
"""

import json
import math
import re

import numpy as np
import pytest

from esn_client.answers.hospital import ROWS, rows_of
from esn_client.answers.study import Study
from esn_client.approval.review import review
from esn_client.gate import gate as egress
from esn_client.gate.gate import Rows
from esn_client.gate.limits import Limits
from esn_client.gate.noise import discrete_gaussian
from esn_client.privacy_audit import rehearsal
from esn_client.privacy_audit.arguments import arguments_of
from esn_client.privacy_audit.attacks import guess, mu_interval
from esn_client.privacy_audit.audit import audit_kind
from esn_client.privacy_audit.cheats import cheats
from esn_client.privacy_audit.findings import Audit
from esn_client.privacy_audit.page import page_text
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_core.analyses.planned_sums import kind_of
from esn_core.privacy.accounting import NO_NOISE, mu_for
from esn_core.privacy.fixed_point import units_per_one
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.phases import PHASES, Asked, planned_phases
from esn_core.protocol.price import price_of
from esn_server.study.votes import run_votes

SITES = ("north", "south", "west", "east")
PHENOTYPES = {"verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)}}
PRIVATE = {
    "cohort": True,
    "cross_site": True,
    "folds": 2,
    "random_scores": 1,
    "subgroups": True,
    "explanation": True,
    "neurocognition": {
        "rounds": 2,
        "models": [["gase"], ["predicted_gase"]],
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 95.0}],
    },
}
EXACT = {
    **PRIVATE,
    "network": {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 15, "minimum_children": 16},
    "exact": ["cohort", "explanation", "network", "neurocognition"],
}
# Four protocols ask for every phase; the first gives noise to each that can have it.
PROTOCOLS = {
    "noise": {"analyses": PRIVATE},
    "declared exact": {"analyses": EXACT, "consents": True},
    "combat": {"harmonisation": "combat", "exact": True},
    "local steps": {
        "training": {"strategy": "fedavg", "local_steps": 2},
        "analyses": {"cross_site": True, "folds": 2, "random_scores": 1, "subgroups": True},
        "exact": True,
    },
    "votes": {"votes": True, "pool_controls": True},
}
WITH_CHILDREN = [name for name, phase in PHASES.items() if phase.children is not None]


def planned(name):
    rules = PROTOCOLS[name]
    return planned_phases(
        Asked(
            training_rounds=3,
            local_steps=rules.get("training", {}).get("local_steps", 1),
            combat="harmonisation" in rules,
            analyses=Analyses.model_validate(rules.get("analyses", {})),
            votes=rules.get("votes", False),
            reference=rules.get("pool_controls", False),
        )
    )


def without_noise(name):
    return {phase.phase for phase in planned(name) if phase.exact or "exact" in PROTOCOLS[name]}


NOISED = [phase.phase for phase in planned("noise") if not phase.exact]


def shares(name, most=None):
    """Equal shares of the budget; one phase may have most of it."""
    given = {}
    for split in ("training", "held-out"):
        phases = [p.phase for p in planned(name) if p.children == split and not p.exact]
        parts = {phase: 50.0 if phase == most else 1.0 for phase in phases}
        given |= {phase: part / sum(parts.values()) for phase, part in parts.items()}
    return given


def arguments(name, most=None):
    rules = {"sites": SITES, "trust": "secure-sum", "phenotypes": PHENOTYPES, **PROTOCOLS[name]}
    return rules if {"exact", "votes"} & rules.keys() else {**rules, "shares": shares(name, most)}


def test_the_protocols_here_ask_for_every_phase():
    asked = {phase.phase for name in PROTOCOLS for phase in planned(name)}
    assert asked == set(WITH_CHILDREN) == set(ROWS)
    never = {name for name in WITH_CHILDREN if PHASES[name].exact == "always"}
    assert set(NOISED) == set(WITH_CHILDREN) - never


# --- canaries --------------------------------------------------------------------------------------------

LIMITS = Limits(
    epsilon_cap=8.01,
    delta=1e-3,
    minimum_children=5,
    trust="secure-sum",
    colluding_sites=1,
    exact_sums=True,
    control_sums=True,
    control_reference=True,
)
ERROR = 1e-5
# Of one release: so many coins tell half the noise and twice the noise from what is claimed.
CANARIES = 300
AT_ONCE = 200


@pytest.fixture(scope="module")
def drawn(build_consortium, tmp_path_factory):
    """A function that makes the study of one site under a protocol, and rehearses it."""
    opened, made = [], {}
    with scratch_directory() as scratch:

        def make(name, most=None):
            if (name, most) not in made:
                directory = tmp_path_factory.mktemp("site")
                consortium = build_consortium(directory, opened, **arguments(name, most))
                rehearsed = Rehearsal(consortium.protocol, site="north", limits=LIMITS, scratch=scratch)
                made[name, most] = (
                    rehearsed,
                    Study("north", rehearsed.protocol, consortium.cohorts["north"], "cpu"),
                )
            return made[name, most]

        yield make
        for file in opened:
            file.close()


def canaries(rehearsed, study, phase, *, wanted=CANARIES):
    """Release the site's rows with invented ones, ten times too long; return what the attacker learns.

    Returns
    -------
    scores, present : (n,)
        Of each canary: its number in the sum, over the bound, less all that is known; and its coin.
    kind : ReleaseKind

    """
    asked = rehearsed.question(phase)
    given = rows_of(arguments_of(phase, study), study)
    kind, at_once = given.kind, min(given.kind.dimension, AT_ONCE)
    assert kind == kind_of(phase, study.protocol)  # what was planned is what the rows are
    exact = egress.clip_rows(given.values, kind.l2_bound)
    if given.standing:  # who is left out for a reason that few share is hidden in an exact sum
        bare = _price(study, phase).noise_multiplier == NO_NOISE
        hidden = np.array([bare and of == "no-connectome" for of in given.standing])
        exact = np.where(hidden[:, None], 0.0, exact)
    coins = np.random.default_rng(0)
    scores, present = [], []
    for _ in range(math.ceil(wanted / at_once)):
        taking_part = coins.random(at_once) < 0.5
        invented = 10 * kind.l2_bound * np.eye(at_once, kind.dimension)[taking_part]
        names = tuple(f"sub-canary{i}" for i in range(len(invented)))
        rows = Rows(
            kind,
            np.concatenate([given.values, invented]),
            given.participants + names,
            given.standing + (("child",) * len(names) if given.standing else ()),
        )
        seen = rehearsed.view(asked, rows) - exact.sum(axis=0)
        scores.append(seen[:at_once] / kind.l2_bound)
        present.append(taking_part)
    return np.concatenate(scores), np.concatenate(present), kind


def _price(study, phase):
    return price_of(study.protocol).of(phase)


def faults(rehearsed, study, phase):
    """What contradicts the claim, in either direction."""
    scores, present, _ = canaries(rehearsed, study, phase)
    claimed = 1 / _price(study, phase).noise_multiplier
    low, _ = mu_interval(guess(scores, present, threshold=0.5), error=ERROR)
    # Standard error of a spread of n numbers: 1 / sqrt(2 n), 0.04 for 300; five of them.
    spread = (scores - present).std() * claimed
    margin = 5 / math.sqrt(2 * len(scores))
    return [
        words
        for fault, words in (
            (low > claimed, "the guesses prove more than is claimed"),
            (spread < 1 - margin, "there is too little noise"),
            (spread > 1 + margin, "there is too much noise"),
        )
        if fault
    ]


@pytest.mark.parametrize("phase", NOISED)
def test_the_noise_of_every_phase_is_what_its_price_says(drawn, phase):
    assert faults(*drawn("noise", phase), phase) == []


@pytest.mark.parametrize("phase", WITH_CHILDREN)
def test_no_row_of_an_exact_phase_is_longer_than_its_bound(drawn, phase):
    """Without noise a canary adds its bound and no more."""
    rehearsed, study = drawn(next(n for n in PROTOCOLS if phase in without_noise(n)))
    scores, present, kind = canaries(rehearsed, study, phase, wanted=1)
    # One rounding to the grid for each child.
    step = 60 / units_per_one(kind) / kind.l2_bound
    assert np.abs(scores - present).max() <= step


@pytest.mark.parametrize(("factor", "words"), [(0.5, "too little"), (2.0, "too much"), (0.7, "too little")])
def test_these_canaries_see_noise_that_is_not_as_claimed(drawn, factor, words, monkeypatch):
    monkeypatch.setattr(rehearsal, "discrete_gaussian", lambda d, sd: discrete_gaussian(d, factor * sd))
    assert f"there is {words} noise" in faults(*drawn("noise", "newton"), "newton")


@pytest.mark.parametrize("phase", NOISED)
def test_the_price_of_every_phase_is_its_share_of_the_budget(drawn, phase):
    """By the formula of docs/privacy.md, written down again: sigma^2 = releases / (share mu^2)."""
    protocol = drawn("noise", phase)[1].protocol
    price = _price(drawn("noise", phase)[1], phase)
    share = protocol.privacy.shares[phase]
    budget = mu_for(protocol.privacy.epsilon, protocol.privacy.delta)
    assert price.noise_multiplier**2 == pytest.approx(price.releases / share / budget**2, rel=1e-12)


# --- the ledger and the review ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held(build_consortium, tmp_path_factory):
    """A function that runs a whole study; returns its protocol and the ledgers' charges by phase."""
    opened, made = [], {}

    def make(name):
        if name not in made:
            directory = tmp_path_factory.mktemp("study")
            consortium = build_consortium(directory, opened, **arguments(name))
            if name == "votes":
                run_votes(consortium.signed, run="r1", asking=consortium.rounds)
            else:
                consortium.study()
            made[name] = consortium
        return made[name]

    yield make
    for file in opened:
        file.close()


def printed(protocol):
    """What the review says of each phase: how often it is asked, and with which noise."""
    said = {}
    line = r"^  (\S+), (once|\d+ times),? from .*:\n.*\n    (.*)$"
    found = re.findall(line, review(protocol), re.M)
    for phase, times, noise in found:
        number = re.search(r"with noise of ([\d.]+) times", noise)
        assert number or noise == "exactly as it is, without noise"
        said[phase] = (1 if times == "once" else int(times.split()[0]), number and number[1])
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase"), [(name, phase.phase) for name in PROTOCOLS for phase in planned(name)]
)
def test_every_release_is_in_every_ledger_at_the_price_that_the_review_printed(held, name, phase):
    consortium = held(name)
    times, noise = printed(consortium.protocol)[phase]
    cohort_of = {site: consortium.cohorts[site] for site in SITES}
    for site, ledger in consortium.ledgers.items():
        charges = [e.charge for e in ledger.entries() if e.charge.release == phase]
        assert len(charges) == times
        assert len({charge.question for charge in charges}) == times
        for charge in charges:
            multiplier = charge.noise_multiplier
            assert (None if multiplier == NO_NOISE else f"{multiplier:.2f}") == noise
            assert len(charge.patients) == len(_whose(cohort_of[site], phase))


def _whose(cohort, phase):
    if phase == "cohort":
        return cohort.people.participants
    if PHASES[phase].children == "controls":
        return cohort.people.others["control"]
    return (cohort.training if PHASES[phase].children == "training" else cohort.held_out).participants


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_ledger_has_a_release_that_the_review_does_not_print(held, name):
    consortium = held(name)
    for ledger in consortium.ledgers.values():
        released = {e.charge.release for e in ledger.entries()}
        assert released == set(printed(consortium.protocol))


# --- the audit -------------------------------------------------------------------------------------------


def audited(rehearsed, study, repeats=20):
    """The audit of everything that a protocol asks, as `audit_site` makes it."""
    rng = np.random.default_rng(0)
    priced = price_of(study.protocol)
    kinds = tuple(
        audit_kind(rehearsed, study, price, repeats=repeats, rng=rng, progress=lambda *_: None)
        for price in priced.phases
        if price.children != "controls"
    )
    about = {"site": "north", "study": "test", "protocol_sha256": "0" * 64, "at": "now", "software": "0"}
    return Audit(
        **about,
        price=priced,
        trust="secure-sum",
        colluding_sites=1,
        repeats=repeats,
        kinds=kinds,
        attempts=cheats(rehearsed, study),
    )


@pytest.mark.long
@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_audit_covers_every_phase_and_finds_no_fault_and_has_a_page(drawn, name):
    found = audited(*drawn(name))
    asked = {phase.phase for phase in planned(name)}
    assert {kind.phase for kind in found.kinds} == asked - {"votes", "reference"}  # controls have no price
    assert {attempt.phase for attempt in found.attempts} == asked
    assert found.faults == ()
    for kind in found.kinds:
        assert (kind.canaries is None) == (kind.phase in without_noise(name))
        assert kind.phase == "centre" or (kind.influence is None) == (kind.canaries is not None)
        assert kind.influence is None or kind.influence == pytest.approx(1.0, abs=1e-6)
    page = page_text(found)
    for phase in asked:
        assert phase in page
    assert json.loads(json.dumps(found.facts))["attempts"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_centre_that_cheats_is_refused_or_covered_by_noise(drawn, name):
    exact = without_noise(name)
    for attempt in cheats(*drawn(name)):
        assert not attempt.broken, attempt
        assert attempt.words == "refused" or attempt.phase not in exact
