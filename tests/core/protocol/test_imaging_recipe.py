"""Tests of imaging recipes."""

import tomllib
from importlib.resources import files

import pytest
from pydantic import ValidationError

from esn_core.errors import ConfigError
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings

SETTINGS = tomllib.loads(
    files("esn_core.connectome").joinpath("atlases", "phantom-28.recipe.toml").read_text()
)
SCANS = tomllib.loads(files("esn_core.connectome").joinpath("atlases", "scans.toml").read_text())
OTHER = {
    "atlas": "another",
    "sh_order_max": 4,
    "response_voxels": 99,
    "fa_seed_threshold": 0.25,
    "fa_stop_threshold": 0.1,
    "fodf_threshold": 0.2,
    "step_size_mm": 1.0,
    "max_angle_deg": 45.0,
    "min_length_mm": 10.0,
    "max_length_mm": 200.0,
    "seeds": 1000,
    "random_seed": 54321,
    "label_growth_mm": 2.0,
    "seed_depth_voxels": 2,
    "end_search_mm": 3.0,
    "sphere": "repulsion200",
    "shell_s_per_mm2": 2000.0,
    "denoise": "mppca",
    "gibbs": True,
    "motion": "rigid",
    "weight_iterations": 5,
}
MAKING = sorted(set(SETTINGS) - {"quality"})


@pytest.mark.parametrize("name", MAKING)
def test_the_digest_knows_every_setting_that_makes_a_connectome(name):
    assert ImagingRecipe(**(SETTINGS | {name: OTHER[name]})).sha256 != ImagingRecipe(**SETTINGS).sha256


def test_the_digest_does_not_know_the_limits_of_quality():
    """They judge a connectome and change nothing of it: another limit is no reason to make it again."""
    limits = SETTINGS["quality"] | {"density_percent": {"warn": 1.0, "fail": 0.0}}
    assert ImagingRecipe(**(SETTINGS | {"quality": limits})).sha256 == ImagingRecipe(**SETTINGS).sha256


def test_the_digest_does_not_know_the_order_or_the_spelling_of_settings():
    reversed_settings = dict(reversed(SETTINGS.items()))
    spelled = reversed_settings | {"step_size_mm": 2}  # an integer in the TOML file
    assert ImagingRecipe(**spelled).sha256 == ImagingRecipe(**SETTINGS).sha256


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_no_setting_has_a_default(name):
    with pytest.raises(ValidationError, match="Field required"):
        ImagingRecipe(**{key: value for key, value in SETTINGS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sh_order_max", 5, "is even, not 5"),
        ("fa_seed_threshold", 1.0, "less than 1"),
        ("step_size_mm", 0, "greater than 0"),
        ("step_size_mm", float("nan"), "finite number"),
        ("random_seed", -1, "greater than or equal to 0"),
        ("random_seed", 2**32, "less than or equal to 4294967295"),
        ("seeds", 0, "greater than or equal to 100"),
        ("label_growth_mm", -1, "greater than or equal to 0"),
        ("sphere", "globe", "'repulsion100'"),
        ("fa_stop_threshold", 0.3, "streamlines would end where they start"),
        ("min_length_mm", 99.0, "must be below max_length_mm 50"),
        ("denoise", "some", "'patch2self'"),
        ("gibbs", "yes", "valid boolean"),
    ],
)
def test_an_impossible_setting_is_refused(name, value, message):
    with pytest.raises(ValidationError, match=message):
        ImagingRecipe(**(SETTINGS | {"max_length_mm": 50.0, name: value}))


def test_all_complaints_come_at_once():
    with pytest.raises(ValidationError) as caught:
        ImagingRecipe(**(SETTINGS | {"seeds": 1, "max_angle_deg": 120, "step_size": 1}))
    assert {error["loc"][0] for error in caught.value.errors()} == {"seeds", "max_angle_deg", "step_size"}


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        ImagingRecipe(**SETTINGS).seeds = 5


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "Phantom 28", ".hidden"])
def test_an_atlas_that_could_be_a_path_is_refused(name):
    with pytest.raises(ValidationError, match="atlas"):
        ImagingRecipe(**(SETTINGS | {"atlas": name}))


@pytest.mark.parametrize("scan", sorted(SCANS))
@pytest.mark.parametrize("atlas", ["desikan-killiany-83", "aal-116"])
def test_every_recipe_that_ships_is_one(atlas, scan):
    recipe = ImagingRecipe(**recipe_settings(atlas, scan=scan))
    assert (recipe.sha256 == ImagingRecipe(**recipe_settings(atlas)).sha256) == (scan == "usual")


def test_few_directions_are_enough_for_order_4_and_low_b_reaches_both_hospitals():
    assert recipe_settings("aal-116", scan="few-directions")["sh_order_max"] == 4
    low = ImagingRecipe(**recipe_settings("aal-116", scan="low-b"))
    for b in (700, 800, 900, 1000):
        assert abs(b - low.shell_s_per_mm2) <= low.shell_width * low.shell_s_per_mm2


def test_an_unknown_scan_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match="unknown scan 'dsi'; there are recipes for: usual, few-directions"):
        recipe_settings("aal-116", scan="dsi")


@pytest.mark.parametrize("setting", [{"shell_width": 0.18}, {"bias": "polynomial"}])
def test_a_newer_setting_is_in_the_digest_where_it_is_used_and_not_where_it_is_not(setting):
    assert ImagingRecipe(**(SETTINGS | setting)).sha256 != ImagingRecipe(**SETTINGS).sha256
    old = {"shell_width": 0.1, "bias": "none"}
    assert ImagingRecipe(**(SETTINGS | old)).sha256 == ImagingRecipe(**SETTINGS).sha256
