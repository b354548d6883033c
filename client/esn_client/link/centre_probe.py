"""One look at the centre from a site: the way there, its certificate, and its clock.

`probe` looks once, for whoever wants to know. `require_centre` looks until the centre is ready
to be joined.
"""

import datetime
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from esn_core.errors import AwayError, LinkError

_RETRY_S = 1.0
_LONGEST_LOOK_S = 10.0
_LONGEST_NAME = 100
# The SuperLink accepts a signature of the time for 300 s; some of it is the way there.
LARGEST_CLOCK_OFFSET_S = 240.0
# So far off, a clock is not kept by NTP.
GOOD_CLOCK_OFFSET_S = 60.0


@dataclass(frozen=True)
class Probe:
    """What one request to the centre showed.

    Attributes
    ----------
    address : str
        ``host:port``.
    proxy : str or None
        Through which it went, without any password.
    seconds : float
        That the answer took.
    status : int
        Of the answer; 200 where the centre is ready.
    certificate_ends : datetime
        Last moment of the server's certificate.
    issuer : str
        Who issued it, by its own words.
    inspected : bool
        Whether the authority that the settings name besides vouches for it, and not the centre's.
    clock_offset_s : (float, float) or None
        Bounds of this machine's clock minus the centre's; None when the centre told no time.

    """

    address: str
    proxy: str | None
    seconds: float
    status: int
    certificate_ends: datetime.datetime
    issuer: str
    inspected: bool
    clock_offset_s: tuple[float, float] | None

    @property
    def clock_off_s(self) -> float:
        """How far the clocks are apart at least, as the answer took its time and tells whole seconds."""
        low, high = self.clock_offset_s or (0.0, 0.0)
        return max(low, -high, 0.0)

    @property
    def clock_side(self) -> str:
        """On which side of the centre's clock this machine's is, in words."""
        return "ahead of" if self.clock_offset_s is not None and self.clock_offset_s[0] > 0 else "behind"


def probe(address: str, *, ca_certificate: Path, timeout_s: float, extra_ca: Path | None = None) -> Probe:
    """Ask the centre once whether it is well.

    Parameters
    ----------
    address : str
        ``host:port`` of the centre.
    ca_certificate : Path
        The authority that it has to prove itself against, PEM.
    timeout_s : float
    extra_ca : Path, optional
        The authority of a proxy on the way that inspects TLS, PEM.

    Raises
    ------
    AwayError
        It cannot be reached.
    LinkError
        Its certificate is not from one of these authorities or not for that name.

    """
    context = _context(ca_certificate, *([extra_ca] if extra_ca else []))
    proxy = _proxy_to(address)
    way = f" through the proxy {proxy}" if proxy else ""
    began, sent = time.monotonic(), time.time()
    try:
        # The environment's HTTPS_PROXY is used, as it is by the SuperNode.
        with (
            httpx.Client(verify=context, timeout=timeout_s) as client,
            client.stream("GET", f"https://{address}/health") as response,
        ):
            came = time.time()
            certificate = _certificate_of(response)
            date = response.headers.get("date")
    except httpx.HTTPError as error:
        why = _distrust(error)
        if why:
            raise LinkError(
                f"the centre at {address} is not who it should be: {why} (compared with {ca_certificate}); "
                f"the certificate that came is of '{_issuer_met(address, timeout_s)}'. If that is a proxy of "
                "your own hospital, which inspects TLS, have this address excepted; where that cannot be, "
                "name its authority in the settings: extra_ca in [centre]"
            ) from error
        raise AwayError(
            f"the centre at {address} cannot be reached{way}: {_words(error)}; is it started, and may this "
            "machine connect to it?"
        ) from error
    return Probe(
        address=address,
        proxy=proxy,
        seconds=time.monotonic() - began,
        status=response.status_code,
        certificate_ends=certificate.not_valid_after_utc,
        issuer=_name(certificate.issuer),
        inspected=extra_ca is not None and not _issued_by(certificate, ca_certificate),
        clock_offset_s=_offset(date, sent=sent, came=came),
    )


def _context(*authorities: Path) -> ssl.SSLContext:
    """Trust some authorities and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in authorities:
        try:
            context.load_verify_locations(cafile=str(path))
        except OSError as error:
            raise LinkError(f"{path} cannot be used as an authority's certificate: {error}") from error
    return context


def _certificate_of(response: httpx.Response) -> x509.Certificate:
    connection: Any = response.extensions["network_stream"].get_extra_info("ssl_object")
    return x509.load_der_x509_certificate(connection.getpeercert(True))


def _issued_by(certificate: x509.Certificate, authority: Path) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.read_bytes()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _issuer_met(address: str, timeout_s: float) -> str:
    """Ask once more, whoever answers, for the name under which a certificate that is not trusted came."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            httpx.Client(verify=anybody, timeout=timeout_s) as client,
            client.stream("GET", f"https://{address}/health") as response,
        ):
            return _name(_certificate_of(response).issuer)
    except (httpx.HTTPError, ValueError):
        return "somebody who does not say"


def _name(of: x509.Name) -> str:
    """Return a name as people know it: what it is called, and whose it is; nobody vouches for it yet."""
    wanted = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    said = [str(part.value) for oid in wanted for part in of.get_attributes_for_oid(oid)]
    name = ", ".join(dict.fromkeys(said)) or of.rfc4514_string()
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])


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
    deadline_s = time.monotonic() + timeout_s
    while not stopped():
        try:
            seen = probe(address, ca_certificate=ca_certificate, timeout_s=min(_LONGEST_LOOK_S, timeout_s))
        except AwayError as error:
            reason = _words(error.__cause__ or error)
        else:
            if seen.clock_off_s > LARGEST_CLOCK_OFFSET_S:
                raise AwayError(
                    f"this machine's clock is {seen.clock_off_s:.0f} s {seen.clock_side} the centre's; they "
                    f"must agree within {LARGEST_CLOCK_OFFSET_S:.0f} s, set it right"
                )
            if seen.status == httpx.codes.OK:
                return
            reason = f"it is not ready ({seen.status})"
        if time.monotonic() + _RETRY_S > deadline_s:
            raise AwayError(f"the centre at {address} did not answer within {timeout_s:.0f} s: {reason}")
        time.sleep(_RETRY_S)


def _offset(date: str | None, *, sent: float, came: float) -> tuple[float, float] | None:
    """Return bounds of our clock minus the centre's, which tells whole seconds."""
    try:
        told = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    return sent - (told + 1), came - told


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _distrust(error: BaseException | None) -> str:
    """Return why TLS did not trust the centre, or nothing if that was not the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def _proxy_to(address: str) -> str | None:
    """Return the host and port of the proxy that leads to the centre, if one does."""
    host = address.rpartition(":")[0].strip("[]")
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy.rpartition("@")[2].removeprefix("http://").removeprefix("https://").rstrip("/")
