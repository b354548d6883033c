"""A protocol says all that is wrong with it at once, and its hash covers all that it says."""

import copy
import datetime
import os
import tomllib
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from esn_client.site.settings import SiteSettings
from esn_core.connectome.atlas import load_atlas
from esn_core.errors import ConfigError, ProtocolError
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.identity.roster import RosterEntry
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.phases import PHASES
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol, load_protocol
from esn_core.system.toml_file import read_toml
from esn_server.protocol.drafting import draft


@pytest.fixture
def text(protocol_content):
    """A drafted protocol file."""
    return draft(
        study="test",
        roster=[RosterEntry.model_validate(entry) for entry in protocol_content["roster"]],
        simulated=True,
        trust="local",
        colluding_sites=1,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt='π/🧠"',
        training_rounds=8,
        deadline_s=60.0,
        analyses=Analyses(),
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
    ("severity_network", "candidates"): "modules",
    ("privacy", "trust"): "secure-sum",
    ("privacy", "noise"): "none",
    ("imaging", "atlas"): "desikan-killiany-83",
    ("imaging", "sphere"): "repulsion200",
    ("imaging", "sh_order_max"): 4,
    ("imaging", "end_search_mm"): 1.0,
    ("imaging", "denoise"): "mppca",
    ("imaging", "motion"): "rigid",
    ("rounds", "quorum"): None,
    ("bundle_sha256",): "1" * 64,
    ("cohort", "harmonisation"): "public-template",
    ("simulated",): None,  # this atlas has one value alone; below
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
        if path[-1] in ("identity_key", "mask_key"):
            continue  # a changed letter is no key; below
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
        elif isinstance(value, datetime.date):
            other = value + datetime.timedelta(days=1)
        else:
            other = value * 0.99 if isinstance(value, float) else value + 1
        assert Protocol.model_validate(changed(protocol_content, path, other)).sha256 != original, path
        tried += 1
    assert tried > 25
    shares = {**protocol_content["privacy"]["shares"], "centre": 0.1, "association": 0.65}
    assert (
        Protocol.model_validate(changed(protocol_content, ("privacy", "shares"), shares)).sha256 != original
    )


def test_a_listed_pair_changes_the_hash(protocol_content):
    names = load_atlas("phantom-28").names
    hashes = {
        Protocol.model_validate(changed(protocol_content, ("severity_network",), rules)).sha256
        for rules in (
            {"candidates": "list", "pairs": [names[:2]]},
            {"candidates": "list", "pairs": [names[:2], names[1:3]]},
            {"candidates": "list", "pairs": [(names[0], names[3])]},
        )
    }
    assert len(hashes) == 3


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
        ("centre = 0.05", "centre = 0.06", "the shares of training children must sum to 1, not 1.01"),
        ("max_gradient_norm = 1.0", "max_gradient_norm = inf", "max_gradient_norm': input should be"),
        ("epsilon = 8.0", "epsilon = nan", "privacy.epsilon"),
        ("epsilon = 8.0", "epsilon = 0", "greater than 0"),
        ("epsilon = 8.0", f"epsilon = 1{'0' * 400}", "privacy.epsilon"),
        ("epsilon = 8.0", f"epsilon = 1{'0' * 5000}", "is not TOML"),
        ('"fedadam"', '"fedavg"\nlocal_steps = 5', "is for studies without noise, as a site's update mixes"),
        ('"fedadam"', '"fedadam"\nlocal_steps = 5', "fedadam takes 1 local step, not 5"),
        ('"fedadam"', '"fedprox"\nlocal_steps = 5', "above 0, not 5 and 0: it would be fedavg"),
        ('"fedadam"', '"fedprox"\nproximal = 1.0', "2 local steps or more"),
        ('"fedadam"', '"fedavg"\nproximal = 1.0', "a proximal term belongs to fedprox, not to fedavg"),
        (
            '"fedadam"',
            '"fedprox"\nlocal_steps = 5\nproximal = 1000.0',
            "times the learning rate must be below 1, not 1: each step would overshoot",
        ),
        ("format = 2", "format = 3", "by a newer esn-federated: protocol format 3, this one reads 2"),
        ("format = 2", "format = 0", "'format': input should be 1 or 2"),
        ("format = 2", "format = ", "is not TOML: .*line 4"),
        ("format = 2", f"format = {'[' * 3000}", "is not TOML"),
        ('study = "test"', 'study = "../x"', "'study'"),
        ('"ecdsa-sha2-nistp384 south="', '"ssh-rsa south="', "'roster.1.node_key'"),
        ('"ecdsa-sha2-nistp384 south="', '"ecdsa-sha2-nistp384 north="', "lists a node key twice"),
        ("held_out_fraction = 0.333", "held_out_fraction = 1.0", "'cohort.held_out_fraction'"),
        ("minimum_children = 5", "minimum_children = 2", "'cohort.minimum_children'"),
        ('candidates = "template"', 'candidates = "list"', "candidates 'list' need 'pairs'"),
        (
            'candidates = "template"',
            'candidates = "modules"\npairs = [["L_precentral", "L_postcentral"]]',
            "'pairs' belong to candidates 'list', not 'modules'",
        ),
        (
            'candidates = "template"',
            'candidates = "list"\npairs = [["L_precentral", "nowhere"]]',
            "'severity_network': the atlas phantom-28 has no region",
        ),
    ],
)
def test_an_impossible_value_is_refused_with_its_place(text, load, old, new, words):
    assert old in text
    with pytest.raises(ProtocolError, match=words):
        load(text.replace(old, new))


def test_every_key_of_the_roster_changes_the_hash_and_the_fingerprint(protocol_content, roster):
    original = Protocol.model_validate(protocol_content)
    spare = {
        "identity_key": identity_text(Ed25519PrivateKey.generate().public_key()),
        "mask_key": mask_text(X25519PrivateKey.generate().public_key()),
    }
    for name, key in spare.items():
        other = Protocol.model_validate(changed(protocol_content, ("roster", 1, name), key))
        assert other.sha256 != original.sha256
        assert other.roster[1].fingerprint != original.roster[1].fingerprint


@pytest.mark.parametrize("name", ["identity_key", "mask_key"])
@pytest.mark.parametrize("text", ["ssh-ed25519 AAAA", "x25519 AAAA", "x25519 !", "ssh-rsa AAAA", ""])
def test_what_is_no_key_is_refused(protocol_content, name, text):
    with pytest.raises(ValidationError, match=f"roster.1.{name}"):
        Protocol.model_validate(changed(protocol_content, ("roster", 1, name), text))


def secure(content, *, sites, quorum, colluding):
    """The protocol of so many sites under the secure sum."""
    keys = [
        {
            "site": f"s{i}",
            "node_key": f"ecdsa-sha2-nistp384 s{i}=",
            "identity_key": identity_text(Ed25519PrivateKey.generate().public_key()),
            "mask_key": mask_text(X25519PrivateKey.generate().public_key()),
        }
        for i in range(sites)
    ]
    privacy = {**content["privacy"], "trust": "secure-sum", "colluding_sites": colluding}
    rounds = {**content["rounds"], "quorum": quorum}
    return Protocol.model_validate({**content, "roster": keys, "privacy": privacy, "rounds": rounds})


@given(sites=st.integers(3, 9), quorum=st.integers(3, 9), colluding=st.integers(0, 4))
def test_a_protocol_is_accepted_only_if_no_two_sums_can_be_subtracted(
    protocol_content, sites, quorum, colluding
):
    """By trying: every two sets of sites that may be summed share an honest one, whoever colludes."""
    if quorum > sites:
        return
    allowed = [set(s) for n in range(quorum, sites + 1) for s in combinations(range(sites), n)]
    safe = all(a == b or len(a & b) > colluding for a in allowed for b in allowed) and quorum - colluding >= 2
    try:
        protocol = secure(protocol_content, sites=sites, quorum=quorum, colluding=colluding)
    except ValidationError:
        assert not safe
    else:
        assert safe
        # The noise of the fewest honest sites is the whole noise.
        assert (quorum - colluding) * protocol.noise_share == pytest.approx(1, rel=1e-15)
        assert protocol.self_masked == (quorum < sites)


def test_with_local_trust_every_site_adds_all_of_the_noise(protocol_content):
    protocol = Protocol.model_validate(protocol_content)
    assert (protocol.noise_share, protocol.masked, protocol.self_masked) == (1.0, False, False)


@pytest.mark.parametrize("trust", ["local", "secure-sum"])
def test_real_children_need_noise(patients_content, trust):
    privacy = {**patients_content["privacy"], "noise": "none", "trust": trust}
    content = {**patients_content, "privacy": privacy}
    assert Protocol.model_validate({**content, "simulated": True}).simulated
    with pytest.raises(ValidationError, match="noise = 'none' is for simulated children; these are real"):
        Protocol.model_validate(content)


def test_exact_sums_of_real_children_need_masks(patients_content):
    content = {**patients_content, "analyses": {"cohort": True, "exact": ["cohort"]}}
    assert Protocol.model_validate({**content, "simulated": True}).simulated
    with pytest.raises(ValidationError, match=r"exact under trust 'local': cohort; .* neither noise nor"):
        Protocol.model_validate(content)
    masked = {**content, "privacy": {**content["privacy"], "trust": "secure-sum"}}
    assert not Protocol.model_validate(masked).simulated


NETWORK = {"t_threshold": 3.0, "null_draws": 20, "bootstrap_draws": 20, "minimum_children": 30}
MODELS = {
    "rounds": 2,
    "models": [["gase"]],
    "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 85.0}],
}
SCORES = {"verbal_score": {"kind": "number", "unit": "standard score", "range": [40, 160]}}
STEERED = {
    "attribution": {"explanation": True, "exact": ["explanation"]},
    "network-bootstrap": {"network": NETWORK, "exact": ["network"]},
    **{
        phase: {"neurocognition": MODELS, "exact": ["neurocognition"]}
        for phase in ("linear", "newton", "comparison", "ranking")
    },
}


def test_a_site_can_undo_no_noise_of_real_children(patients_content):
    rules = {**patients_content["privacy"], "trust": "secure-sum", "colluding_sites": 0}
    content = {**patients_content, "privacy": rules}
    assert Protocol.model_validate({**content, "simulated": True}).simulated
    with pytest.raises(ValidationError, match="colluding_sites must be 1 or more, as these children are"):
        Protocol.model_validate(content)
    content["privacy"] = {**rules, "colluding_sites": 1}
    assert not Protocol.model_validate(content).simulated


def test_every_exact_phase_whose_numbers_follow_from_answers_is_looked_at():
    """But local steps, which need noise = 'none', and a reference: votes never choose whom it is about."""
    may_be_exact = {name for name, phase in PHASES.items() if phase.needs and phase.exact is not None}
    assert may_be_exact - {"local-update", "reference"} == set(STEERED)


@pytest.mark.parametrize("phase", STEERED)
def test_what_one_site_could_steer_is_not_exact_for_real_children(patients_content, phase):
    """A site's answer can be any vector, and a later question's numbers follow from it."""
    analyses = STEERED[phase]
    rules = {**patients_content["privacy"], "trust": "secure-sum", "colluding_sites": 1}
    content = {**patients_content, "analyses": analyses, "phenotypes": SCORES, "privacy": rules}
    simulated = Protocol.model_validate({**content, "simulated": True})
    assert phase in {planned.phase for planned in simulated.phases if planned.exact}
    with pytest.raises(ValidationError) as caught:
        Protocol.model_validate(content)
    (fault,) = caught.value.errors()
    assert f"{phase}" in fault["msg"].partition(" are for simulated children; these are real")[0]
    assert "one hospital that answers falsely" in fault["msg"]
    calm = {**analyses, "exact": []}
    shares = dict(rules["shares"])
    if phase == "network-bootstrap":
        assert fault["msg"].endswith("take bootstrap_draws = 0")
        calm = {"network": {**NETWORK, "bootstrap_draws": 0}, "exact": ["network"]}
    else:
        (name,) = analyses["exact"]
        assert f"take '{name}' out of 'exact'" in fault["msg"]
        asked = ["attribution"] if name == "explanation" else ["linear", "newton", "comparison"]
        shares |= {"evaluation": 0.4, **dict.fromkeys(asked, 0.6 / len(asked))}
    content |= {"analyses": calm, "privacy": {**rules, "shares": shares}}
    assert not Protocol.model_validate(content).simulated


def test_simulated_heads_are_not_offered_to_real_children(protocol_content, patients_content):
    real = Protocol.model_validate(patients_content)
    assert not real.simulated
    assert Protocol.model_validate({**patients_content, "simulated": True}).sha256 != real.sha256
    for number in (1, 2):
        with pytest.raises(
            ValidationError, match="atlas phantom-28 is of simulated heads, and these children"
        ):
            Protocol.model_validate({**protocol_content, "format": number, "simulated": False})


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"cohort": {"harmonisation": "public-template"}}, "harmonisation 'public-template'"),
        (
            {"format": 1, "cohort": {"harmonisation": "own-controls"}, "severity_network": {"origin": None}},
            "harmonisation 'own-controls'",
        ),
        (
            {"severity_network": {"candidates": "modules", "pairs": [], "origin": None}},
            "candidates 'modules'",
        ),
        ({"severity_network": {"candidates": "template", "pairs": [], "origin": None}}, "'template'"),
    ],
)
def test_no_public_template_is_offered_to_real_children(patients_content, tables, words):
    changed = {
        name: {**patients_content[name], **table} if isinstance(table, dict) else table
        for name, table in tables.items()
    }
    if changed.get("format") == 1:  # which knows no limit of labels outside of the brain
        imaging = patients_content["imaging"]
        quality = {**imaging["quality"], "labels_outside_percent": None}
        changed["imaging"] = {**imaging, "quality": quality}
    with pytest.raises(ValidationError, match="no public template of real children") as refusal:
        Protocol.model_validate({**patients_content, **changed})
    assert words in str(refusal.value)


def test_own_controls_of_format_1_are_refused_by_that_name_in_format_2(protocol_content):
    old = {**protocol_content, "cohort": {**protocol_content["cohort"], "harmonisation": "own-controls"}}
    assert Protocol.model_validate({**old, "format": 1}).cohort.offset_shrinkage == 6
    with pytest.raises(ValidationError, match="is of format 1, where it means a public template"):
        Protocol.model_validate(old)
    with pytest.raises(ValidationError, match="'site-controls' is of format 2"):
        Protocol.model_validate({**protocol_content, "format": 1})


def test_a_list_of_all_edges_is_refused(patients_content):
    names = load_atlas("desikan-killiany-83").names
    pairs = list(combinations(names, 2))
    rules = {**patients_content["severity_network"], "pairs": pairs}
    with pytest.raises(ValidationError, match="lists all 3403 edges"):
        Protocol.model_validate({**patients_content, "severity_network": rules})
    rules["pairs"] = pairs[1:]
    found = Protocol.model_validate({**patients_content, "severity_network": rules})
    assert (found.template, len(found.candidates.edges)) == (None, 3402)


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
centre = { connect_timeout_s = 5.0 }
compute = { device = "cpu", processes = 1 }
[limits]
epsilon_cap = 8.0
delta = 1e-3
minimum_children = 5
trust = "local"
colluding_sites = 1
exact_sums = false
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
        ('trust = "local"', 'trust = "centre"', "limits.trust"),
        ("colluding_sites = 1", "colluding_sites = -1", "limits.colluding_sites"),
        ('site = "north"', 'site = "../north"', "'site'"),
        ("exact_sums = false", "", "missing setting 'limits.exact_sums'"),
    ],
)
def test_a_sites_impossible_setting_is_refused_with_its_place(tmp_path, old, new, words):
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        read_toml(path, SiteSettings)


def test_an_altered_copy_has_nothing_of_what_was_computed_of_the_original(protocol_content):
    protocol = Protocol.model_validate(protocol_content)
    before = (protocol.sha256, protocol.phases, protocol.candidates, price_of(protocol))
    rounds = protocol.training.rounds + 1
    other = protocol.model_copy(update={"training": protocol.training.model_copy(update={"rounds": rounds})})
    fresh = Protocol.model_validate(other.model_dump())
    assert (other.sha256, other.phases, price_of(other)) == (fresh.sha256, fresh.phases, price_of(fresh))
    assert other.sha256 != before[0]
    assert other.phases != before[1]
    assert (protocol.sha256, protocol.phases) == before[:2]
    assert protocol == Protocol.model_validate(protocol_content)
