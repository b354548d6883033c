"""A protocol says all that is wrong with it at once, and its hash covers all that it says."""

import copy
import os
import tomllib

import pytest
from pydantic import ValidationError

from esn_client.config import SiteSettings
from esn_core.errors import ConfigError, ProtocolError
from esn_core.protocol import Protocol, RosterEntry, load_protocol, read_toml
from esn_server.drafting import draft


@pytest.fixture
def text(protocol_content):
    """A drafted protocol file."""
    return draft(
        study="test",
        roster=[RosterEntry.model_validate(entry) for entry in protocol_content["roster"]],
        simulated=True,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt='π/🧠"',
        training_rounds=8,
        deadline_s=60.0,
    )


@pytest.fixture
def load(tmp_path):
    """A function that writes a protocol file and loads it."""

    def load_text(content):
        path = tmp_path / "protocol.toml"
        path.write_text(content, encoding="utf-8")
        return load_protocol(path)

    return load_text


def leaves(content, path=()):
    """Every single value of nested tables, by its path."""
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def changed(content, path, value):
    content = copy.deepcopy(content)
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return content


OTHER = {
    ("model", "name"): None,
    ("format",): None,
    ("model", "initial_weights"): None,
    ("severity_network", "candidates"): None,
    ("privacy", "trust"): None,
    ("privacy", "noise"): "none",
    ("imaging", "sphere"): "repulsion200",
    ("imaging", "sh_order_max"): 4,
    ("imaging", "end_search_mm"): 1.0,
    ("imaging", "denoise"): "mppca",
    ("imaging", "motion"): "rigid",
    ("rounds", "quorum"): None,
    ("bundle_sha256",): "1" * 64,
}


def test_a_draft_can_be_read_and_says_what_was_asked(text, load):
    protocol = load(text)
    assert protocol.sites == ("north", "south", "west")
    assert protocol.cohort.split_salt == 'π/🧠"'
    assert (protocol.training.rounds, protocol.rounds.deadline_s, protocol.rounds.quorum) == (8, 60, 3)


def test_comments_and_the_order_of_settings_do_not_change_the_hash(text, load, protocol_content):
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert bare != text
    assert load(bare).sha256 == load(text).sha256
    backwards = dict(reversed(protocol_content.items()))
    assert Protocol.model_validate(backwards).sha256 == Protocol.model_validate(protocol_content).sha256


def test_every_setting_changes_the_hash(protocol_content):
    original = Protocol.model_validate(protocol_content).sha256
    tried = 0
    for path, value in leaves(protocol_content):
        if path in OTHER and OTHER[path] is None:
            continue  # only one value is possible
        if path[:2] == ("privacy", "shares"):
            continue  # they sum to 1; below
        if path in OTHER:
            other = OTHER[path]
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, str):
            other = value.replace("=", "A=") if "=" in value else value + "x"
        else:
            other = value * 0.99 if isinstance(value, float) else value + 1
        assert Protocol.model_validate(changed(protocol_content, path, other)).sha256 != original, path
        tried += 1
    assert tried > 25
    shares = {"centre": 0.1, "association": 0.65, "gradient": 0.1, "calibration": 0.15}
    assert (
        Protocol.model_validate(changed(protocol_content, ("privacy", "shares"), shares)).sha256 != original
    )


def test_the_order_of_the_roster_changes_the_hash(protocol_content):
    backwards = {**protocol_content, "roster": protocol_content["roster"][::-1]}
    assert Protocol.model_validate(backwards).sha256 != Protocol.model_validate(protocol_content).sha256


def test_every_fault_is_named_at_once_with_its_place(text, load):
    roster = text.replace('site = "south"', 'site = "north"')
    faulty = roster.replace("delta = 0.001", "delta = 0.5").replace("rounds = 8", "rouns = 8")
    faulty = faulty.replace("quorum = 3", "quorum = 2").replace("simulated = true", 'simulated = "yes"')
    with pytest.raises(ProtocolError) as caught:
        load(faulty)
    said = str(caught.value)
    for fault in (
        "protocol.toml: ",
        "missing setting 'training.rounds'",
        "unknown setting 'training.rouns'",
        "'privacy.delta': input should be less than 0.1",
        "'rounds.quorum': input should be greater than or equal to 3",
        "'simulated': input should be a valid boolean",
        "'roster': the roster lists a site twice: north",
    ):
        assert fault in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("quorum = 3", "quorum = 4", "the quorum is 4, but the roster lists 3 sites"),
        ("centre = 0.05", "centre = 0.06", "the shares must sum to 1, not 1.01"),
        ("max_gradient_norm = 1.0", "max_gradient_norm = inf", "max_gradient_norm': input should be"),
        ("epsilon = 8.0", "epsilon = nan", "privacy.epsilon"),
        ("epsilon = 8.0", "epsilon = 0", "greater than 0"),
        ("epsilon = 8.0", f"epsilon = 1{'0' * 400}", "privacy.epsilon"),
        ("epsilon = 8.0", f"epsilon = 1{'0' * 5000}", "is not TOML"),
        ("format = 1", "format = 2", "'format': input should be 1"),
        ("format = 1", "format = ", "is not TOML: .*line 3"),
        ("format = 1", f"format = {'[' * 3000}", "is not TOML"),
        ('study = "test"', 'study = "../x"', "'study'"),
        ('"ecdsa-sha2-nistp384 south="', '"ssh-rsa south="', "'roster.1.node_key'"),
        ('"ecdsa-sha2-nistp384 south="', '"ecdsa-sha2-nistp384 north="', "lists a node key twice"),
        ("held_out_fraction = 0.333", "held_out_fraction = 1.0", "'cohort.held_out_fraction'"),
        ("minimum_children = 5", "minimum_children = 2", "'cohort.minimum_children'"),
    ],
)
def test_an_impossible_value_is_refused_with_its_place(text, load, old, new, words):
    assert old in text
    with pytest.raises(ProtocolError, match=words):
        load(text.replace(old, new))


def test_a_roster_of_two_is_refused(protocol_content):
    with pytest.raises(ValidationError, match="at least 3 items"):
        Protocol.model_validate({**protocol_content, "roster": protocol_content["roster"][:2]})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "cannot be read as a text file"),
        (lambda path: path.write_bytes(b"study = '\xff'"), "cannot be read as a text file"),
        (lambda path: path.write_bytes(b""), "missing setting 'format'; missing setting 'study'"),
        (
            lambda path: path.write_bytes(os.urandom(64) + b"\xff"),
            "cannot be read as a text file|is not TOML",
        ),
    ],
)
def test_what_is_no_protocol_is_refused_by_what_was_found(tmp_path, make, words):
    path = tmp_path / "protocol.toml"
    make(path)
    with pytest.raises(ProtocolError, match=words):
        load_protocol(path)


SITE = """
site = "north"
dataset = "bids"
derivatives = "out"
state = "state"
centre = { address = "127.0.0.1:9092", ca_certificate = "ca.crt", connect_timeout_s = 5.0 }
limits = { epsilon_cap = 8.0, delta = 1e-3, minimum_children = 5, exact_sums = false }
compute = { device = "cpu", processes = 1 }
"""


def test_a_sites_settings_can_be_read(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    assert read_toml(path, SiteSettings).site == tomllib.loads(SITE)["site"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epsilon_cap = 8.0", "epsilon_cap = inf", "limits.epsilon_cap': input should be a finite number"),
        ("exact_sums = false", 'exact_sums = "yes"', "limits.exact_sums': input should be a valid boolean"),
        ("exact_sums = false", "exact_sums = 1", "limits.exact_sums': input should be a valid boolean"),
        ("minimum_children = 5", "minimum_children = 1", "limits.minimum_children"),
        ("delta = 1e-3", "delta = 0.2", "limits.delta"),
        ('site = "north"', 'site = "../north"', "'site'"),
        (", exact_sums = false", "", "missing setting 'limits.exact_sums'"),
    ],
)
def test_a_sites_impossible_setting_is_refused_with_its_place(tmp_path, old, new, words):
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        read_toml(path, SiteSettings)
