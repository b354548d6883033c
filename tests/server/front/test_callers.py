"""Who calls: signatures of enrolled sites, each taken once."""

import datetime
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from esn_client.site.keys import create_node_key
from esn_server.enrolment.centre_keys import read_node_key
from esn_server.front import callers
from esn_server.front.callers import Callers
from esn_server.front.http_connection import Request

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)


@pytest.fixture
def keys(tmp_path):
    """Private keys of two sites and a stranger; the two are enrolled."""
    made = {}
    for name in ("north", "south", "stranger"):
        create_node_key(tmp_path / name / "node_key")
        made[name] = load_ssh_private_key((tmp_path / name / "node_key").read_bytes(), password=None)
    for name in ("north", "south"):
        (tmp_path / "sites").mkdir(exist_ok=True)
        (tmp_path / "sites" / f"{name}.pub").write_bytes((tmp_path / name / "node_key.pub").read_bytes())
    return made


def call(directory, key, claimed, *, at=NOW, stamp=None):
    stamp = stamp or at.isoformat()
    signature = key.sign(at.isoformat().encode(), ec.ECDSA(hashes.SHA256()))
    headers = [
        (b"flwr-public-key", b64encode(read_node_key(directory / claimed / "node_key.pub"))),
        (b"flwr-timestamp", stamp.encode()),
        (b"flwr-signature", b64encode(signature)),
    ]
    return Request(b"POST", b"/v1/fleet/pull-messages", headers, 0)


@pytest.fixture
def known(tmp_path, keys):
    return Callers(tmp_path, now=lambda: NOW)


def test_an_enrolled_site_is_known_by_its_signature(known, keys, tmp_path):
    for name in ("north", "south"):
        assert known.site_of(call(tmp_path, keys[name], name)) == read_node_key(
            tmp_path / name / "node_key.pub"
        )


def test_whoever_signs_with_another_key_or_is_not_enrolled_is_a_stranger(known, keys, tmp_path):
    assert known.site_of(call(tmp_path, keys["south"], "north")) is None
    assert known.site_of(call(tmp_path, keys["stranger"], "stranger")) is None
    assert known.site_of(Request(b"POST", b"/v1/fleet/pull-messages", [], 0)) is None
    odd = [(b"flwr-public-key", b"\xff"), (b"flwr-timestamp", b"\xff"), (b"flwr-signature", b"*")]
    assert known.site_of(Request(b"POST", b"/v1/fleet/pull-messages", odd, 0)) is None


@pytest.mark.parametrize("seconds", [-306, 6])
def test_a_signature_is_good_for_five_minutes(known, keys, tmp_path, seconds):
    at = NOW + datetime.timedelta(seconds=seconds)
    assert known.site_of(call(tmp_path, keys["north"], "north", at=at)) is None
    nearly = NOW + datetime.timedelta(seconds=seconds - (2 if seconds > 0 else -2))
    assert known.site_of(call(tmp_path, keys["north"], "north", at=nearly)) is not None


def test_a_call_that_was_overheard_cannot_be_made_again(known, keys, tmp_path):
    """Nor under a second signature of the same time stamp, which anybody can derive from the first."""
    first = call(tmp_path, keys["north"], "north")
    assert known.site_of(first) is not None
    assert known.site_of(first) is None
    assert known.site_of(call(tmp_path, keys["north"], "north")) is None
    assert known.site_of(call(tmp_path, keys["south"], "south")) is not None  # its own time stamp
    local = NOW.replace(tzinfo=None).isoformat()
    assert known.site_of(call(tmp_path, keys["north"], "north", stamp=local)) is None


def test_a_revoked_site_is_a_stranger_from_the_next_look_on(known, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(callers, "_LOOK_EVERY_S", -1.0)
    assert known.site_of(call(tmp_path, keys["north"], "north")) is not None
    (tmp_path / "sites" / "north.pub").unlink()
    later = NOW + datetime.timedelta(seconds=1)
    revoked = call(tmp_path, keys["north"], "north", at=later)
    assert known.site_of(revoked) is None
    assert not known.is_enrolled(revoked)
    assert known.is_enrolled(call(tmp_path, keys["stranger"], "south"))  # says nothing of who signed
    assert known.site_of(call(tmp_path, keys["south"], "south", at=later)) is not None


def test_sites_that_cannot_be_read_stay_as_they_were(known, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(callers, "_LOOK_EVERY_S", -1.0)
    assert known.site_of(call(tmp_path, keys["north"], "north")) is not None
    (tmp_path / "sites" / "west.pub").write_text("no key")
    later = NOW + datetime.timedelta(seconds=1)
    assert known.site_of(call(tmp_path, keys["north"], "north", at=later)) is not None


def test_of_two_signatures_the_superlink_sees_the_one_that_was_checked():
    twice = [(b"flwr-signature", b"checked"), (b"flwr-signature", b"other"), (b"x-esn-centre", b"guessed")]
    assert Request(b"POST", b"/v1/fleet/get-run", twice, 0).forwarded == [(b"flwr-signature", b"checked")]
