"""Labels in T1 space: where a dataset has them, and the T1w image that they lie on."""

from collections.abc import Iterable
from pathlib import Path

from esn_client.imaging.bids.files import BidsFile
from esn_client.imaging.bids.scan_files import AnatomyFiles
from esn_client.imaging.bids.visits import Visit
from esn_core.errors import DataError

FREESURFER_LABELS = "aparc+aseg.mgz"
FREESURFER_IMAGES = ("brain.mgz", "norm.mgz", "T1.mgz", "orig.mgz")
"""Of FreeSurfer's and FastSurfer's ``mri``, the best first: all lie on the grid of the labels."""
APARC = "aparcaseg"
"""The ``desc-`` by which fMRIPrep, sMRIPrep and QSIPrep hand FreeSurfer's labels on, on the grid of their
T1w image."""


def find_anatomy(
    visit: Visit, labels: Iterable[BidsFile], images: Iterable[BidsFile], *, bids: Path, segmentation: str
) -> AnatomyFiles | None:
    """Find labels in T1 space for a visit, else for its participant.

    The atlas's own labels (``anat/*_seg-<atlas>_dseg``) win over ``desc-aparcaseg_dseg``, and these over a
    directory of FreeSurfer's
    (``derivatives/*/sub-012[_ses-1]/mri``).

    Parameters
    ----------
    visit : Visit
    labels, images : iterable of BidsFile
        All label volumes and T1w images that lie in ``anat`` and in no template's space.
    bids : Path
        The dataset.
    segmentation : str
        The ``seg-`` label of the atlas.

    Returns
    -------
    AnatomyFiles or None

    Raises
    ------
    DataError
        There are several, or one without its T1w image.

    """
    labels, images = list(labels), list(images)
    for who in dict.fromkeys((visit, Visit(visit.participant, None))):
        own = [file for file in labels if file.entities.get("seg") == segmentation and _is_of(file, who)]
        aparc = [file for file in labels if file.entities.get("desc") == APARC and _is_of(file, who)]
        for found, freesurfer in ((own, False), (aparc, True)):
            if len(found) > 1:
                names = ", ".join(file.path.relative_to(bids).as_posix() for file in found)
                raise DataError(f"{visit.label}: one label volume in T1 space is needed; found {names}")
            if found:
                return AnatomyFiles(_image_beside(visit, found[0], images), found[0].path, freesurfer)
        made = sorted(bids.glob(f"derivatives/*/{who.label}/mri/{FREESURFER_LABELS}"))
        if len(made) > 1:
            names = ", ".join(path.relative_to(bids).as_posix() for path in made)
            raise DataError(f"{visit.label}: one {FREESURFER_LABELS} is needed; found {names}")
        if made:
            there = [
                made[0].with_name(name) for name in FREESURFER_IMAGES if made[0].with_name(name).exists()
            ]
            if not there:
                raise DataError(
                    f"{visit.label}: {FREESURFER_LABELS} needs {' or '.join(FREESURFER_IMAGES)} beside it"
                )
            return AnatomyFiles(there[0], made[0], freesurfer=True)
    return None


def _is_of(file: BidsFile, who: Visit) -> bool:
    session = f"ses-{file.entities['ses']}" if "ses" in file.entities else None
    return Visit(f"sub-{file.entities['sub']}", session) == who


def _image_beside(visit: Visit, labels: BidsFile, images: list[BidsFile]) -> Path:
    """Take the T1w image of the labels' directory; the preprocessed one, if there is one."""
    there = [file for file in images if file.path.parent == labels.path.parent]
    best = [file for file in there if file.entities.get("desc") == "preproc"] or there
    if len(best) != 1:
        raise DataError(
            f"{visit.label}: {labels.path.name} needs one T1w image beside it, on whose grid it lies; found "
            f"{len(best)}"
        )
    return best[0].path
