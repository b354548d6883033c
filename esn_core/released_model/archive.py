"""The file of a released model: a zip without compression, which standard tools open; nothing in it is code.

| in the file | what it is |
|---|---|
| `model.json` | what the model says of itself, and the hash of every other part |
| `model.safetensors` | weights, severity network with uncertainty, models of impairment |
| `protocol.toml` | the study, as the centre signed and the sites approved it |
| `inputs/NAME` | the public inputs of its own that it names, if it has any |
| `result.json` | what the study found |
| `README.md` | the model card |
| `signatures/centre.json` | the centre's signature |
| `signatures/SITE.json` | a site's countersignature |

A file is read whole or refused: what is read is written again in memory, and has to give the same bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from esn_core.errors import ProtocolError
from esn_core.formats import MODEL, version_in
from esn_core.identity.public_keys import identity_key, identity_text, spoken
from esn_core.identity.signing import fingerprint
from esn_core.protocol.protocol import Protocol, parse_protocol
from esn_core.protocol.signature import signer
from esn_core.protocol.study_package import INPUTS
from esn_core.released_model.content import ModelContent
from esn_core.released_model.numbers import ModelNumbers
from esn_core.released_model.signatures import CentreSignature, Countersignature
from esn_core.system.plain_zip import LARGEST_BYTES, unzipped, zipped

PARTS = ("model.safetensors", "protocol.toml", "result.json", "README.md")
_CONTENT, _CENTRE = "model.json", "signatures/centre.json"
# In units of 1.5 steps of GASE: rounding of float32 differs between machines, and far less than this.
_SAME_PROBE = 1e-3


@dataclass(frozen=True)
class ReleasedModel:
    """A model whose parts belong together and whose signatures hold.

    Attributes
    ----------
    content : ModelContent
    parts : dict of str to bytes
        The files that the content names by their hashes.
    centre : CentreSignature
    countersignatures : tuple of Countersignature
        In the order of the content's sites; empty for a proposal.

    """

    content: ModelContent
    parts: Mapping[str, bytes]
    centre: CentreSignature
    countersignatures: tuple[Countersignature, ...] = ()

    @cached_property
    def protocol(self) -> Protocol:
        """The study, as the centre signed it."""
        given = {
            name.removeprefix(f"{INPUTS}/"): self.parts[name] for name in self.parts if name not in PARTS
        }
        return parse_protocol(self.parts["protocol.toml"], given, name="protocol.toml")

    @cached_property
    def numbers(self) -> ModelNumbers:
        """Weights, severity network and calibration."""
        return ModelNumbers.from_bytes(self.parts["model.safetensors"])

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.parts["README.md"].decode()

    @property
    def released(self) -> bool:
        """Whether all sites countersigned it; otherwise it is a proposal to them."""
        return self.centre.stage == "released"

    @cached_property
    def centre_key(self) -> Ed25519PublicKey:
        """The key that signed protocol and model."""
        key = signer(self.protocol)
        if key is None:
            raise ProtocolError("the protocol in it is not signed")
        return key

    @property
    def fingerprint(self) -> str:
        """What is published beside the file, or read out: of the model and of the key that signed it."""
        said = f"{self.content.sha256}\n{identity_text(self.centre_key)}"
        return spoken(hashlib.sha256(said.encode()).digest())

    @property
    def file(self) -> bytes:
        """The bytes of the file."""
        entries = {_CONTENT: self.content.canonical} | {name: self.parts[name] for name in PARTS}
        entries |= {name: self.parts[name] for name in sorted(self.parts) if name not in PARTS}
        entries[_CENTRE] = self.centre.text
        entries |= {f"signatures/{one.site}.json": one.text for one in self.countersignatures}
        return zipped(entries)

    @classmethod
    def of(
        cls,
        content: ModelContent,
        parts: Mapping[str, bytes],
        *,
        countersignatures: tuple[Countersignature, ...],
        key: Ed25519PrivateKey,
    ) -> Self:
        """Sign a model with the centre's key; without countersignatures it is a proposal.

        Raises
        ------
        ProtocolError
            The parts do not belong together, or a countersignature is not of this model.

        """
        order = {site: place for place, site in enumerate(content.sites)}
        known = sorted(countersignatures, key=lambda one: order.get(one.site, len(order)))
        said = {one.site: _sha256(one.text) for one in known}
        centre = CentreSignature.of(content.sha256, countersigned=said, key=key)
        made = cls(content, dict(parts), centre, tuple(known))
        made.check()
        return made

    def check(self) -> None:
        """Do nothing where everything belongs together; `ProtocolError` says what does not."""
        for name in self.parts:
            if _sha256(self.parts[name]) != self.content.files.get(name):
                raise ProtocolError(f"{name} is not the one that was signed; get the file again")
        if set(self.content.files) != set(self.parts):
            raise ProtocolError("model.json names other parts than the file has")
        if self.protocol.sha256 != self.content.protocol_sha256:
            raise ProtocolError("the protocol in it is of another study")
        if not self.centre.is_of(self.centre_key, "released-model"):
            raise ProtocolError(
                f"its signature is not that of the centre of its protocol, {fingerprint(self.centre_key)}"
            )
        if self.centre.model_sha256 != self.content.sha256:
            raise ProtocolError("the centre signed another model")
        self._check_countersignatures()
        self._check_numbers()

    def _check_countersignatures(self) -> None:
        roster = {entry.site: identity_key(entry.identity_key) for entry in self.protocol.roster}
        strangers = [site for site in self.content.sites if site not in roster]
        if strangers:
            raise ProtocolError(f"{', '.join(strangers)}: no site of the protocol's roster")
        found = {one.site: one for one in self.countersignatures}
        for site, one in found.items():
            if site not in self.content.sites or not one.is_of(roster[site], "countersignature"):
                raise ProtocolError(f"the countersignature of {site} is not by its key in the protocol")
            if one.model_sha256 != self.content.sha256:
                raise ProtocolError(f"{site} countersigned another model: {one.model_sha256[:16]}")
        if self.centre.countersigned != {site: _sha256(one.text) for site, one in found.items()}:
            raise ProtocolError("the centre signed other countersignatures than the file holds")
        missing = [site for site in self.content.sites if site not in found]
        if self.released and missing:
            raise ProtocolError(f"not countersigned by {', '.join(missing)}")

    def _check_numbers(self) -> None:
        atlas = self.protocol.atlas
        if self.content.atlas != self.protocol.imaging.atlas or self.content.atlas_sha256 != atlas.sha256:
            raise ProtocolError(
                f"its atlas {self.content.atlas} is not the one of that name in this version; install the "
                f"version that it was made with, {self.content.software.get('esn-federated', 'unknown')}"
            )
        if self.content.recipe_sha256 != self.protocol.imaging.sha256:
            raise ProtocolError("its recipe is not its protocol's")
        network = self.numbers.network
        if (
            len(network.edges) == 0
            or not (network.edges >= 0).all()
            or network.edges.max() >= len(atlas.edges)
        ):
            raise ProtocolError("its severity network has connections that the atlas has not")
        found = self.numbers.probe(atlas)
        if abs(found - self.content.probe) > _SAME_PROBE:
            raise ProtocolError(
                f"this software computes the model differently: {found:.6f} for its public pattern, not "
                f"{self.content.probe:.6f}; install the version that it was made with, "
                f"{self.content.software.get('esn-federated', 'unknown')}"
            )


def read_model(path: Path) -> ReleasedModel:
    """Read the file of a model, a proposal or a released one.

    Raises
    ------
    ProtocolError
        It cannot be read, a newer release wrote it, a byte of it was changed, or a signature does not hold.

    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as cause:
        raise ProtocolError(f"{path}: cannot be read: {cause.strerror}") from cause
    if len(content) > LARGEST_BYTES:
        raise ProtocolError(f"{path}: is larger than {LARGEST_BYTES // 2**20} MiB, and no model of ours")
    try:
        model = _parsed(content)
        model.check()
    except ProtocolError as fault:
        raise ProtocolError(f"{path}: {fault}") from fault
    if model.file != content:
        raise ProtocolError(f"{path}: a byte of it was changed; get it again from where it was released")
    return model


def _parsed(content: bytes) -> ReleasedModel:
    entries = unzipped(content)
    if entries is None:
        raise ProtocolError("is no released model, or was damaged on its way; get it again")
    fault = MODEL.fault_in(version_in(entries.get(_CONTENT, b"")))
    if fault:
        raise ProtocolError(fault)
    missing = [name for name in (_CONTENT, *PARTS, _CENTRE) if name not in entries]
    if missing:
        raise ProtocolError(f"is no released model: {missing[0]} is missing")
    try:
        said = ModelContent.model_validate_json(entries[_CONTENT])
    except ValidationError as cause:
        raise ProtocolError(f"{_CONTENT} is not what a model says of itself") from cause
    countersignatures = tuple(
        Countersignature.read(found, name=name)
        for name, found in entries.items()
        if name.startswith("signatures/") and name != _CENTRE
    )
    centre = CentreSignature.read(entries[_CENTRE], name=_CENTRE)
    own = [name for name in entries if name.startswith(f"{INPUTS}/")]
    return ReleasedModel(said, {name: entries[name] for name in (*PARTS, *own)}, centre, countersignatures)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
