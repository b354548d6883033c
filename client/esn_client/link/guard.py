"""The guard: takes questions from the site's SuperNode, and runs only what the site installed."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import SystemRandom

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from esn_client.app import Answer, app, install
from esn_client.link.bundle import check_bundle
from esn_client.link.centre_probe import require_centre
from esn_client.link.supernode import SuperNode, run_supernode
from esn_core.errors import AwayError, ConfigError, LinkError, ProtocolError
from esn_core.system.loopback import bypass_proxy

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it reports every poll

# A question is looked for the later, the longer none has come: after a tenth of that time, in these limits.
_SHARE_OF_WAIT, _SHORTEST_POLL_S, _LONGEST_POLL_S = 0.1, 0.05, 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
# After a connection that held for so long, the next attempt is made at once.
_STEADY_S = 60.0
# A question that has arrived at the SuperNode is read within this time, its own way here included.
_PULL_S = 30.0


@dataclass(frozen=True)
class GuardSettings:
    """How a site joins a federation.

    Attributes
    ----------
    server_address : str
        ``host:port`` of the centre.
    ca_certificate : Path
        The certificate authority that the centre has to prove itself against, PEM.
    node_key : Path
        This site's private key, elliptic curve, OpenSSH format.
    state_directory : Path
        Where logs and Flower's own files are kept; one per site.
    allowed_bundles : callable
        Returns the sha256 of the Flower app bundles that this site has agreed to, 64 hexadecimal digits
        each; called for every question.
    audit : callable
        Receives one line for every refusal; the lines hold no text of the other side's choosing.
    connect_timeout_s : float
        How long one attempt to connect may take.

    Raises
    ------
    ConfigError
        A value cannot be used; all of them are named.

    """

    server_address: str
    ca_certificate: Path
    node_key: Path
    state_directory: Path
    allowed_bundles: Callable[[], frozenset[str]]
    audit: Callable[[str], None]
    connect_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        """Complain about every value that cannot be used."""
        complaints = []
        host, _, port = self.server_address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            complaints.append(f"server_address must be host:port, not {self.server_address!r}")
        complaints += [
            f"{name} {path} is not a file"
            for name, path in (("ca_certificate", self.ca_certificate), ("node_key", self.node_key))
            if not path.is_file()
        ]
        if not self.connect_timeout_s > 0:
            complaints.append(f"connect_timeout_s must be positive, not {self.connect_timeout_s}")
        if complaints:
            raise ConfigError("; ".join(complaints))


def join(settings: GuardSettings, answer: Answer, *, stop: threading.Event | None = None) -> None:
    """Answer the centre's questions until this site is asked to stop.

    A centre that is away is waited for, for days if need be. Questions are answered one at a time, in this
    process and thread. SIGTERM (in the main thread) and `stop` let the question at hand be answered and
    sent first. No process outlives the call.

    Parameters
    ----------
    settings : GuardSettings
        Where the centre is, and what this site has agreed to.
    answer : callable
        Takes a question's bytes and returns the answer's. Of an exception, the centre learns the
        name of its class and nothing else.
    stop : threading.Event, optional
        Set it to end the call from another thread.

    Raises
    ------
    LinkError
        The centre cannot be trusted, or does not accept this site's key: waiting cures neither.

    """
    stop = stop or threading.Event()
    install(answer)
    bypass_proxy("127.0.0.1", "localhost")  # to our own SuperNode
    pauses, away = _pauses(), False
    with _stopped_by_sigterm(stop):
        while not stop.is_set():
            started_s = time.monotonic()
            try:
                require_centre(
                    settings.server_address,
                    ca_certificate=settings.ca_certificate,
                    timeout_s=settings.connect_timeout_s,
                    stopped=stop.is_set,
                )
                if stop.is_set():
                    return
                with run_supernode(
                    server_address=settings.server_address,
                    ca_certificate=settings.ca_certificate,
                    node_key=settings.node_key,
                    state_directory=settings.state_directory,
                    connect_timeout_s=settings.connect_timeout_s,
                    stopped=stop.is_set,
                ) as supernode:
                    if stop.is_set():
                        return
                    logger.info("connected to the centre at %s", settings.server_address)
                    away = False
                    _answer_questions(supernode, settings, stop)
                    if not supernode.running:
                        logger.warning("the SuperNode ended and is started again: %s", supernode.last_words())
            except AwayError as error:
                if not away:  # one line for each change of state, however many days it lasts
                    logger.warning("%s; this site keeps trying", error)
                away = True
            if time.monotonic() - started_s > _STEADY_S:
                pauses = _pauses()
            stop.wait(next(pauses))


def _pauses() -> Iterator[float]:
    """Yield seconds to wait between attempts: longer and longer, and never all sites at once."""
    longest_s = _FIRST_PAUSE_S
    while True:
        yield SystemRandom().uniform(0.5, 1.0) * longest_s
        longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)


def _answer_questions(supernode: SuperNode, settings: GuardSettings, stop: threading.Event) -> None:
    """Take tasks until we are stopped or the SuperNode has ended."""
    proof = SuperExecAuthHttpInterceptor(
        master_secret=supernode.secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    last: str | None = None
    asked_s = time.monotonic()
    with _runtime_client(supernode, proof) as client:
        while not stop.is_set() and supernode.running:
            waited_s = time.monotonic() - asked_s
            pause_s = min(max(_SHARE_OF_WAIT * waited_s, _SHORTEST_POLL_S), _LONGEST_POLL_S)
            try:
                response = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
            except httpx.HTTPStatusError as error:
                code = error.response.status_code
                raise LinkError(f"the site's own SuperNode hands out no questions ({code})") from error
            except httpx.TransportError:  # if it has ended, that is seen above
                stop.wait(pause_s)
                continue
            if response.HasField("task"):
                try:
                    last = _take_task(supernode, response.token, settings) or last
                except TimeoutError:
                    logger.warning("a question did not arrive whole; the SuperNode is started again")
                    return
                asked_s = time.monotonic()
            else:
                stop.wait(pause_s)
    if last is not None:
        supernode.drain(last, last_s=asked_s)


def _take_task(supernode: SuperNode, token: str, settings: GuardSettings) -> str | None:
    """Answer one question; return the id of the answer that is on its way, if one is.

    A task that ends without an answer is not reported as ended: the SuperNode would wait for the answer
    for ever, whereas it reports a task whose heartbeat stops to the centre by itself. A task whose question
    never becomes whole, as its run ended while it was fetched, is worse: the SuperNode offers it for ever,
    and only a new SuperNode forgets it. That is a `TimeoutError`.
    """
    patience = _Patience(_PULL_S)
    proofs = (RuntimeTokenHttpInterceptor(token), patience)
    with _runtime_client(supernode, *proofs) as client, _heartbeat(client):
        try:
            message, context, _, bundle = pull_task_input(client)
            patience.until_s = float("inf")
            reply = _reply(message, context, bundle.content, settings)
            push_message(client, reply, context)
            failed = reply.has_error()
            push_task_output(client, context, SubStatus.FAILED if failed else SubStatus.COMPLETED, "")
        except TimeoutError:
            raise
        except Exception as error:
            # Whatever a message does to Flower's own code, this site stays in the federation.
            _note("a question could not be taken", error)
            return None
    return str(reply.metadata.message_id)


class _Patience:
    """Ends a sequence of calls to the SuperNode that takes too long; goes between client and network."""

    def __init__(self, seconds: float) -> None:
        self.until_s = time.monotonic() + seconds

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Make a call, if there is time for it."""
        if time.monotonic() > self.until_s and "PullObject" in str(getattr(context, "rpc_method", "")):
            raise TimeoutError
        return call_next(context)


def _reply(message: Message, context: Context, bundle: bytes, settings: GuardSettings) -> Message:
    """Return the answer to a message, or the name of the error that stands in its way."""
    try:
        check_bundle(bundle, allowed_sha256=settings.allowed_bundles())
    except ProtocolError as error:
        settings.audit(f"refused: {error}")
        logger.warning("refused: %s", error)
        return Message(Error(ErrorCode.INVALID_FAB, reason=type(error).__name__), reply_to=message)
    try:
        return app(message=message, context=context)
    except Exception as error:
        _note("a question was answered with an error", error)
        name = type(error).__name__  # and nothing else: the text may hold a path or a patient
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=name), reply_to=message)


def _note(what: str, error: Exception) -> None:
    """Log an error without its text, which may name a patient; with it where debugging was asked for."""
    logger.warning("%s: %s", what, type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))


@contextlib.contextmanager
def _heartbeat(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell the SuperNode that a task is alive; Flower's own version interrupts the process if it is not."""

    def beat() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError:
            logger.debug("the SuperNode has given a task up")
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield
    finally:
        if sender.is_running:
            sender.stop()


def _runtime_client(supernode: SuperNode, *proofs: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """Return a client of the SuperNode on our own machine, with the proofs that we may use it."""
    return RuntimeHttpClient.from_server_address(
        supernode.runtime_address, True, None, [RuntimeVersionHttpInterceptor("flwr-clientapp"), *proofs]
    )


@contextlib.contextmanager
def _stopped_by_sigterm(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM set `stop`, where Python lets us ask for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
