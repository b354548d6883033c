"""The sites that a centre enrolled: names and public keys, kept as files that standard tools read."""

import re
from pathlib import Path

from pydantic import ValidationError

from esn_core.errors import ConfigError
from esn_core.protocol import RosterEntry

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def keep_key(directory: Path, site: str, public_key: Path) -> Path:
    """Keep a site's public key under its name.

    Raises
    ------
    ConfigError
        The name is none, the key cannot be read, or the site has another key already.

    """
    if not _NAME.fullmatch(site):
        raise ConfigError(f"a site's name is lower-case letters, digits and hyphens, not {site!r}")
    try:
        words = public_key.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{public_key}: cannot be read as a public key") from cause
    _entry(site, " ".join(words[:2]), public_key)
    kept = key_of(directory, site)
    line = " ".join(words[:2]) + "\n"
    if kept.exists() and kept.read_text(encoding="utf-8") != line:
        raise ConfigError(f"{site} is enrolled with another key already ({kept})")
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(line, encoding="utf-8")
    return kept


def key_of(directory: Path, site: str) -> Path:
    """Return the file with the public key of `site`."""
    return directory / "sites" / f"{site}.pub"


def enrolled(directory: Path) -> tuple[RosterEntry, ...]:
    """Return all enrolled sites, by name.

    Raises
    ------
    ConfigError
        No site is enrolled, or a file there holds no key.

    """
    keys = sorted((directory / "sites").glob("*.pub"))
    if not keys:
        raise ConfigError(f"{directory}: no site is enrolled; run 'esn-server enrol' first")
    return tuple(_entry(path.stem, path.read_text(encoding="utf-8").strip(), path) for path in keys)


def _entry(site: str, key: str, path: Path) -> RosterEntry:
    try:
        return RosterEntry(site=site, node_key=key)
    except ValidationError as cause:
        raise ConfigError(f"{path}: is not an elliptic curve public key in OpenSSH form") from cause
