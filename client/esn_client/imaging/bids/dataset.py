"""BIDS datasets: who was scanned, when, and which files a connectome is made from."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from esn_client.imaging.bids.anatomy import find_anatomy
from esn_client.imaging.bids.companions import Companions
from esn_client.imaging.bids.duplicates import same_scans
from esn_client.imaging.bids.files import (
    BidsFile,
    datasets_of,
    files_of,
    files_of_visits,
    is_label,
    undescribed_in,
)
from esn_client.imaging.bids.scan_files import RunFiles, ScanFiles, require_json
from esn_client.imaging.bids.series import Choice, choose_series
from esn_client.imaging.bids.susceptibility import judge_susceptibility
from esn_client.imaging.bids.visits import Visit
from esn_core.errors import DataError

IMAGES = (".nii.gz", ".nii")
JOINED = "run"
"""Series that differ in this entity alone are one acquisition, cut in pieces."""
LOST = ("lesion", "resection")
"""The ``label-`` of masks of what is lost."""
MASK_NAME = "a mask of what is lost is named …_label-lesion_mask.nii.gz or …_label-resection_mask.nii.gz"


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
        description = bids / "dataset_description.json"
        if description.is_symlink() and not description.exists():
            raise DataError(f"{bids}: its files were not fetched; run 'datalad get .' in it first")
        if not description.is_file():
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json is missing")
        try:
            said = require_json(description)
        except DataError as error:
            raise DataError(f"{bids}: no BIDS dataset; {error}") from None
        if not said:
            raise DataError(f"{bids}: no BIDS dataset; dataset_description.json says nothing")
        self.bids = bids.absolute()
        self._series: list[tuple[Visit, BidsFile]] = []
        self._labels: list[tuple[Visit, BidsFile]] = []
        self._lesions: list[tuple[Visit, BidsFile]] = []
        self._fieldmaps: list[tuple[Visit, BidsFile]] = []
        self._t1_labels: list[BidsFile] = []
        self._t1_images: list[BidsFile] = []
        self._unused: list[tuple[Visit, BidsFile, str]] = []
        self._companions = Companions(self.bids)
        files = (file for dataset in datasets_of(self.bids) for file in files_of(dataset))
        for file in sorted(files, key=lambda file: str(file.path)):
            self._companions.add(file)
            if file.extension in IMAGES and "sub" in file.entities:
                if file.suffix == "dwi":
                    self._series.append((_visit_of(file), file))
                in_t1_space = file.path.parent.name == "anat" and "space" not in file.entities
                if file.suffix == "dseg" and in_t1_space:
                    self._t1_labels.append(file)
                elif file.suffix == "dseg":
                    self._labels.append((_visit_of(file), file))
                if file.suffix == "T1w" and in_t1_space:
                    self._t1_images.append(file)
                if file.suffix == "epi" and file.path.parent.name == "fmap":
                    self._fieldmaps.append((_visit_of(file), file))
                if _shows_what_is_lost(file):
                    self._lesions.append((_visit_of(file), file))
                elif file.suffix in ("mask", "roi") and any(word in file.stem.lower() for word in LOST):
                    self._unused.append((_visit_of(file), file, MASK_NAME))
        for directory in undescribed_in(self.bids):
            for file in files_of_visits(directory):
                if file.extension in IMAGES and "sub" in file.entities and _would_be_used(file):
                    why = f"derivatives/{directory.name} has no dataset_description.json"
                    self._unused.append((_visit_of(file), file, why))
        # The atlas's own labels in 'anat' lie on the T1w image beside them, else on the scan's grid.
        with_image = {file.path.parent for file in self._t1_images}
        alone = [f for f in self._t1_labels if "seg" in f.entities and f.path.parent not in with_image]
        self._t1_labels = [file for file in self._t1_labels if file not in alone]
        self._labels += [(_visit_of(file), file) for file in alone]
        self._labels.sort(key=lambda pair: str(pair[1].path))
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

        Labels on the scan's grid win over labels beside a T1w image, the atlas's own over FreeSurfer's
        ``aparc+aseg``. A preprocessed scan (``desc-preproc_dwi`` of a derivative dataset) wins over raw
        ones. Series that
        differ in ``run`` alone are joined, unless their sidecars say that they are warped differently. Of
        several series, the one with the most diffusion-weighted volumes is taken; b0s without a table are
        left out. A ready label volume of the visit wins over one of the participant.

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
            A file is missing, its content was not fetched, or the choice is not clear.

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
        generators = self._generators_of(visit, sources.pop()) if sources else []
        series, without_table = self._tabled(visit, preprocessed or raw, generators)
        choice = choose_series(visit.label, series, without_table=without_table, corrected=bool(generators))
        labels, lesion = self._labels_of(visit, segmentation), self._lesion_of(visit)
        anatomy = (
            find_anatomy(visit, self._t1_labels, self._t1_images, bids=self.bids, segmentation=segmentation)
            if labels is None
            else None
        )
        ready = [path for path in (labels, lesion) if path]
        ready += [anatomy.t1w, anatomy.labels] if anatomy else []
        for path in (*(path for run in choice.runs for path in run.paths), *ready):
            self._companions.check_fetched(path, label=visit.label)
        return ScanFiles(
            visit=visit,
            runs=choice.runs,
            left_out=choice.left_out,
            labels=labels,
            lesion=lesion,
            anatomy=anatomy,
            susceptibility=judge_susceptibility(
                choice.runs[0].metadata,
                generators or None,
                phase_encoding=choice.runs[0].phase_encoding,
                reverse=self._reverse_of(visit, choice),
            ),
            preprocessed_by=generators[0] if generators else None,
            warnings=(*choice.warnings, *self._unused_of(visit)),
            remarks=choice.remarks,
        )

    def same_scans(self, visits: Iterable[Visit]) -> dict[str, str]:
        """Find scans that stand under several participants.

        Parameters
        ----------
        visits : iterable of Visit
            Those that are about to be prepared.

        Returns
        -------
        dict of str to str
            The other participant, for each participant of `visits` whose scan somebody else has, byte for
            byte.

        """
        scans = [(visit.participant, file.path) for visit, file in self._series]
        return same_scans(scans, wanted=frozenset(visit.participant for visit in visits))

    def scans_of_two_visits(self, visits: Iterable[Visit]) -> dict[str, str]:
        """Find scans that stand under two sessions of one participant: when they were taken is not known.

        Parameters
        ----------
        visits : iterable of Visit
            Those that are about to be prepared.

        Returns
        -------
        dict of str to str
            The label of the other visit, by the label of each of `visits` whose scan it has, byte for byte.

        """
        found: dict[str, str] = {}
        labels = frozenset(visit.label for visit in visits)
        for participant in sorted({visit.participant for visit in visits}):
            own = [(v.label, file.path) for v, file in self._series if v.participant == participant]
            found |= same_scans(own, wanted=labels)
        return found

    def _generators_of(self, visit: Visit, dataset: Path) -> list[str]:
        """Say which pipelines preprocessed a visit's scan; by which rule its vectors are read hangs on it."""
        self._companions.check_fetched(dataset / "dataset_description.json", label=visit.label)
        try:
            return _generators(dataset)
        except DataError as error:
            place = dataset.relative_to(self.bids).as_posix()
            raise DataError(f"{visit.label}: in {place}: {error}") from None

    def _tabled(
        self, visit: Visit, files: Iterable[BidsFile], generators: list[str]
    ) -> tuple[list[list[RunFiles]], list[Path]]:
        """Find the tables of each series; tell which images have none."""
        series: list[list[RunFiles]] = []
        without: list[BidsFile] = []
        for group in self._series_of(visit, files).values():
            runs = []
            for file in group:
                run = self._companions.run_of(file, label=visit.label, generators=generators)
                if run is None:
                    self._companions.check_fetched(file.path, label=visit.label)
                    without.append(file)
                else:
                    runs.append(run)
            if runs:
                series.append(runs)
        if not series:
            first = without[0]
            raise DataError(f"{visit.label}: {first.stem}.bval is missing beside {first.path.name}")
        return series, [file.path for file in without]

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

    def _reverse_of(self, visit: Visit, choice: Choice) -> list[Path]:
        """Find what was encoded along the same axis the other way: series left out, and fieldmaps."""
        used = choice.runs[0].phase_encoding
        maps = [file for v, file in self._fieldmaps if v == visit]
        left = [file for v, file in self._series if v == visit and file.path in choice.left_out]
        encoded = {file.path: self._companions.phase_encoding_of(file) for file in (*left, *maps)}
        return [
            path
            for path, said in encoded.items()
            if used is not None and said is not None and said != used and said[0] == used[0]
        ]

    def _unused_of(self, visit: Visit) -> list[str]:
        """Say which files of a visit, or of its participant, somebody may have meant to be used."""
        whose = (visit, Visit(visit.participant, None))
        return [
            f"{file.path.relative_to(self.bids).as_posix()} is not used: {why}"
            for v, file, why in sorted(self._unused, key=lambda unused: str(unused[1].path))
            if v in whose
        ]

    def _labels_of(self, visit: Visit, segmentation: str) -> Path | None:
        found = [(v, file.path) for v, file in self._labels if file.entities.get("seg") == segmentation]
        return self._the_one(found, visit, what="label volume")

    def _lesion_of(self, visit: Visit) -> Path | None:
        found = [(v, file.path) for v, file in self._lesions]
        if visit.session and any(v == Visit(visit.participant, None) for v, _ in found):
            raise DataError(
                f"{visit.label}: a lesion mask of {visit.participant} names no session, and one from "
                "before an operation must not hold after it; put it into the session that it was drawn on"
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


def _shows_what_is_lost(file: BidsFile) -> bool:
    """Tell whether a file is a mask of a lesion or a resection, by its name."""
    return file.suffix == "mask" and str(file.entities.get("label")).lower() in LOST


def _would_be_used(file: BidsFile) -> bool:
    """Tell whether a file of a derivative is one that a connectome depends on."""
    preprocessed = file.suffix == "dwi" and file.entities.get("desc") == "preproc"
    return preprocessed or file.suffix == "dseg" or _shows_what_is_lost(file)


def _generators(dataset: Path) -> list[str]:
    """Say which pipelines wrote a derivative dataset, the first one first; else its directory's name."""
    about = require_json(dataset / "dataset_description.json")
    made = about.get("GeneratedBy") or about.get("PipelineDescription")  # the latter until BIDS 1.4
    parts = [part for part in (made if isinstance(made, list) else [made]) if isinstance(part, dict)]
    names = [" ".join(str(part[key]) for key in ("Name", "Version") if key in part) for part in parts]
    return [name for name in names if name] or [dataset.name]
