"""Shadow studies: what a whole private study proves about one child, or one control, that was in it or not.

    python tests/benchmarks/shadow_audit.py [--json] [--worlds N] [--seed S] [--target NAME ...]

The same study is run many times, in half of them with one child more. An
attacker who has every number that the study released, and knows all other
children, weighs each release by its likelihood with and without the child
(the strongest test there is); another has only what is published: the severity
network, the model and its calibration, and learns from half of the studies
what these look like with and without the child (Carlini et al. 2022). Their
error rates bound the privacy of the study from below, to be held against its
price. A control has no price: the same attacks ask whether the children were
judged by one more control, whom the noise was not made for. Rows, gate, noise,
selection, training, calibration and evaluation are the product's own; one
hospital answers, under trust 'local', so that the noise is exactly what is
claimed. Ledgers are in memory.
"""

import argparse
import datetime
import json
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from esn_client.answers.hospital import roll_call, rows_of
from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.gate.limits import Limits
from esn_client.privacy_audit.attacks import (
    area,
    area_bound,
    area_error,
    guess,
    mu_interval,
    true_positive_rate,
)
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import load_template
from esn_core.gase import standardise_severity
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.learning.severity_model import as_matrices, predict
from esn_core.learning.weights import from_vector
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.accounting import epsilon_of, true_positives
from esn_core.privacy.release import ReleaseKind, clip_rows
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.selection import masked_input
from esn_core.transcript.course import steering
from esn_core.transcript.transcript import ReleasedSum, Transcript
from esn_server.study.asking import Pooled
from esn_server.study.study import Findings, run_study

ATLAS = "phantom-28"
TARGETS = ("most influential", "typical", "a control")
VIEWS = ("every release", "published model")
CHILDREN, HELD_OUT, CONTROLS = 16, 8, 10
EPSILON, DELTA = 8.0, 1e-3
ERROR = 0.05  # of each bound
FALSE_POSITIVES = 0.01
WORLDS = 400
_NOWHERE = LedgerMark(entries=0, head="0" * 64)


@dataclass(frozen=True)
class Row:
    """One line of the table; nothing is claimed of a control."""

    target: str
    view: str
    worlds: int
    epsilon_claimed: float | None
    epsilon_proven: float
    area: float
    area_error: float
    area_bound: float | None
    found: float
    found_bound: float | None


def draw_protocol() -> Protocol:
    """Return a study of three rounds at one hospital; the roster's others never answer."""
    roster = [
        {
            "site": site,
            "node_key": f"ecdsa-sha2-nistp384 {site}=",
            "identity_key": identity_text(Ed25519PrivateKey.generate().public_key()),
            "mask_key": mask_text(X25519PrivateKey.generate().public_key()),
        }
        for site in ("north", "south", "west")
    ]
    recipe = (files("esn_core.connectome") / "atlases" / f"{ATLAS}.recipe.toml").read_text()
    return Protocol.model_validate(
        {
            "format": 1,
            "study": "shadow",
            "simulated": True,
            "expires": datetime.date(2099, 12, 31),
            "bundle_sha256": "0" * 64,
            "roster": roster,
            "imaging": tomllib.loads(recipe),
            "cohort": {"held_out_fraction": 0.333, "split_salt": "shadow", "minimum_children": 5},
            "severity_network": {"candidates": "template"},
            "model": {"name": "compact", "initial_weights": "compact-3"},
            "training": {"rounds": 3, "learning_rate": 0.001, "max_gradient_norm": 1.0},
            "privacy": {
                "trust": "local",
                "colluding_sites": 1,
                "noise": "gaussian",
                "epsilon": EPSILON,
                "delta": DELTA,
                "shares": {
                    "centre": 0.05,
                    "association": 0.5,
                    "gradient": 0.3,
                    "calibration": 0.15,
                    "evaluation": 1.0,
                },
            },
            "rounds": {"quorum": 3, "deadline_s": 5.0},
        }
    )


def draw_cohort(target: str, rng: np.random.Generator) -> Cohort:
    """Draw the hospital's children; the last training child is the target."""
    template = load_template(ATLAS, simulated=True)
    affected = np.flatnonzero(template.present)[:20]

    def split(n: int, first: int) -> Split:
        gase = rng.integers(1, 8, n).astype(float)
        scores = rng.normal(size=(n, len(template.mean)))
        scores[:, affected] -= 0.8 * standardise_severity(gase)[:, None]
        labels = tuple(f"sub-{i:03d}" for i in range(first, first + n))
        return Split(labels, np.where(template.present, scores, 0.0), gase)

    training = split(CHILDREN + 1, 1)
    if target == "most influential":
        # Strong in every edge, against the direction of all others, at the end of the scale:
        # every row is at its bound, or nearly.
        training.gase[-1] = 7.0
        training.scores[-1] = np.where(template.present, 4.0, 0.0)
    return Cohort(training, split(HELD_OUT, 101), controls=8)


def without_the_target(cohort: Cohort) -> Cohort:
    """Return the cohort without its last training child."""
    everybody = cohort.training
    rest = Split(everybody.participants[:-1], everybody.scores[:-1], everybody.gase[:-1])
    return Cohort(rest, cohort.held_out, controls=cohort.controls)


def judged_by(cohort: Cohort, strengths: NDArray[np.float64]) -> Cohort:
    """Return a cohort whose scores were drawn, as some controls of given strengths judge it."""
    reference = ControlReference.of_controls(strengths)
    splits = [
        Split(
            split.participants,
            np.array([reference.scores(_strengths(scores)) for scores in split.scores]),
            split.gase,
        )
        for split in (cohort.training, cohort.held_out)
    ]
    return Cohort(*splits, controls=len(strengths))


def _strengths(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edge strengths of people whose scores against a public mean and spread are given."""
    return np.where(load_template(ATLAS, simulated=True).present, 5.0 + 0.5 * scores, 0.0)


def draw_target(target: str, rng: np.random.Generator) -> tuple[Cohort, Cohort, Split]:
    """Draw the hospital with and without the target, and the target as a published model sees it, last."""
    cohort = draw_cohort(target, rng)
    if target != "a control":
        return cohort, without_the_target(cohort), cohort.training
    strengths = _strengths(rng.normal(size=(CONTROLS, cohort.training.scores.shape[1])))
    cohort = without_the_target(cohort)
    own = ControlReference.of_controls(strengths[:-1]).scores(strengths[-1])
    seen = Split(("control",), own[None], np.array([7.0]))
    return judged_by(cohort, strengths), judged_by(cohort, strengths[:-1]), seen


@dataclass
class World:
    """One study with or without the target; asks the hospital's gate, and weighs what it releases.

    Attributes
    ----------
    log_ratio : float
        Log likelihood of all releases so far with the target, less that without.

    """

    rehearsal: Rehearsal
    study: Study
    less: Study
    present: bool
    log_ratio: float = 0.0
    transcript: Transcript | None = None

    def roll_call(self, question: Question) -> dict[str, SiteFacts]:
        """Say what the hospital runs."""
        assert question.id.phase == "roll-call"
        return {"north": roll_call(self.study, "16-31", _NOWHERE, _NOWHERE)}

    def sum(self, question: Question, kind: ReleaseKind) -> Pooled:
        """Release the sum over the children, through the gate."""
        protocol, number = self.rehearsal.protocol, question.id
        self.transcript = self.transcript or Transcript(protocol, number.run)
        asked = self.transcript.arguments(number.phase, number.round)
        given, less = rows_of(asked, self.study), rows_of(asked, self.less)
        total = self.rehearsal.view(question, given if self.present else less)
        noise = price_of(self.study.protocol).of(question.id.phase).noise_multiplier * kind.l2_bound
        known = clip_rows(less.values, kind.l2_bound).sum(axis=0)
        target = (clip_rows(given.values, kind.l2_bound).sum(axis=0) - known) / noise
        self.log_ratio += float(target @ (total - known) / noise - target @ target / 2)
        if number.phase in steering(protocol):
            self.transcript.append(ReleasedSum(number.phase, number.round, ("north",), total))
        return Pooled(total, ("north",))


def published(findings: Findings, target: Split) -> NDArray[np.float64]:
    """Return what the published model says about the target (the last one), and its calibration."""
    edges, weight = findings.network.edges, findings.network.weight
    y = float(standardise_severity(target.gase)[-1])
    scores = target.scores[-1:, edges]
    atlas = load_atlas(ATLAS)
    inputs = as_matrices(masked_input(scores, weight), edges, ends=atlas.edges, regions=len(atlas.regions))
    raw = float(predict(from_vector(findings.weights), inputs)[0])
    intercept, slope = findings.calibration
    alignment = float(scores[0] @ weight) * y
    return np.array([alignment, (intercept + slope * raw - y) ** 2, intercept, slope])


def learned_log_ratio(features: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Score each study by two normal distributions that the other half of the studies taught."""
    scores = np.empty(len(features))
    half = np.arange(len(features)) % 4 < 2  # studies alternate between with and without
    for test in (half, ~half):
        taught = [features[~test & (present == inside)] for inside in (True, False)]
        means = [f.mean(axis=0) for f in taught]
        within = np.concatenate([f - m for f, m in zip(taught, means, strict=True)])
        inverse = np.linalg.pinv(within.T @ within / len(within))
        scores[test] = (features[test] - (means[0] + means[1]) / 2) @ inverse @ (means[0] - means[1])
    return scores


def shadow_table(*, worlds: int, seed: int, targets: Sequence[str] | None = None) -> list[Row]:
    """Run `worlds` studies for each target, half of them with it, and attack them."""
    rng = np.random.default_rng(seed)
    limits = Limits(
        epsilon_cap=EPSILON + 0.01,
        delta=DELTA,
        minimum_children=5,
        trust="secure-sum",
        colluding_sites=1,
        exact_sums=False,
    )
    rows = []
    for target in targets or TARGETS:
        cohort, less, seen = draw_target(target, rng)
        present = np.arange(worlds) % 2 == 0
        log_ratio, features = np.empty(worlds), np.empty((worlds, 4))
        with scratch_directory() as scratch:
            rehearsal = Rehearsal(draw_protocol(), site="north", limits=limits, scratch=scratch)
            study, rest = (
                Study("north", rehearsal.protocol, of, torch.device("cpu")) for of in (cohort, less)
            )
            for number in range(worlds):
                world = World(rehearsal, study, rest, bool(present[number]))
                findings = run_study(rehearsal.signed, run="r1", asking=world, rng=rng)
                log_ratio[number] = world.log_ratio
                features[number] = published(findings, seen)
        mu = price_of(rehearsal.protocol).mu("training")
        for view, scores in (
            ("every release", log_ratio),
            ("published model", learned_log_ratio(features, present)),
        ):
            low, _ = mu_interval(guess(scores, present, threshold=0.0), error=ERROR)
            claimed = target != "a control"
            rows.append(
                Row(
                    target=target,
                    view=view,
                    worlds=worlds,
                    epsilon_claimed=epsilon_of(mu, DELTA) if claimed else None,
                    epsilon_proven=epsilon_of(low, DELTA),
                    area=area(scores, present),
                    area_error=area_error(scores[:, None], present[:, None]),
                    area_bound=area_bound(mu) if claimed else None,
                    found=true_positive_rate(scores, present, false_positives=FALSE_POSITIVES),
                    found_bound=true_positives(mu, false_positives=FALSE_POSITIVES) if claimed else None,
                )
            )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--worlds", type=int, default=WORLDS, help="studies for each target, 20 or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=TARGETS, help="all of them unless given")
    options = parser.parse_args()
    if options.worlds < 20:
        parser.error(f"a target needs 20 studies or more, not {options.worlds}")
    started = time.process_time()
    rows = shadow_table(worlds=options.worlds, seed=options.seed, targets=options.target)
    spent = time.process_time() - started
    if options.json:
        json.dump({"cpu_s": spent, "seed": options.seed, "rows": [asdict(row) for row in rows]}, sys.stdout)
        return
    names = ("ε claimed", "ε proven", "area", "± s.e.", "at most", "TPR", "at most")
    print(f"{'target':18}{'attacker has':18}" + "".join(f"{name:>10}" for name in names))
    for row in rows:
        claimed, bound, most = (
            "" if value is None else f"{value:.2f}"
            for value in (row.epsilon_claimed, row.area_bound, row.found_bound)
        )
        print(
            f"{row.target:18}{row.view:18}{claimed:>10}{row.epsilon_proven:10.2f}"
            f"{row.area:10.3f}{row.area_error:10.3f}{bound:>10}{row.found:10.3f}{most:>10}"
        )
    print(f"{options.worlds} studies for each target, {spent:.0f} CPU s")


if __name__ == "__main__":
    main()
