"""One run of a study over the real link, from the protocol file to result.json and the report."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esn_core.atlas import load_atlas
from esn_core.errors import ProtocolError
from esn_core.protocol import Protocol, load_protocol
from esn_server.checkpoints import Checkpoints, RunStore
from esn_server.link import bundle_sha256, open_study, register_site
from esn_server.memory import Memory
from esn_server.outcome import result_of
from esn_server.report.page import write_page
from esn_server.report.result import StudyResult, write_result
from esn_server.rounds import Rounds
from esn_server.sites import enrolment, node_key_of
from esn_server.study import Progress, run_study
from esn_server.whereabouts import whereabouts

_log = logging.getLogger(__name__)


def run(protocol_path: Path, directory: Path, *, centre: Path, progress: Progress) -> StudyResult:
    """Run a study, or go on with one that was stopped.

    Parameters
    ----------
    protocol_path : Path
    directory : Path
        Of this run: its finished steps, result.json and report.html. A second
        start in the same directory resumes.
    centre : Path
        The centre's directory, with its keys and enrolled sites.
    progress : Progress

    Raises
    ------
    ProtocolError
        The protocol cannot be used, or does not fit this centre.
    LinkError
        The SuperLink cannot be reached.
    StudyError
        A phase could not be finished.

    """
    protocol = load_protocol(protocol_path)
    if protocol.bundle_sha256 != bundle_sha256():
        raise ProtocolError(
            f"{protocol_path}: names the bundle {protocol.bundle_sha256[:16]}, "
            f"this version's is {bundle_sha256()[:16]}"
        )
    nodes = _register(protocol, centre)
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open_study(centre) as link:
        opened = time.monotonic()
        with RunStore(directory / "run.sqlite", protocol_sha256=protocol.sha256) as store:
            name = store.run
            rounds = Rounds(link, nodes, protocol=protocol, memory=Memory(centre, store))
            findings = run_study(
                protocol,
                run=name,
                asking=Checkpoints(store, rounds),
                progress=progress,
                rng=np.random.default_rng(int(protocol.sha256[:16], 16)),
            )
    timings = {"link": opened - started}
    result = result_of(protocol, findings, run=name, timings_s=timings)
    write_outcome(result, directory)
    return result


def write_outcome(
    result: StudyResult,
    directory: Path,
    *,
    no_noise: StudyResult | None = None,
    timings_s: Mapping[str, float] | None = None,
) -> StudyResult:
    """Write result.json and report.html; return the result with `timings_s` added."""
    if timings_s:
        result = result.model_copy(update={"timings_s": {**timings_s, **result.timings_s}})
    write_result(result, directory / "result.json")
    write_page(
        result, load_atlas(result.severity_network.atlas), directory / "report.html", no_noise=no_noise
    )
    return result


def _register(protocol: Protocol, centre: Path) -> dict[str, int]:
    nodes, address = {}, whereabouts(centre).superlink
    for entry in protocol.roster:
        if enrolment(centre, entry.site) != entry:
            raise ProtocolError(f"the roster lists other keys for {entry.site} than the enrolled ones")
        nodes[entry.site] = register_site(centre, address, node_key_of(centre, entry.site))
    return nodes
