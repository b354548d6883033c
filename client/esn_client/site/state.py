"""A site's state directory: its keys, its enrolment request, the ledger and its salt."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from esn_client.gate.ledger import Ledger
from esn_client.site.keys import (
    create_mask_key,
    create_node_key,
    load_identity_key,
    public_half,
    roster_entry,
)
from esn_client.site.settings import SiteSettings, load_site
from esn_core.errors import ConfigError
from esn_core.identity.enrolment import EnrolmentRequest
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import create_signing_key
from esn_core.protocol.study_package import kept_studies
from esn_core.system.files import write_new, write_whole

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
    create_signing_key(settings.identity_key_path)
    create_mask_key(settings.mask_key_path)
    write_new(settings.salt_path, secrets.token_bytes(SALT_BYTES), mode=0o600)
    identity = load_identity_key(settings.identity_key_path)
    request = EnrolmentRequest.of(own_entry(settings), identity).text
    write_new(settings.enrolment_path, request.encode(), mode=0o644)
    with Ledger(settings.ledger_path, identity):
        pass


def initialise(
    directory: Path,
    *,
    site: str,
    dataset: Path,
    derivatives: Path,
    trust: str,
    epsilon_cap: float,
    delta: float,
    colluding_sites: int,
    exact_sums: bool,
    control_sums: bool = False,
    control_reference: bool = False,
) -> SiteSettings:
    """Write a site's settings, ``site.toml`` in `directory`, and make its state.

    Parameters
    ----------
    directory : Path
        Made where it is missing.
    site : str
        The site's name in rosters.
    dataset, derivatives : Path
    trust : {'secure-sum', 'local'}
    epsilon_cap, delta : float
    colluding_sites : int
    exact_sums, control_sums, control_reference : bool

    Returns
    -------
    SiteSettings
        As they were read back.

    Raises
    ------
    ConfigError
        There are settings or a state already, or a value cannot be; nothing is left behind.

    """
    path = directory / "site.toml"
    if path.exists():
        raise ConfigError(f"{path} exists; a site is initialised once")
    template = (files("esn_client.site") / "site.toml.template").read_text(encoding="utf-8")
    texts = {
        "site": site,
        "dataset": str(dataset.resolve()),
        "derivatives": str(derivatives.resolve()),
        "trust": trust,
    }
    text = template.format(
        **{name: json.dumps(value, ensure_ascii=False) for name, value in texts.items()},
        epsilon_cap=epsilon_cap,
        delta=delta,
        colluding_sites=colluding_sites,
        exact_sums=str(exact_sums).lower(),
        control_sums=str(control_sums).lower(),
        control_reference=str(control_reference).lower(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        settings = load_site(path)
        create_state(settings)
    except BaseException:
        path.unlink()
        raise
    return settings


def open_ledger(settings: SiteSettings) -> Ledger:
    """Open a site's ledger to read it; `ConfigError` where there is none."""
    if not settings.ledger_path.exists():
        raise ConfigError(f"{settings.ledger_path}: there is no ledger; run 'esn-client init' first")
    return Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path).public_key())


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


def rotate(settings: SiteSettings) -> None:
    """Replace the site's node and mask keys, and write a new enrolment request.

    The identity key stays: the ledger and its signatures are the site's for good. The old
    private keys are gone afterwards, so that no mask of the past can be computed again.

    Parameters
    ----------
    settings : SiteSettings

    Raises
    ------
    ConfigError
        A protocol is still approved, whose roster names the keys as they are; or the site has no state.

    """
    require_no_approval(settings)
    identity = load_identity_key(settings.identity_key_path)
    with _new_names(settings.node_key_path, settings.mask_key_path) as (node_key, mask_key):
        create_node_key(node_key)
        create_mask_key(mask_key)
    entry = own_entry(settings)
    write_whole(settings.enrolment_path, EnrolmentRequest.of(entry, identity).text.encode())


def require_no_approval(settings: SiteSettings) -> None:
    """Refuse to exchange keys while an approved protocol's roster names the present ones."""
    approved = [path.stem[:16] for path in kept_studies(settings.approved_path)]
    if approved:
        raise ConfigError(
            f"the rosters of approved protocols name the present keys: {', '.join(approved)}; finish these "
            "studies and run 'esn-client withdraw' first"
        )


@contextmanager
def _new_names(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Let files be made under other names, and give each its own when all are there."""
    fresh = tuple(path.with_name(f"new-{path.name}") for path in paths)
    for path in fresh:
        for left in (path, public_half(path)):
            left.unlink(missing_ok=True)  # of a rotation that was interrupted
    yield fresh
    for new, path in zip(fresh, paths, strict=True):
        if public_half(new).exists():
            public_half(new).replace(public_half(path))
        new.replace(path)


def read_salt(settings: SiteSettings) -> bytes:
    """Return the secret that turns participant labels into the ledger's identifiers.

    Raises
    ------
    ConfigError
        The file is not there, or was damaged.

    """
    if not settings.salt_path.exists():
        raise ConfigError(f"{settings.state}: this site has no state; run 'esn-client init' first")
    salt = settings.salt_path.read_bytes()
    # With a shorter key the ledger's identifiers could be guessed.
    if len(salt) != SALT_BYTES:
        raise ConfigError(f"{settings.salt_path}: holds {len(salt)} bytes, not {SALT_BYTES}: it was damaged")
    return salt
