"""What a site never exceeds, whatever a protocol asks."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from esn_core.system.toml_file import Table

FEWEST: Mapping[str, int] = {"counts-8": 8, "counts-10": 10, "counts-11": 11}
"""The least minimum count of each profile of disclosure control. 8: OpenSAFELY redacts what stands on seven
patients or fewer (docs.opensafely.org/sdc). 10: what most data partners of CO-CONNECT set (co-connect.ac.uk).
11: the Centers for Medicare & Medicaid Services show no cell of 1 to 10 (resdac.org, 2024)."""


class Limits(Table):
    """What the site allows, whatever a protocol asks."""

    epsilon_cap: float = Field(gt=0)
    """Largest epsilon that any one patient may spend, over all studies."""
    delta: float = Field(gt=0, lt=0.1)
    """Delta at which the cap is read."""
    minimum_children: int = Field(ge=3)
    """A sum over fewer children does not leave."""
    disclosure: Literal["own", "counts-8", "counts-10", "counts-11"] = "own"
    """A profile of disclosure control that the hospital keeps to: settings below it are refused. `own`: the
    hospital's minimum stands for itself."""
    trust: Literal["secure-sum", "local"]
    """The weakest protection that the site accepts: under 'secure-sum' the sites' noise may be shared
    out under masks; under 'local' this site adds all of the noise itself, or does not answer. A sum that
    has no noise leaves without masks under 'local' alone."""
    colluding_sites: int = Field(ge=0)
    """So many other sites, at least, may side with the centre without harm to this site's children."""
    exact_sums: StrictBool
    """Consent to releases about children without noise. They have no epsilon."""
    control_sums: StrictBool = False
    """Consent to exact sums over this site's healthy controls, under masks: votes on candidates."""
    control_reference: StrictBool = False
    """Consent to exact sums of this site's healthy controls' connections, under masks: what hospitals without
    controls judge their children by. It becomes public in the study's protocol, and in its model."""
    exact_again: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """Hashes of protocols whose exact sums may hold children whom another protocol's exact sums hold."""

    @model_validator(mode="after")
    def _keeps_to_the_profile(self) -> Self:
        least = FEWEST.get(self.disclosure, 0)
        if self.minimum_children < least:
            raise ValueError(
                f"disclosure '{self.disclosure}' asks for a minimum_children of {least} or more, not "
                f"{self.minimum_children}"
            )
        return self
