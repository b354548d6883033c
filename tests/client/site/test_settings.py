"""The example of a site's settings, which hospitals copy."""

from importlib.resources import files
from pathlib import Path

import pytest

from esn_client.site.settings import load_site
from esn_core.errors import ConfigError

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
        control_reference="false",
    )
    assert EXAMPLE.read_text(encoding="utf-8") == written


def test_the_example_can_be_used_and_consents_to_nothing():
    settings = load_site(EXAMPLE)
    assert settings.dataset == EXAMPLE.parent / "bids"
    assert not settings.limits.exact_sums
    assert not settings.limits.control_sums
    assert not settings.limits.control_reference


@pytest.mark.parametrize(("profile", "least"), [("counts-8", 8), ("counts-10", 10), ("counts-11", 11)])
def test_settings_below_their_profile_of_disclosure_control_are_refused(tmp_path, profile, least):
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace('# disclosure = "counts-10"', f'disclosure = "{profile}"')
    path = tmp_path / "site.toml"
    path.write_text(text.replace("minimum_children = 5", f"minimum_children = {least - 1}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"'{profile}' asks for a minimum_children of {least} or more"):
        load_site(path)
    path.write_text(text.replace("minimum_children = 5", f"minimum_children = {least}"), encoding="utf-8")
    assert load_site(path).limits.disclosure == profile
