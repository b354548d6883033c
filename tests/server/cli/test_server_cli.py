"""The centre's command line: each mistake is one line and has the status of its class."""

from functools import partial
from itertools import combinations

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.approval.review import review
from esn_core.connectome.atlas import load_atlas
from esn_core.identity.enrolment import EnrolmentRequest
from esn_core.identity.public_keys import identity_text, mask_text
from esn_core.identity.roster import RosterEntry
from esn_core.protocol.newer_settings import canonical_content
from esn_core.protocol.protocol import load_protocol
from esn_core.severity_network.candidate_list import CandidateList, Origin
from esn_core.severity_network.pooled_reference import PooledReference
from esn_server.cli import main as cli
from esn_server.enrolment.centre_keys import create_authority, load_centre_key
from esn_server.enrolment.sites import keep_enrolment

KEY = "ecdsa-sha2-nistp384 AAAA{}="


@pytest.fixture
def esn_server(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-server", cli.main)


@pytest.fixture
def fails(command_fails):
    """A function that runs a command which must fail with a status and one line of certain words."""
    return partial(command_fails, "esn-server", cli.main)


@pytest.fixture
def centre(tmp_path, roster):
    """A centre's directory with three enrolled sites."""
    directory = tmp_path / "centre"
    create_authority(directory, names=["centre.example.org"])
    for entry in roster:
        keep_enrolment(directory, RosterEntry.model_validate(entry))
    return directory


@pytest.fixture
def spare_key():
    """The private identity key of a fourth site, east."""
    return Ed25519PrivateKey.from_private_bytes(b"e" * 32)


@pytest.fixture
def spare_entry(spare_key):
    """What the fourth site says of itself."""
    return {
        "site": "east",
        "node_key": KEY.format("east"),
        "identity_key": identity_text(spare_key.public_key()),
        "mask_key": mask_text(X25519PrivateKey.generate().public_key()),
    }


@pytest.fixture
def spare_request(tmp_path, spare_entry, spare_key):
    """A function that writes the fourth site's request, with some of it changed after it was signed."""

    def write(**changes):
        content = EnrolmentRequest.of(RosterEntry.model_validate(spare_entry), spare_key).model_dump()
        path = tmp_path / "east.toml"
        path.write_text(tomli_w.dumps({**content, "entry": {**content["entry"], **changes}}))
        return path

    return write


def new_words(centre, out, **changes):
    options = {
        "--study": "test",
        "--epsilon": "8",
        "--delta": "1e-3",
        "--out": out,
        "--split-salt": "x",
        **{f"--{name.replace('_', '-')}": value for name, value in changes.items()},
    }
    return ["protocol", "new", centre, *(word for pair in options.items() for word in pair)]


def protocol_words(centre, out, **changes):
    """Of a study of simulated children, with the template's candidates."""
    return [*new_words(centre, out, **changes), "--simulated", "--candidates", "template"]


def real_words(centre, out, **changes):
    return [*new_words(centre, out, **changes), "--no-simulated"]


def test_a_protocol_is_drafted_with_all_enrolled_sites(centre, tmp_path, esn_server):
    out = tmp_path / "protocol.toml"
    status, said, _ = esn_server(*protocol_words(centre, out))
    protocol = load_protocol(out)
    assert (status, said.strip()) == (0, protocol.sha256)
    assert protocol.sites == ("north", "south", "west")
    assert protocol.rounds.quorum == 3


def candidate_list(tmp_path, atlas, **changes):
    names = load_atlas(atlas).names
    origin = Origin(kind="published", people=0, note="an article")
    pairs = tuple(combinations(names[:3], 2))
    found = CandidateList(format=1, atlas=atlas, origin=origin, pairs=pairs)
    found.model_copy(update=changes).write(tmp_path / "candidates.toml")
    return tmp_path / "candidates.toml"


def test_a_published_list_brings_its_licence(centre, tmp_path, esn_server):
    atlas, out = "desikan-killiany-83", tmp_path / "study.toml"
    words = (*real_words(centre, out, atlas=atlas), "--candidates")
    origin = Origin(kind="published", people=0, note="an article.", licence="CC BY 4.0")
    assert esn_server(*words, candidate_list(tmp_path, atlas, origin=origin))[0] == 0
    licensed = load_protocol(out)
    assert licensed.severity_network.origin.licence == "CC BY 4.0"
    assert "an article. Licence: CC BY 4.0" in review(licensed)
    # A list without one is said as before, and the protocol's hash stays what it was.
    out.unlink()
    assert esn_server(*words, candidate_list(tmp_path, atlas))[0] == 0
    bare = load_protocol(out)
    assert "Licence" not in "".join(review(bare).partition("Where the candidates")[2].partition("\n\n")[0])
    said = canonical_content(bare.severity_network)["origin"]
    assert said == {"kind": "published", "people": 0, "note": "an article"}


def test_sites_pool_their_controls_for_one_that_has_none(centre, spare_entry, tmp_path, esn_server, fails):
    keep_enrolment(centre, RosterEntry.model_validate(spare_entry))

    def words(out, *more):
        return (*real_words(centre, out, atlas="desikan-killiany-83"), *more)

    votes = tmp_path / "votes.toml"
    assert esn_server(*words(votes, "--votes", "--pool-controls", "--without-controls", "east"))[0] == 0
    protocol = load_protocol(votes)
    assert protocol.sites == ("north", "south", "west")  # who has no controls has no vote
    assert [phase.phase for phase in protocol.phases] == ["votes", "reference"]
    assert protocol.cohort.minimum_controls == 5
    pooled = PooledReference(sites=3, controls=24, mean=(4.0,) * 3, sd=(0.5,) * 3)
    listed = candidate_list(tmp_path, "desikan-killiany-83", reference=pooled)
    out, given = tmp_path / "study.toml", ("--candidates", listed)
    assert esn_server(*words(out, *given, "--without-controls", "east"))[0] == 0
    study = load_protocol(out)
    assert (study.sites, study.training_quorum) == (("east", "north", "south", "west"), 3)
    assert (study.cohort.without_controls, study.cohort.reference) == (("east",), pooled)
    assert "Judged by other sites' pooled controls: east." in esn_server("protocol", "validate", out)[1]
    other = tmp_path / "other.toml"
    fails(10, "say 'votes' as well", *words(other, *given, "--pool-controls"))
    fails(10, "which no enrolled site is called", *words(other, *given, "--without-controls", "elsewhere"))
    bare = candidate_list(tmp_path, "desikan-killiany-83")
    fails(10, "carry no pooled reference", *words(other, "--candidates", bare, "--without-controls", "east"))
    assert not other.exists()


def test_real_children_are_not_offered_the_phantom_or_a_simulated_template(centre, tmp_path, fails):
    out, real = tmp_path / "protocol.toml", {"atlas": "desikan-killiany-83"}
    fails(12, "the atlas phantom-28 is of simulated heads", *real_words(centre, out))
    ways = (
        "let the sites vote first (--votes, then --candidates OUT/candidates.toml)",
        "(--candidates FILE)",
    )
    needed = "the study needs a public list of candidates"
    fails(10, (needed, *ways), *real_words(centre, out, **real))
    template = "are edges of a template of simulated controls, and these children are real"
    fails(10, (template, *ways), *real_words(centre, out, **real, candidates="template"))
    none = "no public template for the atlas 'aal-116' ships with esn-federated"
    fails(10, (none, *ways), *protocol_words(centre, out, atlas="aal-116"))
    assert not out.exists()


def test_a_rehearsal_takes_the_simulated_template_where_that_is_said_alone(
    centre, tmp_path, esn_server, fails
):
    out = tmp_path / "protocol.toml"
    words = (*new_words(centre, out), "--simulated")
    ways = ("let the sites vote first (--votes, then", "or say --candidates template", "rehearses no votes")
    fails(10, ways, *words)
    fails(10, "has no candidates yet", *words, "--votes", "--candidates", "template")
    assert not out.exists()
    assert esn_server(*words, "--candidates", "template")[0] == 0
    assert load_protocol(out).severity_network.candidates == "template"


def test_candidates_of_another_atlas_or_recipe_are_refused(centre, tmp_path, fails):
    out = tmp_path / "protocol.toml"
    words = real_words(centre, out, atlas="desikan-killiany-83")
    other = candidate_list(tmp_path, "aal-116")
    fails(10, "are edges of aal-116, the study is on desikan-killiany-83", *words, "--candidates", other)
    other = candidate_list(tmp_path, "desikan-killiany-83", recipe_sha256="0" * 64)
    fails(10, "found with another imaging recipe, 0000000000000000", *words, "--candidates", other)


def test_a_study_has_the_recipe_by_which_its_sites_voted(centre, tmp_path, esn_server, fails):
    words = real_words(centre, votes := tmp_path / "votes.toml")
    asked = ("--atlas", "desikan-killiany-83", "--scan", "few-directions", "--votes")
    assert esn_server(*words, *asked)[0] == 0
    edited = votes.read_text(encoding="utf-8").replace("seeds = 1000000", "seeds = 3000000")
    votes.write_text(edited, encoding="utf-8")
    recipe = load_protocol(votes).imaging
    assert (recipe.seeds, recipe.sh_order_max) == (3_000_000, 4)
    listed = candidate_list(tmp_path, "desikan-killiany-83", recipe_sha256=recipe.sha256)
    words = real_words(centre, out := tmp_path / "study.toml", candidates=listed)
    fails(10, "(--recipe-of PROTOCOL)", *words, *asked[:-1])
    assert esn_server(*words, "--recipe-of", votes)[0] == 0
    assert load_protocol(out).imaging == recipe


def test_exact_models_of_real_children_are_not_drafted(centre, tmp_path, fails):
    out, atlas = tmp_path / "protocol.toml", "desikan-killiany-83"
    listed = candidate_list(tmp_path, atlas)
    words = real_words(centre, out, atlas=atlas, candidates=listed)
    asked = ("--neurocognition", "--exact", "neurocognition")
    fails(12, "ranking are for simulated children; these are real", *words, *asked)
    assert not out.exists()


@pytest.mark.parametrize("atlas", ["desikan-killiany-83", "aal-116"])
def test_a_protocol_for_real_scans_has_the_clinical_recipe_of_its_atlas(centre, tmp_path, esn_server, atlas):
    out = tmp_path / "protocol.toml"
    listed = candidate_list(tmp_path, atlas)
    assert esn_server(*real_words(centre, out, atlas=atlas, candidates=listed))[0] == 0
    protocol = load_protocol(out)
    assert (protocol.simulated, protocol.cohort.harmonisation, protocol.template) == (
        False,
        "site-controls",
        None,
    )
    assert (len(protocol.candidates.edges), protocol.severity_network.origin.kind) == (3, "published")
    assert (protocol.imaging.atlas, protocol.imaging.denoise) == (atlas, "patch2self")
    assert protocol.imaging.seeds == 1_000_000
    assert protocol.model.initial_weights == "compact-3"


def test_a_protocol_for_an_atlas_that_does_not_ship_is_not_drafted(centre, tmp_path, fails):
    out = tmp_path / "protocol.toml"
    fails(10, "unknown atlas 'brain-999'", *protocol_words(centre, out, atlas="brain-999"))
    assert not out.exists()


def test_a_protocol_is_never_overwritten(centre, tmp_path, fails):
    out = tmp_path / "protocol.toml"
    out.write_text("mine")
    fails(10, "protocol.toml exists; a protocol is never overwritten", *protocol_words(centre, out))
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": "0"}, "'privacy.epsilon': input should be greater than 0"),
        ({"epsilon": "nan"}, "'privacy.epsilon'"),
        ({"delta": "0.5"}, "'privacy.delta'"),
        ({"study": "A b"}, "'study'"),
        ({"deadline_s": "inf"}, "'rounds.deadline_s'"),
    ],
)
def test_an_impossible_protocol_is_not_left_behind(centre, tmp_path, fails, changes, words):
    out = tmp_path / "protocol.toml"
    fails(12, words, *protocol_words(centre, out, **changes))
    assert not out.exists()


def test_a_centre_without_sites_drafts_nothing(tmp_path, fails):
    words = "no site is enrolled; run 'esn-server enrol' first"
    fails(10, words, *protocol_words(tmp_path / "nowhere", tmp_path / "protocol.toml"))


def test_a_centre_with_a_file_that_is_no_enrolment_drafts_nothing(centre, tmp_path, fails):
    (centre / "sites" / "north.toml").write_text("garbage")
    fails(10, "north.toml: is not TOML", *protocol_words(centre, tmp_path / "protocol.toml"))


def test_two_sites_make_no_protocol(centre, tmp_path, fails):
    (centre / "sites" / "north.toml").unlink()
    fails(12, "'roster': tuple should have at least 3 items", *protocol_words(centre, tmp_path / "p.toml"))


def test_a_protocol_into_a_directory_that_is_not_there_is_one_line(centre, tmp_path, fails):
    fails(1, "No such file or directory", *protocol_words(centre, tmp_path / "nowhere" / "p.toml"))
    fails(1, "Not a directory", *protocol_words(centre, centre / "sites" / "north.toml" / "p.toml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site": "../x"}, "'entry.site': string should match"),
        ({"node_key": "ssh-rsa AAAA"}, "'entry.node_key'"),
        ({"node_key": "ecdsa-sha2-nistp384"}, "'entry.node_key'"),
        ({"identity_key": "ssh-ed25519 AAAA"}, "'entry.identity_key': an identity key is Ed25519 in OpenSSH"),
        ({"mask_key": "x25519 AAAA"}, "'entry.mask_key': a mask key is 'x25519' and 32 bytes in base64"),
        ({"secret": "x"}, "unknown setting 'entry.secret'"),
        ({"site": "north"}, "the request is not signed by the identity key in it"),
        ({"node_key": KEY.format("other")}, "the request is not signed by the identity key in it"),
    ],
)
def test_what_is_no_request_is_one_line_and_is_not_kept(centre, fails, spare_request, changes, words):
    before = sorted((centre / "sites").iterdir())
    fails(10, words, "enrol", centre, spare_request(**changes))
    assert sorted((centre / "sites").iterdir()) == before


def test_a_request_that_is_missing_or_a_directory_is_one_line(centre, tmp_path, fails):
    fails(10, "there is no such file", "enrol", centre, tmp_path / "missing.toml")
    fails(10, "cannot be read as a text file", "enrol", centre, tmp_path)


@pytest.fixture
def protocol_file(centre, tmp_path, esn_server):
    """A signed protocol of the centre."""
    out = tmp_path / "protocol.toml"
    esn_server(*protocol_words(centre, out))
    assert esn_server("protocol", "sign", centre, out)[0] == 0
    return out


def run_words(centre, protocol, tmp_path):
    return ["run", centre, protocol, "--out", tmp_path / "out"]


def test_a_run_of_a_malformed_protocol_is_one_line(centre, protocol_file, tmp_path, fails):
    protocol_file.write_text(protocol_file.read_text().replace("format = 2", "format = 3"))
    fails(12, "protocol format 3, this one reads 2", *run_words(centre, protocol_file, tmp_path))
    fails(12, "there is no such file", *run_words(centre, tmp_path / "missing.toml", tmp_path))


def test_a_run_of_another_versions_bundle_is_one_line(centre, protocol_file, tmp_path, fails, sign_as):
    named = load_protocol(protocol_file).bundle_sha256
    protocol_file.write_text(protocol_file.read_text().replace(named, "0" * 64))
    sign_as(protocol_file, load_centre_key(centre))
    fails(12, "names the bundle 0000000000000000", *run_words(centre, protocol_file, tmp_path))


def test_a_run_with_a_site_that_is_not_enrolled_is_one_line(centre, protocol_file, tmp_path, fails):
    (centre / "sites" / "north.toml").unlink()
    fails(12, "site north of the roster is not enrolled", *run_words(centre, protocol_file, tmp_path))


def test_a_run_with_another_key_is_one_line(centre, protocol_file, tmp_path, fails):
    enrolled = (centre / "sites" / "north.toml").read_text()
    (centre / "sites" / "north.toml").write_text(enrolled.replace("nistp384 north", "nistp384 other"))
    fails(
        12,
        "the roster lists other keys for north than the enrolled ones",
        *run_words(centre, protocol_file, tmp_path),
    )


def test_an_authority_in_a_file_is_one_line(tmp_path, esn_server):
    (tmp_path / "centre").write_text("a file")
    status, out, err = esn_server("init", tmp_path / "centre", "--name", "localhost")
    assert status in (1, 10)
    assert (out, err.count("\n")) == ("", 1)
    assert (tmp_path / "centre").read_text() == "a file"


def test_an_interrupt_has_its_status(monkeypatch, esn_server):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("esn_server.protocol.drafting.draft", stopped)
    monkeypatch.setattr("esn_server.enrolment.sites.enrolled", lambda _: ())
    status, out, _ = esn_server(*protocol_words("centre", "protocol.toml"))
    assert (status, out) == (130, "")


def test_words_that_are_no_command_have_the_parsers_status(esn_server):
    status, _, err = esn_server("nonsense")
    assert (status, "nonsense" in err) == (2, True)
