"""Keys that no longer count: kept as files, apart from the SuperLink's database, which may be lost."""

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict

from esn_core.errors import ProtocolError
from esn_core.identity.roster import RosterEntry, SiteName
from esn_core.system.files import write_whole
from esn_core.system.toml_file import read_toml

KeyName = Literal["node_key", "identity_key", "mask_key"]
_KEYS: tuple[KeyName, ...] = ("node_key", "identity_key", "mask_key")


class Revocation(BaseModel):
    """Keys of one site that were taken back, or exchanged for new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteName
    at: datetime.datetime
    reason: Literal["revoked", "rotated"]
    keys: dict[KeyName, str]


def keep_revocation(
    directory: Path,
    entry: RosterEntry,
    *,
    reason: Literal["revoked", "rotated"],
    names: Sequence[KeyName] = _KEYS,
) -> None:
    """Keep, durably, that some keys of a site no longer count.

    Parameters
    ----------
    directory : Path
        The centre's.
    entry : RosterEntry
        The site as it was enrolled.
    reason : {'revoked', 'rotated'}
    names : sequence of {'node_key', 'identity_key', 'mask_key'}
        Which of its keys.

    """
    said = entry.model_dump()
    revocation = Revocation(
        site=entry.site,
        at=datetime.datetime.now(datetime.UTC),
        reason=reason,
        keys={name: said[name] for name in names},
    )
    digest = hashlib.sha256("\n".join(said[name] for name in names).encode()).hexdigest()[:12]
    path = directory / "revoked" / f"{entry.site}-{digest}"
    if "node_key" in names:
        # By itself, as a file that Flower's registration and standard tools read.
        write_whole(path.with_suffix(".pub"), f"{entry.node_key}\n".encode())
    write_whole(path.with_suffix(".toml"), tomli_w.dumps(revocation.model_dump()).encode())


def revocations(directory: Path) -> tuple[Revocation, ...]:
    """Return all revocations; `ConfigError` when a file is damaged."""
    return tuple(read_toml(path, Revocation) for path in sorted((directory / "revoked").glob("*.toml")))


def revoked_node_keys(directory: Path, site: str) -> tuple[Path, ...]:
    """Return the files of the node keys that a site has no longer."""
    digits = "[0-9a-f]" * 12
    return tuple(sorted((directory / "revoked").glob(f"{site}-{digits}.pub")))


def require_not_revoked(directory: Path, entry: RosterEntry) -> None:
    """Refuse an entry with a key that no longer counts, whatever site's it was.

    Raises
    ------
    ProtocolError
        A key of the entry was revoked or exchanged.

    """
    said = entry.model_dump()
    # The newest first: what was revoked after it was rotated is called revoked.
    for revocation in sorted(revocations(directory), key=lambda found: found.at, reverse=True):
        for name, key in revocation.keys.items():
            if said[name] == key:
                raise ProtocolError(
                    f"the {name.replace('_', ' ')} of {entry.site} was {revocation.reason} on "
                    f"{revocation.at.date()}, as {revocation.site}'s; it is not accepted again"
                )
