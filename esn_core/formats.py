"""The versions of every format that is kept or sent, and when each of them is raised.

A version is the number of a format, not of this software: a release that
writes what the one before wrote leaves every version as it is. A reader reads
the versions from `oldest` to `version`, and refuses a newer one in words,
before it looks at anything else: a part that it does not know could change
what the others mean. Each reader raises an error of its own class;
`fault_in` gives the words.

Where a file was written before its format had a version, a missing number
stands for 1.

For each format, tests/golden/formats holds a file of every version that is
still read.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One format of a file or message.

    Attributes
    ----------
    name : str
        As a refusal names it.
    version : int
        Which this software writes.
    oldest : int
        The oldest that it still reads.
    raised_when : str
        The rule by which the version is raised.

    """

    name: str
    version: int
    oldest: int
    raised_when: str

    def fault_in(self, version: object) -> str | None:
        """Say why a version cannot be read; None where it can.

        Parameters
        ----------
        version : object
            As it was found, and possibly no number at all; None where the file names none.

        Returns
        -------
        str or None
            The rest of a sentence about the file.

        """
        found = 1 if version is None else version
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            return f"its format must be a whole number from 1 on, not {found!r:.40}"
        if found > self.version:
            return (
                f"written by a newer esn-federated: {self.name} format {found}, this one reads {self.version}"
            )
        if found < self.oldest:
            return (
                f"written by an older esn-federated: {self.name} format {found}, this one reads "
                f"{self.oldest} to {self.version}"
            )
        return None


def version_in(content: object) -> int | None:
    """Return the format that a table, or the text of a JSON object, says it has.

    Parameters
    ----------
    content : object
        A mapping, or JSON as bytes or str.

    Returns
    -------
    int or None
        None where it says none, or nothing that could be a version: whoever reads the whole complains.

    """
    try:
        table = json.loads(content) if isinstance(content, bytes | str) else content
    except (ValueError, RecursionError):
        return None
    found = table.get("format") if isinstance(table, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


PROTOCOL = Format(
    "protocol",
    version=2,
    oldest=1,
    raised_when=(
        "a setting is added, removed or means something else. The number is part of what is signed, so a "
        "protocol keeps its hash only while its format stays; see esn_core/protocol/newer_settings.py. "
        "2: what came after the first releases; it has not been released yet, and may still be added to"
    ),
)

CANDIDATES = Format(
    "candidates",
    version=1,
    oldest=1,
    raised_when=(
        "a field of a list of candidates is removed, renamed or means something else: a protocol takes all "
        "of it over. A field that may be absent can be added: an older reader refuses it by name"
    ),
)

MESSAGE = Format(
    "message",
    version=2,
    oldest=2,
    raised_when=(
        "a question's or an answer's header gains, loses or reinterprets a field, its arrays change their "
        "order, type or scale, or the numbers of a question are computed otherwise from the sums before "
        "(`esn_core.transcript`). Both sides of a study must then be updated together. 2: questions carry "
        "the transcript in the place of numbers"
    ),
)

LEDGER = Format(
    "ledger",
    version=3,
    oldest=1,
    raised_when=(
        "an entry's facts, the chain's hash or the tables change. Old entries are never rewritten: a file "
        "holds entries of every version since it was begun, and has the version of its newest. 2: charges "
        "name no sampling rate. 3: entries that are no charges and no reveals, beginning with the cohort of "
        "each run"
    ),
)

DERIVATIVE = Format(
    "derivative",
    version=3,
    oldest=1,
    raised_when=(
        "the record of a connectome changes a field that this software reads back, or the matrices' files "
        "change; the versions of steps govern the numbers in them. 2: versions of steps in place of the "
        "digest of the code. 3: the record names the regions without tissue, whose edges are NaN"
    ),
)

KIT = Format(
    "kit",
    version=1,
    oldest=1,
    raised_when="a field of what the centre sends to a site changes: the fingerprint is taken of all of it",
)

RESULT = Format(
    "result",
    version=1,
    oldest=1,
    raised_when=(
        "a field of result.json is removed, renamed or means something else. A field that may be absent can "
        "be added without"
    ),
)

RUN = Format(
    "run",
    version=2,
    oldest=2,
    raised_when=(
        "the tables of a run's store change, or what stands in them. 2: a step holds the signed answers that "
        "its sum is of; a run without them cannot go on, as no site could check it"
    ),
)

PROGRESS = Format(
    "progress",
    version=1,
    oldest=1,
    raised_when="any field of progress.json changes: the file is read whole or not at all",
)

MODEL = Format(
    "released model",
    version=1,
    oldest=1,
    raised_when=(
        "a field of model.json, a tensor of model.safetensors or the set of parts changes, the protocol's "
        "own inputs apart: the sites signed all of it"
    ),
)

FORMATS = (PROTOCOL, CANDIDATES, MESSAGE, LEDGER, DERIVATIVE, KIT, RESULT, RUN, PROGRESS, MODEL)
