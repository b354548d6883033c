"""The link of a study to its sites: Flower runs, opened from this process and closed with their status."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from esn_core.errors import LinkError
from esn_server.link.bundle import build_bundle, bundle_sha256
from esn_server.link.grid import PatientGrid
from esn_server.link.lasting_link import LastingLink
from esn_server.link.superlink_api import control_client, reaching, runtime_client
from esn_server.link.transport import Transport
from esn_server.service.address import read_address, study_lock
from esn_server.service.superlink import read_secret

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it reports every poll

_ACQUIRE_S = 20.0
_ACQUIRE_POLL_S = 0.1
_LOCK_S = 1.0


@contextlib.contextmanager
def open_study(directory: Path) -> Iterator[LastingLink]:
    """Open the link of a study to its sites, and keep it open over a SuperLink's restarts.

    Parameters
    ----------
    directory : Path
        The centre's directory. One study at a time is open from it.

    Yields
    ------
    LastingLink

    Raises
    ------
    LinkError
        The centre is not started, or another study is open.

    """

    def run() -> contextlib.AbstractContextManager[Transport]:
        return open_flower_run(directory, read_address(directory).superlink)

    with _only_study(directory), LastingLink(run) as link:
        yield link


@contextlib.contextmanager
def open_flower_run(directory: Path, address: str) -> Iterator[Transport]:
    """Open one Flower run whose ServerApp is this process, and close it with its true status.

    The run is "completed" if the block is left without an exception, "stopped" after an interrupt,
    "failed" otherwise. Two processes would take each other's tasks: `open_study` holds a lock.

    Parameters
    ----------
    directory : Path
        The centre's directory: its certificate and its SuperLink's secret.
    address : str
        ``host:port`` of the SuperLink.

    Yields
    ------
    Transport
        Sends and receives the messages of this run.

    Raises
    ------
    LinkError
        The SuperLink cannot be reached, is not who it should be, or starts no run.

    """
    with contextlib.ExitStack() as stack:
        with reaching(address):
            run_id = _submit(directory, address)
            token = _acquire(directory, address, run_id=run_id)
        proof = RuntimeTokenHttpInterceptor(token)
        task = stack.enter_context(runtime_client(directory, address, proof))
        lost = threading.Event()
        heartbeats = HeartbeatSender(lambda: _beat(task, lost))
        heartbeats.start()
        stack.callback(_end, heartbeats)
        status, details = SubStatus.FAILED, "not started"
        try:
            with reaching(address):
                task_input = task.PullTaskInput(PullTaskInputRequest())
            # Flower fills in a message's sender from here.
            TaskIdentity.task_id = task_input.task_id
            TaskIdentity.run_id = task_input.run.run_id
            TaskIdentity.node_id = task_input.context.node_id
            grid = PatientGrid(directory, address, token=token)
            grid.set_run(run_from_proto(task_input.run))
            stack.callback(grid.close)
            yield Transport(grid, address=address, lost=lost)
            status, details = SubStatus.COMPLETED, ""
        except KeyboardInterrupt:
            status, details = SubStatus.STOPPED, ""
            raise
        except BaseException as error:
            details = type(error).__name__
            raise
        finally:
            try:
                task.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
            except httpx.HTTPError as error:
                logger.warning("the SuperLink was not told that run %d is %s: %s", run_id, status, error)


def _submit(directory: Path, address: str) -> int:
    """Start a run of the bundle without code, and return its id."""
    with control_client(directory, address) as control:
        response = control.StartRun(
            StartRunRequest(fab=Fab(hash_str=bundle_sha256(), content=build_bundle()))
        )
    if not response.HasField("run_id"):
        raise LinkError(f"the SuperLink at {address} starts no run (log: logs/superlink.log)")
    return int(response.run_id)


def _acquire(directory: Path, address: str, *, run_id: int) -> str:
    """Become the ServerApp of a run, and return the token that proves it."""
    proof = SuperExecAuthHttpInterceptor(
        master_secret=read_secret(directory), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    deadline_s = time.monotonic() + _ACQUIRE_S
    with runtime_client(directory, address, proof) as client:
        while time.monotonic() < deadline_s:
            response = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if not response.HasField("task"):
                time.sleep(_ACQUIRE_POLL_S)
            elif response.task.run_id == run_id:
                return str(response.token)
            else:
                # Submitted by a process that died before it could run it: nobody else may hold the lock.
                abandoned = RuntimeTokenHttpInterceptor(response.token)
                with runtime_client(directory, address, abandoned) as orphan:
                    orphan.PushTaskOutput(
                        PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="abandoned")
                    )
    raise LinkError(f"the SuperLink at {address} did not hand out run {run_id} within {_ACQUIRE_S:.0f} s")


def _beat(task: RuntimeHttpClient, lost: threading.Event) -> bool:
    """Tell the SuperLink that the run is alive; Flower's own version interrupts the process if it is not."""
    try:
        alive = task.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError:
        alive = False
    if not alive:
        lost.set()
    return True


def _end(heartbeats: HeartbeatSender) -> None:
    if heartbeats.is_running:
        heartbeats.stop()


@contextlib.contextmanager
def _only_study(directory: Path) -> Iterator[None]:
    """Hold the directory's lock."""
    until_s = time.monotonic() + _LOCK_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(study_lock(directory))
                break
            except BlockingIOError:  # the centre itself looks now and then whether it is held
                if time.monotonic() > until_s:
                    raise LinkError(
                        f"another study is running from {directory}; wait until it has ended"
                    ) from None
                time.sleep(_ACQUIRE_POLL_S)
        yield
