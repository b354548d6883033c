"""One run of a study over the real link, from the protocol file to result.json and the report."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_core.protocol.phases import PhaseName
from esn_core.protocol.signature import SignedProtocol, load_signed, require_current, today_utc
from esn_core.severity_network.candidate_list import CandidateList
from esn_server.enrolment.centre_keys import load_centre_key
from esn_server.enrolment.sites import node_key_of, require_enrolled
from esn_server.link.flower_run import open_study
from esn_server.link.message_log import LoggedLink
from esn_server.link.registration import register_site
from esn_server.protocol.signing import require_own_bundle
from esn_server.report.outcome import result_of
from esn_server.report.result import StudyResult, write_result
from esn_server.run.checkpoints import Checkpoints, RunStore
from esn_server.run.directory import PROGRESS, STORE, atlas_of, open_directory
from esn_server.run.learned import write_learned
from esn_server.run.memory import Memory
from esn_server.run.progress import ProgressFile
from esn_server.run.queue import place_in_queue
from esn_server.service.address import read_address
from esn_server.study.observer import Observer
from esn_server.study.rounds import Rounds
from esn_server.study.study import run_study
from esn_server.study.votes import run_votes

_log = logging.getLogger(__name__)

CANDIDATES = "candidates.toml"
"""What sites voted for, among a run's files."""


def run(
    protocol_path: Path,
    directory: Path,
    *,
    centre: Path,
    progress: Callable[[PhaseName, int, int], None],
    resume: bool = False,
) -> StudyResult | CandidateList:
    """Run a study, or go on with one that was stopped; wait for those that were started before.

    Returns what it found: a result, or the list of candidates where the sites vote.

    Parameters
    ----------
    protocol_path : Path
    directory : Path
        Of this run: its finished steps, progress.json, and result.json with report.html and
        model.safetensors, or candidates.toml.
    centre : Path
        The centre's directory, with its keys and enrolled sites.
    progress : callable
        Told phase, round and number of rounds before each question.
    resume : bool
        Go on after the last finished step of the run in `directory`, which may be a copy from another
        machine.

    Raises
    ------
    ConfigError
        `directory` holds something else, or a run although `resume` was not asked for.
    ProtocolError
        The protocol cannot be used, is not signed by this centre, has expired, or lists a site that is
        not enrolled with these keys.
    LinkError
        The SuperLink cannot be reached.
    StudyError
        A phase could not be finished.

    """
    key = load_centre_key(centre)
    signed = load_signed(protocol_path, key.public_key())
    protocol = signed.protocol
    require_current(protocol, today_utc())
    require_own_bundle(protocol, protocol_path)
    for entry in protocol.roster:
        require_enrolled(centre, entry)
    open_directory(directory, protocol_path, protocol, resume=resume)
    file = ProgressFile(directory / PROGRESS, protocol=protocol, show=progress)

    def behind(studies: Sequence[str]) -> None:
        _log.info("%s waits for %s", protocol.study, ", ".join(studies))
        file.queued(studies)

    try:
        with place_in_queue(centre, study=protocol.study, run_directory=directory, behind=behind):
            file.started()
            result = _run(signed, directory, centre=centre, key=key, observer=file)
            if isinstance(result, CandidateList):
                result.write(directory / CANDIDATES)
            else:
                write_outcome(result, directory)
    except BaseException as error:
        file.ended(error)
        raise
    file.ended(None)
    return result


def _run(
    signed: SignedProtocol,
    directory: Path,
    *,
    centre: Path,
    key: Ed25519PrivateKey,
    observer: Observer,
) -> StudyResult | CandidateList:
    """Run the study, when it is its turn."""
    protocol, address = signed.protocol, read_address(centre).superlink
    nodes = {site: register_site(centre, address, node_key_of(centre, site)) for site in protocol.sites}

    started = time.monotonic()
    with open_study(centre) as link:
        opened = time.monotonic()
        with RunStore(directory / STORE, protocol_sha256=protocol.sha256) as store:
            name = store.run
            rounds = Rounds(
                LoggedLink(link, nodes, centre=centre),
                nodes,
                protocol=signed,
                signing_key=key,
                memory=Memory(centre, store),
                observer=observer,
            )
            asking = Checkpoints(store, rounds)
            if protocol.voting:
                return run_votes(signed, run=name, asking=asking, observer=observer)
            findings = run_study(
                signed,
                run=name,
                asking=asking,
                rng=np.random.default_rng(int(protocol.sha256[:16], 16)),
                observer=observer,
            )
    timings = {"link": opened - started}
    write_learned(findings, directory)
    return result_of(protocol, findings, run=name, timing_s=timings)


def write_outcome(
    result: StudyResult,
    directory: Path,
    *,
    no_noise: StudyResult | None = None,
    timing_s: Mapping[str, float] | None = None,
) -> StudyResult:
    """Write result.json, report.html and what stands beside it; return the result with `timing_s` added."""
    from esn_server.report.beside import write_beside
    from esn_server.report.figures.shown import figures_of  # they take as long to load as all else
    from esn_server.report.page import write_page

    if timing_s:
        result = result.model_copy(update={"timing_s": {**timing_s, **result.timing_s}})
    atlas = atlas_of(result.severity_network.atlas, directory)
    write_result(result, directory / "result.json")
    figures = figures_of(result, atlas, no_noise=no_noise)
    write_page(result, figures, directory / "report.html", no_noise=no_noise)
    write_beside(result, atlas, figures, directory)
    return result
