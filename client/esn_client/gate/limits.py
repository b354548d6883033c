"""What a site never exceeds, whatever a protocol asks."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from esn_core.system.toml_file import Table


class Limits(Table):
    """What the site allows, whatever a protocol asks."""

    epsilon_cap: float = Field(gt=0)
    """Largest epsilon that any one patient may spend, over all studies."""
    delta: float = Field(gt=0, lt=0.1)
    """Delta at which the cap is read."""
    minimum_children: int = Field(ge=3)
    """A sum over fewer children does not leave."""
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
    exact_again: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """Hashes of protocols whose exact sums may hold children whom another protocol's exact sums hold."""
