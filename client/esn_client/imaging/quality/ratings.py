"""Ratings: what people who looked at a visit's page said of it, with their initials."""

import csv
import datetime
import io
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, cast

from esn_client.imaging.bids.derivatives import Derivative
from esn_client.imaging.bids.visits import Visit, segmentation_of
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.system.files import write_whole

Opinion = Literal["pass", "fail"]
OPINIONS: tuple[Opinion, ...] = ("pass", "fail")
INITIALS = r"[A-Za-z]{2,4}"


@dataclass(frozen=True)
class Rating:
    """What one person said of one connectome.

    Attributes
    ----------
    participant_id, session_id : str
        The latter is ``n/a`` where there are no sessions.
    rating : 'pass' or 'fail'
    initials : str
        Of who looked.
    date : str
        ISO 8601.
    connectome_sha256 : str
        Of the counts that the page was made with: a rating says nothing of a connectome that was made again.
    note : str
        In one line, or ``n/a``.

    """

    participant_id: str
    session_id: str
    rating: Opinion
    initials: str
    date: str
    connectome_sha256: str
    note: str

    @property
    def visit(self) -> Visit:
        """Whom it is about."""
        return Visit(self.participant_id, None if self.session_id == "n/a" else self.session_id)


COLUMNS = tuple(field.name for field in fields(Rating))


def ratings_file(out: Path, recipe: ImagingRecipe) -> Path:
    """Name the table of ratings."""
    return out / f"seg-{segmentation_of(recipe.atlas)}_ratings.tsv"


def rate(
    out: Path, recipe: ImagingRecipe, visit: Visit, *, rating: Opinion, initials: str, note: str = ""
) -> Rating:
    """Write down what somebody says of a visit; it takes the place of what the same person said before.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe
    visit : Visit
    rating : 'pass' or 'fail'
    initials : str
        Two to four letters.
    note : str

    Returns
    -------
    Rating

    Raises
    ------
    DataError
        The visit has no connectome, the initials are none, or the table is damaged.

    """
    if not re.fullmatch(INITIALS, initials):
        raise DataError(f"initials are two to four letters, not {initials!r}")
    digest = Derivative(out, visit, recipe).read_record()["MatricesSha256"]["count"]
    said = Rating(
        visit.participant,
        visit.session or "n/a",
        rating,
        initials.upper(),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        digest,
        " ".join(note.split()) or "n/a",
    )
    kept = [old for old in _read(out, recipe) if (old.visit, old.initials) != (visit, said.initials)]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        asdict(one) for one in sorted([*kept, said], key=lambda one: (one.visit.label, one.initials))
    )
    write_whole(ratings_file(out, recipe), text.getvalue().encode())
    return said


def read_ratings(out: Path, recipe: ImagingRecipe) -> Mapping[Visit, tuple[Rating, ...]]:
    """Read who said what of which visit.

    Raises
    ------
    DataError
        The table is damaged.

    """
    by_visit: dict[Visit, tuple[Rating, ...]] = {}
    for one in _read(out, recipe):
        by_visit[one.visit] = (*by_visit.get(one.visit, ()), one)
    return by_visit


def _read(out: Path, recipe: ImagingRecipe) -> list[Rating]:
    path = ratings_file(out, recipe)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read as a table of ratings") from None
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DataError(f"{path}: line 1: the columns must be {', '.join(COLUMNS)}")
    found = []
    for number, row in enumerate(reader, start=2):
        whole = None not in row and None not in row.values()
        if not whole or row["rating"] not in OPINIONS or not re.fullmatch(INITIALS, row["initials"]):
            raise DataError(
                f"{path}: line {number}: a rating is pass or fail, with the initials of who looked; use "
                "'esn-client rate'"
            )
        found.append(Rating(**cast("dict[str, str]", row)))  # type: ignore[arg-type]
    return found
