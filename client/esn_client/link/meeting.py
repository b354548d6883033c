"""One look at the centre from a site: the way there, its certificate, and its clock."""

import datetime
import ssl
import time
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from esn_client.link.centre_probe import distrust
from esn_core.errors import LinkError


@dataclass(frozen=True)
class Meeting:
    """What one request to the centre showed.

    Attributes
    ----------
    address : str
        ``host:port``.
    proxy : str or None
        Through which it went, without any password.
    seconds : float
        That the answer took.
    certificate_ends : datetime
        Last moment of the server's certificate.
    clock_offset_s : (float, float) or None
        Bounds of this machine's clock minus the centre's; None when the centre told no time.

    """

    address: str
    proxy: str | None
    seconds: float
    certificate_ends: datetime.datetime
    clock_offset_s: tuple[float, float] | None


def meet(address: str, *, ca_certificate: Path, timeout_s: float) -> Meeting:
    """Ask the centre once whether it is well.

    Parameters
    ----------
    address : str
        ``host:port`` of the centre.
    ca_certificate : Path
        The authority that it has to prove itself against, PEM.
    timeout_s : float

    Raises
    ------
    LinkError
        It cannot be reached, or its certificate is not from that authority or not for that name.

    """
    try:
        context = ssl.create_default_context(cafile=str(ca_certificate))
    except OSError as error:
        raise LinkError(f"{ca_certificate} cannot be used as the centre's certificate: {error}") from error
    proxy = _proxy_to(address)
    way = f" through the proxy {proxy}" if proxy else ""
    began, sent = time.monotonic(), time.time()
    try:
        with (
            httpx.Client(verify=context, timeout=timeout_s) as client,
            client.stream("GET", f"https://{address}/health") as response,
        ):
            came = time.time()
            certificate: Any = response.extensions["network_stream"].get_extra_info("ssl_object")
            ends = ssl.cert_time_to_seconds(certificate.getpeercert()["notAfter"])
            date = response.headers.get("date")
    except httpx.HTTPError as error:
        why = distrust(error)
        if why:
            raise LinkError(
                f"the centre at {address} is not who it should be: {why} (compared with {ca_certificate})"
            ) from error
        raise LinkError(
            f"the centre at {address} cannot be reached{way}: {str(error) or type(error).__name__}; is it "
            "started, and may this machine connect to it?"
        ) from error
    return Meeting(
        address=address,
        proxy=proxy,
        seconds=time.monotonic() - began,
        certificate_ends=datetime.datetime.fromtimestamp(ends, datetime.UTC),
        clock_offset_s=_offset(date, sent=sent, came=came),
    )


def _offset(date: str | None, *, sent: float, came: float) -> tuple[float, float] | None:
    """Return bounds of our clock minus the centre's, which tells whole seconds."""
    try:
        told = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    return sent - (told + 1), came - told


def _proxy_to(address: str) -> str | None:
    """Return the host and port of the proxy that leads to the centre, if one does."""
    host = address.rpartition(":")[0].strip("[]")
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy.rpartition("@")[2].removeprefix("http://").removeprefix("https://").rstrip("/")
