"""What must be right before a site joins a study: each point looked at, and its cure."""

import datetime
import os
import shutil
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

from esn_client.cohort.cohort import POOLED, Cohort
from esn_client.cohort.likeness import differences, scanned_in_ways, strata
from esn_client.cohort.members import kinds_of_scans, unlisted
from esn_client.cohort.participants import listed_labels, read_phenotypes
from esn_client.gate.audit_log import AuditLog, check_against_audit_log
from esn_client.gate.gate import check_budget, check_cohort
from esn_client.gate.policy import fewest
from esn_client.link.centre_probe import GOOD_CLOCK_OFFSET_S, LARGEST_CLOCK_OFFSET_S
from esn_client.site.centre_kit import load_kit
from esn_client.site.settings import SiteSettings, load_site
from esn_client.site.state import open_ledger, own_entry, read_salt
from esn_client.status.snapshot import Snapshot
from esn_core.errors import ConfigError, DataError, EsnError, LinkError, PrivacyBudgetError, ProtocolError
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import today_utc
from esn_core.statistics.matching import Standing

_A = TypeVar("_A")

_MIB = 2**20
_LEAST_DISK = 200 * _MIB
_GOOD_DISK = 5 * 1024 * _MIB
_LEAST_MEMORY = 512 * _MIB
_GOOD_MEMORY = 2 * 1024 * _MIB
_GOOD_DAYS = 30


class Doubt(Exception):  # noqa: N818 - it ends a look early and is no error
    """A point that does not stand in the way today; the text says what to do about it."""


@dataclass(frozen=True)
class Finding:
    """One point.

    Attributes
    ----------
    point : str
    verdict : {'ok', 'warn', 'FAIL'}
    text : str
        What was found; where it is not 'ok', what would be right.
    exit_status : int
        Of the error's class; 0 unless the verdict is 'FAIL'.

    """

    point: str
    verdict: Literal["ok", "warn", "FAIL"]
    text: str
    exit_status: int


def preflight(path: Path) -> list[Finding]:
    """Look at every point, however many fail; nothing is sent but one request for the centre's health.

    Parameters
    ----------
    path : Path
        The site's settings.

    """
    found: list[SiteSettings] = []

    def configuration(_: None) -> str:
        found.append(load_site(path))
        return f"{path} can be used"

    first = _look("configuration", configuration, None)
    if not found:
        return [first]
    snapshot = Snapshot(found[0], today=today_utc())
    return [first, *(_look(name, look, snapshot) for name, look in POINTS.items())]


def state(snapshot: Snapshot) -> str:
    """Look at the state directory: whole, and for its owner alone."""
    site = snapshot.settings
    own_entry(site)
    read_salt(site)
    if stat.S_IMODE(site.state.stat().st_mode) & 0o077:
        raise ConfigError(f"{site.state}: other accounts may enter it; run 'chmod 700 {site.state}'")
    return f"keys and salt are in {site.state}, for its owner alone"


def dataset(snapshot: Snapshot) -> str:
    """Look at the layout of the dataset."""
    from esn_client.imaging.bids.dataset import Dataset

    place = snapshot.settings.dataset
    if not any(place.glob("sub-*/**/*.nii*")) and any(
        snapshot.settings.derivatives.glob("sub-*/**/dwi/*_relmat.json")
    ):
        # Simulated at once, or prepared elsewhere: nothing has to be made from scans.
        return f"no scans in {place}; the connectomes are there already"
    visits = Dataset(place).visits(None, None)
    return f"{len(visits)} visits with scans in {place}"


def phenotypes(snapshot: Snapshot) -> str:
    """Look at participants.tsv, and at the columns that the approved protocols need."""
    if snapshot.settings.kit_path.exists():  # without one nothing is approved, as another point tells
        for approved in snapshot.current:
            read_phenotypes(snapshot.participants, approved.phenotypes)
    children = sum(p.group == "dre" for p in snapshot.participants)
    return f"{children} children with DRE and {len(snapshot.participants) - children} controls"


def prepared(snapshot: Snapshot) -> str:
    """Look for the connectomes of the approved protocols' recipes."""
    if not snapshot.current:
        raise Doubt("no protocol is approved that would say which connectomes are needed")
    said, few = [], []
    for protocol in snapshot.current:
        cohort = snapshot.cohort(protocol)
        stray = unlisted(
            listed_labels(snapshot.settings.dataset), snapshot.settings.derivatives, protocol.imaging
        )
        if stray:
            few.append(
                f"{protocol.study}: {_named(stray)} with a connectome and without a line in "
                "participants.tsv, whom nobody reads"
            )
        if protocol.voting:
            said.append(_controls_for_votes(snapshot, protocol, cohort))
            continue
        training, held_out = len(cohort.training.participants), len(cohort.held_out.participants)
        least = {split: fewest(snapshot.settings.limits, protocol, split) for split in CHILDREN}
        if not protocol.trains(snapshot.settings.site):
            if held_out < least["held-out"]:
                raise DataError(
                    f"{protocol.study}: {held_out} held-out children can take part; {least['held-out']} are "
                    f"needed: {_cure(cohort, protocol)}"
                )
            few.append(f"{protocol.study}: {held_out} held-out children take part; {POOLED}")
            continue
        if training < least["training"] or held_out < least["held-out"]:
            raise DataError(
                f"{protocol.study}: {training} training and {held_out} held-out children can take part; "
                f"{least['training']} and {least['held-out']} are needed: {_cure(cohort, protocol)}"
            )
        usable = training + held_out + cohort.controls
        said.append(
            f"{protocol.study}: {training} training and {held_out} held-out children, "
            f"{cohort.controls} controls"
        )
        if usable < len(snapshot.participants):
            few.append(
                f"{protocol.study}: {usable} of {len(snapshot.participants)} take part; "
                f"{_cure(cohort, protocol)}"
            )
    if few:
        raise Doubt("; ".join(few))
    return "; ".join(said)


_NAMED = 8


def _named(labels: Sequence[str]) -> str:
    """Count people and name the first of them, for whoever has to look."""
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{len(labels)} ({', '.join(labels[:_NAMED])}{more})"


_CURES: dict[Standing, str] = {
    "no-connectome": "without a connectome: run 'esn-client prepare', or leave them out",
    "poor-quality": "left out for their quality: look at the site's page",
    "no-score": "without a score: complete participants.tsv, or leave them out",
}


def _cure(cohort: Cohort, protocol: Protocol) -> str:
    """Say why people take no part, and what would change that; what would not is no cure."""
    others, lacking = cohort.people.others, cohort.lacking_tissue
    said = []
    for reason, words in _CURES.items():
        labels = [label for label in others.get(reason, ()) if label not in lacking]
        if labels:
            said.append(f"{_named(labels)} {words}")
    if lacking:
        allowed = protocol.cohort.missing_edges
        share = "all" if allowed == 1 else f"more than {allowed:g}"
        said.append(
            f"{_named(lacking)} left out, as tissue is missing for {share} of the candidate connections "
            "(cohort.missing_edges in the protocol): nothing can be done"
        )
    return "; ".join(said) or "the table lists no more; this hospital is too small for the protocol"


def _controls_for_votes(snapshot: Snapshot, protocol: Protocol, cohort: Cohort) -> str:
    """Say how many controls vote; `DataError` where there are too few."""
    least, controls = fewest(snapshot.settings.limits, protocol, "controls"), cohort.controls
    if controls < least:
        raise DataError(
            f"{protocol.study}: {controls} controls have connectomes, {least} are needed to vote on "
            f"candidates: {_cure(cohort, protocol)}"
        )
    return f"{protocol.study}: {controls} controls, who vote on candidates"


class _Judged(TypedDict):
    """Who is compared with whom."""

    children: Collection[str]
    controls: Collection[str]
    minimum_controls: int


def likeness(snapshot: Snapshot) -> str:
    """Compare the controls by whom children are judged with these children: age, sex, scanner."""
    judged = [
        p
        for p in snapshot.current
        if p.cohort.harmonisation == "site-controls" and not p.voting and p.trains(snapshot.settings.site)
    ]
    ages = _ages_not_said(snapshot)
    if not judged:
        raise Doubt(f"no protocol is approved that judges children by this site's controls{ages}")
    said, apart = [], []
    for protocol in judged:
        cohort = snapshot.cohort(protocol)
        who = _Judged(
            children={*cohort.training.participants, *cohort.held_out.participants},
            controls=cohort.people.others.get("control", ()),
            minimum_controls=protocol.cohort.minimum_controls,
        )
        said += [f"{protocol.study}: {words}" for words in differences(snapshot.participants, **who)]
        apart += [f"{protocol.study}: {words}" for words in strata(snapshot.participants, **who)]
        scans = kinds_of_scans(
            snapshot.settings.derivatives, protocol.imaging, {*who["children"], *who["controls"]}
        )
        ways = scanned_in_ways(snapshot.participants, scans, **who)
        said += [f"{protocol.study}: {words}" for words in ways]
    if said:
        raise Doubt(
            f"{'; '.join(said)}. What differs beside the illness may be taken for it: prepare more like them"
            f"{ages}"
        )
    alike = "children and controls are alike in age and sex"
    if apart:
        text = f"{alike}; each is judged by the controls of the own scanner or session: {'; '.join(apart)}"
    else:
        text = f"{alike}, and were scanned alike as far as is known"
    if ages:
        raise Doubt(f"{text}{ages}")
    return text


def _ages_not_said(snapshot: Snapshot) -> str:
    """Say which studies judge by people of whom nobody can tell here how old they were."""
    studies = [p for p in snapshot.current if not p.voting]
    by_template = [p.study for p in studies if p.cohort.harmonisation != "site-controls"]
    pooled = [p.study for p in studies if snapshot.settings.site in p.cohort.without_controls]
    return "".join(
        f"; {', '.join(names)}: children are judged by {whom}; ask the centre whether they are those of "
        "these children"
        for names, whom in (
            (by_template, "a template that does not say its ages"),
            (pooled, "pooled controls of other hospitals, which do not say their ages"),
        )
        if names
    )


def same_cohort(snapshot: Snapshot) -> str:
    """Compare today's cohort with the one of each study that is under way, and its scans with all charges."""
    if not snapshot.current:
        raise Doubt("no protocol is approved that would have a cohort")
    with open_ledger(snapshot.settings) as opened:
        for protocol in snapshot.current:
            people = snapshot.cohort(protocol).enrolled
            check_cohort(opened, protocol, salt=read_salt(snapshot.settings), cohort=people)
        begun = [p.study for p in snapshot.current if opened.begun(p.sha256)]
    if begun:
        return f"the cohort of {', '.join(begun)} is the one of the roll call"
    return "no study is under way, and each scan has one label"


def disk(snapshot: Snapshot) -> str:
    """Look at the free space of state and derivatives."""
    free = {
        place: shutil.disk_usage(_existing(place)).free
        for place in (snapshot.settings.state, snapshot.settings.derivatives)
    }
    place, least = min(free.items(), key=lambda item: item[1])
    text = f"{least / 2**30:.1f} GiB are free at {place}"
    if least < _LEAST_DISK:
        raise ConfigError(f"{text}; the ledger needs {_LEAST_DISK // _MIB} MiB or more: make room")
    if least < _GOOD_DISK:
        raise Doubt(f"{text}; 'esn-client prepare' needs up to {_GOOD_DISK // 2**30} GiB")
    return text


def memory(_: Snapshot) -> str:
    """Look at the memory that is free now."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # Linux counts what it would give up for us
        (line,) = [
            x for x in meminfo.read_text(encoding="ascii").splitlines() if x.startswith("MemAvailable")
        ]
        free = int(line.split()[1]) * 1024
    text = f"{free / 2**30:.1f} GiB are free"
    if free < _LEAST_MEMORY:
        raise ConfigError(f"{text}; {_LEAST_MEMORY // _MIB} MiB are needed to answer: end other programs")
    if free < _GOOD_MEMORY:
        raise Doubt(f"{text}; 'esn-client prepare' takes up to {_GOOD_MEMORY // 2**30} GiB for each subject")
    return text


def processor(snapshot: Snapshot) -> str:
    """Look at the device that the settings ask for."""
    from esn_client.answers.training import device_for

    device = device_for(snapshot.settings.compute.device)
    return f"{device}, as compute.device asks; torch {version('torch')}"


def enrolment(snapshot: Snapshot) -> str:
    """Compare the site's keys with those that the centre enrolled."""
    kit, own = load_kit(snapshot.settings), own_entry(snapshot.settings)
    if kit.entry != own:
        raise ProtocolError(
            f"the centre enrolled the keys {kit.entry.fingerprint}, this site has {own.fingerprint}; send "
            f"the centre {snapshot.settings.enrolment_path}, and take its new kit in"
        )
    return f"the centre's kit is for these keys, {own.fingerprint}"


def centre(snapshot: Snapshot) -> str:
    """Look whether the centre answers."""
    seen = snapshot.centre
    way = f"through the proxy {seen.proxy}" if seen.proxy else "directly"
    return f"{seen.address} answers in {seen.seconds:.2f} s, {way}"


def certificate(snapshot: Snapshot) -> str:
    """Look at the centre's certificate: whose it is was shown by the connection itself."""
    seen = snapshot.centre
    left = (seen.certificate_ends - datetime.datetime.now(datetime.UTC)).days
    if seen.inspected:
        raise Doubt(_inspected(seen.issuer))
    text = f"it is from the kit's authority, {seen.issuer}, and for this address, for {left} more days"
    if left < _GOOD_DAYS:
        raise Doubt(f"{text}; ask the centre to run 'esn-server renew'")
    return text


def _inspected(issuer: str) -> str:
    """Say what a proxy that inspects TLS takes from a site, and what it cannot take."""
    return (
        f"it is of '{issuer}', whom the settings name (centre.extra_ca), and not from the kit's authority: a "
        "proxy reads what passes, and can stop it. These pins keep holding: questions and protocols are "
        "signed by the centre's key in the kit, answers by this site's; a site's sums are under masks or "
        "carry all of their noise. What no longer holds: that nobody on the way reads questions, the "
        "cohort's band, and the sums that sites are shown. Better: have the centre's address excepted"
    )


def clock(snapshot: Snapshot) -> str:
    """Compare this machine's clock with the centre's."""
    seen = snapshot.centre
    if seen.clock_offset_s is None:
        raise Doubt("the centre told no time; compare the clocks yourself")
    off = f"{seen.clock_off_s:.0f} s {seen.clock_side} the centre's"
    if seen.clock_off_s > LARGEST_CLOCK_OFFSET_S:
        raise LinkError(
            f"this machine's clock is {off}; they must agree within {LARGEST_CLOCK_OFFSET_S:.0f} s: set the "
            "clock (NTP)"
        )
    if seen.clock_off_s > GOOD_CLOCK_OFFSET_S:
        raise Doubt(f"this machine's clock is {off}; set the clock (NTP)")
    return "this machine's clock and the centre's agree" if seen.clock_off_s == 0 else off


def protocol(snapshot: Snapshot) -> str:
    """Look for an approved protocol that counts today."""
    if snapshot.unreadable:
        raise ProtocolError("; ".join(snapshot.unreadable))
    done = [p.study for p in snapshot.answered]
    ended = f"; answered to the end: {', '.join(done)} ('esn-client withdraw' puts it away)" if done else ""
    others = [p.study for p in snapshot.elsewhere if p.study not in done]
    if others:
        ended += f"; for another dataset than this one, a rehearsal's or the patients': {', '.join(others)}"
    if not snapshot.current:
        expired = [p.study for p in snapshot.protocols if p.study not in (*done, *others)]
        ended += f"; expired: {', '.join(expired)}" if expired else ""
        raise Doubt(f"no protocol is approved{ended}; run 'esn-client review' and 'approve'")
    return ", ".join(f"{p.study} until {p.expires}" for p in snapshot.current) + ended


def ledger(snapshot: Snapshot) -> str:
    """Walk the ledger's chain, and compare its end with the audit log."""
    with open_ledger(snapshot.settings) as opened:
        check_against_audit_log(opened, AuditLog(snapshot.settings.audit_path, site=snapshot.settings.site))
        return f"{opened.mark.entries} entries, all signed and in their places"


def budget(snapshot: Snapshot) -> str:
    """Look whether every approved protocol can be answered to its end; nothing is spent."""
    if not snapshot.current:
        raise Doubt("no protocol is approved that would spend any")
    for approved in snapshot.current:
        require_budget(snapshot, approved)
    return f"all of {', '.join(p.study for p in snapshot.current)} fits under the cap"


def require_budget(snapshot: Snapshot, protocol: Protocol) -> None:
    """Refuse a protocol that today's cohort could not pay for to its end; nothing is spent.

    Raises
    ------
    PrivacyBudgetError
        The site's cap, or another protocol's exact sums, by what the ledger holds.

    """
    cohort = snapshot.cohort(protocol)
    with open_ledger(snapshot.settings) as opened:
        check_budget(
            opened,
            protocol,
            limits=snapshot.settings.limits,
            salt=read_salt(snapshot.settings),
            run=None,
            children={"training": cohort.training.participants, "held-out": cohort.held_out.participants},
            others=[label for labels in cohort.people.others.values() for label in labels],
        )


def ledger_in_words(settings: SiteSettings, protocol: Protocol) -> str:
    """Say what the ledger has against a protocol that is not approved yet, for whoever reviews it."""
    try:
        require_budget(Snapshot(settings, today=today_utc()), protocol)
    except PrivacyBudgetError as error:
        found = f"- {error}"
    except EsnError as error:
        found = f"- not known, as the cohort cannot be read: {error}"
    else:
        found = "All of it fits under the cap, with what today's children have spent before."
    return f"\nWhat this site's ledger says to it\n  {found}"


POINTS: dict[str, Callable[[Snapshot], str]] = {
    "state": state,
    "dataset": dataset,
    "phenotypes": phenotypes,
    "disk": disk,
    "memory": memory,
    "processor": processor,
    "enrolment": enrolment,
    "centre": centre,
    "certificate": certificate,
    "clock": clock,
    "protocol": protocol,
    "prepared": prepared,
    "controls": likeness,
    "people": same_cohort,
    "ledger": ledger,
    "budget": budget,
}
"""Every point after the configuration, in the order in which they are told."""


def _look(point: str, look: Callable[[_A], str], snapshot: _A) -> Finding:
    try:
        return Finding(point, "ok", look(snapshot), 0)
    except Doubt as doubt:
        return Finding(point, "warn", str(doubt), 0)
    except EsnError as error:
        return Finding(point, "FAIL", str(error), error.exit_status)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return Finding(point, "FAIL", f"{place}{error.strerror}", EsnError.exit_status)


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.absolute().parents) if path.exists())
