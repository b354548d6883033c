"""Imaging recipes: every choice on the way from a scan to a connectome."""

import hashlib
import json
import tomllib
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    ValidationInfo,
    model_validator,
)

from esn_core.connectome.atlas import TABLE, VOLUME, Atlas, load_atlas
from esn_core.connectome.own_atlas import check_volume, parse_own_atlas
from esn_core.errors import ConfigError, DataError
from esn_core.protocol.newer_settings import NewIn, canonical_content
from esn_core.protocol.public_inputs import InputName, shipped
from esn_core.protocol.quality_limits import QualityLimits

CLINICAL = "desikan-killiany-83"
"""Whose recipe an atlas of the study's own starts from."""


def _even(value: int) -> int:
    """Refuse odd orders: diffusion is the same in opposite directions."""
    if value % 2:
        raise ValueError(f"a spherical harmonic order is even, not {value}")
    return value


class ImagingRecipe(BaseModel):
    """Table ``[imaging]`` of a study's protocol; the same at every site, and nothing has a default.

    The bounds are what the steps can use: b-values of clinical and research scanners, harmonic orders that a
    hundred directions determine, steps and growths below the size of a region, streamlines up to the length
    of the longest tracts, and a hundred million seeds, a hundred times those of the clinical recipe.

    Attributes
    ----------
    atlas : str
        Name of an atlas that ships with the package, or of the protocol's own.
    shell_s_per_mm2 : float
        The b-value of the shell that is used, whatever else was scanned.
    shell_width : float
        The shell may have a b-value of its own that differs from it by this share.
    shells : 'one' or 'all'
        Whether fODFs are of that shell, or of all that were scanned, with grey matter and fluid told apart.
        Tensors, and so FA and the registration, are of that shell in either case.
    denoise : 'none', 'patch2self' or 'mppca'
    gibbs : bool
        Whether ringing at edges is removed.
    motion : 'none' or 'rigid'
        How volumes are aligned. What was preprocessed elsewhere is neither denoised nor aligned again.
    bias : 'none' or 'polynomial'
        Whether a smooth field of sensitivity is divided out.
    sh_order_max : int
        Highest spherical harmonic order of the fODF, even.
    response_voxels : int
        The single-fibre response is estimated in this many voxels.
    fa_seed_threshold : float
        Streamlines start where FA is at least this.
    seed_depth_voxels : int
        How many layers of the brain's surface streamlines do not start in.
    fa_stop_threshold : float
        Streamlines end where FA falls below this; the fODF is computed where it does not.
    fodf_threshold : float
        Directions whose fODF amplitude is below this share of the white matter's usual peak are not followed.
    step_size_mm, max_angle_deg : float
        Of one step of the tracker.
    min_length_mm, max_length_mm : float
        Shorter and longer streamlines are dropped.
    seeds : int
        Streamlines started, at random positions.
    random_seed : int
        Of positions and directions: the same seed gives the same streamlines.
    label_growth_mm : float
        How far regions grow into unlabelled voxels before streamline ends are looked up.
    end_search_mm : float
        How far a streamline that ends outside of all regions is followed straight on to find one.
    sphere : str
        DIPY's name of the directions that the tracker chooses among.
    weight_iterations : int
        Steps of the fit that lets each streamline count as much as the fODFs along it ask for; 0 for no fit.
    made_elsewhere : str or None
        Programs, versions and settings by which all sites make their connectomes without this software, in a
        line: they are taken in by 'esn-client import', and of all other settings the atlas alone counts.
    quality : QualityLimits
        Which numbers of a subject are worth a look, and which make it unusable. They judge what was made and
        change nothing of it.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    atlas: InputName
    shell_s_per_mm2: Annotated[float, Field(ge=200, le=10_000)]
    shell_width: Annotated[float, Field(ge=0.02, le=0.25), NewIn(2)] = 0.1
    shells: Annotated[Literal["one", "all"], NewIn(2)] = "one"
    denoise: Literal["none", "patch2self", "mppca"]
    gibbs: StrictBool
    motion: Literal["none", "rigid"]
    bias: Annotated[Literal["none", "polynomial"], NewIn(2)] = "none"
    sh_order_max: Annotated[int, Field(ge=2, le=12), AfterValidator(_even)]
    response_voxels: Annotated[int, Field(ge=10, le=10_000)]
    fa_seed_threshold: Annotated[float, Field(gt=0, lt=1)]
    seed_depth_voxels: Annotated[int, Field(ge=0, le=5)]
    fa_stop_threshold: Annotated[float, Field(gt=0, lt=1)]
    fodf_threshold: Annotated[float, Field(ge=0, lt=1)]
    step_size_mm: Annotated[float, Field(gt=0, le=5)]
    max_angle_deg: Annotated[float, Field(gt=0, le=90)]
    min_length_mm: Annotated[float, Field(ge=0, le=100)]
    max_length_mm: Annotated[float, Field(gt=0, le=1000)]
    seeds: Annotated[int, Field(ge=100, le=100_000_000)]
    random_seed: Annotated[int, Field(ge=0, le=4_294_967_295)]
    label_growth_mm: Annotated[float, Field(ge=0, le=10)]
    end_search_mm: Annotated[float, Field(ge=0, le=10)]
    sphere: Literal["repulsion100", "repulsion200", "repulsion724", "symmetric362", "symmetric642"]
    weight_iterations: Annotated[int, Field(ge=0, le=100)]
    made_elsewhere: Annotated[
        str | None, Field(min_length=10, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$"), NewIn(2)
    ] = None
    quality: QualityLimits
    _own_files: dict[str, bytes] = PrivateAttr(default={})

    @model_validator(mode="after")
    def _take_own_atlas(self, info: ValidationInfo) -> Self:
        """Keep the files of an own atlas, of those that came with the protocol."""
        given, names = info.context or {}, (self.atlas + TABLE, self.atlas + VOLUME)
        if ("atlas", self.atlas) in shipped() or names[0] not in given:
            return self
        self._own_files = {name: given[name] for name in names if name in given}
        try:
            parse_own_atlas(self.atlas, given[names[0]])
            if names[1] in given:
                check_volume(names[1], given[names[1]])
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        said = []
        if self.fa_stop_threshold > self.fa_seed_threshold:
            said.append(
                f"fa_stop_threshold {self.fa_stop_threshold} is above fa_seed_threshold "
                f"{self.fa_seed_threshold}: streamlines would end where they start"
            )
        if self.min_length_mm >= self.max_length_mm:
            said.append(
                f"min_length_mm {self.min_length_mm} must be below max_length_mm {self.max_length_mm}"
            )
        if said:
            raise ValueError("; ".join(said))
        return self

    @property
    def parcellation(self) -> Atlas:
        """The atlas; `ConfigError` where none of this name ships, and the protocol brought none."""
        table = self._own_files.get(self.atlas + TABLE)
        return load_atlas(self.atlas) if table is None else parse_own_atlas(self.atlas, table)

    @property
    def own_volume(self) -> bytes | None:
        """The label volume, in MNI space, that came with the protocol; None for an atlas that ships."""
        return self._own_files.get(self.atlas + VOLUME)

    @property
    def has_own_atlas(self) -> bool:
        """Whether the atlas came with the protocol."""
        return bool(self._own_files)

    @property
    def sha256(self) -> str:
        """The hex digest of the recipe's canonical JSON, limits of quality left out: they make nothing.

        The files of an own atlas are part of it: another table or volume of the same name is another recipe.
        """
        content = canonical_content(self)
        del content["quality"]
        if self._own_files:
            digests = {name: hashlib.sha256(part).hexdigest() for name, part in self._own_files.items()}
            content["atlas_files"] = digests
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def recipe_settings(atlas: str, *, scan: str = "usual", own: bool = False) -> dict[str, Any]:
    """Give the settings of a recipe that ships with the package, for a draft to start from.

    Parameters
    ----------
    atlas : str
    own : bool
        Whether the atlas is the study's own: the clinical recipe is taken, which is the same for all atlases
        that ship.
    scan : str
        What is scanned: a name in ``scans.toml``, whose settings go over the atlas's own.

    Returns
    -------
    dict
        As `ImagingRecipe` takes it.

    Raises
    ------
    ConfigError
        No such atlas ships, or no such recipe.

    """
    if not own:
        load_atlas(atlas)
    folder = files("esn_core.connectome") / "atlases"
    scans = tomllib.loads((folder / "scans.toml").read_text(encoding="utf-8"))
    if scan not in scans:
        raise ConfigError(f"unknown scan {scan!r}; there are recipes for: {', '.join(scans)}")
    usual = f"{CLINICAL if own else atlas}.recipe.toml"
    return {
        **tomllib.loads((folder / usual).read_text(encoding="utf-8")),
        **scans[scan],
        "atlas": atlas,
    }
