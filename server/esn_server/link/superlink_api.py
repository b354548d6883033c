"""Clients of the SuperLink's own API, and how its absence is told."""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # read at Flower's import

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import httpx
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.retry import RetryInvoker
from flwr.supercore.runtime import RuntimeHttpClient

from esn_core.errors import LinkError
from esn_core.system.loopback import bypass_proxy
from esn_server.service.superlink import PROOF_HEADER, proof_of, read_secret


def control_client(directory: Path, address: str) -> ControlHttpClient:
    """Return a client of the API that registers nodes and starts runs.

    Parameters
    ----------
    directory : Path
        The centre's, with the certificate of the SuperLink's authority and the secret.
    address : str
        ``host:port`` of the SuperLink.

    Raises
    ------
    LinkError
        The directory lacks one of the two.

    """
    # The SuperLink is the centre's own, whatever proxy this machine uses for the world.
    bypass_proxy(address.rpartition(":")[0].strip("[]"))
    return ControlHttpClient.from_server_address(
        address,
        False,
        authority_of(directory),
        [RuntimeVersionHttpInterceptor("flwr CLI"), _Proof(directory)],
    )


def runtime_client(
    directory: Path,
    address: str,
    proof: ProtobufClientInterceptor,
    *,
    retry_invoker: RetryInvoker | None = None,
) -> RuntimeHttpClient:
    """Return a client of the API that a ServerApp uses, with the proof that it may."""
    return RuntimeHttpClient.from_server_address(
        address,
        False,
        authority_of(directory),
        [RuntimeVersionHttpInterceptor("flwr-serverapp"), _Proof(directory), proof],
        retry_invoker=retry_invoker,
    )


class _Proof:
    """Shows the SuperLink that a call comes from this centre; goes between client and network."""

    def __init__(self, directory: Path) -> None:
        self._proof = proof_of(read_secret(directory))

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Make a call with the proof in its head."""
        context.request.headers[PROOF_HEADER] = self._proof
        return call_next(context)


def authority_of(directory: Path) -> bytes:
    """Return the certificate authority that a centre's SuperLink has to prove itself against, PEM.

    Raises
    ------
    LinkError
        The centre's directory lacks it.

    """
    try:
        return (directory / "ca.crt").read_bytes()
    except OSError as error:
        raise LinkError(f"{directory / 'ca.crt'} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn an HTTP client's error into one line about the SuperLink.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink.

    Raises
    ------
    LinkError
        The block met an error of the HTTP client.

    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        _refused(address, error)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise LinkError(f"the SuperLink at {address} cannot be reached: {reason}") from error


def _refused(address: str, error: httpx.HTTPStatusError) -> NoReturn:
    """Raise what an error status means for us."""
    code = error.response.status_code
    call = error.request.url.path
    if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise LinkError(
            f"the SuperLink at {address} refuses {call} ({code}): the run has ended, or it was started with "
            "another secret"
        ) from error
    raise LinkError(f"the SuperLink at {address} cannot do {call} ({code}): see its log") from error
