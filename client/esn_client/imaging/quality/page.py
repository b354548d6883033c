"""Quality pages: one HTML file for each visit, complete in itself, for the eyes of its own hospital."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from esn_client.imaging.quality import figures
from esn_client.imaging.quality.anatomy import Anatomy
from esn_client.imaging.quality.figures import Drawing
from esn_client.imaging.quality.planes import MORE, Planes
from esn_client.imaging.quality.rendering import environment
from esn_client.imaging.quality.scan_figures import draw_directions, draw_path
from esn_client.imaging.quality.wording import WORDINGS
from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.quality_limits import Verdict, overall, quantity


@dataclass(frozen=True)
class Row:
    """One line of the table of numbers."""

    title: str
    value: str
    verdict: Verdict
    passes: str
    meaning: str
    cure: str


def judge_rows(recipe: ImagingRecipe, numbers: Mapping[str, float | None]) -> list[Row]:
    """Put numbers, limits and verdicts side by side; two limits of one number share a line."""
    verdicts, limits = recipe.quality.judge(numbers), recipe.quality.limits()
    rows = []
    for name, words in WORDINGS.items():
        value, own = numbers.get(name), [limit for limit in limits if quantity(limit) == name]
        shown = "–" if value is None else f"{words.shown(value)} {words.unit}".strip()
        verdict = overall({limit: verdicts[limit] for limit in own})
        passes = "; ".join(limits[limit].words for limit in own)
        rows.append(Row(words.title, shown, verdict, passes, words.meaning, words.cure))
    return rows


def draw_page(
    anatomy: Anatomy,
    *,
    visit: str,
    atlas: Atlas,
    recipe: ImagingRecipe,
    record: Mapping[str, Any],
) -> str:
    """Draw the page of one visit.

    Parameters
    ----------
    anatomy : Anatomy
    visit : str
        Its BIDS label, the only thing that names it.
    atlas : Atlas
    recipe : ImagingRecipe
    record : mapping
        As the counts' sidecar says it.

    Returns
    -------
    str
        HTML that asks for no other file.

    """
    rows = judge_rows(recipe, record["Quality"])
    warned: dict[str, Verdict] = dict.fromkeys(record.get("Warnings", ()), "warn")
    verdict = overall({row.title: row.verdict for row in rows} | warned)
    return (
        environment()
        .get_template("subject.html.j2")
        .render(
            visit=visit,
            atlas=atlas,
            recipe=recipe.model_dump(exclude={"quality"}),
            recipe_sha256=recipe.sha256,
            record=record,
            rows=rows,
            verdict=verdict,
            figures=_draw(anatomy, atlas, recipe),
            version=version("esn-federated"),
        )
    )


def _draw(anatomy: Anatomy, atlas: Atlas, recipe: ImagingRecipe) -> dict[str, Drawing]:
    planes = Planes.through(anatomy.mask, anatomy.affine)
    plain = anatomy.plain
    bright = float(np.percentile(anatomy.b0[anatomy.mask], 99))
    b0 = np.clip(anatomy.b0 / bright, 0, 1)
    fa, brain = planes.image(anatomy.fa, order=1), planes.image(anatomy.mask, order=1)
    drawn = {
        "mask": figures.draw_planes(
            planes,
            planes.image(b0, order=1),
            outline=brain,
            alternative="Planes of the mean unweighted volume with the outline of the brain mask.",
        ),
        "fa": figures.draw_planes(
            planes,
            fa,
            bar="fractional anisotropy",
            alternative="Planes of the fractional anisotropy: white matter is bright.",
        ),
        "colour": figures.draw_planes(
            planes,
            planes.image(_colour(anatomy, plain.principal), order=1),
            alternative="Planes of the fractional anisotropy in the colours of the main fibre direction.",
        ),
        "regions": figures.draw_planes(
            planes,
            figures.overlay_regions(planes, np.clip(anatomy.fa * 1.4, 0, 1), anatomy.regions, atlas),
            outline=brain,
            hatched=planes.image(anatomy.lost, order=1),
            alternative=f"Planes of the FA with the {len(atlas.regions)} regions of atlas {atlas.name}; cool "
            "colours mark the left hemisphere, warm ones the right.",
        ),
        "density": _density(planes, anatomy, brain),
        "connectome": figures.draw_connectome(anatomy.counts, atlas, anatomy.absent),
        "directions": draw_directions(anatomy.scanned_directions, anatomy.turned_directions, anatomy.affine),
        "residuals": figures.draw_residuals(
            plain.residual, limit=max(0.02, float(np.nanpercentile(plain.residual, 99.5)))
        ),
    }
    if anatomy.displacement is not None:
        drawn["motion"] = figures.draw_motion(
            anatomy.displacement, anatomy.is_b0, limit_mm=recipe.quality.displacement_mm.warn
        )
    if anatomy.transforms is not None:
        drawn["path"] = draw_path(anatomy.transforms, anatomy.mask, anatomy.affine, anatomy.is_b0)
        drawn["before"], drawn["after"] = _aligned(planes, anatomy)
    more = Planes.through(anatomy.mask, anatomy.affine, counts=MORE)
    edge = more.image(anatomy.mask, order=1)
    drawn["unweighted"] = figures.draw_planes(
        more,
        more.image(b0, order=1),
        outline=edge,
        alternative="More planes of the mean unweighted volume with the outline of the brain mask.",
    )
    drawn["labels"] = figures.draw_planes(
        more,
        figures.overlay_regions(more, b0, anatomy.regions, atlas),
        outline=edge,
        alternative=f"The same planes with the {len(atlas.regions)} regions of atlas {atlas.name}.",
    )
    if anatomy.template is not None:
        both = {
            "subject": (anatomy.fa, "the subject's FA"),
            "template": (anatomy.template, "the bent template's FA"),
        }
        for name, (volume, words) in both.items():
            drawn[name] = figures.draw_planes(
                more,
                more.image(np.clip(volume, 0, 0.8) / 0.8, order=1),
                outline=edge,
                alternative=f"Planes of {words}, with the outline of the subject's brain.",
            )
    return drawn


def _aligned(planes: Planes, anatomy: Anatomy) -> tuple[Drawing, Drawing]:
    """Draw the mean weighted volume before and after the alignment, equally bright."""
    bright = float(np.percentile(anatomy.weighted_after[anatomy.mask], 99.5))
    before, after = (
        figures.draw_planes(
            planes,
            planes.image(np.clip(volume / bright, 0, 1), order=1),
            alternative=f"Planes of the mean weighted volume {when} the volumes were aligned.",
        )
        for volume, when in ((anatomy.weighted_before, "before"), (anatomy.weighted_after, "after"))
    )
    return before, after


def _colour(anatomy: Anatomy, principal: Floats) -> Floats:
    """Colour the FA by the direction in the patient: red right-left, green front-back, blue up-down."""
    turn = anatomy.affine[:3, :3] / np.linalg.norm(anatomy.affine[:3, :3], axis=0)
    colour = np.zeros((*anatomy.fa.shape, 3))
    colour[anatomy.mask] = np.abs(principal @ turn.T) * np.clip(anatomy.fa[anatomy.mask] * 1.5, 0, 1)[:, None]
    return colour


def _density(planes: Planes, anatomy: Anatomy, brain: Floats) -> Drawing:
    shown = np.log10(1.0 + planes.image(anatomy.density, order=1))
    return figures.draw_planes(
        planes,
        shown,
        colours="inferno",
        limits=(0.0, max(1.0, float(shown.max()))),
        outline=brain,
        bar="streamlines through a voxel: power of ten",
        alternative="Planes of the number of streamlines through each voxel, on a logarithmic scale.",
    )
