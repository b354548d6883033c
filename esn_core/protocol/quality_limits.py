"""Quality limits: which numbers of a prepared subject are worth a look, and which make it unusable."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esn_core.protocol.newer_settings import NewIn

Verdict = Literal["pass", "warn", "fail", "not measured"]
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "warn", "pass")


_Number = Annotated[float, Field(ge=-1e6, le=1e6)]
"""In the unit of what is judged: millilitres of brain, percent, millimetres. None comes near a million."""


class _Limit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    warn: _Number
    """From here on, somebody should look."""
    fail: _Number
    """From here on, the subject is not to be used."""

    def judge(self, value: float | None) -> Verdict:
        """Judge a number; None was not measured, and what is not finite fails."""
        if value is None:
            return "not measured"
        if not math.isfinite(value) or self._beyond(value, self.fail):
            return "fail"
        return "warn" if self._beyond(value, self.warn) else "pass"

    def _beyond(self, value: float, limit: float) -> bool:
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What passes, as a reader expects it."""
        raise NotImplementedError


class AtLeast(_Limit):
    """A number that should not be small."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fail > self.warn:
            raise ValueError(f"less is worse: fail {self.fail:g} must not be above warn {self.warn:g}")
        return self

    def _beyond(self, value: float, limit: float) -> bool:
        return value < limit

    @property
    def words(self) -> str:
        """What passes, as a reader expects it."""
        return f"{self.warn:g} or more; fails below {self.fail:g}"


class AtMost(_Limit):
    """A number that should not be large."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fail < self.warn:
            raise ValueError(f"more is worse: fail {self.fail:g} must not be below warn {self.warn:g}")
        return self

    def _beyond(self, value: float, limit: float) -> bool:
        return value > limit

    @property
    def words(self) -> str:
        """What passes, as a reader expects it."""
        return f"{self.warn:g} or less; fails above {self.fail:g}"


class QualityLimits(BaseModel):
    """Table ``[imaging.quality]`` of a protocol; nothing has a default.

    A number that a subject does not have (motion of a scan that was aligned elsewhere, registration where a
    label volume was ready) is not judged.

    Attributes
    ----------
    brain_ml_least, brain_ml_most : AtLeast, AtMost
        Volume of the brain mask.
    labels_outside_percent : AtMost or None
        Share of the labelled volume that lies outside of the brain mask; None judges nothing.
    cut_off_percent : AtMost
        Share of the grid's outermost voxels, where it is largest, that the brain touches on one face.
    signal_to_noise : AtLeast
        Of the b0 in the brain.
    displacement_mm : AtMost
        Mean framewise displacement.
    bad_volumes_percent : AtMost
        Volumes whose signal drops out.
    gradient_margin_percent : AtLeast
        By how much better fibres run on from voxel to voxel under the gradient table than under any with axes
        exchanged or negated.
    registration_correlation : AtLeast
        Between the subject's FA and the warped template.
    registration_rotation_deg : AtMost
    left_right_margin : AtLeast or None
        Of protocols of format 1, where it has a place in what is signed; it judges nothing. Brains are
        nearly symmetric: by how much a registration beats that of the mirrored template could not tell left
        from right in the one adult we measured.
    misplaced_percent : AtMost
        Voxels of left and right regions on the wrong side of the median plane.
    label_volume_ratio : AtMost
        Largest factor between a region's volume and the atlas's, scaled to the subject's brain.
    response_ratio : AtLeast
        Length over width of the single-fibre response.
    assigned_percent : AtLeast
        Streamlines with a region at both ends.
    density_percent : AtLeast
        Pairs of regions that a streamline joins.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    brain_ml_least: AtLeast
    brain_ml_most: AtMost
    labels_outside_percent: Annotated[AtMost | None, NewIn(2)] = None
    cut_off_percent: AtMost
    signal_to_noise: AtLeast
    displacement_mm: AtMost
    bad_volumes_percent: AtMost
    gradient_margin_percent: AtLeast
    registration_correlation: AtLeast
    registration_rotation_deg: AtMost
    left_right_margin: AtLeast | None = None
    misplaced_percent: AtMost
    label_volume_ratio: AtMost
    response_ratio: AtLeast
    assigned_percent: AtLeast
    density_percent: AtLeast

    def limits(self) -> dict[str, AtLeast | AtMost]:
        """Give each limit that judges something by its name, in order."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in _JUDGES_NOTHING}
        return {name: limit for name, limit in own.items() if limit is not None}

    def judge(self, numbers: Mapping[str, float | None]) -> dict[str, Verdict]:
        """Judge a subject's numbers.

        Parameters
        ----------
        numbers : mapping of str to float or None
            By `quantity`; what is missing was not measured.

        Returns
        -------
        dict of str to Verdict
            By limit, in order.

        """
        return {name: limit.judge(numbers.get(quantity(name))) for name, limit in self.limits().items()}


_JUDGES_NOTHING = ("left_right_margin",)


def quantity(limit: str) -> str:
    """Name the number that a limit is about: two limits may bracket one number."""
    return limit.removesuffix("_least").removesuffix("_most")


def overall(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Give the worst of several verdicts."""
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts.values()), "not measured")
