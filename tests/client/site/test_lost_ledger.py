"""A ledger that was lost is noticed, refused, and counted again from the logs; its protocols stay closed."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import tomli_w

from esn_client.cli import main as cli
from esn_client.gate.audit_log import AuditLog, check_against_audit_log
from esn_client.gate.charge import Charge
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_client.site.keys import load_identity_key
from esn_client.site.state import initialise, read_salt
from esn_core.errors import LedgerError, PrivacyBudgetError
from esn_core.messages.facts import LedgerMark
from esn_core.privacy.accounting import compose, epsilon_of
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.system.chained_log import ChainedLog

PATIENTS = ("sub-001", "sub-002")


class Site:
    """A hospital that keeps a ledger, its audit log and an approved protocol."""

    def __init__(self, directory, content):
        self.settings = initialise(
            directory,
            site="north",
            dataset=directory / "bids",
            derivatives=directory / "out",
            trust="secure-sum",
            epsilon_cap=8.0,
            delta=1e-3,
            colluding_sites=1,
            exact_sums=False,
        )
        self.protocol = Protocol.model_validate(content)
        self.settings.approved_path.mkdir()
        self.kept = self.settings.approved_path / f"{self.protocol.sha256}.toml"
        self.kept.write_text(tomli_w.dumps(content))
        self.salt = read_salt(self.settings)
        self.audit = AuditLog(self.settings.audit_path, site="north")

    def open(self):
        return Ledger(self.settings.ledger_path, load_identity_key(self.settings.identity_key_path))

    def names(self, *labels):
        return patient_hashes(labels, salt=self.salt, simulated=self.protocol.simulated)

    def send(self, phase, number):
        """Charge a sum and note that it left."""
        with self.open() as ledger:
            paid = self.charge(ledger, phase, number)
        entry = {"entry": paid.mark.entries, "entry_hash": paid.mark.head}
        self.audit.write(
            "sent", question=self.question(phase, number), attempt=0, bytes=1, sha256="a", **entry
        )

    def question(self, phase, number):
        return f"{self.protocol.sha256[:16]}/r1/{phase}/{number}"

    def charge(self, ledger, phase, number):
        price = price_of(self.protocol).of(phase)
        charge = Charge(
            question=self.question(phase, number),
            protocol_sha256=self.protocol.sha256,
            run="r1",
            release=phase,
            trust="secure-sum",
            noise_multiplier=price.noise_multiplier,
            noise_share=0.5,
            l2_bound=1.0,
            dimension=2,
            patients=self.names(*PATIENTS),
            salt_sha256=salt_fingerprint(self.salt),
            software="0.1",
        )
        total = np.array([1, 2], dtype=np.int64)
        return ledger.charge(charge, total, content_sha256="c", epsilon_cap=50.0, delta=1e-3)

    def lose(self):
        for path in self.settings.state.glob("ledger.sqlite*"):
            path.unlink()


@pytest.fixture
def site(tmp_path, patients_content):
    """A hospital that has answered three questions about real children, and then lost its ledger."""
    made = Site(tmp_path / "site", patients_content)
    made.send("centre", 0)
    shutil.copytree(made.settings.state, tmp_path / "backup")
    made.send("gradient", 0)
    made.send("evaluation", 0)
    return made


@pytest.fixture
def esn_client(run_command):
    """A function that runs a command; returns exit status, stdout and stderr."""
    return partial(run_command, "esn-client", cli.main)


@pytest.fixture
def fails(command_fails):
    """A function that runs a command which must fail with a status and one line of certain words."""
    return partial(command_fails, "esn-client", cli.main)


def test_a_lost_ledger_is_refused_until_a_person_counts_again_what_left(site, esn_client, fails):
    path = site.settings.state.parent / "site.toml"
    assert "lacks nothing" in esn_client("ledger", "rebuild", path)[1]
    site.lose()
    with site.open() as ledger, pytest.raises(LedgerError, match="esn-client ledger rebuild"):
        check_against_audit_log(ledger, site.audit)
    status, out, _ = esn_client("ledger", "rebuild", path)
    assert (status, out.strip()) == (
        0,
        f"test ({site.protocol.sha256[:16]}): 1 of centre, 1 of evaluation, 1 of gradient",
    )
    fails(18, "esn-client ledger rebuild", "ledger", "verify", path)
    status, out, _ = esn_client("ledger", "rebuild", path, "--yes")
    assert status == 0
    with site.open() as ledger:
        check_against_audit_log(ledger, site.audit)
        assert f"1 entries, head {ledger.mark.head}" in out
        # Whoever it was, the child was in training or held out: the dearer of the two counts.
        price = price_of(site.protocol)
        training = [m for phase in ("centre", "gradient") for m in price.of(phase).mechanisms[:1]]
        held_out = price.of("evaluation").mechanisms[:1]
        worst = epsilon_of(max(compose(training), compose(held_out)), 1e-3)
        anybody = ledger.spent(site.names("sub-001", "sub-never-seen"))
        assert [spent.epsilon(1e-3) for spent in anybody.values()] == pytest.approx([worst, worst])
        with pytest.raises(PrivacyBudgetError, match="were lost with an earlier ledger"):
            site.charge(ledger, "gradient", 1)
        with pytest.raises(PrivacyBudgetError, match="were lost with an earlier ledger"):
            ledger.require_open(site.protocol.sha256)
    assert "lacks nothing" in esn_client("ledger", "rebuild", path, "--yes")[1]
    assert "sums of 1 protocols were lost" in " ".join(esn_client("ledger", "show", path)[1].split())


def test_a_ledger_from_a_backup_lacks_what_came_after_it(site, esn_client, tmp_path):
    site.lose()
    for path in (tmp_path / "backup").glob("ledger.sqlite*"):
        shutil.copy(path, site.settings.state)
    (tmp_path / "people.txt").write_text("001\nsub-003\n")
    words = ("--people", tmp_path / "people.txt", "--yes")
    status, out, _ = esn_client("ledger", "rebuild", site.settings.state.parent / "site.toml", *words)
    assert (status, "1 of evaluation, 1 of gradient" in out) == (0, True)
    with site.open() as ledger:
        spent = ledger.spent(site.names("sub-001", "sub-002", "sub-003", "sub-004"))
        assert [s.releases for s in spent.values()] == [2, 1, 1, 0]
        check_against_audit_log(ledger, site.audit)


def test_where_all_of_the_state_is_old_the_centres_log_knows_more(site, esn_client, tmp_path):
    shutil.rmtree(site.settings.state)
    shutil.copytree(tmp_path / "backup", site.settings.state)
    log = ChainedLog(tmp_path / "messages.jsonl")
    for name, phase in (
        ("north", "roll-call"),
        ("north", "centre"),
        ("north", "gradient"),
        ("south", "evaluation"),
    ):
        log.append(event="answered", site=name, question=site.question(phase, 0), sha256="a", bytes=1)
    path = site.settings.state.parent / "site.toml"
    assert "lacks nothing" in esn_client("ledger", "rebuild", path)[1]
    out = esn_client("ledger", "rebuild", path, "--centre-log", tmp_path / "messages.jsonl")[1]
    assert out.strip().endswith(": 1 of gradient")


def test_what_nobody_can_price_is_not_guessed(site, fails, esn_client, tmp_path):
    site.lose()
    path, elsewhere = site.settings.state.parent / "site.toml", tmp_path / "severity.toml"
    site.kept.replace(elsewhere)
    fails(18, "give its file with --protocol", "ledger", "rebuild", path)
    assert esn_client("ledger", "rebuild", path, "--protocol", elsewhere)[0] == 0
    lines = site.settings.audit_path.read_text().splitlines()
    site.settings.audit_path.write_text("\n".join(lines[1:]) + "\n")
    fails(19, "line 1 does not follow the one before it", "ledger", "rebuild", path)


def test_consent_whose_withdrawal_was_lost_is_asked_for_again(site, esn_client):
    with site.open() as ledger:
        mark = ledger.withdraw(*site.names("sub-001"), scans=(), salt_sha256=salt_fingerprint(site.salt))
    site.audit.write("consent-withdrawn", entry=mark.entries, entry_hash=mark.head)
    site.lose()
    out = esn_client("ledger", "rebuild", site.settings.state.parent / "site.toml")[1]
    assert "1 withdrawals of consent: the logs do not say whose" in out


def test_a_centre_takes_the_rebuilt_ledger_when_it_is_told(tmp_path, run_command, command_fails):
    from esn_server.cli import main as centre_cli

    (tmp_path / "centre" / "sites").mkdir(parents=True)
    words = ("accept-ledger", tmp_path / "centre", "north", "--entries", 1, "--head", "A" * 64)
    command_fails("esn-server", centre_cli.main, 10, "no site north is enrolled", *words)
    (tmp_path / "centre" / "sites" / "north.toml").write_text("")
    status, said, _ = run_command("esn-server", centre_cli.main, *words)
    assert (status, "Nothing is changed yet" in said) == (0, True)
    assert not (tmp_path / "centre" / "sites" / "north.ledger.json").exists()
    assert run_command("esn-server", centre_cli.main, *words, "--yes")[0] == 0
    kept = json.loads((tmp_path / "centre" / "sites" / "north.ledger.json").read_text())
    assert LedgerMark.model_validate(kept) == LedgerMark(entries=1, head="a" * 64)
