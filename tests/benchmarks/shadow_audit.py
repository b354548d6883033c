"""Shadow studies: what a whole private study proves about one child that was in it or not.

    python tests/benchmarks/shadow_audit.py [--json] [--worlds N] [--seed S]

The same study is run many times, in half of them with one child more. An
attacker who has every number that the study released, and knows all other
children, weighs each release by its likelihood with and without the child
(the strongest test there is); another has only what is published: the severity
network, the model and its calibration, and learns from half of the studies
what these look like with and without the child (Carlini et al. 2022). Their
error rates bound the privacy of the study from below, to be held against its
price. Rows, gate, noise, selection, training, calibration and evaluation are
the product's own; one hospital answers, under trust 'local', so that the noise
is exactly what is claimed. Ledgers are in memory.
"""

import argparse
import datetime
import json
import sys
import time
import tomllib
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
from esn_client.gate.gate import Rows
from esn_client.gate.limits import Limits
from esn_client.privacy_audit.attacks import area, area_bound, guess, mu_interval, true_positive_rate
from esn_client.privacy_audit.rehearsal import Rehearsal, scratch_directory
from esn_core.connectome.atlas import load_atlas
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
TARGETS = ("most influential", "typical")
VIEWS = ("every release", "published model")
CHILDREN, HELD_OUT = 16, 8
EPSILON, DELTA = 8.0, 1e-3
ERROR = 0.05  # of each bound
FALSE_POSITIVES = 0.01
WORLDS = 400
_NOWHERE = LedgerMark(entries=0, head="0" * 64)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    target: str
    view: str
    worlds: int
    epsilon_claimed: float
    epsilon_proven: float
    area: float
    area_bound: float
    found: float
    found_bound: float


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


@dataclass
class World:
    """One study with or without the target; asks the hospital's gate, and weighs what it releases.

    Attributes
    ----------
    log_ratio : float
        Log likelihood of all training releases so far with the target, less that without.

    """

    rehearsal: Rehearsal
    study: Study
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
        given = rows_of(self.transcript.arguments(number.phase, number.round), self.study)
        if kind.children == "training":
            everybody = clip_rows(given.values, kind.l2_bound)
            if not self.present:
                given = Rows(kind, given.values[:-1], given.participants[:-1], given.standing[:-1])
        total = self.rehearsal.view(question, given)
        if kind.children == "training":
            noise = price_of(self.study.protocol).of(question.id.phase).noise_multiplier * kind.l2_bound
            target = everybody[-1] / noise
            seen = (total - everybody[:-1].sum(axis=0)) / noise
            self.log_ratio += float(target @ seen - target @ target / 2)
        if number.phase in steering(protocol):
            self.transcript.append(ReleasedSum(number.phase, number.round, ("north",), total))
        return Pooled(total, ("north",))


def published(findings: Findings, target: Split) -> NDArray[np.float64]:
    """Return what the published model says about the target (the last child), and its calibration."""
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


def shadow_table(*, worlds: int, seed: int) -> list[Row]:
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
    for target in TARGETS:
        cohort = draw_cohort(target, rng)
        present = np.arange(worlds) % 2 == 0
        log_ratio, features = np.empty(worlds), np.empty((worlds, 4))
        with scratch_directory() as scratch:
            rehearsal = Rehearsal(draw_protocol(), site="north", limits=limits, scratch=scratch)
            study = Study("north", rehearsal.protocol, cohort, torch.device("cpu"))
            for number in range(worlds):
                world = World(rehearsal, study, bool(present[number]))
                findings = run_study(rehearsal.signed, run="r1", asking=world, rng=rng)
                log_ratio[number] = world.log_ratio
                features[number] = published(findings, cohort.training)
        mu = price_of(rehearsal.protocol).mu("training")
        for view, scores in (
            ("every release", log_ratio),
            ("published model", learned_log_ratio(features, present)),
        ):
            low, _ = mu_interval(guess(scores, present, threshold=0.0), error=ERROR)
            rows.append(
                Row(
                    target=target,
                    view=view,
                    worlds=worlds,
                    epsilon_claimed=epsilon_of(mu, DELTA),
                    epsilon_proven=epsilon_of(low, DELTA),
                    area=area(scores, present),
                    area_bound=area_bound(mu),
                    found=true_positive_rate(scores, present, false_positives=FALSE_POSITIVES),
                    found_bound=true_positives(mu, false_positives=FALSE_POSITIVES),
                )
            )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--worlds", type=int, default=WORLDS, help="studies for each target, 20 or more")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.worlds < 20:
        parser.error(f"a target needs 20 studies or more, not {options.worlds}")
    started = time.process_time()
    rows = shadow_table(worlds=options.worlds, seed=options.seed)
    spent = time.process_time() - started
    if options.json:
        json.dump({"cpu_s": spent, "seed": options.seed, "rows": [asdict(row) for row in rows]}, sys.stdout)
        return
    names = ("ε claimed", "ε proven", "area", "at most", "TPR", "at most")
    print(f"{'target':18}{'attacker has':18}" + "".join(f"{name:>10}" for name in names))
    for row in rows:
        print(
            f"{row.target:18}{row.view:18}{row.epsilon_claimed:10.2f}{row.epsilon_proven:10.2f}"
            f"{row.area:10.3f}{row.area_bound:10.2f}{row.found:10.3f}{row.found_bound:10.2f}"
        )
    print(f"{options.worlds} studies for each target, {spent:.0f} CPU s")


if __name__ == "__main__":
    main()
