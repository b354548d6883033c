"""The centre as its kit describes it: address, certificate authority and signing key."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from esn_client.gate.audit_log import AuditLog
from esn_client.site.settings import SiteSettings
from esn_client.site.state import own_entry
from esn_core.errors import ConfigError, ProtocolError
from esn_core.formats import KIT
from esn_core.identity.enrolment import SiteKit
from esn_core.identity.public_keys import identity_key
from esn_core.system.files import write_whole
from esn_core.system.toml_file import read_toml


def read_kit(path: Path) -> SiteKit:
    """Read a kit that has come in; `ProtocolError` when it is none."""
    return read_toml(path, SiteKit, error=ProtocolError, written_as=KIT)


def take_in(settings: SiteSettings, kit: SiteKit, *, replace: bool) -> None:
    """Pin the centre to what a kit says of it; its fingerprint has been compared.

    Parameters
    ----------
    settings : SiteSettings
    kit : SiteKit
    replace : bool
        Whether it may name another authority or signing key than the kit before.

    Raises
    ------
    ProtocolError
        The kit is another site's or for other keys; or it names another centre, and `replace` is false.

    """
    own = own_entry(settings)
    if kit.entry != own:
        raise ProtocolError(
            f"the kit is made for {kit.entry.site} with the keys {kit.entry.fingerprint}; this site is "
            f"{own.site} with {own.fingerprint}"
        )
    if settings.kit_path.exists() and not replace:
        before = load_kit(settings)
        differing = [
            words
            for words, name in (("signing key", "signing_key"), ("certificate authority", "ca_certificate"))
            if getattr(before, name) != getattr(kit, name)
        ]
        if differing:
            raise ProtocolError(
                f"the kit names another {' and '.join(differing)} than the one this site has; if the centre "
                "says on the telephone that this is meant, repeat with --replace"
            )
    AuditLog(settings.audit_path, site=settings.site).write("kit", fingerprint=kit.fingerprint)
    write_whole(settings.ca_certificate_path, kit.ca_certificate.encode())
    write_whole(settings.signing_key_path, f"{kit.signing_key}\n".encode())
    write_whole(settings.kit_path, kit.text.encode())


def load_kit(settings: SiteSettings) -> SiteKit:
    """Return the kit that this site took in.

    Raises
    ------
    ConfigError
        It took in none yet, or the file was damaged.

    """
    if not settings.kit_path.exists():
        raise ConfigError(
            f"site {settings.site} has no kit of the centre yet; send the centre {settings.enrolment_path}, "
            "and run 'esn-client kit' when its kit has come back"
        )
    return read_toml(settings.kit_path, SiteKit, written_as=KIT)


def centre_key(settings: SiteSettings) -> Ed25519PublicKey:
    """Return the key by which the centre signs; `ConfigError` before a kit was taken in."""
    return identity_key(load_kit(settings).signing_key)


def authorities(settings: SiteSettings) -> Path:
    """Return a file of the authorities that may prove the connection: the kit's, and one of the settings.

    Raises
    ------
    ConfigError
        The one that the settings name is no certificate.

    """
    extra = settings.centre.extra_ca
    if extra is None:
        return settings.ca_certificate_path
    try:
        found = x509.load_pem_x509_certificates(extra.read_bytes())
    except OSError as cause:
        raise ConfigError(f"centre.extra_ca: {extra}: cannot be read: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"centre.extra_ca: {extra}: is no certificate in PEM") from cause
    both = [settings.ca_certificate_path.read_bytes(), *(one.public_bytes(Encoding.PEM) for one in found)]
    write_whole(settings.authorities_path, b"".join(both))
    return settings.authorities_path
