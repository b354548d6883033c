"""The site's table of participants: who they are, as participants.tsv says.

Every field is text first; nothing is taken for a number, or for missing, that
the table's own rules or the protocol's data dictionary do not say is one.
Who belongs to a third group, and whose age or sex is not known, takes no part in
any study: the site's log says how many.
pandas is imported where a table is read: nothing else of a site needs it.
"""

import codecs
import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from esn_client.imaging.bids.simulated_mark import is_simulated
from esn_core.errors import DataError
from esn_core.gase import GASE_LEVELS
from esn_core.protocol.data_dictionary import MISSING, Phenotype, Phenotypes

if TYPE_CHECKING:
    import pandas as pd

_AGE = Phenotype(kind="number", unit="years", range=(0, 120))
_SEX = {"F": 0.0, "M": 1.0}
_GROUPS = ("dre", "control")
_GASE = {MISSING: None} | {str(level): level for level in GASE_LEVELS}
_LABEL = r"sub-[A-Za-z0-9]+"
_COLUMNS = ("participant_id", "age", "sex", "group", "gase")
STUDY_COLUMNS = _COLUMNS[1:]
"""What every study reads of a participant."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Participant:
    """One line of participants.tsv.

    Attributes
    ----------
    label : str
        BIDS participant label with its prefix, such as 'sub-012'.
    age_years : float
    sex : float
        0 female, 1 male.
    group : {'dre', 'control'}
    gase : int or None
        1 to 7; None for controls, and for children whose score is not known.

    """

    label: str
    age_years: float
    sex: float
    group: str
    gase: int | None
    row: Mapping[str, str] = field(default_factory=dict)
    """All fields of the line, by column, as they stand there."""
    simulated: bool = False
    """Whether the dataset says that its people do not exist."""


def read_participants(dataset: Path) -> tuple[Participant, ...]:
    """Read and check participants.tsv.

    Returns
    -------
    tuple of Participant
        The children with epilepsy and the controls whose age and sex are known, in the order of the table.

    Raises
    ------
    DataError
        The table is missing, lists nobody who could take part, or has faults; the message lists all of them,
        with their lines.

    """
    path = dataset / "participants.tsv"
    table, ragged = _read_table(path)
    if table.empty and not ragged:
        raise DataError(f"{path}: lists no participant")
    said = [*ragged.items(), *_faults(table)]
    faults = [f"line {line}: {words}" for line, words in sorted(said, key=lambda fault: fault[0])]
    labels = table["participant_id"]
    faults += [f"{label} is listed twice" for label in sorted(set(labels[labels.duplicated()]))]
    if faults:
        raise DataError(f"{path}: {'; '.join(faults)}")
    other = _of_another_group(table)
    unknown = ~other & ((table["age"] == MISSING) | (table["sex"] == MISSING))
    for count, words in ((other.sum(), "belong to another group"), (unknown.sum(), "lack age or sex")):
        if count:
            _log.warning("participants.tsv: %d participants %s and are left out", count, words)
    if (other | unknown).all():
        raise DataError(f"{path}: lists no child with epilepsy and no control whose age and sex are known")
    lines = table[~(other | unknown)].to_numpy(dtype=object).tolist()
    simulated = is_simulated(dataset)
    rows = (dict(zip(table.columns, line, strict=True)) for line in lines)
    return tuple(_participant(row, simulated=simulated) for row in rows)


def listed_labels(dataset: Path) -> frozenset[str]:
    """Return the labels of all lines of participants.tsv, those that no study takes among them.

    Raises
    ------
    DataError
        The table is missing, or is none.

    """
    table, _ = _read_table(dataset / "participants.tsv")
    return frozenset(table["participant_id"])


def read_phenotypes(
    participants: Sequence[Participant], phenotypes: Phenotypes
) -> Mapping[str, Mapping[str, float]]:
    """Read the columns of a data dictionary: by column, then by participant.

    Returns
    -------
    dict of str to dict of str to float
        In the units of the dictionary; the place of a category's code; NaN where a value is missing.

    Raises
    ------
    DataError
        A column is missing, or a value is not what the dictionary says; the message lists all faults.

    """
    import pandas as pd

    table = pd.DataFrame(
        [p.row for p in participants], index=[p.label for p in participants], dtype=pd.StringDtype()
    )
    faults: list[str] = []
    found: dict[str, dict[str, float]] = {}
    for name, phenotype in phenotypes.items():
        if name not in table:
            faults.append(f"participants.tsv has no column {name!r}, which the protocol explains")
            continue
        values = phenotype.values(table[name])
        wrong = table[name][values.isna() & (table[name] != MISSING)]
        faults += [
            f"{label}: {name} must be {phenotype.expected}, not {text!r}" for label, text in wrong.items()
        ]
        found[name] = dict(zip(table.index, values.tolist(), strict=True))
    if faults:
        raise DataError("; ".join(faults))
    return found


def _read_table(path: Path) -> tuple["pd.DataFrame", dict[int, str]]:
    """Read the table as text, its lines' numbers as index, and say which lines are not as long as the head.

    Lines without a mark on them are left out, and so are those that are too long or too short.
    """
    import pandas as pd

    try:
        text = _decoded(path)
        head = [_column(name) for name in text.partition("\n")[0].split("\t")]
        widest = max(line.count("\t") for line in text.split("\n")) + 1
        # By the slower of pandas' readers: it alone tells an empty field from one that is not there.
        cells = pd.read_csv(
            io.StringIO(text or "\n"),
            sep="\t",
            header=None,
            names=range(widest),
            index_col=False,
            dtype=pd.StringDtype(),
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
            engine="python",
        )
    except FileNotFoundError as cause:
        raise DataError(f"{path}: there is no such file") from cause
    except (OSError, pd.errors.ParserError) as cause:
        raise DataError(f"{path}: cannot be read as a table of tab-separated values") from cause
    missing = [c for c in _COLUMNS if head.count(c) != 1]
    if missing:
        words = f"{path}: line 1: missing or repeated column {', '.join(map(repr, missing))}"
        if any(mark in text.partition("\n")[0] for mark in ',;"'):
            words += "; the fields seem to be quoted, or parted by commas: save it as tab-separated text"
        raise DataError(words)
    cells.index += 1
    lines = cells.iloc[1:]
    marked = [bool("".join(line).strip()) for line in lines.fillna("").to_numpy()]
    lines = lines.loc[np.array(marked, dtype=np.bool_)]
    fields = lines.notna().sum(axis=1)
    ragged = fields[fields != len(head)]
    table = lines.drop(index=ragged.index).iloc[:, : len(head)]
    table.columns = pd.Index(head)
    faults = zip(ragged.index.tolist(), ragged.tolist(), strict=True)
    return table, {line: f"holds {found} fields, not {len(head)}" for line, found in faults}


def _decoded(path: Path) -> str:
    """Return the text of a table, as newlines end its lines; `DataError` names another encoding."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is written in UTF-16 ('Unicode text' of a spreadsheet); save it as UTF-8")
    try:
        # 'utf-8-sig': spreadsheets put a mark in front of the first column's name.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise DataError(
            f"{path}: line {line} is not UTF-8, but perhaps Latin-1 or Windows-1252; save it as UTF-8"
        ) from cause
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _column(name: str) -> str:
    """Return a column's name without spaces around it; those that every table has in whatever case."""
    own = name.strip()
    return own.lower() if own.lower() in _COLUMNS else own


def _of_another_group(table: "pd.DataFrame") -> "pd.Series[bool]":
    """Tell who belongs to a group that no study is about; one that is misspelt is a fault, not another."""
    return ~table["group"].str.strip().str.lower().isin(("", MISSING, *_GROUPS))


def _faults(table: "pd.DataFrame") -> list[tuple[int, str]]:
    """Return the line and the words of every fault."""
    labels, child, other = table["participant_id"], table["group"] == "dre", _of_another_group(table)
    named = labels.str.fullmatch(_LABEL)
    said = [
        (line, f"participant_id must be 'sub-' and plain letters or digits, not {label!r}")
        for line, label in zip(table.index[~named].tolist(), labels[~named], strict=True)
    ]
    years = _AGE.values(table["age"])
    rules: dict[str, tuple[pd.Series[bool], str]] = {
        "age": (years.notna() | (table["age"] == MISSING), f"must be in years, or {MISSING}"),
        "sex": (table["sex"].isin((*_SEX, MISSING)), f"must be F, M or {MISSING}"),
        "group": (table["group"].isin(_GROUPS), "must be dre or control, or a word for another group"),
        "gase": (~child | table["gase"].isin(_GASE), f"must be a whole number from 1 to 7, or {MISSING}"),
    }
    for column, (right, words) in rules.items():
        wrong = table[named & ~other & ~right]
        said += [
            (line, f"{label}: {column} {words}, not {text!r}")
            for line, label, text in zip(
                wrong.index.tolist(), wrong["participant_id"], wrong[column], strict=True
            )
        ]
    return said


def _participant(row: Mapping[str, str], *, simulated: bool) -> Participant:
    """Return what a line says that has no fault."""
    return Participant(
        label=row["participant_id"],
        age_years=float(row["age"]),
        sex=_SEX[row["sex"]],
        group=row["group"],
        gase=_GASE[row["gase"]] if row["group"] == "dre" else None,
        row=row,
        simulated=simulated,
    )
