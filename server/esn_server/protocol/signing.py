"""The centre's side of a protocol's signature: what is looked at before it is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from esn_core.analyses.planned_sums import misfits
from esn_core.errors import ProtocolError
from esn_core.identity.signing import fingerprint
from esn_core.messages.envelope import LARGEST_NUMBERS_BYTES
from esn_core.protocol.price import Price, price_of
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


@dataclass(frozen=True)
class Validated:
    """What a protocol is that can be used.

    Attributes
    ----------
    protocol : Protocol
    signed_by : str or None
        Fingerprint of the centre that signed it; None for a draft.
    price : Price
        Of what has noise.

    """

    protocol: Protocol
    signed_by: str | None
    price: Price

    @property
    def expired(self) -> bool:
        """Whether its last day is over."""
        return today_utc() > self.protocol.expires

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON can hold it; where there is no noise there is no epsilon."""
        protocol, price = self.protocol, self.price
        noised = not protocol.voting and protocol.privacy.noise != "none"
        return {
            "protocol_sha256": protocol.sha256,
            "study": protocol.study,
            "signed_by": self.signed_by,
            "sites": [entry.site for entry in protocol.roster],
            "simulated": protocol.simulated,
            "voting": protocol.voting,
            "expires": protocol.expires.isoformat(),
            "expired": self.expired,
            "epsilon_training_child": price.epsilon("training") if noised else None,
            "epsilon_held_out_child": price.epsilon("held-out") if noised else None,
            "delta": price.delta if noised else None,
            "inputs": {one.title: one.in_words for one in protocol.public_inputs},
            "warnings": [caution.words for caution in cautions(protocol)],
        }

    @property
    def in_words(self) -> str:
        """Three lines, its inputs, and what is known not to work or not to protect."""
        protocol, price = self.protocol, self.price
        by = "unsigned, a draft" if self.signed_by is None else f"signed by {self.signed_by}"
        costs = (
            "the sites vote on candidates: exact sums about healthy controls, and no child is asked about"
            if protocol.voting
            else "exact sums, without differential privacy"
            if protocol.privacy.noise == "none"
            else f"epsilon {price.epsilon('training'):.2f} for a training child, "
            f"{price.epsilon('held-out'):.2f} for a held-out child, at delta {price.delta:g}"
        )
        state = "expired" if self.expired else "valid"
        return "\n".join(
            (
                f"protocol {protocol.sha256}, {by}",
                f"study {protocol.study}: {len(protocol.roster)} sites; {state}, last day {protocol.expires}",
                costs,
                *(f"{one.title}: {one.in_words}" for one in protocol.public_inputs),
                *(f"warning: {caution.words}" for caution in cautions(protocol)),
            )
        )


def validate(path: Path) -> Validated:
    """Return what a protocol is.

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
    return Validated(protocol, None if found is None else fingerprint(found), price_of(protocol).noised)


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
