"""The sites that a centre enrolled: names and public keys, kept as files that standard tools read."""

from pathlib import Path

import tomli_w

from esn_core.errors import ConfigError, ProtocolError
from esn_core.identity.enrolment import EnrolmentRequest
from esn_core.identity.roster import RosterEntry
from esn_core.system.files import write_whole
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.centre_keys import read_node_key
from esn_server.enrolment.revocations import KeyName, keep_revocation, require_not_revoked, revoked_node_keys


def read_request(path: Path) -> RosterEntry:
    """Return what a site's enrolment request says; `ConfigError` when it is none, or not the site's own."""
    return read_toml(path, EnrolmentRequest).entry


def keep_enrolment(directory: Path, entry: RosterEntry, *, replace: bool = False) -> None:
    """Enrol a site: keep its name and public keys. Its fingerprint has been compared.

    Parameters
    ----------
    directory : Path
        The centre's.
    entry : RosterEntry
    replace : bool
        Whether the site may exchange the node and mask keys that it is enrolled with. Its identity key
        stays: by it, its ledger and its answers are known.

    Raises
    ------
    ConfigError
        The site has other keys already.
    ProtocolError
        One of the keys was revoked.

    """
    require_not_revoked(directory, entry)
    kept = _entry_of(directory, entry.site)
    before = read_toml(kept, RosterEntry) if kept.exists() else entry
    if before != entry:
        if not replace:
            raise ConfigError(
                f"{entry.site} is enrolled with other keys already ({kept}); repeat with --replace if the "
                "site has run 'esn-client rotate'"
            )
        if before.identity_key != entry.identity_key:
            raise ConfigError(
                f"{entry.site} is enrolled with another identity key ({kept}), which is not exchanged: its "
                "ledger is signed by it; revoke the site, and enrol the new one under another name"
            )
        keys: tuple[KeyName, ...] = ("node_key", "mask_key")
        exchanged = [name for name in keys if getattr(before, name) != getattr(entry, name)]
        keep_revocation(directory, before, reason="rotated", names=exchanged)
    write_whole(node_key_of(directory, entry.site), f"{entry.node_key}\n".encode())
    write_whole(kept, tomli_w.dumps(entry.model_dump()).encode())


def revoke(directory: Path, site: str) -> None:
    """Take a site's enrolment back; a site that was revoked before stays so.

    Raises
    ------
    ConfigError
        There is no such site, nor was there.

    """
    entry = enrolled_as(directory, site)
    if entry is None:
        return
    keep_revocation(directory, entry, reason="revoked")
    _entry_of(directory, site).unlink()
    node_key_of(directory, site).unlink(missing_ok=True)


def enrolled_as(directory: Path, site: str) -> RosterEntry | None:
    """Return what a site is enrolled with; None where that was taken back before.

    Raises
    ------
    ConfigError
        There is no such site, nor was there.

    """
    kept = _entry_of(directory, site)
    if kept.exists():
        return read_toml(kept, RosterEntry)
    if revoked_node_keys(directory, site):
        return None
    raise ConfigError(f"site {site} is not enrolled at this centre, and never was")


def node_key_of(directory: Path, site: str) -> Path:
    """Return the file with the public key of the site's SuperNode."""
    return directory / "sites" / f"{site}.pub"


def node_keys(directory: Path) -> frozenset[bytes]:
    """Return the public keys of all enrolled sites' SuperNodes, in PEM format.

    Raises
    ------
    ConfigError
        A file cannot be read, or holds something else.

    """
    return frozenset(read_node_key(path) for path in (directory / "sites").glob("*.pub"))


def require_enrolled(directory: Path, entry: RosterEntry) -> None:
    """Refuse an entry of a roster that is not what its site is enrolled with.

    Raises
    ------
    ProtocolError
        The site is not enrolled, was revoked, or has other keys.

    """
    require_not_revoked(directory, entry)
    path = _entry_of(directory, entry.site)
    if not path.exists():
        raise ProtocolError(f"site {entry.site} of the roster is not enrolled at this centre")
    if read_toml(path, RosterEntry) != entry:
        raise ProtocolError(f"the roster lists other keys for {entry.site} than the enrolled ones")


def enrolled(directory: Path) -> tuple[RosterEntry, ...]:
    """Return all enrolled sites, by name.

    Raises
    ------
    ConfigError
        No site is enrolled, or a file there is damaged.

    """
    entries = sorted((directory / "sites").glob("*.toml"))
    if not entries:
        raise ConfigError(f"{directory}: no site is enrolled; run 'esn-server enrol' first")
    return tuple(read_toml(path, RosterEntry) for path in entries)


def _entry_of(directory: Path, site: str) -> Path:
    return directory / "sites" / f"{site}.toml"
