"""The hospital's command line: each mistake is one line and has the status of its class."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from functools import partial

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.cli import main as cli
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.charge import Charge
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.site.keys import load_identity_key, load_mask_key
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry, read_salt
from esn_core.identity.enrolment import EnrolmentRequest
from esn_core.identity.public_keys import identity_text, mask_key, mask_text
from esn_core.identity.roster import RosterEntry
from esn_core.identity.signing import create_signing_key
from esn_core.protocol.analyses import Analyses
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.centre_keys import create_authority, load_centre_key
from esn_server.enrolment.kits import write_kit
from esn_server.protocol.drafting import draft

HEAD = "participant_id\tage\tsex\tgroup\tgase\n"


@pytest.fixture
def esn_client(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def fails(command_fails):
    """A function that runs a command which must fail with a status and one line of certain words."""
    return partial(command_fails, "esn-client", cli.main)


def test_an_interrupt_before_the_command_has_begun_is_one_line(fails, monkeypatch, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("esn_core.system.command_line.set_up", interrupted)
    fails(130, "esn-client: interrupted", *init_words(tmp_path / "site"))


def init_words(directory, **changes):
    options = {
        "--site": "north",
        "--epsilon-cap": "8",
        "--delta": "1e-3",
        "--dataset": directory.parent / "bids",
        "--derivatives": directory.parent / "derivatives",
        **{f"--{name.replace('_', '-')}": value for name, value in changes.items()},
    }
    return ["init", directory, *(word for pair in options.items() for word in pair)]


@pytest.fixture
def site(tmp_path, esn_client):
    """An initialised site's directory."""
    directory = tmp_path / "hospital 🧠"
    status, out, _ = esn_client(*init_words(directory))
    assert (status, out.strip()) == (0, str(directory / "state" / "enrolment.toml"))
    return directory


@pytest.fixture
def settings(site):
    """The site's settings file."""
    return site / "site.toml"


@pytest.fixture
def centre(tmp_path_factory):
    """A centre's directory, with its keys."""
    directory = tmp_path_factory.mktemp("centre") / "centre"
    create_authority(directory, names=["centre.example.org"])
    return directory


@pytest.fixture
def kit(centre, settings):
    """The kit that the centre makes for the site, and its fingerprint."""
    entry = own_entry(load_site(settings))
    path, made = write_kit(centre, entry, public_address=None, port=9092)
    return path, made.fingerprint


@pytest.fixture
def enrolled(settings, kit, esn_client):
    """The settings of a site that has taken the centre's kit in."""
    path, fingerprint = kit
    status, out, _ = esn_client("kit", settings, path, "--fingerprint", fingerprint)
    assert (status, out) == (0, "centre.example.org:9092\n")
    return settings


@pytest.fixture
def make_protocol(site, tmp_path, roster, centre, sign_as):
    """A function that drafts a protocol with the site's keys on its roster, signed by the centre."""

    def make(*, own="north", keys=None, name="protocol.toml", signed=True, **changes):
        entry = read_toml(site / "state" / "enrolment.toml", EnrolmentRequest).entry
        entry = entry.model_copy(update={"site": own, **(keys or {})})
        about = {
            "simulated": True,
            "trust": "secure-sum",
            "colluding_sites": 1,
            "noise": "gaussian",
            "epsilon": 8.0,
            "delta": 1e-3,
            "split_salt": "x",
        }
        path = tmp_path / name
        path.write_text(
            draft(
                study="test",
                roster=[entry, *map(RosterEntry.model_validate, roster[1:])],
                training_rounds=2,
                deadline_s=5.0,
                analyses=Analyses(),
                **{**about, **changes},
            )
        )
        return sign_as(path, load_centre_key(centre)) if signed else path

    return make


def test_a_site_is_made_whole_and_for_its_owner_only(site, settings):
    found = load_site(settings)
    assert found.limits.model_dump() == {
        "epsilon_cap": 8.0,
        "delta": 1e-3,
        "minimum_children": 5,
        "trust": "secure-sum",
        "control_sums": False,
        "control_reference": False,
        "colluding_sites": 1,
        "exact_sums": False,
        "exact_again": (),
        "disclosure": "own",
    }
    assert (site / "state").stat().st_mode & 0o777 == 0o700
    for secret in (found.salt_path, found.node_key_path, found.identity_key_path, found.mask_key_path):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert len(found.salt_path.read_bytes()) == 32
    assert found.dataset == site.parent / "bids"


def test_the_enrolment_request_holds_the_public_keys_and_no_secret(site, settings):
    found = load_site(settings)
    text = found.enrolment_path.read_text()
    entry = read_toml(found.enrolment_path, EnrolmentRequest).entry
    assert entry == own_entry(found)
    assert entry.fingerprint in text
    for secret in (found.node_key_path, found.identity_key_path, found.mask_key_path):
        private = secret.read_text()
        assert "PRIVATE KEY" in private
        assert not any(line in text for line in private.splitlines())
    # Standard tools read the keys, where there are some.
    for key in (found.node_key_path, found.identity_key_path) if shutil.which("ssh-keygen") else ():
        public = subprocess.run(
            ["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True
        ).stdout
        assert " ".join(public.split()[:2]) in text
    assert load_mask_key(found.mask_key_path).public_key() == mask_key(entry.mask_key)


def test_a_site_is_made_once(site, fails):
    salt = (site / "state" / "patient_salt").read_bytes()
    fails(10, "site.toml exists; a site is initialised once", *init_words(site))
    (site / "site.toml").unlink()
    fails(10, "state is not empty: this site has its state already", *init_words(site))
    assert (site / "state" / "patient_salt").read_bytes() == salt


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon_cap": "inf"}, "'limits.epsilon_cap': input should be a finite number"),
        ({"epsilon_cap": "nan"}, "'limits.epsilon_cap'"),
        ({"epsilon_cap": "-1", "delta": "0.5"}, ("'limits.epsilon_cap'", "'limits.delta'")),
        ({"site": "../north"}, "'site'"),
    ],
)
def test_a_site_with_impossible_settings_is_not_made(tmp_path, fails, changes, words):
    fails(10, words, *init_words(tmp_path / "hospital", **changes))
    assert not (tmp_path / "hospital" / "site.toml").exists()
    assert not (tmp_path / "hospital" / "state").exists()


def test_a_file_where_a_directory_should_be_is_one_line(tmp_path, fails):
    (tmp_path / "hospital").write_text("a file")
    fails(1, ("hospital", "File exists"), *init_words(tmp_path / "hospital"))
    fails(1, "Not a directory", *init_words(tmp_path / "hospital" / "hospital"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, fails):
    tmp_path.chmod(0o500)
    fails(1, "Permission denied", *init_words(tmp_path / "hospital"))


def test_no_permission_and_a_full_disk_are_one_line(site, settings, fails, monkeypatch):
    import errno

    import esn_client.site.settings

    for number, words in ((errno.EACCES, "Permission denied"), (errno.ENOSPC, "No space left on device")):

        def refuse(path, number=number):
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(esn_client.site.settings, "load_site", refuse)
        fails(1, f"site.toml: {words}", "ledger", "show", settings)


@pytest.mark.parametrize(
    "command",
    [("approve", "PROTOCOL"), ("join",), ("ledger", "show"), ("ledger", "verify"), ("ledger", "export")],
)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "site.toml: there is no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "site.toml: cannot be read as a text file"),
        (lambda path: path.write_bytes(b"\xff"), "cannot be read as a text file"),
        (lambda path: path.write_text("site = north"), "site.toml: is not TOML"),
        (
            lambda path: path.write_text('site = "north"\nsites = 1'),
            ("missing setting 'dataset'", "unknown setting 'sites'"),
        ),
    ],
)
def test_malformed_settings_are_one_line(settings, make_protocol, fails, command, damage, words):
    protocol = make_protocol()
    damage(settings)
    words_of = [str(protocol) if word == "PROTOCOL" else word for word in command]
    at = len(words_of) - 1 if command[0] == "approve" else len(words_of)
    fails(10, words, *words_of[:at], settings, *words_of[at:])


def test_a_protocol_can_be_reviewed_and_approved(enrolled, site, make_protocol, esn_client):
    protocol = make_protocol()
    status, out, _ = esn_client("review", protocol)
    assert (status, "A training child: epsilon 8.00" in out) == (0, True)
    status, digest, _ = esn_client("approve", enrolled, protocol)
    assert status == 0
    assert (site / "state" / "approved" / f"{digest.strip()}.toml").read_text() == protocol.read_text()
    assert esn_client("approve", enrolled, protocol)[:2] == (0, digest)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"own": "east"}, "site north is not on the roster: east, south, west"),
        (
            {"keys": {"node_key": "ecdsa-sha2-nistp384 other="}},
            "the roster lists another node key for north than the one in",
        ),
        (
            {"keys": dict.fromkeys(("identity_key", "mask_key"), "SPARE")},
            "the roster lists another identity key and mask key for north",
        ),
    ],
)
def test_a_roster_without_this_site_and_its_key_is_not_approved(
    enrolled, site, make_protocol, fails, about, words
):
    spare = {
        "identity_key": identity_text(Ed25519PrivateKey.generate().public_key()),
        "mask_key": mask_text(X25519PrivateKey.generate().public_key()),
    }
    if "keys" in about:
        about = {"keys": {n: spare[n] if k == "SPARE" else k for n, k in about["keys"].items()}}
    fails(12, words, "approve", enrolled, make_protocol(**about))
    assert not list(site.glob("state/approved/*"))


def test_an_atlas_that_this_version_does_not_ship_is_not_approved(enrolled, site, make_protocol, fails):
    protocol = make_protocol()
    protocol.write_text(protocol.read_text().replace('atlas = "phantom-28"', 'atlas = "brain-999"'))
    fails(12, ("brain-999",), "approve", enrolled, protocol)
    assert not list(site.glob("state/approved/*"))


def test_a_malformed_protocol_is_one_line_for_every_command(enrolled, tmp_path, make_protocol, fails):
    protocol = make_protocol()
    protocol.write_text(
        protocol.read_text().replace("quorum = 3", "quorum = 9").replace("format = 2", "format = 0")
    )
    words = ("protocol.toml: ", "'format': input should be 1 or 2", "the quorum is 9")
    fails(12, words, "review", protocol)
    fails(12, words, "approve", enrolled, protocol)
    fails(12, words, "prepare", tmp_path, tmp_path / "out", "participant", "--protocol", protocol)
    fails(12, "there is no such file", "review", tmp_path / "missing.toml")
    fails(12, "cannot be read as a text file", "review", tmp_path)


def write_dataset(site, table):
    (site.parent / "bids").mkdir()
    (site.parent / "derivatives").mkdir()
    (site.parent / "bids" / "participants.tsv").write_text(table)
    (site.parent / "bids" / "dataset_description.json").write_text('{"Authors": ["esn-client simulate"]}')


def test_joining_before_the_centres_kit_has_come_is_one_line(settings, fails):
    fails(10, ("site north has no kit of the centre yet", "run 'esn-client kit'"), "join", settings)


def test_joining_without_a_state_is_one_line(settings, site, fails):
    (site / "state" / "patient_salt").unlink()
    fails(10, "this site has no state; run 'esn-client init' first", "join", settings)


def test_joining_without_a_table_is_one_line(enrolled, make_protocol, esn_client, fails):
    esn_client("approve", enrolled, make_protocol())
    fails(11, "participants.tsv: there is no such file", "join", enrolled)


def test_joining_with_an_impossible_score_is_one_line(enrolled, site, make_protocol, esn_client, fails):
    esn_client("approve", enrolled, make_protocol())
    write_dataset(site, HEAD + "sub-001\t9\tF\tdre\t8\nsub-002\t9\tF\tdre\t0\n")
    words = (
        "line 2: sub-001: gase must be a whole number from 1 to 7, or n/a, not '8'",
        "line 3: sub-002: gase",
    )
    fails(11, words, "join", enrolled)


def test_joining_before_preparing_is_one_line(enrolled, site, make_protocol, esn_client, fails):
    esn_client("approve", enrolled, make_protocol())
    write_dataset(site, HEAD + "sub-001\t9\tF\tdre\t7\n")
    (site.parent / "derivatives").rmdir()
    fails(11, "run 'esn-client prepare' first", "join", enrolled)


def test_a_damaged_secret_is_one_line(enrolled, site, make_protocol, esn_client, fails):
    esn_client("approve", enrolled, make_protocol())
    write_dataset(site, HEAD + "sub-001\t9\tF\tdre\t7\n")
    (site / "state" / "patient_salt").write_bytes(b"")
    fails(10, "patient_salt: holds 0 bytes, not 32", "join", enrolled)


def test_an_approval_that_was_changed_is_one_line(enrolled, site, make_protocol, esn_client, fails):
    esn_client("approve", enrolled, make_protocol())
    (approved,) = site.glob("state/approved/*.toml")
    kept = approved.read_text()
    approved.write_text(kept.replace("epsilon = 8.0", "epsilon = 9.0"))
    fails(12, "was altered since it was signed by SHA256:", "join", enrolled)
    # Another protocol, signed by the centre, in the place of the one that was approved.
    approved.write_text(make_protocol(epsilon=9.0).read_text())
    fails(12, "was changed after it was approved; approve it again", "join", enrolled)


def pay_once(found, *, patients=("p1", "p2"), salt_sha256="5" * 64):
    """Charge one release at a site; return the head of its ledger."""
    with Ledger(found.ledger_path, load_identity_key(found.identity_key_path)) as ledger:
        charge = Charge(
            question="q1",
            protocol_sha256="a" * 64,
            run="r1",
            release="centre",
            trust="secure-sum",
            noise_multiplier=2.0,
            noise_share=0.5,
            l2_bound=1.0,
            dimension=2,
            patients=patients,
            salt_sha256=salt_sha256,
            software="0.1",
        )
        ledger.charge(charge, np.arange(2), content_sha256="c", epsilon_cap=8, delta=1e-3)
        return ledger.mark.head


def test_consent_is_withdrawn_for_good_when_asked_twice_and_what_was_released_is_said(
    enrolled, site, esn_client, fails
):
    found = load_site(enrolled)
    write_dataset(site, HEAD + "sub-001\t9\tF\tdre\t7\n")
    salt = read_salt(found)
    patients = patient_hashes(["sub-001", "sub-002"], salt=salt, simulated=True)
    pay_once(found, patients=patients, salt_sha256=salt_fingerprint(salt))
    audit = found.audit_path.read_text()
    status, out, _ = esn_client("withdraw-child", enrolled, "001")
    assert status == 0
    assert all(
        words in out for words in ("1 releases hold sub-001", "centre", "a" * 16, "Nothing is changed yet")
    )
    assert found.audit_path.read_text() == audit
    # Twice, and of somebody whose line has gone.
    for label in ("001", "sub-001", "sub-002"):
        status, out, _ = esn_client("withdraw-child", enrolled, label, "--yes")
        assert (status, "is out of every sum still to be made" in out) == (0, True)
    with Ledger(found.ledger_path, load_identity_key(found.identity_key_path)) as ledger:
        assert (ledger.withdrawn, ledger.mark.entries) == (frozenset(patients), 3)
    assert json.loads(esn_client("ledger", "show", enrolled, "--json")[1])["withdrawn"] == 2
    assert json.loads(esn_client("ledger", "verify", enrolled, "--json")[1])["entries"] == 3
    said = json.loads(esn_client("withdraw-child", enrolled, "001", "--json")[1])
    assert (said["participant"], said["withdrawn"], len(said["released"])) == ("sub-001", True, 1)
    lines = found.audit_path.read_text().removeprefix(audit).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["consent-withdrawn"] * 2
    assert not any("sub-" in line for line in lines)
    fails(
        11,
        "sub-003: neither participants.tsv nor the ledger knows",
        "withdraw-child",
        enrolled,
        "003",
        "--yes",
    )


def test_the_ledger_is_shown_and_verified(settings, esn_client):
    head = pay_once(load_site(settings))
    status, out, _ = esn_client("ledger", "show", settings, "--json")
    shown = json.loads(out)
    assert (status, shown["patients"], shown["entries"][0]["question"]) == (0, 2, "q1")
    assert 1 < shown["largest_epsilon"] < 2
    assert esn_client("ledger", "verify", settings)[1] == f"1 entries, head {head}\n"
    status, out, _ = esn_client("ledger", "show", settings)
    assert (status, "the site's cap is 8" in out) == (0, True)
    status, out, _ = esn_client("ledger", "export", settings)
    (line,) = out.splitlines()
    assert (status, json.loads(line)["hash"]) == (0, head)


def test_a_ledger_that_lacks_what_the_audit_log_saw_is_one_line(
    enrolled, site, make_protocol, esn_client, fails
):
    esn_client("approve", enrolled, make_protocol())
    write_dataset(site, HEAD + "sub-001\t9\tF\tdre\t7\n")
    AuditLog(load_site(enrolled).audit_path, site="north").write("sent", entry=3, entry_hash="a" * 64)
    for command in (("join",), ("ledger", "verify")):
        fails(18, "holds 0 entries where 3 were seen: it was cut short or restored", *command, enrolled)


def test_a_ledger_signed_by_another_key_is_one_line(settings, site, fails):
    found = load_site(settings)
    pay_once(found)
    for path in (found.identity_key_path, found.identity_key_path.with_name("identity_key.pub")):
        path.unlink()
    create_signing_key(found.identity_key_path)
    fails(18, "entry 1 is not signed by this site's identity key", "ledger", "show", settings)


@pytest.mark.parametrize("verb", ["show", "verify", "export"])
def test_a_ledger_that_is_missing_or_none_is_one_line(settings, site, fails, verb):
    for extra in site.glob("state/ledger.sqlite*"):
        extra.unlink()
    fails(10, "there is no ledger; run 'esn-client init' first", "ledger", verb, settings)
    (site / "state" / "ledger.sqlite").write_bytes(b"not a ledger" * 100)
    fails(18, "ledger.sqlite: cannot be opened as a ledger", "ledger", verb, settings)


def test_words_that_are_no_command_have_the_parsers_status(esn_client):
    status, _, err = esn_client("nonsense")
    assert status == 2
    assert "nonsense" in err


def test_a_real_process_ends_with_one_line_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "esn_client.cli.main", "review", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (12, "", 1)


def test_a_quoted_path_survives_the_settings_file(tmp_path, esn_client):
    odd = tmp_path / 'a "quoted" \\ name'
    assert esn_client(*init_words(tmp_path / "hospital", dataset=odd))[0] == 0
    assert tomllib.loads((tmp_path / "hospital" / "site.toml").read_text())["dataset"] == str(odd)


def test_scans_of_another_kind_of_world_are_refused(fails, tmp_path):
    words = "--world is for --connectomes; scans are simulated of one kind of world alone"
    fails(10, words, "simulate", tmp_path / "bids", "--site", "north", "--seed", "1", "--world", "weak")
    assert not (tmp_path / "bids").exists()


def test_scans_are_asked_for_beside_connectomes_alone(fails, tmp_path):
    words = "--scans is for --connectomes; without it every child has scans"
    fails(10, words, "simulate", tmp_path / "bids", "--site", "north", "--seed", "1", "--scans", "2")
    assert not (tmp_path / "bids").exists()
