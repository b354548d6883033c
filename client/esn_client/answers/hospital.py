"""What a site answers: one plain function per question of a protocol."""

import datetime
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esn_client.answers import combat, exact_network, neurocognition, reruns
from esn_client.answers.study import Study, calibrated
from esn_client.answers.training import gradients
from esn_client.cohort.cohort import Split
from esn_client.gate.approved import ApprovedProtocol
from esn_client.gate.gate import Gate, Rows
from esn_client.site.cohort_bands import CohortBands
from esn_client.site.transcripts import Transcripts
from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import EsnError, ProtocolError
from esn_core.gase import standardise_severity
from esn_core.learning.attribution import attributions
from esn_core.learning.local_update import take_local_steps
from esn_core.learning.releases import (
    attribution_release,
    attribution_rows,
    gradient_release,
    gradient_rows,
    local_update_release,
    local_update_rows,
)
from esn_core.learning.severity_model import Connectomes, SeverityModel, predict
from esn_core.learning.weights import from_vector
from esn_core.messages.facts import LedgerMark, SiteFacts
from esn_core.messages.question import Question
from esn_core.privacy.release import Children
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.association import association_release, rows_of_residuals
from esn_core.severity_network.centring import (
    centre_release,
    covariates,
    numbers_of,
    residuals,
    rows_to_centre,
)
from esn_core.severity_network.pooled_reference import reference_release, reference_rows
from esn_core.severity_network.selection import masked_input
from esn_core.severity_network.votes import votes_release, votes_rows
from esn_core.statistics.agreement import EVALUATION, evaluation_rows
from esn_core.statistics.matching import COHORT, cohort_rows
from esn_core.statistics.recalibration import CALIBRATION, calibration_rows
from esn_core.statistics.subgroups import SUBGROUPS, subgroup_rows
from esn_core.system.logs import said_of
from esn_core.transcript.arguments import Arguments

_log = logging.getLogger(__name__)

_REPORTED_SOFTWARE = ("esn-federated", "dipy", "flwr", "numpy", "opacus", "opendp", "torch")


class Hospital:
    """Answers the centre's questions of the protocols that a site approved.

    Parameters
    ----------
    gate : Gate
    bands : CohortBands
        What roll calls are told of the cohort's size.
    transcripts : Transcripts
        What was released before, and the numbers that follow from it.
    centre_key : Ed25519PublicKey
        What it did not sign is no question.
    approved : callable
        Returns the approved protocol of a hash, or raises `ProtocolError`; called for every question.
    load : callable
        Returns the `Study` of a protocol; called once per protocol.
    rows : callable, optional
        Computes the rows that answer a phase; by default `rows_of`.

    """

    def __init__(
        self,
        *,
        gate: Gate,
        bands: CohortBands,
        transcripts: Transcripts,
        centre_key: Ed25519PublicKey,
        approved: Callable[[str], ApprovedProtocol],
        load: Callable[[Protocol], Study],
        rows: Callable[[Arguments, Study], Rows] | None = None,
    ) -> None:
        self._gate = gate
        self._bands = bands
        self._transcripts = transcripts
        self._centre_key = centre_key
        self._approved = approved
        self._load = load
        self._rows = rows or rows_of
        # By protocol, and by how many people had withdrawn their consent when the cohort was read.
        self._studies: dict[tuple[str, int], Study] = {}

    def reply(self, body: bytes) -> bytes:
        """Answer one question, or refuse it with the class of the error.

        Raises
        ------
        ProtocolError
            The message is no question of the centre's; there is no id to answer under.

        """
        try:
            question = Question.from_bytes(body, self._centre_key)
        except ProtocolError as error:
            _log.warning("turned a message away: %s", said_of(error))
            self._gate.turn_away(body, error)
            raise
        self._gate.receive(question, body)
        try:
            return self._answer(question)
        except EsnError as error:
            _log.warning("refused %s: %s", question.id, said_of(error))
            return self._gate.refuse(question, error)
        finally:
            with suppress(EsnError):  # of a protocol that is not approved there is nothing to say
                self._tell(question)

    def _tell(self, question: Question) -> None:
        """Say in the site's own log what was asked, and how far the study is."""
        approved = self._approved(question.id.protocol_sha256)
        left, most = self._gate.sums_left(approved)
        _log.info(
            "%s, %s: %d sums of at most %d have left",
            approved.protocol.study,
            question.id.phase,
            left,
            most,
        )

    def _answer(self, question: Question) -> bytes:
        digest = question.id.protocol_sha256
        approved = self._approved(digest)
        withdrawals = self._gate.withdrawals()
        study = self._studies.get((digest, withdrawals))
        if study is None:
            study = self._load(approved.protocol)
            # Looked at each time that it is read: a study that is under way has the cohort of its roll call.
            self._gate.require_same_cohort(question, approved, study.cohort.enrolled)
            self._studies[digest, withdrawals] = study
        _check_round(question, study.protocol)
        if question.reveal:
            return self._gate.reveal(question, approved)
        children: dict[Children, tuple[str, ...]] = {
            "training": study.cohort.training.participants,
            "held-out": study.cohort.held_out.participants,
        }
        others, enrolled = study.cohort.people.others, study.cohort.enrolled
        if question.id.phase == "roll-call":
            band = self._bands.band(digest, sum(map(len, children.values())))
            facts = roll_call(study, band, *self._gate.ledger_marks(question.entries_seen))
            said = self._gate.disclose(
                question, facts, approved, children=children, others=others, cohort=enrolled
            )
            self._bands.keep(digest, band)
            return said
        transcript = self._transcripts.of(study.protocol, question.id.run)
        if question.more:
            transcript.take(question)
            return self._gate.note(question, transcript.received)
        before = self._gate.answered(question, approved)
        if before is not None:
            return before
        if not transcript.take(question):
            return self._gate.note(question, transcript.received)
        if not self._gate.begun(approved):
            # As at roll call, which a centre might leave out: the first sum is not paid for in vain.
            self._gate.require_answerable(
                question, approved, children=children, others=others, cohort=enrolled
            )
        asked = transcript.arguments(question.id.phase, question.id.round)
        if "combat" in asked.arrays:
            study = combat.harmonised(study, asked.array("combat"))
        return self._gate.release(question, self._rows(asked, study), approved)


def roll_call(study: Study, band: str, ledger: LedgerMark, ledger_seen: LedgerMark) -> SiteFacts:
    """Say what the site runs, with which recipe, and roughly how many children it has."""
    imaging = study.protocol.imaging
    return SiteFacts(
        software={name: version(name) for name in _REPORTED_SOFTWARE},
        recipe_sha256=imaging.sha256,
        atlas_sha256=imaging.parcellation.sha256,
        template_sha256=study.protocol.template_sha256,
        cohort_band=band,
        ledger=ledger,
        ledger_seen=ledger_seen,
        said_at=datetime.datetime.now(datetime.UTC),
    )


def votes(_asked: Arguments, study: Study) -> Rows:
    """Vote for the edges that nearly all of this site's controls have."""
    strengths = study.cohort.control_strengths
    labels = study.cohort.people.others.get("control", ())
    return Rows(votes_release(strengths.shape[1]), votes_rows(strengths), labels)


def reference(asked: Arguments, study: Study) -> Rows:
    """Sum the strengths of this site's controls, and their squares, for the edges that were voted for."""
    strengths = study.cohort.control_strengths
    chosen = asked.array("chosen", strengths.shape[1]) > 0
    labels = study.cohort.people.others.get("control", ())
    return Rows(reference_release(strengths.shape[1]), reference_rows(strengths, chosen), labels)


def cohort(_asked: Arguments, study: Study) -> Rows:
    """Sum age and sex of training children and controls, and count who was left out."""
    people = study.cohort.people
    values = cohort_rows(people.standing, people.age_years, people.sex)
    return Rows(COHORT, values, people.participants, people.standing)


def centre(_asked: Arguments, study: Study) -> Rows:
    """Count the training children, by GASE and with age and sex, or with the sum of their severity."""
    split, centring = study.cohort.training, study.protocol.severity_network.centre
    rows = rows_to_centre(centring, split.gase, covariates(split.age_years, split.sex))
    return Rows(centre_release(centring), rows, split.participants)


def association(asked: Arguments, study: Study) -> Rows:
    """Sum edge score, or a block's average of them, times severity over the training children."""
    severity = asked.array("mean_severity", numbers_of(study.protocol.severity_network.centre))
    split = study.cohort.training
    features = study.candidates.features(split.scores)
    residual = residuals(split.gase, covariates(split.age_years, split.sex), severity)
    values = rows_of_residuals(features, residual)
    return Rows(association_release(features.shape[1]), values, split.participants)


def gradient(asked: Arguments, study: Study) -> Rows:
    """Sum the clipped gradients of one full-batch step over the training children."""
    split = study.cohort.training
    bound = study.protocol.training.max_gradient_norm
    model = from_vector(asked.array("weights"), device=study.device)
    inputs = study.inputs(split, asked.array("edge_weights", len(study.candidates.edges)))
    per_child, losses = gradients(model, inputs, split.gase)
    values = gradient_rows(per_child, losses, max_gradient_norm=bound)
    kind = gradient_release(per_child.shape[1], max_gradient_norm=bound)
    return Rows(kind, values, split.participants)


def local_update(asked: Arguments, study: Study) -> Rows:
    """Take several steps at this site; for each training child, where they led, and the child's loss."""
    split, rules = study.cohort.training, study.protocol.training
    model, inputs = _model_and_inputs(asked, study, split)
    moved = take_local_steps(
        model,
        inputs,
        split.gase,
        steps=rules.local_steps,
        learning_rate=rules.learning_rate,
        proximal=rules.proximal,
    )
    descent = -moved / rules.learning_rate
    losses = (predict(model, inputs) - standardise_severity(split.gase)) ** 2
    values = local_update_rows(descent, losses, max_gradient_norm=rules.max_gradient_norm)
    kind = local_update_release(len(descent), max_gradient_norm=rules.max_gradient_norm)
    return Rows(kind, values, split.participants)


def calibration(asked: Arguments, study: Study) -> Rows:
    """Sum the moments of raw prediction and severity over the training children."""
    split = study.cohort.training
    raw = predict(*_model_and_inputs(asked, study, split))
    return Rows(CALIBRATION, calibration_rows(raw, split.gase), split.participants)


def evaluation(asked: Arguments, study: Study) -> Rows:
    """Sum the moments of calibrated prediction and clinical score over the held-out children."""
    split = study.cohort.held_out
    raw = predict(*_model_and_inputs(asked, study, split))
    gase = calibrated(raw, asked.array("calibration", 2))
    return Rows(EVALUATION, evaluation_rows(gase, split.gase), split.participants)


def subgroup_evaluation(asked: Arguments, study: Study) -> Rows:
    """Sum these moments by sex and by age."""
    split = study.cohort.held_out
    raw = predict(*_model_and_inputs(asked, study, split))
    gase = calibrated(raw, asked.array("calibration", 2))
    return Rows(SUBGROUPS, subgroup_rows(gase, split.gase, split.age_years, split.sex), split.participants)


def attribution(asked: Arguments, study: Study) -> Rows:
    """Sum what each candidate edge contributes to the held-out children's calibrated predictions."""
    split, edges = study.cohort.held_out, study.candidates.edges
    _, slope = asked.array("calibration", 2)
    values = attributions(
        from_vector(asked.array("weights"), device=study.device),
        masked_input(split.scores[:, edges], asked.array("edge_weights", len(edges))),
        edges,
        ends=study.atlas.edges,
        regions=len(study.atlas.regions),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        rows = attribution_rows(values * slope)
    return Rows(attribution_release(len(edges)), rows, split.participants)


def _model_and_inputs(asked: Arguments, study: Study, split: Split) -> tuple[SeverityModel, Connectomes]:
    model = from_vector(asked.array("weights"), device=study.device)
    return model, study.inputs(split, asked.array("edge_weights", len(study.candidates.edges)))


def rows_of(asked: Arguments, study: Study) -> Rows:
    """Compute the rows that answer a phase, at given numbers, for the gate to sum.

    A site without controls of its own adds nobody to a sum over training children.
    """
    if not study.protocol.trains(study.site) and PHASES[asked.phase].children == "training":
        kind = kind_of(asked.phase, study.protocol)
        return Rows(kind, np.zeros((0, kind.dimension)), ())
    return ROWS[asked.phase](asked, study)


ROWS: Mapping[PhaseName, Callable[[Arguments, Study], Rows]] = {
    "votes": votes,
    "reference": reference,
    "cohort": cohort,
    "combat": combat.sums,
    "centre": centre,
    "association": association,
    "gradient": gradient,
    "local-update": local_update,
    "calibration": calibration,
    "evaluation": evaluation,
    "subgroup-evaluation": subgroup_evaluation,
    "attribution": attribution,
    "rerun-association": reruns.association,
    "rerun-calibration": reruns.calibration,
    "rerun-evaluation": reruns.evaluation,
    "fold-evaluation": reruns.fold_evaluation,
    "network": exact_network.moments,
    "network-null": exact_network.null,
    "network-bootstrap": exact_network.bootstrap,
    "linear": neurocognition.linear,
    "newton": neurocognition.newton,
    "comparison": neurocognition.comparison,
    "ranking": neurocognition.ranking,
}
"""What makes the rows of each phase that has a sum over children."""


def _check_round(question: Question, protocol: Protocol) -> None:
    phase = question.id.phase
    rounds = 1 if phase == "roll-call" else price_of(protocol).of(phase).releases
    if question.id.round >= rounds:
        raise ProtocolError(
            f"the protocol has {rounds} rounds of {phase}, numbered from 0; "
            f"round {question.id.round} was asked"
        )
