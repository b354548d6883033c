"""The ledger keeps every charge, whatever happens to its process or its file."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from esn_client.gate.charge import Charge
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import patient_hashes
from esn_core.errors import EsnError, GateError, LedgerError, PrivacyBudgetError, ProtocolError
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark
from esn_core.privacy.accounting import NO_NOISE, GaussianRelease, compose, epsilon_of

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PATIENTS = ("p1", "p2", "p3")
CONTENT = "c" * 64


def a_charge(question="q1", *, noise=2.0, patients=PATIENTS, run="r1", protocol="a" * 64, salt="5" * 64):
    return Charge(
        question=question,
        protocol_sha256=protocol,
        run=run,
        release="centre",
        trust="local",
        noise_multiplier=noise,
        noise_share=1.0,
        l2_bound=1.0,
        dimension=2,
        patients=patients,
        salt_sha256=salt,
        software="0.1",
    )


def pay(ledger, question="q1", *, total=(1, 2), content=CONTENT, cap=50.0, again=False, **about):
    return ledger.charge(
        a_charge(question, **about),
        np.array(total, dtype=np.int64),
        content_sha256=content,
        epsilon_cap=cap,
        delta=1e-3,
        exact_again=again,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def three_entries(path):
    """A closed ledger of three charges."""
    with Ledger(path, KEY) as ledger:
        for question in ("q1", "q2", "q3"):
            pay(ledger, question)
    return path


def test_a_charge_is_there_after_the_file_was_closed(path):
    with Ledger(path, KEY) as ledger:
        assert (ledger.verify(), ledger.mark.head) == (0, EMPTY_LEDGER.head)
        pay(ledger, total=(-(2**53), 5))
    with Ledger(path, KEY) as ledger:
        (entry,) = ledger.entries()
        assert entry.charge == a_charge()
        assert entry.hash == ledger.mark.head
        assert np.array_equal(ledger.paid("q1").total, [-(2**53), 5])
        assert ledger.paid("q2") is None


def test_the_same_question_is_charged_once_and_answered_with_the_first_sum(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger, total=(1, 2))
        again = pay(ledger, total=(9, 9))
        assert np.array_equal(again.total, [1, 2])
        assert len(ledger.entries()) == 1


def test_a_question_with_other_content_is_refused(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        with pytest.raises(ProtocolError, match="asked again with other content"):
            pay(ledger, content="d" * 64)
        assert len(ledger.entries()) == 1


def test_a_second_run_of_a_protocol_is_refused(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        with pytest.raises(PrivacyBudgetError, match="already answered in run r1"):
            pay(ledger, "q2", run="r2")
        pay(ledger, "q3", run="r2", protocol="b" * 64)


@settings(max_examples=30)  # each writes a ledger
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(PATIENTS), min_size=1), st.floats(0.3, 20)), min_size=1, max_size=6
    )
)
def test_no_patient_ever_exceeds_the_cap_and_nothing_below_it_is_refused(tmp_path_factory, charges):
    cap, delta = 5.0, 1e-3
    spent = {patient: [] for patient in PATIENTS}
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite", KEY) as ledger:
        for number, (patients, noise) in enumerate(charges):
            worst = max(
                epsilon_of(compose(map(GaussianRelease, [*spent[p], noise])), delta) for p in patients
            )
            try:
                pay(ledger, f"q{number}", noise=noise, patients=tuple(sorted(patients)), cap=cap)
            except PrivacyBudgetError:
                assert worst > cap * (1 - 1e-6)
            else:
                assert worst <= cap * (1 + 1e-6)
                for patient in patients:
                    spent[patient].append(noise)
        found = ledger.spent(PATIENTS)
        for patient in PATIENTS:
            assert found[patient].releases == len(spent[patient])
            assert found[patient].noisy == tuple(GaussianRelease(m) for m in sorted(spent[patient]))


def test_the_cap_holds_for_the_patient_who_spent_most(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger, "q1", noise=1.0, patients=("p2",), cap=4.0)
        pay(ledger, "q2", noise=1.0, patients=("p1", "p3"), cap=4.0)
        pay(ledger, "q3", noise=1.0, patients=("p4",), cap=4.0)
        with pytest.raises(PrivacyBudgetError):
            pay(ledger, "q4", noise=1.0, patients=("p0", "p2", "p5"), cap=4.0)
        pay(ledger, "q4", noise=1.0, patients=("p0", "p5"), cap=4.0)


def test_a_refusal_writes_nothing(path):
    with Ledger(path, KEY) as ledger:
        with pytest.raises(PrivacyBudgetError, match=r"to epsilon .* at delta 0.001; the site's cap is 1"):
            pay(ledger, noise=0.5, cap=1.0)
        assert (ledger.entries(), ledger.paid("q1"), ledger.spent()) == ([], None, {})


def test_a_protocol_may_spend_the_cap_to_the_last_digit(path):
    from esn_core.privacy.accounting import mu_for, noise_multiplier_for

    noise = noise_multiplier_for(mu_for(8.0, 1e-3), share=1.0, releases=30)
    with Ledger(path, KEY) as ledger:
        for number in range(30):
            pay(ledger, f"q{number}", noise=noise, cap=8.0)
        with pytest.raises(PrivacyBudgetError):
            pay(ledger, "one more", noise=noise, cap=8.0)


def test_an_exact_release_is_counted_and_has_no_finite_price(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger, noise=NO_NOISE, cap=0.1)
        assert ledger.spent()["p1"].exact_releases == 1
        assert ledger.spent()["p1"].epsilon(1e-3) == float("inf")


def test_a_plan_is_judged_with_all_that_others_charged_and_without_its_own_start(path):
    def plan(noise, *, protocol="a" * 64, run="r1"):
        ledger.check_plan(
            protocol_sha256=protocol,
            run=run,
            patients=PATIENTS,
            salt_sha256="5" * 64,
            planned=[GaussianRelease(noise)],
            epsilon_cap=4.0,
            delta=1e-3,
        )

    with Ledger(path, KEY) as ledger:
        plan(1.0)
        pay(ledger, noise=1.0)
        plan(1.0)
        with pytest.raises(PrivacyBudgetError, match="the protocol would take a patient to epsilon"):
            plan(1.0, protocol="b" * 64)
        with pytest.raises(PrivacyBudgetError, match="already answered in run r1"):
            plan(1.0, run="r2")
        plan(NO_NOISE, protocol="c" * 64)  # exact sums are a matter of consent, not of the cap
        assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}'",
        "DELETE FROM entries",
        "UPDATE sums SET total = x'00'",
        "DELETE FROM sums",
        "UPDATE sums SET content_sha256 = 'x'",
    ],
)
def test_the_database_itself_refuses_to_change_what_is_written(three_entries, statement):
    with (
        sqlite3.connect(three_entries) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)
    connection.close()


TAMPERINGS = {
    "edited": ["UPDATE entries SET body = replace(body, '2.0', '9.0') WHERE sequence = 2"],
    "removed": ["DELETE FROM sums WHERE sequence = 2", "DELETE FROM entries WHERE sequence = 2"],
    "removed and closed up": [
        "DELETE FROM sums WHERE sequence = 2",
        "DELETE FROM entries WHERE sequence = 2",
        "UPDATE sums SET sequence = 2 WHERE sequence = 3",
        "UPDATE entries SET sequence = 2 WHERE sequence = 3",
    ],
    "first removed": ["DELETE FROM sums WHERE sequence = 1", "DELETE FROM entries WHERE sequence = 1"],
    "reordered": [
        "UPDATE entries SET sequence = 9 WHERE sequence = 1",
        "UPDATE entries SET sequence = 1 WHERE sequence = 2",
        "UPDATE entries SET sequence = 2 WHERE sequence = 9",
    ],
    "added": ["INSERT INTO entries SELECT 4, body, hash, 'x', signature FROM entries WHERE sequence = 3"],
    "sum changed": ["UPDATE sums SET total = zeroblob(16) WHERE sequence = 2"],
    "sums swapped": [
        "UPDATE sums SET question = 'x' WHERE question = 'q1'",
        "UPDATE sums SET question = 'q1' WHERE question = 'q2'",
        "UPDATE sums SET question = 'q2' WHERE question = 'x'",
    ],
    "sum removed": ["DELETE FROM sums WHERE sequence = 2"],
    "sum never charged": ["INSERT INTO sums VALUES ('q9', 'c', zeroblob(16), 99)"],
    "content changed": ["UPDATE sums SET content_sha256 = 'd' WHERE sequence = 2"],
}


@pytest.mark.parametrize("statements", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_ledger_is_seen_and_not_opened(three_entries, statements):
    connection = sqlite3.connect(three_entries, isolation_level=None)
    for trigger in ("entries_stay", "entries_remain", "sums_stay", "sums_remain"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerError, match=r"chain is broken at entry|not the one charged|never charged"):
        Ledger(three_entries, KEY)


def test_an_entry_with_a_hash_of_its_own_does_not_fit_the_next(three_entries):
    """Whoever edits an entry can hash it again, but not sign it, nor leave those that follow as they are."""
    connection = sqlite3.connect(three_entries, isolation_level=None)
    connection.execute("DROP TRIGGER entries_stay")
    body = connection.execute("SELECT body FROM entries WHERE sequence = 1").fetchone()[0]
    lower = body.replace("2.0", "9.0")
    digest = hashlib.sha256(f"1\n{EMPTY_LEDGER.head}\n{lower}".encode()).hexdigest()
    connection.execute("UPDATE entries SET body = ?, hash = ? WHERE sequence = 1", (lower, digest))
    connection.close()
    with pytest.raises(LedgerError, match="entry 1 is not signed by this site's identity key"):
        Ledger(three_entries, KEY)


def test_a_ledger_that_was_written_anew_by_another_is_seen(three_entries):
    """Every entry edited, hashed and chained again, and signed with a key of the forger's own."""
    forger = Ed25519PrivateKey.generate()
    connection = sqlite3.connect(three_entries, isolation_level=None)
    connection.execute("DROP TRIGGER entries_stay")
    previous = EMPTY_LEDGER.head
    for sequence in (1, 2, 3):
        body = connection.execute("SELECT body FROM entries WHERE sequence = ?", (sequence,)).fetchone()[0]
        lower = body.replace("2.0", "9.0")
        digest = hashlib.sha256(f"{sequence}\n{previous}\n{lower}".encode()).hexdigest()
        connection.execute(
            "UPDATE entries SET body = ?, previous = ?, hash = ?, signature = ? WHERE sequence = ?",
            (lower, previous, digest, forger.sign(digest.encode()), sequence),
        )
        previous = digest
    connection.close()
    with Ledger(three_entries, forger) as forged:
        assert forged.verify() == 3
    with pytest.raises(LedgerError, match="entry 1 is not signed by this site's identity key"):
        Ledger(three_entries, KEY)


def test_a_ledger_that_was_cut_short_or_restored_is_known_by_what_was_seen_of_it(path, tmp_path):
    with Ledger(path, KEY) as ledger:
        assert ledger.mark_at(0) == LedgerMark(entries=0, head=EMPTY_LEDGER.head)
        pay(ledger, "q1")
        first = ledger.mark
        backup = tmp_path / "backup.sqlite"
        ledger._store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(path, backup)
        pay(ledger, "q2")
        seen = ledger.mark
        assert (ledger.mark_at(1), ledger.mark_at(2)) == (first, seen)
    with Ledger(backup, KEY) as restored:
        assert restored.verify() == 1  # a whole chain, but
        with pytest.raises(LedgerError, match="holds 1 entries where 2 were seen: it was cut"):
            restored.mark_at(seen.entries)
        pay(restored, "q2", total=(3, 4))
        assert restored.mark_at(2) != seen  # nor can it grow the same entry again


def test_a_salt_that_was_replaced_is_seen(path):
    """With another salt every patient would look new."""
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        with pytest.raises(LedgerError, match="hashed with another salt"):
            pay(ledger, "q2", salt="6" * 64)
        assert len(ledger.entries()) == 1


def test_a_ledger_opened_with_the_public_key_can_be_read_only(three_entries):
    with Ledger(three_entries, KEY.public_key()) as ledger:
        assert ledger.verify() == 3
        with pytest.raises(GateError, match="only the site itself can write"):
            pay(ledger, "q4")
        assert ledger.verify() == 3


def test_the_export_can_be_verified_with_nothing_but_the_public_key(three_entries):
    with Ledger(three_entries, KEY) as ledger:
        ledger.reveal("q2", ["north", "west"])
        lines = [json.loads(line) for line in ledger.export()]
        head = ledger.mark.head
    previous = EMPTY_LEDGER.head
    for number, line in enumerate(lines, start=1):
        content = f"{number}\n{previous}\n{line['body']}".encode()
        previous = hashlib.sha256(content).hexdigest()
        assert (line["sequence"], line["hash"]) == (number, previous)
        KEY.public_key().verify(bytes.fromhex(line["signature"]), line["hash"].encode())
    assert (previous, len(lines)) == (head, 4)


# --- seeds ------------------------------------------------------------------------------------------


def test_a_seed_is_revealed_for_one_set_of_sites_only(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        mark = ledger.reveal("q1", ["north", "south", "west"])
        assert mark == ledger.mark == LedgerMark(entries=2, head=ledger.mark.head)
        assert ledger.reveal("q1", ["north", "south", "west"]) == mark
        with pytest.raises(ProtocolError, match="revealed for north, south, west, and is for nobody else"):
            ledger.reveal("q1", ["north", "south"])
    with Ledger(path, KEY) as ledger:
        assert ledger.revealed("q1") == ("north", "south", "west")
        with pytest.raises(ProtocolError, match="nobody else"):
            ledger.reveal("q1", ["north", "south"])
        assert ledger.verify() == 2
        assert len(ledger.entries()) == 1  # a seed is no charge


def test_no_seed_is_revealed_before_its_question_was_answered(path):
    with Ledger(path, KEY) as ledger:
        with pytest.raises(ProtocolError, match="asked for before its question was answered"):
            ledger.reveal("q1", ["north", "south", "west"])
        assert ledger.verify() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reveals SET participants = '[\"north\"]'",
        "DELETE FROM reveals",
        "UPDATE reveals SET question = 'q2'",
        "INSERT INTO reveals VALUES ('q3', '[]', 99)",
    ],
)
def test_a_reveal_that_was_tampered_with_is_seen(three_entries, statement):
    with Ledger(three_entries, KEY) as ledger:
        ledger.reveal("q1", ["north", "south", "west"])
    connection = sqlite3.connect(three_entries, isolation_level=None)
    for trigger in ("reveals_stay", "reveals_remain"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerError, match=r"not the one charged|never charged"):
        Ledger(three_entries, KEY)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"not a database at all, but long enough to be read as one" * 20),
        lambda path: path.mkdir(),
        lambda path: sqlite3.connect(path).executescript("CREATE TABLE entries (x)").connection.close(),
        lambda path: sqlite3.connect(path).executescript("CREATE VIEW sums AS SELECT 1").connection.close(),
    ],
    ids=["bytes", "directory", "other table", "view"],
)
def test_what_is_no_ledger_is_refused_in_one_line(path, make):
    make(path)
    with pytest.raises(PrivacyBudgetError, match=r"ledger\.sqlite: cannot be opened as a ledger"):
        Ledger(path, KEY)


def test_a_body_that_is_no_entry_is_refused(path):
    with Ledger(path, KEY):
        pass
    from esn_client.gate import ledger_store as module

    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO entries VALUES (1, '[]', ?, ?, x'00')",
        (EMPTY_LEDGER.head, module._hash(1, "[]", EMPTY_LEDGER.head)),
    )
    connection.commit()
    connection.close()
    with pytest.raises(PrivacyBudgetError, match="ledger"):
        Ledger(path, KEY)


def test_a_ledger_in_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PrivacyBudgetError, match="cannot be opened as a ledger: unable to open"):
        Ledger(tmp_path / "nowhere" / "ledger.sqlite", KEY)


def test_a_locked_file_is_a_refusal_that_charges_nothing(path):
    with Ledger(path, KEY) as ledger:
        ledger._store._connection.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GateError, match="cannot be written to: database is locked"):
            pay(ledger)
        other.execute("ROLLBACK")
        other.close()
        pay(ledger)
        assert ledger.verify() == 1


def test_a_full_disk_is_a_refusal_that_charges_nothing(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        ledger._store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(GateError, match="cannot be written to: database or disk is full"):
            pay(ledger, "q2", total=np.arange(100_000))
        ledger._store._connection.execute("PRAGMA max_page_count = 100000")
        assert ledger.verify() == 1
        pay(ledger, "q2")
        assert ledger.verify() == 2


def test_threads_never_see_what_is_not_committed(path):
    with Ledger(path, KEY) as ledger:
        found = []

        def ask(number):
            for question in range(5):
                found.append((question, tuple(pay(ledger, f"q{question}", total=(number, question)).total)))
                seen = ledger.paid(f"q{question}")
                found.append((question, tuple(seen.total)))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 40
        assert len(set(found)) == 5
        assert ledger.verify() == 5


def spend(path, start, results, question, number, noise):
    with Ledger(path, KEY) as ledger:
        start.wait(60)
        try:
            paid = pay(ledger, question, total=(number, number), noise=noise, cap=2.0)
            results.put(tuple(int(x) for x in paid.total))
        except EsnError as error:
            results.put(type(error).__name__)


def race(path, questions, noise):
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(len(questions)), spawn.Queue()
    processes = [
        spawn.Process(target=spend, args=(path, start, results, question, number, noise))
        for number, question in enumerate(questions)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    return found


@pytest.mark.slow
def test_two_processes_that_answer_one_question_charge_once_and_give_one_answer(path):
    found = race(path, ["q1"] * 3, 2.0)
    assert len(set(found)) == 1
    with Ledger(path, KEY) as ledger:
        assert ledger.verify() == 1


@pytest.mark.slow
def test_two_processes_cannot_both_spend_what_is_left(path):
    # Noise 2 costs epsilon 1.4, twice 2.1: one fits under the cap of 2.
    found = race(path, ["q1", "q2", "q3"], 2.0)
    assert sorted(map(str, found))[1:] == ["PrivacyBudgetError"] * 2
    with Ledger(path, KEY) as ledger:
        assert ledger.verify() == 1


VICTIM = """
import os, signal, sys, threading, random, time
import numpy as np
sys.path.insert(0, {here!r})
from test_ledger import KEY, pay
from esn_client.gate.ledger import Ledger

seed = int(sys.argv[2])
rng = random.Random(seed)
ledger = Ledger(sys.argv[1], KEY)
print("ready", flush=True)
for number in range(int(sys.argv[3]), 10**6):
    noised = rng.getrandbits(40)
    paid = pay(ledger, f"q{{number}}", total=(noised, number), cap=1e3, noise=100.0)
    os.write(1, f"{{number}} {{paid.total[0]}}\\n".encode())
"""


@pytest.mark.faults
def test_a_kill_at_any_instant_loses_no_charge_and_gives_no_second_answer(path, tmp_path):
    program = VICTIM.format(here=str(Path(__file__).parent))
    left, first = {}, 0
    rng = random.Random(1)
    for kills in range(12):
        victim = subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(kills), str(first)], stdout=subprocess.PIPE
        )
        victim.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        os.kill(victim.pid, signal.SIGKILL)
        answers, _ = victim.communicate()
        with Ledger(path, KEY) as ledger:
            charged = {entry.charge.question for entry in ledger.entries()}
            for line in answers.decode().splitlines():
                number, noised = (int(word) for word in line.split())
                # What left was charged, and it is what a repeated question gets.
                assert f"q{number}" in charged
                assert left.setdefault(number, noised) == noised
                assert ledger.paid(f"q{number}").total[0] == noised
            # The next process asks again for the last one, which may or may not have left.
            first = max(len(charged) - 1, 0)
            assert charged == {f"q{n}" for n in range(len(charged))}
    assert left


@pytest.mark.parametrize("step", ["before", "inside", "after"])
def test_a_kill_around_the_commit_loses_no_charge(path, step):
    """SIGKILL between BEGIN and COMMIT, at COMMIT, and right after it."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import esn_client.gate.ledger as module
from test_ledger import KEY, pay

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Connection:
    def __init__(self, real): self.real = real
    def __getattr__(self, name): return getattr(self.real, name)
    def execute(self, sql, *rest):
        if {step!r} == "before" and sql.startswith("INSERT INTO sums"): die()
        if {step!r} == "inside" and sql == "COMMIT": die()
        found = self.real.execute(sql, *rest)
        if {step!r} == "after" and sql == "COMMIT": die()
        return found

ledger = module.Ledger({str(path)!r}, KEY)
ledger._store._connection = Connection(ledger._store._connection)
pay(ledger, total=(7, 7))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with Ledger(path, KEY) as ledger:
        charged = step == "after"
        assert ledger.verify() == charged
        # The next process draws other noise: only where nothing was charged may it leave.
        assert np.array_equal(pay(ledger, total=(9, 9)).total, [7, 7] if charged else [9, 9])
        assert ledger.verify() == 1


def test_a_copy_of_a_ledger_can_be_verified(three_entries, tmp_path):
    shutil.copy(three_entries, tmp_path / "copy.sqlite")
    with Ledger(tmp_path / "copy.sqlite", KEY) as copy:
        assert copy.verify() == 3


def test_patients_are_hashed_with_the_sites_secret():
    labels = ["sub-001", "sub-002"]
    first = patient_hashes(labels, salt=b"a" * 32, simulated=False)
    # As every ledger of real patients has them since the first release.
    assert first[0] == "9719c48d61217c3e6cc4281d3b8e96e9"
    assert len(set(first)) == 2
    assert first == patient_hashes(labels, salt=b"a" * 32, simulated=False)
    assert set(first).isdisjoint(patient_hashes(labels, salt=b"b" * 32, simulated=False))
    assert all(len(h) == 32 and "sub" not in h for h in first)


def test_who_is_simulated_has_another_name_than_a_patient_of_the_same_label():
    real, simulated = (patient_hashes(["sub-001"], salt=b"a" * 32, simulated=s) for s in (False, True))
    assert real != simulated


# --- the cost of a charge ------------------------------------------------------------------------------


def spent_by_definition(entries):
    """What each patient spent, from all entries, one by one."""
    spent = {}
    for entry in entries:
        for patient in entry.charge.patients:
            spent.setdefault(patient, []).append(entry.charge.mechanism)
    return spent


@settings(max_examples=20)  # each writes a ledger
@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from(PATIENTS), min_size=1),
            st.sampled_from([NO_NOISE, 1.5, 2.0, 7.0]),
            st.sampled_from("ab"),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_what_was_spent_is_kept_up_as_if_it_was_counted_anew(tmp_path_factory, charges):
    """Two processes write in turns; each of them knows what the other charged."""
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    with Ledger(path, KEY) as one, Ledger(path, KEY) as two:
        for number, (patients, noise, protocol, first) in enumerate(charges):
            about = {"noise": noise, "patients": tuple(sorted(patients)), "protocol": protocol * 64}
            pay(one if first else two, f"q{number}", cap=1e6, again=True, **about)
        for ledger in (one, two):
            expected = spent_by_definition(ledger.entries())
            found = ledger.spent()
            assert set(found) == set(expected)
            for patient, releases in expected.items():
                noisy = sorted(r.noise_multiplier for r in releases if r.noise_multiplier != NO_NOISE)
                assert [r.noise_multiplier for r in found[patient].noisy] == noisy
                assert found[patient].exact_releases == len(releases) - len(noisy)


def test_a_charge_reads_what_is_new_and_nothing_else(path, monkeypatch):
    from esn_client.gate import ledger_store as module

    read = []
    real = module._fits
    monkeypatch.setattr(module, "_fits", lambda *about: (read.append(about), real(*about))[1])
    with Ledger(path, KEY) as ledger, Ledger(path, KEY) as other:
        for number in range(30):
            pay(ledger, f"q{number}", cap=1e6)
        read.clear()
        pay(ledger, "last", cap=1e6)
        assert len(read) == 1
        read.clear()
        pay(other, "from another process", cap=1e6)
        assert len(read) == 31 + 1


def test_what_another_wrote_into_the_open_file_is_verified_before_it_counts(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO entries SELECT 2, body, hash, 'x', signature FROM entries")
        connection.close()
        with pytest.raises(LedgerError, match="the ledger's chain is broken at entry 2"):
            pay(ledger, "q2")


def test_a_file_that_was_replaced_while_it_was_open_is_seen(path):
    with Ledger(path, KEY) as ledger:
        pay(ledger)
        pay(ledger, "q2")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("DROP TRIGGER entries_remain")
        connection.execute("DROP TRIGGER sums_remain")
        connection.execute("DELETE FROM sums WHERE sequence = 2")
        connection.execute("DELETE FROM entries WHERE sequence = 2")
        connection.close()
        with pytest.raises(LedgerError, match=r"holds 1 entries where|is not the one that was verified"):
            pay(ledger, "q3")
