"""How long a certificate is still good for."""

import datetime
from pathlib import Path

from cryptography import x509

from esn_core.errors import ConfigError

_WARN_DAYS = 30


def expiry_warning(path: Path, *, cure: str, now: datetime.datetime | None = None) -> str | None:
    """Return a line for the operator when a certificate ends within 30 days, or has ended.

    Parameters
    ----------
    path : Path
        PEM.
    cure : str
        What renews it.
    now : datetime, optional
        In UTC; the present where it is left out.

    Raises
    ------
    ConfigError
        The file cannot be read, or is no certificate.

    """
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"{path}: is no certificate in PEM") from cause
    left = ends - (now or datetime.datetime.now(datetime.UTC))
    if left > datetime.timedelta(days=_WARN_DAYS):
        return None
    when = f"ends on {ends.date()}" if left > datetime.timedelta(0) else f"ended on {ends.date()}"
    return f"warning: the certificate {path} {when}; {cure}"
