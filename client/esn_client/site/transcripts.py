"""What a site knows of a study's released sums: it has looked at every signature, and adds them up itself.

The sums are public to all who take part. They are kept, as a site is asked for months and starts anew in
between, and each is held to a code that the site alone can make: numbers that were changed on disk steer
nothing.
"""

import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from esn_core.errors import ConfigError, ProtocolError
from esn_core.messages.question import Question
from esn_core.messages.transcript_mark import TranscriptMark
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.arguments import Arguments
from esn_core.transcript.course import Course
from esn_core.transcript.relay import first_sum, largest_sum, read_sum
from esn_core.transcript.transcript import ReleasedSum, Transcript

_PURPOSE = b"the transcripts that this site has verified"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sums (
    protocol_sha256 TEXT NOT NULL,
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    phase TEXT NOT NULL,
    round INTEGER NOT NULL,
    sites TEXT NOT NULL,
    total BLOB NOT NULL,
    received INTEGER NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (protocol_sha256, run, number)
);
"""


class Transcripts:
    """The transcripts of all runs that a site was asked in.

    Parameters
    ----------
    path : Path
        SQLite file, made with the first sum.
    salt : bytes
        The site's secret, from which the codes are made.

    """

    def __init__(self, path: Path, *, salt: bytes) -> None:
        self._path = path
        self._key = hmac.new(salt, _PURPOSE, hashlib.sha256).digest()
        self._open: dict[tuple[str, str], SiteTranscript] = {}

    def of(self, protocol: Protocol, run: str) -> "SiteTranscript":
        """Return the transcript of a run.

        Raises
        ------
        ConfigError
            It is not the one that this site wrote.

        """
        key = (protocol.sha256, run)
        if key not in self._open:
            self._open[key] = SiteTranscript(Transcript(protocol, run), self._path, self._key)
        return self._open[key]


class SiteTranscript:
    """The transcript of one run at a site.

    Parameters
    ----------
    transcript : Transcript
        Without a sum yet.
    path : Path
    key : bytes
        Of the codes.

    """

    def __init__(self, transcript: Transcript, path: Path, key: bytes) -> None:
        self._transcript, self._path, self._key = transcript, path, key
        self._kept, self._pending = 0, b""
        self._largest = largest_sum(transcript.protocol)
        self._read()

    @property
    def received(self) -> int:
        """How many bytes of the transcript are here."""
        return self._kept + len(self._pending)

    @property
    def course(self) -> Course:
        """What follows from the sums that are here."""
        return self._transcript.course

    def take(self, question: Question) -> bool:
        """Take in what a question brings of the transcript; tell whether all is here that it follows from.

        Raises
        ------
        ProtocolError
            What was relayed is none of this run's sums (`esn_core.transcript.relay.read_sum`); or the
            question follows from other sums, or from fewer than were released.

        """
        if question.offset <= self.received:
            self._pending += question.relayed[self.received - question.offset :]
        try:
            while (found := first_sum(self._pending, largest=self._largest)) is not None:
                messages, length = found
                self._keep(read_sum(messages, self._transcript), self._kept + length)
                self._kept, self._pending = self._kept + length, self._pending[length:]
        except ProtocolError:
            self._pending = b""
            raise
        here, after = self._transcript.mark, question.after
        known = self._transcript.mark_at(after.sums)
        if known is not None and known != after:
            raise ProtocolError("the question follows from other sums than those that were relayed here")
        if not question.more and after.sums < here.sums:
            raise ProtocolError(
                f"the question follows from {after.sums} sums; {here.sums} were released before it"
            )
        return known is not None

    def arguments(self, phase: PhaseName, round_: int) -> Arguments:
        """Return the numbers that a question is asked with; see `Transcript.arguments`."""
        return self._transcript.arguments(phase, round_)

    def _keep(self, released: ReleasedSum, received: int) -> None:
        """Add a sum to the transcript and to the file."""
        transcript = self._transcript
        mark = transcript.append(released)
        total = np.ascontiguousarray(released.total, dtype="<f8").tobytes()
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
                connection.executescript(_SCHEMA)
                connection.execute(
                    "INSERT OR REPLACE INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        transcript.protocol.sha256,
                        transcript.run,
                        mark.sums,
                        released.phase,
                        released.round,
                        json.dumps(released.sites),
                        total,
                        received,
                        self._code(mark, received),
                    ),
                )
        except sqlite3.Error as cause:
            self._read()
            raise ConfigError(f"{self._path}: a released sum cannot be kept: {cause}") from cause

    def _read(self) -> None:
        """Begin with what was kept."""
        transcript = Transcript(self._transcript.protocol, self._transcript.run)
        self._transcript, self._kept, self._pending = transcript, 0, b""
        if not self._path.exists():
            return
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as connection:
                rows = connection.execute(
                    "SELECT number, phase, round, sites, total, received, code FROM sums "
                    "WHERE protocol_sha256 = ? AND run = ? ORDER BY number",
                    (transcript.protocol.sha256, transcript.run),
                ).fetchall()
        except sqlite3.Error as cause:
            raise ConfigError(f"{self._path}: cannot be read: {cause}") from cause
        for number, phase, round_, sites, total, received, code in rows:
            mark: TranscriptMark | None
            try:
                numbers = np.frombuffer(total, dtype="<f8").copy()
                mark = transcript.append(ReleasedSum(phase, round_, tuple(json.loads(sites)), numbers))
            except (ProtocolError, ValueError):
                mark = None
            if (
                mark is None
                or mark.sums != number
                or not hmac.compare_digest(code, self._code(mark, received))
            ):
                raise ConfigError(
                    f"{self._path}: sum {number} of run {transcript.run} is not the one that this site "
                    "verified; remove the file, and the centre sends all sums again"
                )
            self._kept = received

    def _code(self, mark: TranscriptMark, received: int) -> str:
        about = f"{self._transcript.protocol.sha256}\n{self._transcript.run}\n{mark.head}\n{received}"
        return hmac.new(self._key, about.encode(), hashlib.sha256).hexdigest()
