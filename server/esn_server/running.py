"""One run of a study over the real link, from the protocol file to result.json and the report."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esn_core.atlas import load_atlas
from esn_core.protocol import Protocol
from esn_core.signed_protocol import load_signed, require_current, today_utc
from esn_server.checkpoints import Checkpoints, RunStore
from esn_server.identity import load_centre_key
from esn_server.link import open_run, register_site
from esn_server.memory import Memory
from esn_server.outcome import result_of
from esn_server.protocol_signing import require_own_bundle
from esn_server.report.page import write_page
from esn_server.report.result import StudyResult, write_result
from esn_server.rounds import Rounds
from esn_server.sites import node_key_of, require_enrolled
from esn_server.study import Progress, run_study

_log = logging.getLogger(__name__)


def run(
    protocol_path: Path, directory: Path, *, centre: Path, address: str, progress: Progress
) -> StudyResult:
    """Run a study, or go on with one that was stopped.

    Parameters
    ----------
    protocol_path : Path
    directory : Path
        Of this run: its finished steps, result.json and report.html. A second
        start in the same directory resumes.
    centre : Path
        The centre's directory, with its keys and enrolled sites.
    address : str
        ``host:port`` of the SuperLink.
    progress : Progress

    Raises
    ------
    ProtocolError
        The protocol cannot be used, is not signed by this centre, has expired, or lists a site that is
        not enrolled with these keys.
    LinkError
        The SuperLink cannot be reached.
    StudyError
        A phase could not be finished.

    """
    key = load_centre_key(centre)
    protocol = load_signed(protocol_path, key.public_key())
    require_current(protocol, today_utc())
    require_own_bundle(protocol, protocol_path)
    nodes = _register(protocol, centre, address)
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open_run(centre, address=address) as link:
        opened = time.monotonic()
        with RunStore(directory / "run.sqlite", protocol_sha256=protocol.sha256) as store:
            name = store.run
            rounds = Rounds(link, nodes, protocol=protocol, signing_key=key, memory=Memory(centre, store))
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


def _register(protocol: Protocol, centre: Path, address: str) -> dict[str, int]:
    for entry in protocol.roster:
        require_enrolled(centre, entry)
    return {site: register_site(centre, address, node_key_of(centre, site)) for site in protocol.sites}
