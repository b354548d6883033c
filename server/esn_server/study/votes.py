"""The step before a study in which its sites vote on candidates; knows no Flower."""

from esn_core.connectome.atlas import load_atlas
from esn_core.errors import DataError, StudyError
from esn_core.messages.question import Question, QuestionId
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import SignedProtocol
from esn_core.severity_network.candidate_list import CandidateList, Origin, pairs_of
from esn_core.severity_network.votes import Votes, votes_release
from esn_server.study.asking import Asking
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
        A site is not fit to take part, or no edge has the votes of most sites.

    """
    protocol, watched = signed.protocol, observer or Unobserved()
    atlas = load_atlas(protocol.imaging.atlas)
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
        pairs=tuple(pairs_of(atlas, votes.chosen)),
    )


def _question(protocol: Protocol, run: str, phase: PhaseName) -> Question:
    return Question(QuestionId(protocol_sha256=protocol.sha256, run=run, phase=phase, round=0, attempt=0))
