"""The centre's side of a protocol's signature: what is looked at before it is given."""

from pathlib import Path

import tomli_w

from esn_core.analyses.planned_sums import misfits
from esn_core.errors import ProtocolError
from esn_core.identity.signing import fingerprint
from esn_core.messages.envelope import LARGEST_NUMBERS_BYTES
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.protocol.signature import (
    SignedProtocol,
    load_signed,
    require_current,
    signature_of,
    signer,
    today_utc,
)
from esn_core.protocol.study_package import SUFFIX, file_of
from esn_core.protocol.warnings import cautions
from esn_core.system.files import write_whole
from esn_server.enrolment.centre_keys import load_centre_key
from esn_server.enrolment.sites import require_enrolled
from esn_server.link.bundle import bundle_sha256

_HEAD = "\n# By the centre, over all of the above; 'esn-server protocol sign' writes it.\n"


def validate(path: Path) -> str:
    """Return what a protocol is, in three lines, its inputs, and what is known not to work or not to protect.

    Raises
    ------
    ProtocolError
        The file is no protocol, with every fault at once; or it was altered since it was signed.

    """
    protocol = load_protocol(path)
    try:
        found = signer(protocol)
    except ProtocolError as fault:
        raise ProtocolError(f"{path}: {fault}") from fault
    price = price_of(protocol).noised
    by = "unsigned, a draft" if found is None else f"signed by {fingerprint(found)}"
    costs = (
        "the sites vote on candidates: exact sums about healthy controls, and no child is asked about"
        if protocol.voting
        else "exact sums, without differential privacy"
        if protocol.privacy.noise == "none"
        else f"epsilon {price.epsilon('training'):.2f} for a training child, "
        f"{price.epsilon('held-out'):.2f} for a held-out child, at delta {price.delta:g}"
    )
    state = "expired" if today_utc() > protocol.expires else "valid"
    return "\n".join(
        (
            f"protocol {protocol.sha256}, {by}",
            f"study {protocol.study}: {len(protocol.roster)} sites; {state}, last day {protocol.expires}",
            costs,
            *(f"{one.title}: {one.in_words}" for one in protocol.public_inputs),
            *(f"warning: {caution.words}" for caution in cautions(protocol)),
        )
    )


def sign_protocol(path: Path, centre: Path) -> SignedProtocol:
    """Sign a draft in its own file; a protocol that this centre has signed is left as it is.

    Where it has public inputs of its own, the study package is written beside it.

    Parameters
    ----------
    path : Path
        The file, to which the table `[signature]` is added.
    centre : Path
        The centre's directory.

    Raises
    ------
    ProtocolError
        The protocol cannot be used, has expired, asks for a sum that could not leave a site, names another
        version's bundle or a site that is not enrolled with these keys; or it has a signature that is not
        this centre's, or of another text.

    """
    key = load_centre_key(centre)
    protocol = load_protocol(path)
    if protocol.signature is not None:
        try:
            return _packed(load_signed(path, key.public_key()), path)
        except ProtocolError as fault:
            raise ProtocolError(f"{fault}; delete its table [signature] to sign it as it is now") from fault
    require_current(protocol, today_utc())
    require_own_bundle(protocol, path)
    unfit = misfits(protocol, largest_bytes=LARGEST_NUMBERS_BYTES)
    if unfit:
        raise ProtocolError(f"{path}: {'; '.join(unfit)}")
    for entry in protocol.roster:
        require_enrolled(centre, entry)
    signature = tomli_w.dumps({"signature": signature_of(protocol, key).model_dump()})
    if path.suffix == SUFFIX:
        raise ProtocolError(f"{path}: is a package; unpack it, and sign its protocol.toml")
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n" + _HEAD + signature
    write_whole(path, text.encode())
    return _packed(load_signed(path, key.public_key()), path)


def package_of(path: Path) -> Path:
    """Name the study package that `sign_protocol` writes beside a protocol with inputs of its own."""
    return path.with_suffix(SUFFIX)


def _packed(signed: SignedProtocol, path: Path) -> SignedProtocol:
    """Write the study package of a signed protocol, where it needs one."""
    if signed.protocol.own_files and path != package_of(path):
        _, content = file_of(path.read_bytes(), signed.protocol.own_files)
        write_whole(package_of(path), content)
    return signed


def require_own_bundle(protocol: Protocol, path: Path) -> None:
    """Refuse a protocol of another version; `ProtocolError` names both bundles."""
    if protocol.bundle_sha256 != bundle_sha256():
        raise ProtocolError(
            f"{path}: names the bundle {protocol.bundle_sha256[:16]}, "
            f"this version's is {bundle_sha256()[:16]}"
        )
