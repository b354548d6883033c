"""A site's state directory: its keys, the ledger's salt, and the protocols it approved."""

import secrets
from pathlib import Path

from esn_client.config import SiteSettings
from esn_client.identity import (
    create_identity_key,
    create_mask_key,
    create_node_key,
    enrolment_request,
    load_identity_key,
    roster_entry,
)
from esn_client.ledger import Ledger
from esn_core.connectome import load_template
from esn_core.errors import ConfigError, ProtocolError
from esn_core.files import write_new, write_whole
from esn_core.protocol import Protocol, RosterEntry, load_protocol

SALT_BYTES = 32


def create_state(settings: SiteSettings) -> None:
    """Make the site's state directory: its keys, its enrolment request, the ledger and its salt.

    Raises
    ------
    ConfigError
        The site has a state already; nothing is overwritten.

    """
    if settings.state.exists() and any(settings.state.iterdir()):
        raise ConfigError(f"{settings.state} is not empty: this site has its state already")
    settings.state.mkdir(parents=True, mode=0o700, exist_ok=True)
    settings.state.chmod(0o700)
    create_node_key(settings.node_key_path)
    create_identity_key(settings.identity_key_path)
    create_mask_key(settings.mask_key_path)
    write_new(settings.salt_path, secrets.token_bytes(SALT_BYTES), mode=0o600)
    write_new(settings.enrolment_path, enrolment_request(own_entry(settings)), mode=0o644)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)):
        pass


def own_entry(settings: SiteSettings) -> RosterEntry:
    """Return what a roster has to say of this site.

    Raises
    ------
    ConfigError
        A key is missing or damaged.

    """
    return roster_entry(
        settings.site,
        node_key=settings.node_key_path,
        identity_key=settings.identity_key_path,
        mask_key=settings.mask_key_path,
    )


def approve(settings: SiteSettings, protocol_path: Path) -> Protocol:
    """Approve a protocol: from now on this site answers its questions.

    Raises
    ------
    ProtocolError
        The protocol cannot be used, or this site is not on its roster with the key it has.
    ConfigError
        This version ships no such atlas or template.

    """
    protocol = load_protocol(protocol_path)
    load_template(protocol.imaging.atlas)
    _check_roster(settings, protocol)
    write_whole(settings.approved_path / f"{protocol.sha256}.toml", protocol_path.read_bytes())
    return protocol


def approved_protocols(settings: SiteSettings) -> dict[str, Protocol]:
    """Return the protocols that this site approved, by hash.

    Raises
    ------
    ProtocolError
        An approved file was changed since.

    """
    protocols = {}
    for path in sorted(settings.approved_path.glob("*.toml")):
        protocol = load_protocol(path)
        if protocol.sha256 != path.stem:
            raise ProtocolError(f"{path}: was changed after it was approved; approve it again")
        protocols[protocol.sha256] = protocol
    return protocols


def _check_roster(settings: SiteSettings, protocol: Protocol) -> None:
    entries = {entry.site: entry for entry in protocol.roster}
    if settings.site not in entries:
        raise ProtocolError(f"site {settings.site} is not on the roster: {', '.join(entries)}")
    own, listed = own_entry(settings).model_dump(), entries[settings.site].model_dump()
    differing = [name.replace("_", " ") for name, value in own.items() if listed[name] != value]
    if differing:
        raise ProtocolError(
            f"the roster lists another {' and '.join(differing)} for {settings.site} than the one in "
            f"{settings.state}"
        )
