"""The two sides' logs of messages, compared: what one side says was sent, the other must know.

The centre logs a question before it sends it, and an answer once it is here. A
site logs a question once it is there, and an answer before it leaves. A crash, or a
link that fails, can therefore lose

* a question that only the centre logged: it never came, or the site was killed
  at once. The centre then has no answer to it;
* an answer that only the site logged: it never came, or the centre was killed
  at once. The centre asks again, and the site sends the same sum again.

Neither is a difference. What cannot come of a crash is: a question that came
without having been asked, an answer that came without having been sent, the
same question with other bytes, and an order that no clock could explain.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esn_core.errors import AuditError, ConfigError
from esn_core.identity.public_keys import identity_key
from esn_core.identity.signing import is_signed
from esn_core.system.chained_log import BrokenChainError, Line, hash_of, read_chain
from esn_server.enrolment.sites import enrolled
from esn_server.link.message_log import log_of

_GIVEN = ("sent", "revealed", "refused")


@dataclass(frozen=True)
class Comparison:
    """Two logs that agree.

    Attributes
    ----------
    site : str
    questions, answers : int
        That both sides know of.
    lost_questions, lost_answers : int
        That one side alone knows of, as a crash or a lost connection leaves them.

    """

    site: str
    questions: int
    answers: int
    lost_questions: int
    lost_answers: int


def compare_with_exports(centre: Path, site_logs: Sequence[Path]) -> list[Comparison]:
    """Compare the centre's log with the logs that sites exported.

    Raises
    ------
    AuditError
        A log is not whole, not signed by its site, or the two sides differ; the message names the first
        difference.
    ConfigError
        A file cannot be read, or its site is not enrolled here.

    """
    ours = _read(log_of(centre))
    lines = _chain(ours, log_of(centre))
    return [_compare_with_export(centre, lines, path) for path in site_logs]


def compare_site(site: str, centre: Sequence[Line], hospital: Sequence[Line]) -> Comparison:
    """Compare the lines of both sides about one site.

    Equal messages are counted: a centre that was started again asks with the
    same bytes, and is answered with the same.

    Raises
    ------
    AuditError
        At the first difference, in the order of the logs.

    """
    asked, answered = _select(centre, ("asked",), site), _select(centre, ("answered",), site)
    received, sent = _select(hospital, ("received",)), _select(hospital, _GIVEN)
    _check_known(site, "question", received, asked, "came to the site", "never asked by the centre")
    if answered and sent and answered[-1].facts["sha256"] not in {line.facts["sha256"] for line in sent}:
        first = _first_unknown(answered, sent)
        assert first is not None
        if all(line.facts["sha256"] not in {s.facts["sha256"] for s in sent} for line in answered[first:]):
            raise AuditError(
                f"{site}: its log ends before {_words(answered[first])}, which the centre has (line "
                f"{answered[first].number}): export it again, or its end was cut off"
            )
    _check_known(site, "answer", answered, sent, "came to the centre", "never sent, says the site's log")
    _check_order(site, (asked, answered), (received, sent))
    return Comparison(
        site=site,
        questions=len(received),
        answers=len(answered),
        lost_questions=len(asked) - len(received),
        lost_answers=len(sent) - len(answered),
    )


def _compare_with_export(centre: Path, lines: Sequence[Line], path: Path) -> Comparison:
    *body, last = _read(path) or [b""]
    try:
        trailer = json.loads(last)
        site, signature = str(trailer["site"]), bytes.fromhex(trailer["signature"])
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(
            f"{path}: does not end as 'esn-client audit-log export' ends: its last line is missing"
        ) from cause
    entries = {entry.site: entry for entry in enrolled(centre)}
    if site not in entries:
        raise ConfigError(f"{path}: is the log of {site}, which is not enrolled at this centre")
    head = hash_of(body[-1] if body else None)
    key = identity_key(entries[site].identity_key)
    if not is_signed(f"{site}\n{len(body)}\n{head}".encode(), signature, key, "audit-log"):
        raise AuditError(f"{path}: was changed after {site} exported it, or {site} did not sign it")
    return compare_site(site, lines, _chain(body, path))


def _check_known(
    site: str, what: str, seen: Sequence[Line], given: Sequence[Line], came: str, never: str
) -> None:
    """Refuse a message that one side has, and the other never let go."""
    first = _first_unknown(seen, given)
    if first is None:
        return
    line = seen[first]
    like = [
        other
        for other in given
        if what == "question"
        and (other.facts["question"], other.facts["attempt"])
        == (line.facts["question"], line.facts["attempt"])
    ]
    if like and line.facts["sha256"] not in {other.facts["sha256"] for other in given}:
        raise AuditError(
            f"{site}: {_words(line)} has sha256 {line.facts['sha256'][:16]} at the site (line {line.number}) "
            f"and {like[0].facts['sha256'][:16]} at the centre (line {like[0].number})"
        )
    raise AuditError(
        f"{site}: the {what} of {_words(line)}, sha256 {line.facts['sha256'][:16]}, {came} (line "
        f"{line.number}) and was {never}"
    )


def _first_unknown(seen: Sequence[Line], given: Sequence[Line]) -> int | None:
    """Return the place of the first message that was seen more often than it was given."""
    left = Counter(line.facts["sha256"] for line in given)
    for place, line in enumerate(seen):
        left[line.facts["sha256"]] -= 1
        if left[line.facts["sha256"]] < 0:
            return place
    return None


def _check_order(
    site: str, centre: tuple[Sequence[Line], Sequence[Line]], hospital: tuple[Sequence[Line], Sequence[Line]]
) -> None:
    """Refuse two orders that contradict each other.

    The centre asked a question after an answer had come to it; so the site must
    have been given that question after it sent that answer.
    """
    asked, answered = centre
    received, sent = hospital
    came_at, left_at = _places(received), _places(sent)
    latest: Line | None = None
    for line in sorted([*asked, *answered], key=lambda line: line.number):
        digest = line.facts["sha256"]
        if line.facts["event"] == "answered":
            # Of equal messages, the earliest: nothing is held against a site that could be otherwise.
            gone = left_at[digest].pop(0)
            latest = gone if latest is None or gone.number > latest.number else latest
        elif came_at[digest]:
            came = came_at[digest].pop(0)
            if latest is not None and came.number < latest.number:
                raise AuditError(
                    f"{site}: the centre asked {_words(line)} (line {line.number}) after it had the answer "
                    f"to {_words(latest)}; at the site it is the other way round (lines {came.number} and "
                    f"{latest.number})"
                )


def _places(lines: Sequence[Line]) -> dict[str, list[Line]]:
    places: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        places[line.facts["sha256"]].append(line)
    return places


def _select(lines: Sequence[Line], events: Sequence[str], site: str | None = None) -> list[Line]:
    return [
        line
        for line in lines
        if line.facts.get("event") in events and (site is None or line.facts.get("site") == site)
    ]


def _words(line: Line) -> str:
    attempt = f", attempt {line.facts['attempt']}" if "attempt" in line.facts else ""
    return f"{line.facts['question']}{attempt} at {line.facts['at']}"


def _read(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError as cause:
        raise ConfigError(f"{path}: there is no such file") from cause


def _chain(lines: Sequence[bytes], path: Path) -> tuple[Line, ...]:
    try:
        return read_chain(lines)
    except BrokenChainError as cause:
        raise AuditError(f"{path}: {cause}") from cause
