"""A run is answered with the cohort of its roll call, and a scan has one label; the site alone learns why."""

from dataclasses import replace

import numpy as np
import pytest

from esn_client.answers.study import Study
from esn_client.gate.charge import Charge
from esn_client.gate.frozen_cohort import canonical_line, keyed_scans
from esn_client.gate.patients import patient_hashes, salt_fingerprint
from esn_core.messages.answer import Answer
from esn_core.messages.question import Question, QuestionId
from esn_core.severity_network.centring import numbers_of

SALT = b"s" * 32


class Site:
    """One hospital of a consortium, and the ways in which its cohort may change."""

    given_numbers = None

    def __init__(self, consortium):
        self.consortium = consortium
        self.hospital = consortium.link.hospitals[1]
        self.ledger = consortium.ledgers["north"]
        self.device = self.hospital._load(consortium.protocol).device
        cohort = consortium.cohorts["north"]
        everybody = [p.label for p in cohort.enrolled]
        self.cohort = replace(
            cohort,
            lines={label: canonical_line({"age": "7"}) for label in everybody},
            scans={label: (f"scan of {label}",) for label in everybody},
        )
        self.restart(self.cohort)

    def restart(self, cohort):
        """Read another cohort, as a worker does that was started again."""
        self.hospital._studies.clear()
        self.hospital._load = lambda protocol: Study("north", protocol, cohort, self.device)

    def ask(self, phase, run="r1", **arrays):
        """Ask one question; return the class of the refusal, or None."""
        protocol = self.consortium.protocol
        number = QuestionId(protocol_sha256=protocol.sha256, run=run, phase=phase, round=0, attempt=0)
        sites = () if phase == "roll-call" else protocol.sites
        known = self.hospital._transcripts
        self.hospital._transcripts = self.given_numbers(**arrays) if arrays else known
        body = self.hospital.reply(Question(number, sites).to_bytes(self.consortium.link.centre_key))
        self.hospital._transcripts = known
        self.last = body
        refusal = Answer.from_bytes(body, self.ledger._store._key.public_key()).refusal
        return refusal and refusal.error


@pytest.fixture(autouse=True)
def _given(given_numbers, monkeypatch):
    monkeypatch.setattr(Site, "given_numbers", given_numbers)


@pytest.fixture
def site(make_consortium):
    """A hospital that was asked nothing yet."""
    return Site(make_consortium(trust="secure-sum", training={"rounds": 1}))


def without(split, count):
    """Leave the last children of a split out."""
    names = ("participants", "scores", "gase", "age_years", "sex")
    return replace(split, phenotypes={}, **{name: getattr(split, name)[:-count] for name in names})


def added(cohort):
    more = replace(cohort.held_out, participants=(*cohort.held_out.participants[:-1], "sub-999"))
    return replace(cohort, held_out=more)


CHANGES = {
    "sub-999 was added; 1 of those who were there is missing": added,
    "2 of those who were there are missing": lambda c: replace(c, training=without(c.training, 2)),
    "sub-003: its line of the table has changed": lambda c: replace(c, lines=c.lines | {"sub-003": "else"}),
    "sub-003: its scans have changed": lambda c: replace(c, scans=c.scans | {"sub-003": ("later",)}),
    "sub-101: counted as held-out, now as training": lambda c: replace(
        c,
        training=replace(c.training, participants=(*c.training.participants[:-1], "sub-101")),
        held_out=replace(c.held_out, participants=("sub-016", *c.held_out.participants[1:])),
    ),
}


@pytest.mark.parametrize("words", CHANGES)
def test_another_cohort_than_that_of_the_roll_call_is_refused_with_what_changed(site, caplog, words):
    assert site.ask("roll-call") is None
    site.restart(CHANGES[words](site.cohort))
    assert site.ask("centre") == "GateError"
    assert words in caplog.text
    assert b"sub-" not in site.last
    assert site.ledger.entries() == []
    site.restart(site.cohort)
    assert site.ask("centre") is None
    site.restart(CHANGES[words](site.cohort))
    assert site.ask("calibration") == "GateError"
    assert len(site.ledger.entries()) == 1


def test_a_centre_that_leaves_out_the_roll_call_meets_one_cohort_all_the_same(site):
    assert site.ask("centre") is None
    site.restart(CHANGES["sub-003: its scans have changed"](site.cohort))
    assert site.ask("calibration") == "GateError"


def test_until_something_is_answered_a_new_run_may_have_a_new_cohort_and_each_run_is_one_entry(site):
    assert [site.ask("roll-call"), site.ask("roll-call")] == [None, None]
    assert site.ledger.mark.entries == 1
    site.restart(without_a_child := replace(site.cohort, training=without(site.cohort.training, 1)))
    assert site.ask("roll-call") == "GateError"
    assert site.ask("roll-call", run="r2") is None
    # The number of entries leaves: it may not tell whether anybody came or went.
    assert site.ledger.mark.entries == 2
    site.restart(without_a_child)
    assert site.ask("centre", run="r2") is None


def test_two_labels_of_one_scan_are_refused_by_name(site, caplog):
    site.restart(replace(site.cohort, scans=site.cohort.scans | {"sub-004": site.cohort.scans["sub-003"]}))
    assert site.ask("roll-call") == "GateError"
    assert "sub-003 and sub-004 have the same scan" in caplog.text


def charge(ledger, protocol_sha256, patients):
    about = Charge(
        question="q1",
        protocol_sha256=protocol_sha256,
        run="r1",
        release="centre",
        trust="secure-sum",
        noise_multiplier=90.0,
        noise_share=0.5,
        l2_bound=1.0,
        dimension=2,
        patients=patients,
        salt_sha256=salt_fingerprint(SALT),
        software="0.1",
    )
    total = np.array([1, 2], dtype=np.int64)
    ledger.charge(about, total, content_sha256="c" * 64, epsilon_cap=50.0, delta=1e-3)


def relabelled(cohort):
    names = tuple(f"sub-9{label[4:]}" for label in cohort.training.participants)
    scans = {new: cohort.scans[old] for old, new in zip(cohort.training.participants, names, strict=True)}
    return replace(cohort, training=replace(cohort.training, participants=names), scans=cohort.scans | scans)


def test_a_scan_that_was_charged_is_recognised_under_another_label(site, caplog):
    site.ask("roll-call")
    site.restart(relabelled(site.cohort))
    # Nothing was charged yet: whoever finds a wrong label in time corrects it.
    assert site.ask("roll-call", run="r2") is None
    names = site.cohort.training.participants
    charge(site.ledger, "b" * 64, patient_hashes(names, salt=SALT, simulated=True))
    assert site.ask("roll-call", run="r3") == "GateError"
    assert (
        "charged under other labels than sub-9001, sub-9002, sub-9003, sub-9004, sub-9005, and 11 more"
        in caplog.text
    )
    assert b"sub-" not in site.last


@pytest.mark.parametrize(("simulated", "changed"), [(False, False), (True, False), (False, True)])
def test_a_study_that_an_earlier_release_began_goes_on_with_whom_it_charged(site, caplog, simulated, changed):
    names = site.cohort.training.participants
    # Earlier releases named all people as patients, and simulated ones are named apart since.
    patients = patient_hashes(names, salt=SALT, simulated=simulated)
    charge(site.ledger, site.consortium.protocol.sha256, patients)
    if changed:
        site.restart(replace(site.cohort, training=without(site.cohort.training, 1)))
    refused = site.ask("calibration")
    assert refused == ("GateError" if changed else "StudyError")  # no sum was released before it
    assert ("its release centre was of 16 people" in caplog.text) == changed


# --- consent withdrawn ---------------------------------------------------------------------------------


def withdraw(site, label, scans=()):
    (name,) = patient_hashes([label], salt=SALT, simulated=True)
    keyed = keyed_scans(scans, salt=SALT, simulated=True)
    site.ledger.withdraw(name, scans=keyed, salt_sha256=salt_fingerprint(SALT))


def last_out(cohort):
    return replace(cohort, training=without(cohort.training, 1))


def read_at_each_question(site, cohort):
    """Let the hospital read a cohort when it thinks that it has to."""
    site.hospital._load = lambda protocol: Study("north", protocol, cohort, site.device)


def test_a_study_goes_on_without_whoever_withdrew_and_no_sum_holds_the_child_again(site):
    assert [site.ask("roll-call"), site.ask("centre")] == [None, None]
    withdraw(site, "sub-016")
    # Whatever is read: the ledger charges nobody who withdrew.
    severity = np.zeros(numbers_of(site.consortium.protocol.severity_network.centre))
    assert site.ask("association", mean_severity=severity) == "GateError"
    site.hospital._studies.clear()
    read_at_each_question(site, last_out(site.cohort))
    assert site.ask("centre") is None  # the bytes of before, at no further cost
    site.consortium.study()
    charged = {entry.charge.release: len(entry.charge.patients) for entry in site.ledger.entries()}
    training = dict.fromkeys(("association", "gradient", "calibration"), 15)
    assert charged == {"centre": 16, **training, "evaluation": 8}


def test_a_cohort_is_read_again_from_the_next_question_on(site):
    site.ask("roll-call")
    withdraw(site, "sub-016")
    read_at_each_question(site, last_out(site.cohort))
    assert site.ask("centre") is None
    assert len(site.ledger.entries()[0].charge.patients) == 15


def test_a_study_stops_where_its_protocol_says_so(make_consortium, caplog):
    site = Site(make_consortium(trust="secure-sum", training={"rounds": 1}, after_withdrawal="stop"))
    site.ask("roll-call")
    withdraw(site, "sub-015")
    read_at_each_question(site, fifteenth_out := without_label(site.cohort, "sub-015"))
    assert site.ask("centre") is None  # nothing had left: the cohort is one smaller
    withdraw(site, "sub-016")
    read_at_each_question(site, without_label(fifteenth_out, "sub-016"))
    assert site.ask("centre") == "GateError"
    assert "cohort.after_withdrawal = 'stop'" in caplog.text


def without_label(cohort, label):
    assert cohort.training.participants[-1] == label or "sub-016" in cohort.training.participants
    keep = [i for i, p in enumerate(cohort.training.participants) if p != label]
    names = ("scores", "gase", "age_years", "sex")
    chosen = {name: getattr(cohort.training, name)[keep] for name in names}
    people = tuple(p for p in cohort.training.participants if p != label)
    return replace(cohort, training=replace(cohort.training, participants=people, phenotypes={}, **chosen))


def test_nobody_is_left_out_of_sums_without_noise_once_one_has_left(make_consortium, caplog):
    site = Site(make_consortium(exact=True, trust="secure-sum", training={"rounds": 1}))
    assert [site.ask("roll-call"), site.ask("centre")] == [None, None]
    withdraw(site, "sub-016")
    read_at_each_question(site, last_out(site.cohort))
    assert site.ask("calibration") == "GateError"
    assert "would be of that person alone" in caplog.text


def test_whoever_withdrew_is_known_under_another_label(site, caplog):
    withdraw(site, "sub-900", scans=["scan of sub-003"])
    assert site.ask("roll-call") == "GateError"
    assert "than sub-003, or consent to them was withdrawn" in caplog.text
