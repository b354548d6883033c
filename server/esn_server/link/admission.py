"""Sites enter and leave: at the centre by their keys, and at the SuperLink by the same ones."""

from collections.abc import Callable
from pathlib import Path

from esn_core.identity.enrolment import SiteKit
from esn_core.identity.roster import RosterEntry
from esn_server.enrolment.kits import write_kit
from esn_server.enrolment.revocations import require_not_revoked, revoked_node_keys
from esn_server.enrolment.sites import keep_enrolment, node_key_of, read_request
from esn_server.enrolment.sites import revoke as take_back
from esn_server.link.registration import register_site, unregister_site
from esn_server.service.address import read_address


def enrol(
    directory: Path,
    request: Path,
    *,
    confirm: Callable[[RosterEntry], None],
    public_address: str | None,
    replace: bool,
) -> tuple[Path, SiteKit]:
    """Let a site in, and write the kit to send to it.

    Parameters
    ----------
    directory : Path
        Of the centre, which must be started.
    request : Path
        The site's enrolment request.
    confirm : callable
        Compares the request's fingerprint with what the site read out; raises where they differ.
    public_address : str or None
        ``host:port`` at which sites reach this centre; None takes its first name and its port.
    replace : bool
        Whether a site that is enrolled may exchange its keys.

    Returns
    -------
    Path, SiteKit

    Raises
    ------
    ConfigError
        The centre is not started, or the request cannot be read.
    ProtocolError
        The site was revoked, its fingerprint differs, or it is enrolled with other keys.
    LinkError
        The SuperLink cannot be reached.

    """
    entry = read_request(request)
    require_not_revoked(directory, entry)
    confirm(entry)
    # Asked before anything is kept: a centre that is not started enrols nobody.
    started = read_address(directory)
    port = int(started.public.rpartition(":")[2])
    path, kit = write_kit(directory, entry, public_address=public_address, port=port)
    keep_enrolment(directory, entry, replace=replace)
    register_site(directory, started.superlink, node_key_of(directory, entry.site))
    _unregister_revoked(directory, started.superlink, entry.site)
    return path, kit


def revoke(directory: Path, site: str, *, tell: Callable[[str], None]) -> None:
    """Take a site's enrolment back for good: at the centre, as `tell` is told, then at the SuperLink.

    Raises
    ------
    ConfigError
        There is no such site, or the centre is not started.
    LinkError
        The SuperLink cannot be reached; said again, it is taken off there.

    """
    take_back(directory, site)
    tell(f"{site} is revoked at this centre")
    _unregister_revoked(directory, read_address(directory).superlink, site)


def _unregister_revoked(directory: Path, address: str, site: str) -> None:
    # Said to the SuperLink again and again, where need be: its database may come from a backup.
    for key in revoked_node_keys(directory, site):
        unregister_site(directory, address, key)
