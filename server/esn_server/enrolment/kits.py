"""Site kits: what an enrolled site is sent, so that it finds the centre and knows it again."""

from pathlib import Path

from esn_core.errors import ConfigError
from esn_core.identity.enrolment import SiteKit
from esn_core.identity.public_keys import identity_text
from esn_core.identity.roster import RosterEntry
from esn_core.system.files import write_whole
from esn_server.enrolment.centre_keys import load_centre_key, read_certificate, server_names

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def write_kit(
    directory: Path, entry: RosterEntry, *, public_address: str | None, port: int
) -> tuple[Path, SiteKit]:
    """Write the kit of a site; there is no secret in it.

    Parameters
    ----------
    directory : Path
        The centre's.
    entry : RosterEntry
        The site.
    public_address : str or None
        ``host:port`` at which sites reach the centre; None for the first name in its certificate.
    port : int
        That belongs to that first name.

    Returns
    -------
    Path
        The file.
    SiteKit

    Raises
    ------
    ConfigError
        The centre's certificate does not name the host.

    """
    read_certificate(directory / "ca.crt")
    kit = SiteKit(
        format=1,
        address=_checked(directory, public_address, port=port),
        signing_key=identity_text(load_centre_key(directory).public_key()),
        ca_certificate=(directory / "ca.crt").read_text(encoding="ascii"),
        entry=entry,
    )
    path = directory / "kits" / f"{entry.site}.kit.toml"
    write_whole(path, kit.text.encode())
    return path, kit


def _checked(directory: Path, address: str | None, *, port: int) -> str:
    """Return an address at which the centre's certificate is good."""
    names = server_names(directory)
    if address is None:
        if not names:
            raise ConfigError("the centre's certificate holds loopback names alone; give --public-address")
        host = f"[{names[0]}]" if ":" in names[0] else names[0]
        return f"{host}:{port}"
    host, _, given = address.rpartition(":")
    if not host or not given.isdigit() or not 0 < int(given) < 65536:
        raise ConfigError(f"the public address must be host:port, not {address!r}")
    if host not in _LOOPBACK and host.strip("[]") not in names:
        raise ConfigError(
            f"the centre's certificate does not name {host}, only {', '.join(names) or 'the loopback'}; run "
            f"'esn-server renew' with --name {host}, and every other name"
        )
    return address
