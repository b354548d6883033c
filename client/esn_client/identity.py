"""The key by which the centre recognises a site."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from esn_core.errors import ConfigError
from esn_core.files import write_new


def create_node_key(path: Path) -> None:
    """Create the key with which this site's SuperNode signs its calls to the centre.

    Writes an elliptic curve P-384 private key to `path` (OpenSSH format, readable by its owner only)
    and the public key, which is handed to the centre, to `path` with ``.pub`` appended.

    Parameters
    ----------
    path : Path
        Its directory is created if it does not exist, readable by its owner only.

    Raises
    ------
    ConfigError
        One of the two files is there already; nothing is overwritten.

    """
    public_path = path.with_name(path.name + ".pub")
    for present in (path, public_path):
        if present.exists():
            raise ConfigError(f"{present} already exists; a node key is not replaced: choose another path")
    key = ec.generate_private_key(ec.SECP384R1())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public_bytes = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_new(path, private_bytes, mode=0o600)
    write_new(public_path, public_bytes + b"\n", mode=0o644)
