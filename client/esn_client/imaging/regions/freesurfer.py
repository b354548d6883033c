"""FreeSurfer's numbers for the regions of its Desikan-Killiany atlas, as ``aparc+aseg`` has them."""

import numpy as np
from numpy.typing import NDArray

from esn_client.imaging.regions.atlas_volume import require_whole_numbers
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError

# FreeSurferColorLUT.txt, ctx-lh-*: 1000 and so much; ctx-rh-*: 2000 and so much. 4 is the corpus callosum.
_CORTEX: list[str] = (  # noqa: SIM905  # a list as long as the atlas is not easier to read
    "unknown bankssts caudalanteriorcingulate caudalmiddlefrontal corpuscallosum cuneus entorhinal fusiform "
    "inferiorparietal inferiortemporal isthmuscingulate lateraloccipital lateralorbitofrontal lingual "
    "medialorbitofrontal middletemporal parahippocampal paracentral parsopercularis parsorbitalis "
    "parstriangularis pericalcarine postcentral posteriorcingulate precentral precuneus "
    "rostralanteriorcingulate rostralmiddlefrontal superiorfrontal superiorparietal superiortemporal "
    "supramarginal frontalpole temporalpole transversetemporal insula"
).split()
# Left and right, of the aseg.
_DEEP = {
    "thalamusproper": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbensarea": (26, 58),
}
_BRAINSTEM = 16


def has_freesurfers_regions(atlas: Atlas) -> bool:
    """Tell whether an atlas's regions are those of ``aparc+aseg``."""
    return set(_numbers(atlas)) == {region.index for region in atlas.regions}


def from_freesurfer(volume: NDArray[np.float64], atlas: Atlas, *, name: str) -> NDArray[np.int64]:
    """Turn FreeSurfer's numbers into an atlas's; white matter, ventricles and all else become 0.

    Parameters
    ----------
    volume : (X, Y, Z) float64
        ``aparc+aseg``.
    atlas : Atlas
    name : str
        Of the file, for words.

    Returns
    -------
    (X, Y, Z) int64

    Raises
    ------
    DataError
        Numbers are not whole, or a region that no resection takes is missing: the file is of another atlas.

    """
    require_whole_numbers(volume, name=name)
    numbers = _numbers(atlas)
    there = {int(value) for value in np.unique(volume)}
    missing = [region.name for region in atlas.regions if numbers[region.index] not in there]
    stems = {name.partition("_")[2] or name for name in missing}
    both_sides = [stem for stem in sorted(stems) if sum(m.endswith(stem) for m in missing) > 1]
    if both_sides or "brainstem" in missing:
        raise DataError(
            f"{name}: {(both_sides or ['brainstem'])[0]} is on neither side; aparc+aseg of FreeSurfer "
            "(Desikan-Killiany) is "
            "needed, not that of DKT or Destrieux"
        )
    found = np.zeros(volume.shape, dtype=np.int64)
    for index, number in numbers.items():
        found[volume == number] = index
    return found


def _numbers(atlas: Atlas) -> dict[int, int]:
    """Give FreeSurfer's number, by the atlas's index, of each region that it knows."""
    numbers = {}
    for region in atlas.regions:
        side = {"L": 0, "R": 1}.get(region.hemisphere)
        if side is None:
            if region.name == "brainstem":
                numbers[region.index] = _BRAINSTEM
        elif region.stem in _DEEP:
            numbers[region.index] = _DEEP[region.stem][side]
        elif region.stem in _CORTEX:
            numbers[region.index] = 1000 * (side + 1) + _CORTEX.index(region.stem)
    return numbers
