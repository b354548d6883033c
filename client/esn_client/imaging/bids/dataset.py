"""BIDS datasets: who was scanned, when, and which files a connectome is made from."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from esn_client.imaging.bids.files import BidsFile, datasets_of, files_of, is_label, nearest_above
from esn_client.imaging.bids.scans import RunFiles, ScanFiles, Visit, json_of, sha256_of
from esn_core.errors import DataError

IMAGES = (".nii.gz", ".nii")
JOINED = "run"
"""Series that differ in this entity alone are one acquisition, cut in pieces."""
TABLES = (".bval", ".bvec")
LOST = ("lesion", "resection")
"""The ``label-`` of masks of what is lost."""


class Dataset:
    """A BIDS dataset, indexed once.

    Names are read and no file is opened, so that thousands of files take a second. A ``.bval`` may lie a
    directory higher (BIDS's inheritance principle).

    Parameters
    ----------
    bids : Path
        A raw dataset, with or without derivative datasets under ``derivatives``; or a derivative dataset
        with preprocessed scans.

    Raises
    ------
    DataError
        This is no BIDS dataset, or it has no participant.

    """

    def __init__(self, bids: Path) -> None:
        if not (bids / "dataset_description.json").is_file():
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json is missing")
        if not json_of(bids / "dataset_description.json"):
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json says nothing")
        self.bids = bids.absolute()
        self._series: list[tuple[Visit, BidsFile]] = []
        self._labels: list[tuple[Visit, BidsFile]] = []
        self._lesions: list[tuple[Visit, BidsFile]] = []
        self._tables: dict[str, list[BidsFile]] = {extension: [] for extension in TABLES}
        files = (file for dataset in datasets_of(self.bids) for file in files_of(dataset))
        for file in sorted(files, key=lambda file: str(file.path)):
            if file.suffix == "dwi" and file.extension in TABLES:
                self._tables[file.extension].append(file)
            if file.extension in IMAGES and "sub" in file.entities:
                if file.suffix == "dwi":
                    self._series.append((_visit_of(file), file))
                if file.suffix == "dseg":
                    self._labels.append((_visit_of(file), file))
                if file.suffix == "mask" and file.entities.get("label") in LOST:
                    self._lesions.append((_visit_of(file), file))
        self._participants = sorted(path.name for path in bids.glob("sub-*") if path.is_dir())
        if not self._participants:
            raise DataError(f"{bids}: no participant; a directory sub-<label> is needed for each")

    def visits(self, participants: Sequence[str] | None, sessions: Sequence[str] | None) -> list[Visit]:
        """List the visits to be prepared: each session of each participant.

        Parameters
        ----------
        participants, sessions : sequence of str or None
            With or without ``sub-`` and ``ses-``; None means all.

        Returns
        -------
        list of Visit
            Sorted, each once. A participant without any scan counts as one visit without a session, so that
            somebody is told.

        Raises
        ------
        DataError
            A participant or a session is asked for that is not there.

        """
        wanted = self._asked(participants)
        chosen = None if sessions is None else {f"ses-{name.removeprefix('ses-')}" for name in sessions}
        visits = []
        for participant in wanted:
            there = {visit.session for visit, _ in self._series if visit.participant == participant}
            for session in sorted(there or {None}, key=str):
                if chosen is None or session in chosen:
                    visits.append(Visit(participant, session))
        if not visits:
            raise DataError(f"{self.bids}: nobody has a session {', '.join(sorted(chosen or ()))}")
        return visits

    def files(self, visit: Visit, *, segmentation: str) -> ScanFiles:
        """Choose the files of a visit.

        A preprocessed scan (``desc-preproc_dwi`` of a derivative dataset) wins over raw ones. Series that
        differ in ``run`` alone are joined. Of several series that differ in more (``dir``, ``acq``), the one
        with the most diffusion-weighted volumes is taken. A ready label volume of the visit wins over one of
        the participant.

        Parameters
        ----------
        visit : Visit
        segmentation : str
            The ``seg-`` label of the atlas.

        Returns
        -------
        ScanFiles

        Raises
        ------
        DataError
            A file is missing, or the choice is not clear.

        """
        if not all(is_label(name.partition("-")[2]) for name in visit.folder.split("/")):
            raise DataError(f"{visit.label}: a label has letters, digits and + only; rename it")
        here = [file for v, file in self._series if v == visit]
        preprocessed = [file for file in here if file.entities.get("desc") == "preproc"]
        raw = [
            file for file in here if "desc" not in file.entities and file.entities.get("part", "mag") == "mag"
        ]
        if not preprocessed and not raw:
            raise DataError(
                f"{visit.label}: one scan is needed ({visit.folder}/dwi/{visit.label}_*dwi.nii.gz); "
                "found none"
            )
        sources = {file.dataset for file in preprocessed}
        if len(sources) > 1:
            names = ", ".join(sorted(source.name for source in sources))
            raise DataError(f"{visit.label}: several datasets hold a preprocessed scan ({names}); keep one")
        series = self._series_of(visit, preprocessed or raw)
        runs = {key: [self._run(visit, file) for file in files] for key, files in series.items()}
        chosen = self._most_weighted(visit, runs) if len(runs) > 1 else next(iter(runs))
        return ScanFiles(
            visit=visit,
            runs=tuple(runs[chosen]),
            left_out=tuple(run.dwi for key, found in runs.items() if key != chosen for run in found),
            labels=self._labels_of(visit, segmentation),
            lesion=self._lesion_of(visit),
            preprocessed_by=_generator(sources.pop()) if sources else None,
        )

    def same_scans(self) -> dict[str, str]:
        """Find scans that stand under several participants.

        Returns
        -------
        dict of str to str
            The other participant, for each participant whose raw scan somebody else has, byte for byte.

        """
        sizes: dict[int, list[tuple[str, Path]]] = {}
        for visit, file in self._series:
            if file.path.is_file():
                sizes.setdefault(file.path.stat().st_size, []).append((visit.participant, file.path))
        same: dict[str, str] = {}
        for found in sizes.values():
            if len({participant for participant, _ in found}) < 2:
                continue
            by_content: dict[str, set[str]] = {}
            for participant, path in found:
                by_content.setdefault(sha256_of(path), set()).add(participant)
            for people in by_content.values():
                for one in people if len(people) > 1 else ():
                    same[one] = min(people - {one})
        return same

    def _series_of(self, visit: Visit, files: Iterable[BidsFile]) -> dict[str, list[BidsFile]]:
        """Group files that differ in runs alone, in the order of their names."""
        series: dict[str, dict[str | int | None, BidsFile]] = {}
        for file in files:
            rest = {key: value for key, value in file.entities.items() if key != JOINED}
            runs = series.setdefault(repr(sorted(rest.items())), {})
            run = file.entities.get(JOINED)
            if run in runs:
                names = " and ".join(f.path.relative_to(self.bids).as_posix() for f in (runs[run], file))
                raise DataError(f"{visit.label}: {names} are named as the same series; keep one")
            runs[run] = file
        return {key: list(runs.values()) for key, runs in series.items()}

    def _asked(self, asked: Sequence[str] | None) -> list[str]:
        there = self._participants
        if asked is None:
            return there
        wanted = sorted({f"sub-{name.removeprefix('sub-')}" for name in asked})
        unknown = [name for name in wanted if name not in there]
        if unknown:
            raise DataError(
                f"{self.bids}: unknown participant {', '.join(unknown)}; there are {len(there)}, "
                f"{there[0]} to {there[-1]}"
            )
        return wanted

    def _run(self, visit: Visit, dwi: BidsFile) -> RunFiles:
        stem = dwi.path.name.removesuffix(dwi.extension)
        paths = []
        for extension in TABLES:
            beside = dwi.path.with_name(f"{stem}{extension}")
            above = [] if beside.is_file() else nearest_above(dwi, self._tables[extension])
            if not above and not beside.is_file():
                raise DataError(f"{visit.label}: {stem}{extension} is missing beside {dwi.path.name}")
            paths.append(above[0].path if above else beside)
        return RunFiles(dwi.path, *paths)

    def _most_weighted(self, visit: Visit, runs: dict[str, list[RunFiles]]) -> str:
        weighted = {key: sum(run.count_weighted() for run in found) for key, found in runs.items()}
        most = max(weighted.values())
        best = [key for key, count in weighted.items() if count == most]
        if len(best) > 1:
            names = ", ".join(runs[key][0].dwi.name for key in best)
            raise DataError(
                f"{visit.label}: {len(best)} series with {most} diffusion-weighted volumes each ({names}); "
                "keep one, or join them as runs"
            )
        return best[0]

    def _labels_of(self, visit: Visit, segmentation: str) -> Path | None:
        found = [(v, file.path) for v, file in self._labels if file.entities.get("seg") == segmentation]
        return self._the_one(found, visit, what="label volume")

    def _lesion_of(self, visit: Visit) -> Path | None:
        found = [(v, file.path) for v, file in self._lesions]
        if visit.session and any(v == Visit(visit.participant, None) for v, _ in found):
            raise DataError(
                f"{visit.label}: a lesion mask of {visit.participant} names no session, and one from before an "
                "operation must not hold after it; put it into the session that it was drawn on"
            )
        return self._the_one(found, visit, what="lesion mask")

    def _the_one(self, found: Iterable[tuple[Visit, Path]], visit: Visit, *, what: str) -> Path | None:
        """Take the visit's own file, else the participant's; refuse where there are several."""
        found = list(found)
        for wanted in (visit, Visit(visit.participant, None)):
            paths = [path for v, path in found if v == wanted]
            if len(paths) > 1:
                names = ", ".join(path.relative_to(self.bids).as_posix() for path in paths)
                raise DataError(f"{visit.label}: one {what} is needed; found {names}")
            if paths:
                return paths[0]
        return None


def _visit_of(file: BidsFile) -> Visit:
    session = f"ses-{file.entities['ses']}" if "ses" in file.entities else None
    return Visit(f"sub-{file.entities['sub']}", session)


def _generator(dataset: Path) -> str:
    """Say which pipeline wrote a derivative dataset."""
    made = json_of(dataset / "dataset_description.json").get("GeneratedBy") or [{}]
    first = made[0] if isinstance(made, list) and isinstance(made[0], dict) else {}
    return " ".join(str(first[key]) for key in ("Name", "Version") if key in first) or dataset.name
