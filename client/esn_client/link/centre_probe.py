"""The centre as a site meets it: whether it is there, and whether it is the right one."""

import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from esn_core.errors import AwayError, LinkError

_RETRY_S = 1.0
# The SuperLink accepts a signature for 300 s.
_MAX_SKEW_S = 240.0


def require_centre(
    address: str, *, ca_certificate: Path, timeout_s: float, stopped: Callable[[], bool]
) -> None:
    """Return once the centre answers, has proved who it is, and its clock agrees with ours.

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
    AwayError
        The centre does not answer in time, is not ready, or the clocks do not agree.
    LinkError
        The centre's certificate is not from `ca_certificate`.

    """
    try:
        context = ssl.create_default_context(cafile=str(ca_certificate))
    except OSError as error:
        raise LinkError(f"{ca_certificate} cannot be used as the centre's certificate: {error}") from error
    deadline_s = time.monotonic() + timeout_s
    # The environment's HTTPS_PROXY is used, as it is by the SuperNode.
    with httpx.Client(verify=context, timeout=min(10.0, timeout_s)) as client:
        while not stopped():
            try:
                reply = client.get(f"https://{address}/health")
            except httpx.HTTPError as error:
                why = distrust(error)
                if why:
                    raise LinkError(
                        f"the centre at {address} is not who it should be: {why} (compared with "
                        f"{ca_certificate})"
                    ) from error
                reason = str(error) or type(error).__name__
            else:
                skew_s = clock_skew_s(reply)
                if abs(skew_s) > _MAX_SKEW_S:
                    side = "ahead of" if skew_s > 0 else "behind"
                    raise AwayError(
                        f"this machine's clock is {abs(skew_s):.0f} s {side} the centre's; they must agree "
                        f"within {_MAX_SKEW_S:.0f} s, set it right"
                    )
                if reply.status_code == httpx.codes.OK:
                    return
                reason = f"it is not ready ({reply.status_code})"
            if time.monotonic() + _RETRY_S > deadline_s:
                raise AwayError(f"the centre at {address} did not answer within {timeout_s:.0f} s: {reason}")
            time.sleep(_RETRY_S)


def clock_skew_s(reply: httpx.Response) -> float:
    """Return by how much this machine's clock is ahead of the centre's, to a second or so."""
    try:
        there = parsedate_to_datetime(reply.headers["date"])
    except (KeyError, ValueError):
        return 0.0
    return time.time() - there.timestamp()


def distrust(error: BaseException | None) -> str:
    """Return why TLS did not trust the centre, or nothing if that was not the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""
