"""Preflight: every point that is wrong is named with its cure, and all points are looked at."""

import datetime
import json
import shutil
import ssl
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from esn_client.approval.approvals import Approvals
from esn_client.cli import main as cli
from esn_client.cohort.cohort import Cohort, Split
from esn_client.cohort.members import People
from esn_client.gate.audit_log import AuditLog
from esn_client.gate.charge import Charge
from esn_client.gate.frozen_cohort import FrozenCohort
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit
from esn_client.link.centre_probe import _name, probe
from esn_client.site.centre_kit import authorities, centre_key, read_kit, take_in
from esn_client.site.keys import load_identity_key
from esn_client.site.settings import load_site
from esn_client.site.state import own_entry, read_salt
from esn_client.status import preflight
from esn_client.status import snapshot as snapshot
from esn_client.status.snapshot import Snapshot
from esn_client.status.status import status_of
from esn_client.worker.process import open_hospital
from esn_core.errors import ConfigError, DataError, GateError, LinkError, PrivacyBudgetError, ProtocolError
from esn_core.identity.roster import RosterEntry
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_server.enrolment.centre_keys import create_authority, load_centre_key
from esn_server.enrolment.kits import write_kit
from esn_server.protocol.drafting import draft

TODAY = datetime.datetime.now(datetime.UTC).date()


@pytest.fixture
def esn_client(run_command):
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def centre(tmp_path):
    """A centre's directory, and a server with its certificate that tells a time of our choosing."""
    directory = tmp_path / "centre"
    create_authority(directory, names=["127.0.0.1"])

    class Health(BaseHTTPRequestHandler):
        ahead_s = 0.0

        def do_GET(self):
            self.send_response_only(200)
            if self.ahead_s is not None:
                moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.ahead_s)
                self.send_header("Date", moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Health)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield directory, f"127.0.0.1:{server.server_port}", Health
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(tmp_path, esn_client, centre, monkeypatch):
    """A site with the centre's kit; no proxy leads anywhere."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "site"
    words = ("--site", "north", "--epsilon-cap", "8", "--delta", "1e-3")
    places = ("--dataset", tmp_path / "bids", "--derivatives", tmp_path / "derivatives")
    assert esn_client("init", directory, *words, *places)[0] == 0
    settings = load_site(directory / "site.toml")
    path, _ = write_kit(centre[0], own_entry(settings), public_address=centre[1], port=9092)
    take_in(settings, read_kit(path), replace=False)
    return directory / "site.toml"


@pytest.fixture
def approve(site, centre, roster, tmp_path, sign_as):
    """A function that approves a protocol of a given price."""

    def approve(*, epsilon=8.0, study="test", days=100):
        settings = load_site(site)
        path = tmp_path / f"{study}.toml"
        entries = [own_entry(settings), *map(RosterEntry.model_validate, roster[1:])]
        text = draft(
            study=study,
            roster=entries,
            simulated=True,
            trust="secure-sum",
            colluding_sites=1,
            noise="gaussian",
            epsilon=epsilon,
            delta=1e-3,
            split_salt="x",
            training_rounds=2,
            deadline_s=5.0,
            valid_days=days,
            analyses=Analyses(),
        )
        path.write_text(text)
        audit = AuditLog(settings.audit_path, site="north")
        approvals = Approvals(settings, centre_key=centre_key(settings), audit=audit)
        return approvals.approve(sign_as(path, load_centre_key(centre[0]))).protocol

    return approve


@pytest.fixture
def about(site):
    """The site, today; a function, as a look is kept."""
    return lambda **_: Snapshot(load_site(site), today=TODAY)


def cohort(training=8, held_out=6, left_out=()):
    def split(n, first):
        return Split(
            tuple(f"sub-{i:03d}" for i in range(first, first + n)), np.zeros((n, 3)), np.full(n, 4.0)
        )

    labels = tuple(f"sub-x{i}" for i in range(len(left_out)))
    people = People(labels, tuple(left_out), np.zeros(len(labels)), np.zeros(len(labels)))
    return Cohort(split(training, 1), split(held_out, 101), controls=4, people=people)


def table(tmp_path, rows=18):
    (tmp_path / "bids").mkdir(exist_ok=True)
    lines = [f"sub-{i:03d}\t9\tF\tdre\t4\n" for i in range(rows)]
    (tmp_path / "bids" / "participants.tsv").write_text(
        "participant_id\tage\tsex\tgroup\tgase\n" + "".join(lines)
    )
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Authors": ["esn-client simulate"]}')


def test_all_points_are_told_whatever_fails_and_the_first_failure_is_the_status(site, esn_client):
    status, out, _ = esn_client("check", site, "--json")
    found = {finding["point"]: finding for finding in json.loads(out)}
    assert list(found) == ["configuration", *preflight.POINTS]
    assert found["dataset"]["verdict"] == "FAIL"
    assert status == found["dataset"]["exit_status"] == DataError.exit_status
    for point in ("configuration", "state", "enrolment", "centre", "certificate", "clock", "ledger"):
        assert found[point]["verdict"] == "ok", found[point]
    lines = esn_client("check", site)[1].splitlines()
    assert len(lines) == len(found)
    assert all(line.startswith(("ok   ", "warn ", "FAIL ")) for line in lines)


def test_settings_that_cannot_be_read_are_the_only_point(site, esn_client):
    site.write_text("site = 1")
    status, out, _ = esn_client("check", site)
    assert status == ConfigError.exit_status
    assert out.startswith("FAIL configuration")
    assert out.count("\n") == 1


def test_a_state_that_others_may_enter_is_named_with_its_cure(site, about):
    load_site(site).state.chmod(0o755)
    with pytest.raises(ConfigError, match=r"other accounts may enter it; run 'chmod 700"):
        preflight.state(about())


def test_the_phenotypes_are_counted(tmp_path, about):
    table(tmp_path, rows=5)
    assert preflight.phenotypes(about()) == "5 children with DRE and 0 controls"


def test_a_column_that_an_approved_protocol_needs_is_missed(tmp_path, about, approve, monkeypatch):
    approved = approve()
    table(tmp_path)
    asked = []

    def read(participants, phenotypes):
        asked.append(phenotypes)
        raise DataError("participants.tsv: missing column 'iq'")

    monkeypatch.setattr(preflight, "read_phenotypes", read)
    with pytest.raises(DataError, match="missing column 'iq'"):
        preflight.phenotypes(about())
    assert asked == [approved.phenotypes]


def test_a_site_that_others_controls_judge_is_told_what_that_means(tmp_path, about, approve, monkeypatch):
    approve()
    table(tmp_path, rows=18)
    monkeypatch.setattr(Protocol, "trains", lambda *_: False)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort(training=0))
    with pytest.raises(preflight.Doubt, match=r"6 held-out children take part; .* off by half a step"):
        preflight.prepared(about())
    with pytest.raises(preflight.Doubt, match="judges children by this site's controls"):
        preflight.likeness(about())
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort(training=0, held_out=4))
    with pytest.raises(DataError, match="4 held-out children can take part; 5 are needed"):
        preflight.prepared(about())


def test_too_few_connectomes_fail_and_missing_ones_are_told(tmp_path, about, approve, monkeypatch):
    with pytest.raises(preflight.Doubt, match="no protocol is approved"):
        preflight.prepared(about())
    approve()
    table(tmp_path, rows=18)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    assert "test: 8 training and 6 held-out children, 4 controls" in preflight.prepared(about())
    unprepared, unscored = ["no-connectome"] * 2, ["no-score", "poor-quality"]
    for made, fails, cure in (
        (
            cohort(held_out=4, left_out=unprepared),
            DataError,
            r"2 \(sub-x0, sub-x1\) without a connectome: run",
        ),
        (
            cohort(7, 6, left_out=unscored),
            preflight.Doubt,
            r"1 \(sub-x1\) left out for their quality: .*; 1 \(sub-x0\) without a",
        ),
        (cohort(held_out=4), DataError, "the table lists no more; this hospital is too small"),
    ):
        monkeypatch.setattr(snapshot, "load_cohort", lambda *_, made=made, **__: made)
        with pytest.raises(fails, match=cure):
            preflight.prepared(about())


def test_a_child_who_lacks_tissue_is_not_to_be_prepared_again(tmp_path, about, approve, monkeypatch):
    approve()
    table(tmp_path, rows=18)
    made = replace(cohort(7, 6, left_out=["no-connectome"] * 2), lacking_tissue=("sub-x1",))
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: made)
    with pytest.raises(
        preflight.Doubt,
        match=r"1 \(sub-x0\) without a connectome: run .*; 1 \(sub-x1\) left out, as tissue is missing for "
        r".* \(cohort\.missing_edges in the protocol\): nothing can be done",
    ):
        preflight.prepared(about())


@pytest.mark.parametrize(("free", "fails"), [(100 * 2**20, ConfigError), (2**30, preflight.Doubt)])
def test_a_full_disk_is_seen(about, monkeypatch, free, fails):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(fails, match="GiB are free at"):
        preflight.disk(about())


def test_keys_that_were_rotated_need_a_new_kit(site, about, esn_client):
    assert preflight.enrolment(about()).startswith("the centre's kit is for these keys")
    assert esn_client("rotate", site, "--yes")[0] == 0
    with pytest.raises(
        ProtocolError, match=r"the centre enrolled the keys .*, this site has .*take its new kit"
    ):
        preflight.enrolment(about())


@pytest.mark.parametrize(
    ("ahead_s", "fails", "words"),
    [
        (0, None, "agree"),
        (
            600,
            LinkError,
            r"(59\d|600) s behind the centre's; they must agree within 240 s: set the clock",
        ),
        (-600, LinkError, r"\d+ s ahead of the centre's; they must agree"),
        (120, preflight.Doubt, r"(11\d|120) s behind the centre's; set the clock"),
        (None, preflight.Doubt, "the centre told no time"),
    ],
)
def test_a_clock_that_is_wrong_is_measured(centre, about, ahead_s, fails, words):
    centre[2].ahead_s = ahead_s
    if fails is None:
        assert words in preflight.clock(about())
    else:
        with pytest.raises(fails, match=words):
            preflight.clock(about())


def test_a_certificate_of_somebody_else_is_not_the_centres(centre, tmp_path):
    create_authority(tmp_path / "other", names=["127.0.0.1"])
    with pytest.raises(LinkError, match="is not who it should be"):
        probe(centre[1], ca_certificate=tmp_path / "other" / "ca.crt", timeout_s=5)
    seen = probe(centre[1], ca_certificate=centre[0] / "ca.crt", timeout_s=5)
    # 825 days, made when this module began or up to a midnight later.
    assert (seen.certificate_ends.date() - TODAY).days in (824, 825, 826)
    assert seen.proxy is None


def test_of_a_strangers_name_a_terminal_obeys_nothing():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\x1b[2Jproxy")])
    assert _name(name) == "?[2Jproxy"


def test_a_proxy_that_inspects_is_named_and_let_through_where_the_settings_name_its_authority(
    centre, site, about, tmp_path
):
    """The server plays the proxy: its certificate is of another authority than the kit's."""
    settings, kit = load_site(site), load_site(site).ca_certificate_path
    proxy = kit.read_bytes()
    create_authority(tmp_path / "other", names=["127.0.0.1"])
    kit.write_bytes((tmp_path / "other" / "ca.crt").read_bytes())
    issuer = probe(centre[1], ca_certificate=centre[0] / "ca.crt", timeout_s=5).issuer
    with pytest.raises(LinkError, match=f"the certificate that came is of '{issuer}'.*extra_ca in .centre."):
        preflight.certificate(about())
    (site.parent / "proxy.pem").write_bytes(proxy)
    site.write_text(site.read_text().replace('# extra_ca = "proxy-ca.pem"', 'extra_ca = "proxy.pem"'))
    with pytest.raises(preflight.Doubt, match=f"of '{issuer}', whom .* pins keep holding: .* signed by"):
        preflight.certificate(about())
    assert authorities(load_site(site)).read_bytes() == kit.read_bytes() + proxy
    assert authorities(settings) == kit
    # The authority of the kit still vouches where nobody stands between.
    kit.write_bytes(proxy)
    assert "from the kit's authority" in preflight.certificate(about())
    (site.parent / "proxy.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"extra_ca: .* is no certificate in PEM"):
        authorities(load_site(site))


def test_a_centre_that_is_not_there_is_named_with_the_proxy_that_leads_to_it(
    site, about, monkeypatch, centre
):
    monkeypatch.setenv("https_proxy", "http://name:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(LinkError, match=r"cannot be reached through the proxy 127\.0\.0\.1:9: ") as caught:
        preflight.centre(about())
    assert "secret" not in str(caught.value)


def test_an_expired_protocol_is_no_approval(about, approve, site):
    approve(days=1)
    later = Snapshot(load_site(site), today=TODAY + datetime.timedelta(days=30))
    with pytest.raises(preflight.Doubt, match="no protocol is approved; expired: test"):
        preflight.protocol(later)
    assert preflight.protocol(about()).startswith("test until ")


def test_a_budget_that_was_spent_elsewhere_is_seen_and_nothing_is_spent(
    tmp_path, site, about, approve, monkeypatch
):
    approve(epsilon=6.0)
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    assert preflight.budget(about()) == "all of test fits under the cap"
    settings = load_site(site)
    salt = read_salt(settings)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        charge = Charge(
            question="q1",
            protocol_sha256="a" * 64,
            run="r1",
            release="centre",
            trust="local",
            noise_multiplier=0.6,
            noise_share=1.0,
            l2_bound=1.0,
            dimension=2,
            patients=patient_hashes(["sub-003"], salt=salt, simulated=True),
            salt_sha256=salt_fingerprint(salt),
            software="0.1",
        )
        ledger.charge(charge, np.arange(2), content_sha256="c", epsilon_cap=8, delta=1e-3)
    with pytest.raises(PrivacyBudgetError, match="the protocol would take a patient to epsilon"):
        preflight.budget(about())
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        assert len(ledger.entries()) == 1


def test_the_status_of_a_site_tells_the_last_question_and_the_budget(site, approve, esn_client, centre):
    approve()
    settings = load_site(site)
    log = AuditLog(settings.audit_path, site="north")
    log.write("received", question="p/r/centre/0", attempt=0, bytes=1, sha256="a" * 64)
    log.write("sent", question="p/r/centre/0", attempt=0, bytes=1, sha256="b" * 64)
    status, out, _ = esn_client("status", site, "--json")
    found = json.loads(out)
    assert (status, found["centre_answers"], found["joined_since"]) == (0, True, None)
    assert (found["last"]["event"], found["last"]["question"]) == ("sent", "p/r/centre/0")
    assert (found["approved"][0]["study"], found["approved"][0]["expired"]) == ("test", False)
    assert (found["epsilon_of_worst_child"], found["epsilon_cap"], found["ledger_entries"]) == (0.0, 8.0, 0)
    status, out, _ = esn_client("status", site)
    assert status == 0
    assert "epsilon 0.00 of 8 at delta 0.001" in out


def pay(site, protocol, phases, label="sub-003", noise=2.0):
    """Charge one release of each of some phases."""
    settings = load_site(site)
    salt = read_salt(settings)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        for phase in phases:
            charge = Charge(
                question=f"q {phase}",
                protocol_sha256=protocol,
                run="r1",
                release=phase,
                trust="local",
                noise_multiplier=noise,
                noise_share=1.0,
                l2_bound=1.0,
                dimension=2,
                patients=patient_hashes([label], salt=salt, simulated=True),
                salt_sha256=salt_fingerprint(salt),
                software="0.1",
            )
            ledger.charge(charge, np.arange(2), content_sha256="c", epsilon_cap=99, delta=1e-3)


def test_the_status_tells_controls_who_voted_from_children(site, approve):
    """An exact release about controls leaves the worst child where it was, as 'ledger show' says."""
    protocol = approve()
    pay(site, protocol.sha256, ["votes"], label="sub-030", noise=0.0)
    assert status_of(load_site(site)).words()["worst child"] == (
        "epsilon 0.00 of 8 at delta 0.001; 1 healthy controls in exact sums, who have no epsilon"
    )
    pay(site, protocol.sha256, ["centre"])
    found = status_of(load_site(site))
    assert 1 < found.epsilon_of_worst_child < 3
    assert found.controls_in_exact_sums == 1


def test_an_approval_that_another_release_left_is_named_and_the_rest_is_looked_at(
    tmp_path, site, about, approve, esn_client, monkeypatch
):
    approve()
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    newer = load_site(site).approved_path / f"{'b' * 64}.toml"
    newer.write_text("format = 99\n")
    with pytest.raises(ProtocolError, match=f"approval {'b' * 16} cannot be read .*written by a newer"):
        preflight.protocol(about())
    assert "test: 8 training" in preflight.prepared(about())
    assert preflight.budget(about()) == "all of test fits under the cap"
    assert preflight.phenotypes(about()).startswith("18 children")
    found = json.loads(esn_client("status", site, "--json")[1])
    assert (found["approved"][0]["study"], len(found["unreadable"])) == ("test", 1)


def test_a_site_joins_beside_an_approval_that_another_release_left(tmp_path, site, approve, caplog):
    protocol = approve()
    table(tmp_path)
    (tmp_path / "derivatives").mkdir()
    (load_site(site).approved_path / f"{'b' * 64}.toml").write_text("format = 99\n")
    with open_hospital(load_site(site)) as (_, approvals):
        assert approvals.protocol(protocol.sha256).protocol.study == "test"
        with pytest.raises(ProtocolError, match="written by a newer"):
            approvals.protocol("b" * 64)
    assert f"approval {'b' * 16} is of another release: its questions are refused" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_study_that_was_answered_to_its_end_is_out_of_the_way(tmp_path, site, about, approve, esn_client):
    protocol = approve()
    table(tmp_path)
    phases = [phase.phase for phase in price_of(protocol).phases]
    pay(site, protocol.sha256, phases[:-1])
    assert preflight.protocol(about()).startswith("test until")
    pay(site, protocol.sha256, phases[-1:])
    with pytest.raises(preflight.Doubt, match="no protocol is approved; answered to the end: test"):
        preflight.protocol(about())
    with pytest.raises(preflight.Doubt, match="no protocol is approved"):
        preflight.budget(about())
    assert "answered to its end" in esn_client("status", site)[1].replace("\n", " ")


def test_the_status_says_where_the_personal_model_of_a_study_is_or_what_makes_it(site, approve):
    protocol = approve()
    settings = load_site(site)
    assert status_of(settings).words()["personal model"] == "no study has ended"
    place = settings.personal_model_path("test", protocol.sha256)
    place.mkdir(parents=True)  # 'join' makes it once the evaluation is answered, and says to look here
    assert status_of(settings).words()["personal model"] == f"test: {place}"
    place.rmdir()
    pay(site, protocol.sha256, [phase.phase for phase in price_of(protocol).phases])
    said = "test: none yet, 'esn-client personal-model' makes it"
    assert status_of(settings).words()["personal model"] == said
    place.mkdir()
    assert status_of(settings).words()["personal model"] == f"test: {place}"


def test_a_study_that_ended_without_an_analysis_is_out_of_the_way_after_two_silent_weeks(site, approve):
    """A study may end without one of its analyses, whose phase is then never charged (decision 0165)."""
    protocol = approve()

    def current(days):
        return Snapshot(load_site(site), today=TODAY + datetime.timedelta(days=days)).current

    pay(site, protocol.sha256, ["centre"])
    assert current(20) == (protocol,)
    pay(site, protocol.sha256, ["evaluation"])
    assert (current(14), current(15)) == ((protocol,), ())


def test_a_review_says_what_the_ledger_has_against_the_protocol(
    tmp_path, site, approve, esn_client, monkeypatch
):
    approve(epsilon=6.0)
    draft_of = tmp_path / "test.toml"
    assert "not known, as the cohort cannot be read" in esn_client("review", draft_of, "--settings", site)[1]
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    assert "All of it fits under the cap" in esn_client("review", draft_of, "--settings", site)[1]
    pay(site, "a" * 64, ["centre"], noise=0.6)
    assert (
        "- the protocol would take a patient to epsilon"
        in esn_client("review", draft_of, "--settings", site)[1]
    )


def test_connectomes_without_scans_are_no_fault_of_the_dataset(tmp_path, about):
    table(tmp_path)
    with pytest.raises(DataError):
        preflight.dataset(about())
    place = tmp_path / "derivatives" / "sub-001" / "dwi"
    place.mkdir(parents=True)
    (place / "sub-001_seg-phantom28_meas-count_relmat.json").write_text("{}")
    assert "the connectomes are there already" in preflight.dataset(about())


def test_connectomes_without_a_line_are_listed(tmp_path, about, approve, monkeypatch):
    approve()
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    for label in ("sub-003", *(f"sub-9{i:02d}" for i in range(10))):
        place = tmp_path / "derivatives" / label / "dwi"
        place.mkdir(parents=True)
        (place / f"{label}_seg-phantom28_meas-count_relmat.json").write_text("{}")
    named = ", ".join(f"sub-9{i:02d}" for i in range(8))
    with pytest.raises(
        preflight.Doubt, match=rf"10 \({named} and 2 more\) with a connectome and without a line"
    ):
        preflight.prepared(about())
    with monkeypatch.context() as others:
        others.setattr(Protocol, "trains", lambda *_: False)
        with pytest.raises(preflight.Doubt, match=r"whom nobody reads; .* off by half a step"):
            preflight.prepared(about())
    monkeypatch.setattr(Protocol, "voting", property(lambda _: True))
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: replace(cohort(), controls=9))
    with pytest.raises(preflight.Doubt, match="without a line"):
        preflight.prepared(about())


def test_children_and_controls_are_compared_where_controls_judge(tmp_path, about, approve, monkeypatch):
    with pytest.raises(preflight.Doubt, match="no protocol is approved that judges"):
        preflight.likeness(about())
    approve()
    table(tmp_path)
    made = cohort(left_out=["control"] * 3)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: made)
    lines = [f"sub-x{i}\t{age}\tF\tcontrol\tn/a\n" for i, age in enumerate((8, 9, 10))]
    with (tmp_path / "bids" / "participants.tsv").open("a") as file:
        file.writelines(lines)
    assert preflight.likeness(about()).startswith("children and controls are alike")
    text = (tmp_path / "bids" / "participants.tsv").read_text().replace("\t8\t", "\t30\t")
    (tmp_path / "bids" / "participants.tsv").write_text(text)
    with pytest.raises(
        preflight.Doubt, match=r"test: children are 9\.0 years old and controls 16\.3, .*more like"
    ):
        preflight.likeness(about())


def test_that_a_template_does_not_say_its_ages_is_told(tmp_path, about, approve, monkeypatch):
    protocol = approve()
    table(tmp_path)
    rules = protocol.cohort.model_copy(update={"harmonisation": "public-template"})
    by_template = protocol.model_copy(update={"cohort": rules})
    monkeypatch.setattr(Snapshot, "protocols", property(lambda _: (by_template,)))
    with pytest.raises(
        preflight.Doubt, match=r"by this site's controls; test: .* by a template that does not say its ages"
    ):
        preflight.likeness(about())


def test_that_pooled_controls_do_not_say_their_ages_is_told(tmp_path, about, approve, monkeypatch):
    protocol = approve()
    table(tmp_path)
    rules = protocol.cohort.model_copy(update={"without_controls": (about().settings.site,)})
    without = protocol.model_copy(update={"cohort": rules})
    monkeypatch.setattr(Snapshot, "protocols", property(lambda _: (without,)))
    with pytest.raises(
        preflight.Doubt, match=r"test: .* pooled controls of other hospitals, which do not say"
    ):
        preflight.likeness(about())


def test_a_child_who_was_scanned_otherwise_than_the_controls_is_told(tmp_path, about, approve, monkeypatch):
    recipe = approve().imaging
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort(left_out=["control"] * 3))
    with (tmp_path / "bids" / "participants.tsv").open("a") as file:
        file.writelines(f"sub-x{i}\t9\tF\tcontrol\tn/a\n" for i in range(3))
    for label, directions in {"sub-001": 64, "sub-002": 64, "sub-x0": 64, "sub-x1": 64}.items():
        scanned(tmp_path / "derivatives", label, recipe, directions)
    assert preflight.likeness(about()).startswith("children and controls are alike")
    scanned(tmp_path / "derivatives", "sub-002", recipe, 15)
    with pytest.raises(
        preflight.Doubt,
        match=r"2 controls with 64 directions, .*; 1 children and 0 controls with 15 directions",
    ):
        preflight.likeness(about())


def scanned(derivatives, label, recipe, directions):
    """A connectome of a scan of so many directions."""
    derivative = Derivative(derivatives, Visit(label, None), recipe)
    kind = {"Directions": directions, "BValue": 1000.0, "VoxelMm": [2.0, 2.0, 2.0]}
    matrices = dict.fromkeys(derivative.measures, np.ones((28, 28)))
    derivative.write(matrices, sources={}, details={"ScanKind": kind})


def test_what_changed_in_the_cohort_of_a_study_under_way_is_said(tmp_path, site, about, approve, monkeypatch):
    protocol = approve()
    table(tmp_path)
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort())
    assert preflight.same_cohort(about()) == "no study is under way, and each scan has one label"
    settings = load_site(site)
    salt = read_salt(settings)
    frozen = FrozenCohort.of(cohort().enrolled, salt=salt, simulated=True)
    with Ledger(settings.ledger_path, load_identity_key(settings.identity_key_path)) as ledger:
        mark = {"protocol_sha256": protocol.sha256, "run": "r1", "salt_sha256": salt_fingerprint(salt)}
        ledger.freeze(frozen, **mark)
    pay(site, protocol.sha256, ["centre"])
    assert preflight.same_cohort(about()) == "the cohort of test is the one of the roll call"
    monkeypatch.setattr(snapshot, "load_cohort", lambda *_, **__: cohort(training=9))
    with pytest.raises(GateError, match="the roll call: sub-009 was added"):
        preflight.same_cohort(about())


def test_a_rehearsal_that_is_approved_does_not_fail_the_check_of_the_patients(tmp_path, about, approve):
    approve()
    table(tmp_path)
    assert preflight.protocol(about()).startswith("test until")
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Name": "a hospital"}')
    with pytest.raises(
        preflight.Doubt, match=r"no protocol is approved; for another dataset than this .*: test"
    ):
        preflight.protocol(about())
    with pytest.raises(preflight.Doubt, match="no protocol is approved"):
        preflight.prepared(about())
