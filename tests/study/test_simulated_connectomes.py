"""A simulated hospital of connectomes is read as a prepared one is, by the site and by the references."""

import json
import tomllib
from importlib.resources import files

import numpy as np
import pytest

from esn_client.cohort.cohort import load_cohort
from esn_client.cohort.participants import read_participants
from esn_client.simulation.connectomes import ATLAS, write_connectomes
from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import load_template
from esn_core.errors import ConfigError
from esn_core.protocol.protocol import Protocol
from esn_server.report.result import NetworkEdge, SeverityNetwork
from esn_server.simulation import reference
from esn_server.simulation.truth import network_truth, true_effects

CHILDREN, CONTROLS = 20, 6


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("elm"), site="elm")


def simulate(directory, *, site, seed=5):
    write_connectomes(
        directory / "bids",
        directory / "derivatives",
        site=site,
        seed=seed,
        children=CHILDREN,
        controls=CONTROLS,
        truth=directory / "truth.npz",
    )
    return directory


@pytest.fixture
def protocol(protocol_content):
    """A protocol of simulated children on the atlas, as plain data."""
    recipe = (files("esn_core.connectome") / "atlases" / f"{ATLAS}.recipe.toml").read_text(encoding="utf-8")
    model = {**protocol_content["model"], "initial_weights": "compact-3"}
    return Protocol.model_validate({**protocol_content, "imaging": tomllib.loads(recipe), "model": model})


def tables(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*.tsv"))
    }


@pytest.mark.parametrize("harmonisation", ["site-controls", "public-template"])
def test_the_site_reads_every_child_as_the_references_do(hospital, protocol, harmonisation):
    rules = protocol.cohort.model_copy(update={"harmonisation": harmonisation})
    protocol = protocol.model_copy(update={"cohort": rules})
    cohort = load_cohort(
        read_participants(hospital / "bids"),
        site="elm",
        derivatives=hospital / "derivatives",
        protocol=protocol,
    )
    seen = reference._read(hospital, "elm", protocol, load_atlas(ATLAS))
    assert (len(seen.children), len(seen.controls), cohort.controls) == (CHILDREN, CONTROLS, CONTROLS)
    scores = reference._scored({"elm": seen}, protocol)["elm"]
    for split, chosen in ((cohort.training, ~seen.held_out), (cohort.held_out, seen.held_out)):
        assert len(split.gase) == chosen.sum() > 0
        np.testing.assert_allclose(split.scores, scores[chosen], atol=1e-9)
        np.testing.assert_array_equal(split.gase, seen.gase[chosen])


def test_equal_seeds_and_names_give_equal_tables_and_others_do_not(hospital, tmp_path):
    found = tables(hospital)
    assert tables(simulate(tmp_path / "again", site="elm")) == found
    assert tables(simulate(tmp_path / "ash", site="ash")) != found
    assert tables(simulate(tmp_path / "later", site="elm", seed=6)) != found


def test_all_sites_of_a_seed_share_one_truth(hospital, tmp_path):
    other = simulate(tmp_path / "ash", site="ash")
    with np.load(hospital / "truth.npz") as ours, np.load(other / "truth.npz") as theirs:
        assert np.any(ours["severity_slope"] != 0)
        np.testing.assert_array_equal(ours["severity_slope"], theirs["severity_slope"])


def test_every_record_says_that_no_scan_stands_behind_it(hospital):
    records = [
        path for path in (hospital / "derivatives").glob("sub-*/**/*.json") if "Origin" in path.read_text()
    ]
    assert (
        len({path.relative_to(hospital / "derivatives").parts[0] for path in records}) == CHILDREN + CONTROLS
    )
    assert "no scan stands behind it" in json.loads(records[0].read_text())["Origin"]


def test_a_directory_in_use_is_left_alone(hospital):
    before = tables(hospital)
    with pytest.raises(ConfigError, match="is not empty"):
        simulate(hospital, site="elm", seed=9)
    assert tables(hospital) == before


def test_the_simulated_template_is_for_simulated_children_alone(protocol):
    assert protocol.template.present.any()
    with pytest.raises(ConfigError, match=f"no public template of real children for the atlas '{ATLAS}'"):
        protocol.model_copy(update={"simulated": False}).template  # noqa: B018


@pytest.mark.parametrize("atlas", [ATLAS, "phantom-28", "aal-116"])
def test_no_template_that_ships_is_of_real_children(atlas):
    with pytest.raises(ConfigError, match="no public template of real children"):
        load_template(atlas)


def test_a_network_is_held_against_the_true_one_of_the_simulation(hospital):
    atlas, true = load_atlas(ATLAS), true_effects({"elm": hospital})
    inside, outside = np.flatnonzero(true)[:3], np.flatnonzero(true == 0)[:2]
    names = [tuple(atlas.names[end] for end in atlas.edges[e]) for e in (*inside, *outside)]
    signs = (np.sign(true[inside[0]]), np.sign(true[inside[1]]), -np.sign(true[inside[2]]), 1.0, -1.0)
    network = SeverityNetwork(
        atlas=ATLAS,
        # The order of a connection's two ends says nothing.
        edges=[
            NetworkEdge(region_a=b, region_b=a, weight=float(sign), posterior_sd=0.1)
            for (a, b), sign in zip(names, signs, strict=True)
        ],
        candidates=50,
        retained=5,
        private=False,
        note="made up",
    )
    found = network_truth(network, atlas, np.concatenate([inside, outside]), true)
    assert (found.listed, found.same_sign, found.candidates) == (3, 2, 3)


def test_another_kind_of_world_has_another_network_on_the_same_anatomy(hospital, tmp_path):
    write_connectomes(
        tmp_path / "bids",
        tmp_path / "derivatives",
        site="elm",
        seed=5,
        children=3,
        controls=1,
        truth=tmp_path / "truth.npz",
        world="epilepsy",
    )
    ours, clinical = np.load(tmp_path / "truth.npz"), np.load(hospital / "truth.npz")
    assert np.array_equal(ours["present"], clinical["present"])
    assert not np.array_equal(ours["severity_edges"], clinical["severity_edges"])


def test_an_unknown_kind_of_world_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="unknown world 'mars'; there are: clinical, sober, counts"):
        write_connectomes(
            tmp_path / "bids",
            tmp_path / "derivatives",
            site="elm",
            seed=5,
            children=3,
            controls=1,
            truth=None,
            world="mars",
        )
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_has_the_recipe_and_the_columns_of_its_protocol(tmp_path, protocol_content):
    phenotypes = {
        "memory": {"kind": "number", "unit": "points", "range": (3, 9)},
        "side": {"kind": "category", "codes": ["left", "right"]},
        "verbal_score": {"kind": "number", "unit": "points", "range": (0, 250)},
    }
    rehearsed = Protocol.model_validate({**protocol_content, "phenotypes": phenotypes})
    for site, seed in (("elm", 1), ("ash", 2)):
        write_connectomes(
            tmp_path / site / "bids",
            tmp_path / site / "derivatives",
            site=site,
            seed=seed,
            children=CHILDREN,
            controls=CONTROLS,
            truth=tmp_path / site / "truth.npz",
            world_seed=7,
            protocol=rehearsed,
        )
        cohort = load_cohort(
            read_participants(tmp_path / site / "bids"),
            site=site,
            derivatives=tmp_path / site / "derivatives",
            protocol=rehearsed,
        )
        found = cohort.training.phenotypes
        assert 3 <= found["memory"].min() <= found["memory"].max() <= 9
        assert set(found["side"]) == {0.0, 1.0}
        assert np.isfinite(found["verbal_score"]).all()
    truths = [dict(np.load(tmp_path / site / "truth.npz")) for site in ("elm", "ash")]
    assert np.array_equal(truths[0]["severity_edges"], truths[1]["severity_edges"])
    assert not np.array_equal(truths[0]["severity"], truths[1]["severity"])
