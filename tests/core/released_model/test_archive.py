"""A released model that somebody put together anew, the centre included: what does not belong is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_core.errors import ProtocolError
from esn_core.released_model.archive import ReleasedModel, read_model
from esn_core.released_model.numbers import ModelNumbers
from esn_core.released_model.signatures import AuditSaid, CentreSignature, Countersignature
from esn_core.severity_network.selection import SeverityNetwork
from esn_core.system.plain_zip import unzipped, zipped

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "model-1.esn"
CENTRE = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
AUDIT = AuditSaid(at="2026-11-29 10:00", software="0.1.0", repeats=100)


@pytest.fixture
def proposal():
    return read_model(GOLDEN)


@pytest.fixture
def released(proposal, more_sites):
    """The same model with the countersignatures of all three sites."""
    _, keys = more_sites
    signed = [
        Countersignature.of(proposal.content.sha256, site=site, audit=AUDIT, key=keys[site][0])
        for site in proposal.content.sites
    ]
    return ReleasedModel.of(proposal.content, proposal.parts, countersignatures=tuple(signed), key=CENTRE)


def signed_anew(model, *, key=CENTRE, parts=None, **content):
    """The model with other content, signed by a centre that vouches for it."""
    changed = model.content.model_copy(update=content)
    said = {one.site: plain_sha(one.text) for one in model.countersignatures}
    signature = CentreSignature.of(changed.sha256, countersigned=said, key=key)
    return replace(model, content=changed, parts=parts or model.parts, centre=signature)


def plain_sha(content):
    return hashlib.sha256(content).hexdigest()


def with_network(model, edges):
    """The model with other connections in its network, all hashes right."""
    numbers = model.numbers
    n = len(edges)
    network = SeverityNetwork(edges, *(np.full(n, value) for value in (0.1, 0.1, 0.9)))
    other = ModelNumbers(numbers.weights, network, numbers.calibration)
    parts = {**model.parts, "model.safetensors": other.to_bytes()}
    files = {**model.content.files, "model.safetensors": plain_sha(parts["model.safetensors"])}
    return signed_anew(model, parts=parts, files=files)


FORGED = {
    "another card": (
        lambda m: replace(m, parts={**m.parts, "README.md": b"# Another card\n"}),
        "README.md is not the one that was signed",
    ),
    "a part that is not there": (
        lambda m: signed_anew(m, files={**m.content.files, "more.bin": "0" * 64}),
        "names other parts than the file has",
    ),
    "another study": (
        lambda m: signed_anew(m, protocol_sha256="0" * 64),
        "the protocol in it is of another study",
    ),
    "a stranger's signature": (lambda m: signed_anew(m, key=STRANGER), "not that of the centre"),
    "the signature of another model": (
        lambda m: replace(m, centre=CentreSignature.of("0" * 64, countersigned={}, key=CENTRE)),
        "the centre signed another model",
    ),
    "a site that is on no roster": (
        lambda m: signed_anew(m, sites=("north", "nowhere")),
        "nowhere: no site of the protocol's roster",
    ),
    "another atlas": (lambda m: signed_anew(m, atlas_sha256="0" * 64), "its atlas phantom-28 is not the one"),
    "another recipe": (lambda m: signed_anew(m, recipe_sha256="0" * 64), "its recipe is not its protocol's"),
    "no network": (
        lambda m: with_network(m, np.array([], dtype=np.int64)),
        "connections that the atlas has not",
    ),
    "connections that there are not": (
        lambda m: with_network(m, np.array([0, 1, 10**6])),
        "connections that the atlas has not",
    ),
    "connections below the first": (
        lambda m: with_network(m, np.array([-1, 1, 2])),
        "connections that the atlas has not",
    ),
    "another probe": (
        lambda m: signed_anew(m, probe=m.content.probe + 0.01),
        "this software computes the model differently",
    ),
}


@pytest.mark.parametrize(("forge", "words"), FORGED.values(), ids=FORGED.keys())
def test_a_proposal_that_does_not_belong_together_is_refused(proposal, tmp_path, forge, words):
    path = tmp_path / "forged.esn"
    path.write_bytes(forge(proposal).file)
    with pytest.raises(ProtocolError, match=words):
        read_model(path)


def countersigned_by(model, site, key, digest=None):
    other = Countersignature.of(digest or model.content.sha256, site=site, audit=AUDIT, key=key)
    kept = tuple(other if one.site == site else one for one in model.countersignatures)
    return signed_anew(replace(model, countersignatures=kept))


FORGED_CONSENT = {
    "by another key": (
        lambda m, keys: countersigned_by(m, "south", keys["north"][0]),
        "the countersignature of south is not by its key",
    ),
    "of another model": (
        lambda m, keys: countersigned_by(m, "south", keys["south"][0], digest="1" * 64),
        "south countersigned another model: 1111111111111111",
    ),
    "to what was changed since": (
        lambda m, keys: signed_anew(m, sites=("north", "west")),
        "north countersigned another model",
    ),
    "left out": (
        lambda m, keys: replace(m, countersignatures=m.countersignatures[:2]),
        "the centre signed other countersignatures than the file holds",
    ),
    "left out, and the centre says so": (
        lambda m, keys: signed_anew(replace(m, countersignatures=m.countersignatures[:2])),
        "not countersigned by west",
    ),
}


@pytest.mark.parametrize(("forge", "words"), FORGED_CONSENT.values(), ids=FORGED_CONSENT.keys())
def test_a_consent_that_was_not_given_is_seen(released, more_sites, tmp_path, forge, words):
    path = tmp_path / "forged.esn"
    path.write_bytes(released.file)
    assert read_model(path).released
    path.write_bytes(forge(released, more_sites[1]).file)
    with pytest.raises(ProtocolError, match=words):
        read_model(path)


def without(name):
    return lambda entries: {key: value for key, value in entries.items() if key != name}


def changed(name, content):
    return lambda entries: {key: content if key == name else value for key, value in entries.items()}


FILES = {
    "no weights": (without("model.safetensors"), "is no released model: model.safetensors is missing"),
    "no signature": (without("signatures/centre.json"), "signatures/centre.json is missing"),
    "another format": (changed("model.json", b'{"format": 99}'), "99"),
    "content that is none": (changed("model.json", b'{"format": 1}'), "not what a model says of itself"),
    "a signature that is none": (
        changed("signatures/centre.json", b"{}"),
        "signatures/centre.json: is no signature of a model",
    ),
}


@pytest.mark.parametrize(("change", "words"), FILES.values(), ids=FILES.keys())
def test_a_file_that_lacks_something_is_refused(tmp_path, change, words):
    entries = unzipped(GOLDEN.read_bytes())
    path = tmp_path / "model.esn"
    path.write_bytes(zipped(change(dict(entries))))
    with pytest.raises(ProtocolError, match=words):
        read_model(path)


def test_what_is_no_model_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ProtocolError, match="cannot be read"):
        read_model(tmp_path / "absent.esn")
    path = tmp_path / "model.esn"
    path.write_bytes(GOLDEN.read_bytes()[:-100])
    with pytest.raises(ProtocolError, match="damaged on its way"):
        read_model(path)
    path.write_bytes(GOLDEN.read_bytes() + b"more")
    with pytest.raises(ProtocolError):
        read_model(path)
    monkeypatch.setattr("esn_core.released_model.archive.LARGEST_BYTES", 1000)
    path.write_bytes(GOLDEN.read_bytes())
    with pytest.raises(ProtocolError, match="is larger than"):
        read_model(path)
