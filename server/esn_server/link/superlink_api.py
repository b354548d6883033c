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
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from esn_core.errors import LinkError
from esn_core.system.loopback import bypass_proxy


def control_client(address: str, certificate: bytes) -> ControlHttpClient:
    """Return a client of the API that registers nodes and starts runs.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink.
    certificate : bytes
        Of the authority that it has to prove itself against, PEM.

    """
    # The SuperLink is the centre's own, whatever proxy this machine uses for the world.
    bypass_proxy(address.rpartition(":")[0].strip("[]"))
    return ControlHttpClient.from_server_address(
        address, False, certificate, [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
    )


def runtime_client(address: str, certificate: bytes, proof: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """Return a client of the API that a ServerApp uses, with the proof that it may."""
    return RuntimeHttpClient.from_server_address(
        address, False, certificate, [RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"), proof]
    )


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
