"""What a site has said of its cohort's size: one band for each protocol, however often it is asked."""

import hashlib
import hmac
from pathlib import Path

from esn_core.messages.facts import size_band
from esn_core.system.files import write_whole

_PURPOSE = b"where the bands of this site's cohort end"


class CohortBands:
    """Says the band of a cohort's size, and keeps to what was said.

    A roll call costs nothing and may be repeated. A band that followed the cohort would tell, at an edge, of
    each child that comes or goes; so the first answer to a protocol stands for as long as the site does.

    Parameters
    ----------
    directory : Path
        Where the bands that were said are kept, each under its protocol's hash.
    salt : bytes
        The site's secret; where its bands end is derived from it.

    """

    def __init__(self, directory: Path, *, salt: bytes) -> None:
        self._directory = directory
        digest = hmac.new(salt, _PURPOSE, hashlib.sha256).digest()
        self._secret = (int.from_bytes(digest[:6], "big")) / 2**48

    def band(self, protocol_sha256: str, children: int) -> str:
        """Return what was said to this protocol, or what would be said now."""
        try:
            return (self._directory / protocol_sha256).read_text(encoding="ascii")
        except FileNotFoundError:
            return size_band(children, secret=self._secret)

    def keep(self, protocol_sha256: str, band: str) -> None:
        """Keep to a band from now on; to be called before it leaves."""
        if not (self._directory / protocol_sha256).exists():
            write_whole(self._directory / protocol_sha256, band.encode("ascii"))
