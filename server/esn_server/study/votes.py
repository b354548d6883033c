"""The step before a study in which its sites vote on candidates, and may pool controls; knows no Flower."""

import numpy as np
from numpy.typing import NDArray

from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import DataError, StudyError
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol
from esn_core.severity_network.candidate_list import CandidateList, Origin, pairs_of
from esn_core.severity_network.pooled_reference import PooledReference
from esn_core.severity_network.votes import Votes, votes_release
from esn_core.transcript.transcript import ReleasedSum, Transcript
from esn_server.study.asking import Asking, Pooled
from esn_server.study.observer import Observer, Unobserved
from esn_server.study.roll_call import require_alike


def run_votes(
    signed: SignedProtocol, *, run: str, asking: Asking, observer: Observer | None = None
) -> CandidateList:
    """Let the sites vote; return the list that a protocol of the study can carry.

    Parameters
    ----------
    signed : SignedProtocol
        One by which the sites vote.
    run : str
        Name of this run; part of every question's id.
    asking : Asking
    observer : Observer, optional

    Raises
    ------
    StudyError
        A site is not fit to take part, no edge has the votes of most sites, or too few controls were pooled.

    """
    protocol, watched = signed.protocol, observer or Unobserved()
    atlas = protocol.atlas
    watched.began("roll-call", 0, 1)
    require_alike(protocol, asking.roll_call(_question(protocol, run, "roll-call")))
    watched.began("votes", 0, 1)
    pooled = asking.sum(_question(protocol, run, "votes"), votes_release(len(atlas.edges)))
    try:
        votes = Votes.from_total(pooled.total)
    except DataError as error:
        raise StudyError(str(error)) from error
    if votes.sites != len(pooled.sites):
        raise StudyError(f"{votes.sites} sites voted of {len(pooled.sites)} that answered")
    if not votes.chosen.any():
        raise StudyError(f"no edge has the votes of most of the {votes.sites} sites")
    chosen, pooled_reference = votes.chosen, None
    if protocol.cohort.pool_controls:
        watched.began("reference", 0, 1)
        pooled_reference, chosen = _pool(protocol, run, asking, pooled)
    return CandidateList(
        format=1,
        atlas=atlas.name,
        recipe_sha256=protocol.imaging.sha256,
        origin=Origin(
            kind="votes",
            people=votes.sites * protocol.cohort.minimum_controls,
            note=(
                f"streamlines in 95 % of the controls of most of {votes.sites} sites; protocol "
                f"{protocol.sha256[:16]}, run {run}"
            ),
        ),
        pairs=tuple(pairs_of(atlas, chosen)),
        reference=pooled_reference,
    )


def _pool(
    protocol: Protocol, run: str, asking: Asking, votes: Pooled
) -> tuple[PooledReference, NDArray[np.bool_]]:
    """Ask for the pooled controls, of the edges that were voted for; say of which edges there is enough."""
    transcript = Transcript(protocol, run)
    transcript.append(ReleasedSum("votes", 0, votes.sites, votes.total))
    asked = Question(transcript.question("reference", 0), after=transcript.mark, relayed=votes.relayed)
    pooled = asking.sum(asked, kind_of("reference", protocol))
    try:
        return PooledReference.from_total(pooled.total, sites=len(pooled.sites))
    except DataError as error:
        raise StudyError(str(error)) from error


def _question(protocol: Protocol, run: str, phase: PhaseName) -> Question:
    return Question(QuestionId(protocol_sha256=protocol.sha256, run=run, phase=phase, round=0, attempt=0))
