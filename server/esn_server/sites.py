"""The sites that a centre enrolled: names and public keys, kept as files that standard tools read."""

from pathlib import Path

from esn_core.errors import ConfigError, ProtocolError
from esn_core.files import write_whole
from esn_core.protocol import RosterEntry, read_toml


def keep_enrolment(directory: Path, request: Path) -> RosterEntry:
    """Keep a site's enrolment request: its name and public keys.

    Returns
    -------
    RosterEntry
        As it will stand in a protocol's roster.

    Raises
    ------
    ConfigError
        The request cannot be used, or the site has other keys already.

    """
    entry = read_toml(request, RosterEntry)
    kept = _request_of(directory, entry.site)
    if kept.exists() and read_toml(kept, RosterEntry) != entry:
        raise ConfigError(f"{entry.site} is enrolled with other keys already ({kept})")
    write_whole(kept, request.read_bytes())
    write_whole(node_key_of(directory, entry.site), f"{entry.node_key}\n".encode())
    return entry


def node_key_of(directory: Path, site: str) -> Path:
    """Return the file with the public key of the site's SuperNode."""
    return directory / "sites" / f"{site}.pub"


def enrolment(directory: Path, site: str) -> RosterEntry:
    """Return what is known of an enrolled site.

    Raises
    ------
    ProtocolError
        It is not enrolled.

    """
    path = _request_of(directory, site)
    if not path.exists():
        raise ProtocolError(f"site {site} of the roster is not enrolled at this centre")
    return read_toml(path, RosterEntry)


def enrolled(directory: Path) -> tuple[RosterEntry, ...]:
    """Return all enrolled sites, by name.

    Raises
    ------
    ConfigError
        No site is enrolled, or a file there is damaged.

    """
    requests = sorted((directory / "sites").glob("*.toml"))
    if not requests:
        raise ConfigError(f"{directory}: no site is enrolled; run 'esn-server enrol' first")
    return tuple(read_toml(path, RosterEntry) for path in requests)


def _request_of(directory: Path, site: str) -> Path:
    return directory / "sites" / f"{site}.toml"
