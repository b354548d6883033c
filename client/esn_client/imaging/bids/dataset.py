"""BIDS datasets: who was scanned, when, and which files a connectome is made from."""

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from esn_client.imaging.bids.scans import RunFiles, ScanFiles, Visit, json_of, sha256_of
from esn_core.errors import DataError

IMAGES = (".nii.gz", ".nii")
JOINED = ("run",)
"""Series that differ in these entities alone are one acquisition, cut in pieces."""
LEFT_ASIDE = re.compile(r"/(sourcedata|code|stimuli|work|\.[^/]*)(/|$)")
"""Never looked at: no dataset keeps scans there that anybody should use."""


class Dataset:
    """A BIDS dataset, indexed once.

    pybids finds the files and knows BIDS's rule of inheritance (a ``.bval`` may lie a directory higher); it
    reads names only, so that thousands of files take seconds.

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
        from bids.layout import BIDSLayout, BIDSLayoutIndexer

        if not (bids / "dataset_description.json").is_file():
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json is missing")
        if not json_of(bids / "dataset_description.json"):
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json says nothing")
        self.bids = bids.absolute()
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[LEFT_ASIDE])
        with warnings.catch_warnings():
            # A derivative dataset without a description is passed over; what is missing is told by subject.
            warnings.simplefilter("ignore")
            self._layout = BIDSLayout(self.bids, indexer=indexer, derivatives=True, validate=False)
        self._series = self._find(suffix="dwi")
        self._labels = self._find(suffix="dseg")
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
        here = [entities for v, entities in self._series if v == visit]
        preprocessed = [e for e in here if e.get("desc") == "preproc"]
        raw = [e for e in here if "desc" not in e and e.get("part", "mag") == "mag"]
        series = _series_of(preprocessed or raw)
        if not series:
            raise DataError(
                f"{visit.label}: one scan is needed ({visit.folder}/dwi/{visit.label}_*dwi.nii.gz); "
                "found none"
            )
        sources = {_source_of(e["path"]) for e in preprocessed}
        if len(sources) > 1:
            names = ", ".join(sorted(source.name for source in sources))
            raise DataError(f"{visit.label}: several datasets hold a preprocessed scan ({names}); keep one")
        runs = {key: [self._run(visit, path) for path in paths] for key, paths in series.items()}
        chosen = self._most_weighted(visit, runs) if len(runs) > 1 else next(iter(runs))
        return ScanFiles(
            visit=visit,
            runs=tuple(runs[chosen]),
            left_out=tuple(run.dwi for key, found in runs.items() if key != chosen for run in found),
            labels=self._labels_of(visit, segmentation),
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
        for visit, entities in self._series:
            path = entities["path"]
            if path.is_file():
                sizes.setdefault(path.stat().st_size, []).append((visit.participant, path))
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

    def _find(self, *, suffix: str) -> list[tuple[Visit, dict[str, Any]]]:
        found = []
        for file in self._layout.get(suffix=suffix, extension=list(IMAGES), return_type="object"):
            entities = file.get_entities()
            if "subject" not in entities:
                continue
            session = f"ses-{entities['session']}" if "session" in entities else None
            found.append(
                (Visit(f"sub-{entities['subject']}", session), {**entities, "path": Path(file.path)})
            )
        return sorted(found, key=lambda pair: str(pair[1]["path"]))

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

    def _run(self, visit: Visit, dwi: Path) -> RunFiles:
        stem = dwi.name.removesuffix(".gz").removesuffix(".nii")
        paths = []
        for suffix in (".bval", ".bvec"):
            beside = dwi.with_name(f"{stem}{suffix}")
            found = beside if beside.is_file() else self._inherited(dwi, suffix)
            if found is None:
                raise DataError(f"{visit.label}: {stem}{suffix} is missing beside {dwi.name}")
            paths.append(found)
        return RunFiles(dwi, *paths)

    def _inherited(self, dwi: Path, suffix: str) -> Path | None:
        """Find the nearest table that holds for an image: no entity of its name contradicts the image's."""
        own = self._layout.get_file(str(dwi)).get_entities()
        candidates: list[tuple[int, int, Path]] = []
        for file in self._layout.get(suffix="dwi", extension=suffix, return_type="object"):
            path = Path(file.path)
            said = {k: v for k, v in file.get_entities().items() if k not in ("extension", "datatype")}
            if path.parent in dwi.parents and all(own.get(k) == v for k, v in said.items()):
                candidates.append((len(path.parts), len(said), path))
        return max(candidates)[2] if candidates else None

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
        found: list[tuple[Visit, Path]] = [
            (v, e["path"]) for v, e in self._labels if e.get("segmentation") == segmentation
        ]
        for wanted in (visit, Visit(visit.participant, None)):
            paths = [path for v, path in found if v == wanted]
            if len(paths) > 1:
                names = ", ".join(path.relative_to(self.bids).as_posix() for path in paths)
                raise DataError(f"{visit.label}: one label volume is needed; found {names}")
            if paths:
                return paths[0]
        return None


def _series_of(files: Iterable[dict[str, Any]]) -> dict[str, list[Path]]:
    """Group files that differ in runs alone, in the order of their names."""
    series: dict[str, list[Path]] = {}
    for entities in files:
        rest = {k: v for k, v in entities.items() if k not in (*JOINED, "path", "extension")}
        series.setdefault(repr(sorted(rest.items())), []).append(entities["path"])
    return series


def _source_of(path: Path) -> Path:
    """Find the dataset that a file belongs to: the nearest directory with a description."""
    return next(parent for parent in path.parents if (parent / "dataset_description.json").is_file())


def _generator(dataset: Path) -> str:
    """Say which pipeline wrote a derivative dataset."""
    made = json_of(dataset / "dataset_description.json").get("GeneratedBy") or [{}]
    first = made[0] if isinstance(made, list) and isinstance(made[0], dict) else {}
    return " ".join(str(first[key]) for key in ("Name", "Version") if key in first) or dataset.name
