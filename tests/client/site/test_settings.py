"""The example of a site's settings, which hospitals copy."""

from importlib.resources import files
from pathlib import Path

from esn_client.site.settings import load_site

EXAMPLE = Path(__file__).parents[3] / "site_configs" / "example.toml"


def test_the_example_is_what_init_writes():
    template = (files("esn_client.site") / "site.toml.template").read_text(encoding="utf-8")
    written = template.format(
        site='"north"',
        dataset='"bids"',
        derivatives='"derivatives"',
        epsilon_cap=8.0,
        delta=0.001,
        trust='"secure-sum"',
        colluding_sites=1,
        exact_sums="false",
        control_sums="false",
    )
    assert EXAMPLE.read_text(encoding="utf-8") == written


def test_the_example_can_be_used_and_consents_to_nothing():
    settings = load_site(EXAMPLE)
    assert settings.dataset == EXAMPLE.parent / "bids"
    assert not settings.limits.exact_sums
    assert not settings.limits.control_sums
