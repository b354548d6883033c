"""The centre as a site meets it: whether it is there, and whether it is the right one."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from esn_core.errors import LinkError

_RETRY_S = 1.0


def require_centre(
    address: str, *, ca_certificate: Path, timeout_s: float, stopped: Callable[[], bool]
) -> None:
    """Return once the centre answers and has proved who it is.

    Parameters
    ----------
    address : str
        ``host:port`` of the centre.
    ca_certificate : Path
        The centre's certificate authority, PEM.
    timeout_s : float
        How long a centre that does not answer is waited for.
    stopped : callable
        Ends the wait when it returns true.

    Raises
    ------
    LinkError
        The centre does not answer in time, or its certificate is not from `ca_certificate`.

    """
    try:
        context = ssl.create_default_context(cafile=str(ca_certificate))
    except OSError as error:
        raise LinkError(f"{ca_certificate} cannot be used as the centre's certificate: {error}") from error
    deadline_s = time.monotonic() + timeout_s
    with httpx.Client(verify=context, timeout=min(10.0, timeout_s)) as client:
        while not stopped():
            try:
                client.get(f"https://{address}/health")
            except httpx.HTTPError as error:
                why = distrust(error)
                if why:
                    raise LinkError(
                        f"the centre at {address} is not who it should be: {why} (compared with "
                        f"{ca_certificate})"
                    ) from error
                if time.monotonic() + _RETRY_S > deadline_s:
                    raise LinkError(
                        f"the centre at {address} did not answer within {timeout_s:.0f} s: "
                        f"{str(error) or type(error).__name__}"
                    ) from error
                time.sleep(_RETRY_S)
            else:
                return


def distrust(error: BaseException | None) -> str:
    """Return why TLS did not trust the centre, or nothing if that was not the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""
