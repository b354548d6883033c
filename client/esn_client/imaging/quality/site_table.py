"""A site's quality: all prepared visits in one table and on one page, and who is left out of studies."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from esn_client.imaging.bids.derivatives import Derivative, prepared_visits
from esn_client.imaging.bids.failures import read_failures
from esn_client.imaging.bids.visits import Visit, segmentation_of
from esn_client.imaging.quality.distributions import Strip, lay_out
from esn_client.imaging.quality.ratings import Rating, read_ratings
from esn_client.imaging.quality.rendering import environment
from esn_client.imaging.quality.scan_kinds import ScanKind, kinds_of
from esn_client.imaging.quality.wording import WORDINGS
from esn_core.errors import DataError
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.quality_limits import Verdict, overall, quantity
from esn_core.system.files import write_whole

OUTLIER_Z = 3.5
"""Robust z beyond which a number is unlike the site's others (Iglewicz & Hoaglin 1993, section 3.5)."""
LEAST_SPREAD = 0.02
"""The spread counts as this share of the median at least: where all are nearly equal, nobody is far away."""
LEAST_VISITS = 8
"""With fewer, nobody is called an outlier."""
COLUMNS = (
    *("participant_id", "session_id", "verdict", "excluded", "rating", "outlying", "connectome_sha256"),
    *("scan", "susceptibility", "regions_lost", "failure"),
)


@dataclass(frozen=True)
class SiteRow:
    """One visit among the others.

    Attributes
    ----------
    visit : Visit
    verdict : Verdict
        Of the visit alone, by the protocol's limits and by who looked: one who says that it fails is
        believed, and one who
        says that it passes changes no limit. A warning of its record asks for a look.
    judged : dict of str to Verdict
        Of each number.
    excluded : bool
        Whether studies leave the visit out.
    outlying : tuple of str
        Quantities that are unlike the site's others. They are for the eye: whether somebody takes part in a
        study never depends on others.
    numbers : dict of str to float or None
    connectome_sha256 : str or None
        Of the counts that were judged; None where there are none.
    failure : str or None
        Why the visit could not be prepared, the last time that it was tried. Then it fails, whatever is left
        of an earlier time, and studies leave it out.
    ratings : tuple of Rating
        Of this connectome.
    scan : str
        How the visit was scanned: what is alike has the same words; empty where its record does not say.
    susceptibility : str
        Whether it was corrected, as the record says.
    regions_lost : tuple of str
        Regions without tissue.

    """

    visit: Visit
    verdict: Verdict
    judged: dict[str, Verdict]
    excluded: bool
    outlying: tuple[str, ...]
    numbers: dict[str, float | None]
    connectome_sha256: str | None
    failure: str | None = None
    ratings: tuple[Rating, ...] = ()
    scan: str = ""
    susceptibility: str = "not said"
    regions_lost: tuple[str, ...] = ()

    @property
    def rated(self) -> str:
        """Who said what, in words; empty where nobody looked."""
        return ", ".join(f"{one.rating} {one.initials}" for one in self.ratings)

    @property
    def rank(self) -> int:
        """Those that could not be prepared first, then the worst."""
        return 0 if self.failure else 1 + ("fail", "warn", "pass", "not measured").index(self.verdict)


def robust_z(values: Sequence[float | None]) -> list[float | None]:
    """Measure how far each value is from the median, in robust standard deviations.

    Parameters
    ----------
    values : sequence of float or None

    Returns
    -------
    list of float or None
        ``0.6745 (x - median) / MAD``, the MAD no less than `LEAST_SPREAD` of the median; None where there is
        no value, where fewer than `LEAST_VISITS` are, or where all spread is nil.

    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < LEAST_VISITS:
        return [None] * len(values)
    median = np.median(known)
    spread = max(float(np.median(np.abs(known - median))), LEAST_SPREAD * abs(float(median)))
    if spread == 0:
        return [None] * len(values)
    return [None if value is None else float(0.6745 * (value - median) / spread) for value in values]


def judge_site(out: Path, recipe: ImagingRecipe, *, exclude_failed: bool) -> list[SiteRow]:
    """Judge all visits of a recipe, prepared or not.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe
    exclude_failed : bool
        Whether visits that fail are left out of studies.

    Returns
    -------
    list of SiteRow
        By visit.

    Raises
    ------
    DataError
        Nobody was tried, or a record cannot be used.

    """
    visits = prepared_visits(out, recipe)
    failures = {failure.visit: failure for failure in read_failures(out, recipe)}
    if not visits and not failures:
        raise DataError(
            f"{out}: nobody is prepared for atlas {recipe.atlas}; run 'prepare … participant' first"
        )
    records = [Derivative(out, visit, recipe).read_record() for visit in visits]
    numbers: list[dict[str, float | None]] = [dict(record.get("Quality", {})) for record in records]
    away = {name: robust_z([row.get(name) for row in numbers]) for name in WORDINGS}
    ratings = read_ratings(out, recipe)
    kinds = kinds_of({place: ScanKind.of_record(record) for place, record in enumerate(records)})
    rows = []
    for place, (visit, record) in enumerate(zip(visits, records, strict=True)):
        verdicts = recipe.quality.judge(numbers[place])
        warned: dict[str, Verdict] = dict.fromkeys(record.get("Warnings", ()), "warn")
        digest = record["MatricesSha256"]["count"]
        said = tuple(one for one in ratings.get(visit, ()) if one.connectome_sha256 == digest)
        failed: dict[str, Verdict] = {one.initials: "fail" for one in said if one.rating == "fail"}
        verdict = overall(verdicts | warned | failed)
        outlying = [n for n, z in away.items() if (score := z[place]) is not None and abs(score) > OUTLIER_Z]
        rows.append(
            SiteRow(
                visit=visit,
                verdict=verdict,
                judged={
                    name: overall({limit: v for limit, v in verdicts.items() if quantity(limit) == name})
                    for name in WORDINGS
                },
                excluded=exclude_failed and verdict == "fail",
                outlying=tuple(outlying),
                numbers=numbers[place],
                connectome_sha256=digest,
                ratings=said,
                scan=kinds.get(place, ""),
                susceptibility=record.get("Susceptibility", "not said"),
                regions_lost=tuple(record.get("RegionsWithoutTissue", ())),
            )
        )
    prepared = {row.visit.label: row for row in rows}
    for label, failure in failures.items():
        words = f"{failure.error_class}: {failure.message}"
        row = prepared.get(label) or SiteRow(_visit_of(label), "fail", {}, True, (), {}, None)
        prepared[label] = replace(row, verdict="fail", excluded=True, failure=words)
    return [prepared[label] for label in sorted(prepared)]


def _visit_of(label: str) -> Visit:
    participant, _, session = label.partition("_")
    return Visit(participant, session or None)


def site_files(out: Path, recipe: ImagingRecipe) -> tuple[Path, Path]:
    """Name the table and the page of a site."""
    stem = f"seg-{segmentation_of(recipe.atlas)}_quality"
    return out / f"{stem}.tsv", out / f"{stem}.html"


def write_site(out: Path, recipe: ImagingRecipe, *, exclude_failed: bool) -> list[SiteRow]:
    """Write the site's table and page.

    The table decides who is left out of studies: its column ``excluded`` is what a cohort reads, and nothing
    else. Returns and raises as `judge_site`.
    """
    rows = judge_site(out, recipe, exclude_failed=exclude_failed)
    table, page = site_files(out, recipe)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *WORDINGS])
    for row in rows:
        fixed = [
            row.visit.participant,
            row.visit.session or "n/a",
            row.verdict,
            "yes" if row.excluded else "no",
            row.rated or "n/a",
            ",".join(row.outlying) or "n/a",
            row.connectome_sha256 or "n/a",
            row.scan or "n/a",
            row.susceptibility,
            ",".join(row.regions_lost) or "n/a",
            row.failure or "n/a",
        ]
        writer.writerow([*fixed, *(_cell(row.numbers.get(name)) for name in WORDINGS)])
    about = {
        "verdict": {"Description": "Worst of the numbers against the protocol's limits"},
        "excluded": {"Description": "Whether studies leave the visit out", "Levels": {"yes": "", "no": ""}},
        "outlying": {"Description": f"Numbers with a robust z beyond {OUTLIER_Z:g} among this site's visits"},
        "connectome_sha256": {"Description": "Digest of the counts that were judged"},
        "rating": {"Description": "What those who looked at this connectome's page say, with their initials"},
        "scan": {
            "Description": "How the visit was scanned; visits that were scanned alike have the same words"
        },
        "susceptibility": {"Description": "Whether the warp by air beside the brain was corrected"},
        "regions_lost": {"Description": "Regions without tissue, whose edges are missing"},
        "failure": {"Description": "Why the visit could not be prepared, the last time that it was tried"},
        **{
            name: {"LongName": words.title, "Description": words.meaning, "Units": words.unit or "1"}
            for name, words in WORDINGS.items()
        },
    }
    write_whole(table.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode())
    write_whole(page, _draw(rows, recipe, out=out).encode())
    write_whole(table, text.getvalue().encode())
    return rows


def ways_scanned(rows: Sequence[SiteRow]) -> tuple[tuple[str, int], ...]:
    """Count the visits of each kind of scan, the most frequent first.

    Only of those that studies do not leave out, and of which it is known.
    """
    return tuple(Counter(row.scan for row in rows if row.scan and not row.excluded).most_common())


def read_exclusions(out: Path, recipe: ImagingRecipe) -> frozenset[Visit]:
    """Read which visits studies leave out.

    Parameters
    ----------
    out : Path
        The derivative dataset.
    recipe : ImagingRecipe

    Returns
    -------
    frozenset of Visit
        Empty where no table was written: nobody has judged.

    Raises
    ------
    DataError
        The table is damaged, or older than a connectome.

    """
    table, _ = site_files(out, recipe)
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        judged = {
            Visit(row["participant_id"], None if row["session_id"] == "n/a" else row["session_id"]): row
            for row in rows
        }
        excluded = frozenset(
            visit
            for visit, row in judged.items()
            if row["excluded"] == "yes" and row["connectome_sha256"] != "n/a"
        )
        digests = {visit: row["connectome_sha256"] for visit, row in judged.items()}
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError):
        raise DataError(f"{table}: not a site's table of quality; run 'prepare … group' again") from None
    stale = 0
    for visit in prepared_visits(out, recipe):
        try:
            record = Derivative(out, visit, recipe).read_record()
        except DataError:
            continue  # not usable anyway
        stale += digests.get(visit) != record["MatricesSha256"].get("count")
    if stale:
        raise DataError(f"{table}: {stale} connectomes are newer than the table; run 'prepare … group' again")
    return excluded


def _cell(value: float | None) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _strips(rows: Sequence[SiteRow], recipe: ImagingRecipe) -> dict[str, Strip]:
    """Lay out each quantity that somebody has."""
    limits, strips = recipe.quality.limits(), {}
    for name, words in WORDINGS.items():
        known = [
            (row.visit.label, value, row.judged.get(name, "not measured"))
            for row in rows
            if (value := row.numbers.get(name)) is not None and math.isfinite(value)
        ]
        own = [limit for key, limit in limits.items() if quantity(key) == name]
        strip = lay_out(known, own, shown=[words.shown(value) for _, value, _ in known])
        if strip is not None:
            strips[name] = strip
    return strips


def _draw(rows: Sequence[SiteRow], recipe: ImagingRecipe, *, out: Path) -> str:
    count: dict[str, int] = {
        v: sum(row.verdict == v and not row.failure for row in rows) for v in ("pass", "warn", "fail")
    }
    count["not prepared"] = sum(row.failure is not None for row in rows)
    pages = {}
    for row in rows:
        page = Derivative(out, row.visit, recipe).page
        pages[row.visit.label] = page.name if page.is_file() else None
    limits: dict[str, list[str]] = {}
    for name, limit in recipe.quality.limits().items():
        limits.setdefault(quantity(name), []).append(limit.words)
    return (
        environment()
        .get_template("site.html.j2")
        .render(
            rows=rows,
            strips=_strips(rows, recipe),
            count=count,
            excluded=sum(row.excluded for row in rows),
            words=WORDINGS,
            scans=ways_scanned(rows),
            shown={n: w for n, w in WORDINGS.items() if any(n in row.numbers for row in rows)},
            limits=limits,
            pages=pages,
            atlas=recipe.atlas,
            recipe_sha256=recipe.sha256,
            outlier_z=OUTLIER_Z,
            least_visits=LEAST_VISITS,
        )
    )
