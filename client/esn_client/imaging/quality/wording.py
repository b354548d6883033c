"""What the numbers of a quality page are called, what they mean, and what to do about them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """One number, in words.

    Attributes
    ----------
    title, unit : str
    meaning : str
        What it says, in a sentence without a full stop.
    cure : str
        What to look at where it is out of bounds.
    decimals : int

    """

    title: str
    unit: str
    meaning: str
    cure: str
    decimals: int

    def shown(self, value: float) -> str:
        """Write the number down, without its unit."""
        return f"{value:z.{self.decimals}f}"  # z: no minus before a 0


WORDINGS = {
    "brain_ml": Wording(
        "Brain volume",
        "ml",
        "volume of the tissue inside the mask; ventricles and cavities are no part of it",
        "the mask's outline: does it leave brain out, or hold skull?",
        0,
    ),
    "fluid_ml": Wording(
        "Fluid",
        "ml",
        "volume inside the mask that is mostly fluid or gives no signal: ventricles, sulci, cavities",
        "the regions: has something been removed, or are the ventricles wide?",
        0,
    ),
    "labels_outside_percent": Wording(
        "Labels outside the brain",
        "%",
        "labelled volume outside of the brain mask; it is left out",
        "the region overlay and the mask",
        1,
    ),
    "labels_in_fluid_percent": Wording(
        "Labels in fluid",
        "%",
        "labelled volume in fluid or without signal; it is left out",
        "the regions: has something been removed?",
        1,
    ),
    "regions_without_tissue": Wording(
        "Regions without tissue",
        "",
        "regions of which less than half is tissue: their edges are not known, and are missing rather than 0",
        "the regions that are named",
        0,
    ),
    "cut_off_percent": Wording(
        "Brain cut off",
        "%",
        "the brain at an edge of the image, in shares of its largest section; the neck does not count",
        "the field of view: regions at the edge have too few streamlines",
        1,
    ),
    "signal_to_noise": Wording(
        "Signal to noise", "", "of the volumes without weighting, in the brain", "the scan, and denoising", 1
    ),
    "displacement_mm": Wording(
        "Mean displacement",
        "mm",
        "mean framewise displacement: how far the head moved from volume to volume, without what follows "
        "the gradient",
        "the motion trace; a restless child is better scanned again",
        2,
    ),
    "displacement_b0_mm": Wording(
        "Displacement between b0s",
        "mm",
        "mean framewise displacement from one volume without weighting to the next, which eddy currents "
        "leave alone",
        "the motion trace",
        2,
    ),
    "eddy_shift_mm": Wording(
        "Eddy shift",
        "mm",
        "mean shift of a weighted volume that follows its gradient: eddy currents, not the head; it is "
        "undone where it is rigid",
        "the motion trace; above some 3 mm, let FSL's eddy or QSIPrep undo stretches too",
        2,
    ),
    "contrast_to_noise": Wording(
        "Contrast to noise",
        "",
        "how much a tensor's prediction differs between directions, over what it does not explain",
        "noise, motion, and whether the b-values are right",
        2,
    ),
    "neighbour_correlation": Wording(
        "Neighbouring volumes",
        "",
        "correlation of each weighted volume with the one of the nearest direction",
        "the residuals: which volumes are unlike their neighbours?",
        3,
    ),
    "bad_volumes_percent": Wording(
        "Volumes with drop-out", "%", "weighted volumes in which a slice lost its signal", "the residuals", 1
    ),
    "gradient_margin_percent": Wording(
        "Gradient table",
        "%",
        "by how much better fibres run on under the b-vectors than under any with axes exchanged or negated",
        "the colours of the main fibre direction",
        0,
    ),
    "registration_correlation": Wording(
        "Registration", "", "correlation of the FA with the warped template's", "the region overlay", 3
    ),
    "t1_overlap": Wording(
        "T1w image on the scan",
        "",
        "overlap of the brain that the T1w image's labels show and of the scan's mask (Dice)",
        "the region overlay: do the labels follow the brain?",
        2,
    ),
    "sides_margin_percent": Wording(
        "Sides by the T1w image",
        "%",
        "by how much better the T1w image, by its own header, fits the scan as it is than mirrored; near 0 "
        "it says nothing, below -2 the scan is refused",
        "both headers: one of them may have left for right",
        1,
    ),
    "registration_rotation_deg": Wording(
        "Head turned by", "°", "rotation between head and template", "the region overlay: is it turned?", 0
    ),
    "misplaced_percent": Wording(
        "Regions astray",
        "%",
        "voxels of left and right regions beyond the median plane",
        "the region overlay",
        1,
    ),
    "label_volume_ratio": Wording(
        "Region sizes",
        "",
        "largest factor between a region's volume and the atlas's, scaled to this brain",
        "the region overlay: which region is swollen or crushed?",
        1,
    ),
    "response_ratio": Wording(
        "Response", "", "length over width of the single-fibre response", "b-values, FA and the mask", 1
    ),
    "assigned_percent": Wording(
        "Streamlines assigned",
        "%",
        "streamlines with a region at both ends",
        "the region overlay and the density",
        1,
    ),
    "density_percent": Wording(
        "Pairs joined", "%", "pairs of regions that a streamline joins", "the matrix", 1
    ),
}
"""By quantity."""
