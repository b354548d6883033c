"""The numbers of every question follow from the sums that its phase needs, and from no others."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__
from threadpoolctl import threadpool_info

from esn_core.analyses.neurocognition import kinds_of
from esn_core.analyses.planned_sums import kind_of
from esn_core.errors import StudyError
from esn_core.protocol.phases import PHASES
from esn_core.protocol.protocol import Protocol
from esn_core.severity_network.exact_releases import design, network_rows
from esn_core.statistics.logistic_sums import newton_rows
from esn_core.transcript.course import Course, steering
from esn_core.transcript.released import Released

SITES = ("north", "south", "west")
CHILDREN = 40
NEEDS = {name: phase.needs for name, phase in PHASES.items() if phase.needs}
ANALYSES = {
    "cohort": True,
    "cross_site": True,
    "folds": 2,
    "random_scores": 1,
    "subgroups": True,
    "explanation": True,
    "network": {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 15, "minimum_children": 30},
    "neurocognition": {
        "rounds": 3,
        "models": [["gase"], ["predicted_gase"]],
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 95.0}],
    },
    "exact": ["cohort", "explanation", "network", "neurocognition"],
}
MORE = {
    "combat": {"cohort": {"harmonisation": "combat"}},
    "local steps": {"training": {"strategy": "fedavg", "local_steps": 2}},
}


@pytest.fixture(scope="module")
def protocols(protocol_content):
    privacy = {**protocol_content["privacy"], "trust": "secure-sum", "noise": "none"}
    plain = {
        **protocol_content,
        "privacy": privacy,
        "analyses": ANALYSES,
        "phenotypes": {"verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)}},
    }
    made = {"everything": plain}
    for name, tables in MORE.items():
        made[name] = {**plain, **{table: {**plain[table], **rules} for table, rules in tables.items()}}
    voting = {
        "cohort": {"pool_controls": True, "minimum_controls": 5},
        "severity_network": {"candidates": "votes"},
    }
    made["votes"] = {
        **{name: part for name, part in plain.items() if name not in ("analyses", "phenotypes")},
        **{table: {**plain[table], **rules} for table, rules in voting.items()},
    }
    return {name: Protocol.model_validate(content) for name, content in made.items()}


def drawn(protocol, phase, rng):
    """A sum as children could give it, as far as what is read from it cares."""
    kind = kind_of(phase, protocol)
    total = rng.normal(size=kind.dimension)
    if phase == "centre":
        total = np.array([CHILDREN, 3.0])
    elif phase == "votes":
        total = np.append(rng.integers(0, len(SITES) + 1, kind.dimension - 1), len(SITES)).astype(float)
    elif phase == "network":
        scores = rng.normal(size=(CHILDREN, len(protocol.candidates.edges)))
        gase = rng.integers(1, 8, CHILDREN).astype(float)
        told = design(gase, rng.uniform(4, 18, CHILDREN), rng.integers(0, 2, CHILDREN).astype(float))
        total = network_rows(scores, told).sum(axis=0)
    elif phase == "newton":
        kinds = kinds_of(protocol)
        total = np.concatenate(
            [
                newton_rows(
                    np.column_stack([np.ones(CHILDREN), rng.uniform(-1, 1, (CHILDREN, len(m.names) - 1))]),
                    rng.integers(0, 2, CHILDREN).astype(float),
                    coefficients=np.zeros(len(m.names)),
                    feature_norm=m.feature_norm,
                    logit_clip=30.0,
                    thirds=True,
                ).sum(axis=0)
                for m, times in zip(kinds.models, kinds.tracks, strict=True)
                for _ in range(times)
            ]
        )
    elif phase == "combat":
        total[0] = CHILDREN
        total[4 : 4 + len(protocol.candidates.edges)] = 0
        covariates = rng.normal(size=(CHILDREN, 3))
        at = 4 + len(protocol.candidates.edges)
        total[at : at + 6] = (covariates.T @ covariates)[np.triu_indices(3)]
    return Released(total, SITES, 0.0)


def released(protocol, *, without=None, seed=0):
    """A course that has taken every sum of a protocol; all rounds of one phase may be left out."""
    course, rng = Course(protocol), np.random.default_rng(seed)
    for planned in protocol.phases:
        for round_ in range(planned.releases):
            sums = drawn(protocol, planned.phase, rng)
            if planned.phase != without:
                course.take(planned.phase, round_, sums)
    return course


def phases_with_numbers(protocol):
    return [p for p in protocol.phases if PHASES[p.phase].arrays or protocol.cohort.harmonisation == "combat"]


def test_the_table_says_of_every_phase_with_numbers_what_they_need():
    assert set(NEEDS) == {name for name, phase in PHASES.items() if phase.arrays}


@pytest.mark.parametrize("name", ["everything", *MORE])
def test_every_question_has_the_numbers_of_its_phase_in_their_lengths(protocols, name):
    protocol = protocols[name]
    course, kinds = released(protocol), kinds_of(protocol)
    for planned in phases_with_numbers(protocol):
        found = course.arguments(planned.phase, planned.releases - 1).arrays
        expected = PHASES[planned.phase].arrays
        if name == "combat" and PHASES[planned.phase].harmonised:
            expected |= {"combat"}
        assert set(found) == expected
        assert all(np.isfinite(array).all() for array in found.values())
        if "coefficients" in found:
            whole = kinds.tracked_count if planned.phase == "newton" else kinds.coefficient_count
            assert len(found["coefficients"]) == whole


@pytest.mark.parametrize("phase", NEEDS)
def test_the_numbers_of_a_question_need_each_sum_that_the_table_names_and_no_other(protocols, phase):
    protocol = protocols[{"local-update": "local steps", "reference": "votes"}.get(phase, "everything")]
    asked = {planned.phase: planned.releases for planned in protocol.phases}
    whole = released(protocol).arguments(phase, asked[phase] - 1).arrays
    assert NEEDS[phase] & set(asked) <= steering(protocol)
    for other in asked:
        course = released(protocol, without=other)
        if other in NEEDS[phase]:
            with pytest.raises(StudyError, match=f"the sum of {other}, round 0, has not been released"):
                course.arguments(phase, asked[phase] - 1)
        else:
            again = course.arguments(phase, asked[phase] - 1).arrays
            assert {name: a.tobytes() for name, a in again.items()} == {
                name: a.tobytes() for name, a in whole.items()
            }


@pytest.mark.parametrize("phase", ["gradient", "newton"])
def test_an_earlier_round_has_the_numbers_that_it_had(protocols, phase):
    protocol = protocols["everything"]
    course, later = released(protocol), released(protocol)
    name = "weights" if phase == "gradient" else "coefficients"
    rounds = [course.arguments(phase, n).arrays[name].tobytes() for n in range(3)]
    assert [later.arguments(phase, n).arrays[name].tobytes() for n in (2, 1, 0)] == rounds[::-1]
    assert rounds[0] != rounds[1]


def test_what_no_later_question_depends_on_does_not_steer(protocols):
    assert steering(protocols["everything"]) == {
        *("centre", "association", "gradient", "calibration", "rerun-association", "rerun-calibration"),
        *("network", "newton", "comparison"),
    }
    assert "combat" in steering(protocols["combat"])


# --- other processors ------------------------------------------------------------------------------------

KERNELS = ("Haswell", "Nehalem")


def test_the_numbers_are_kept_for_who_compares_them(protocols):
    path = os.environ.get("ESN_KEPT_NUMBERS")
    if path is None:
        pytest.skip("nobody compares")
    course, kept = released(protocols["everything"]), {}
    for planned in phases_with_numbers(protocols["everything"]):
        for name, array in course.arguments(planned.phase, planned.releases - 1).arrays.items():
            kept[f"{planned.phase} {name}"] = array
    used = {pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}
    assert used == {os.environ["OPENBLAS_CORETYPE"]}
    np.savez(path, **kept)


@pytest.mark.long
def test_another_processor_computes_the_same_numbers_but_for_rounding(tmp_path):
    """No site compares bits: what is needed is that a last bit stays one."""
    if platform.machine() != "x86_64":
        pytest.skip("the kernels are those of another processor")
    found = []
    for kernel in KERNELS:
        path = tmp_path / f"{kernel}.npz"
        told = {**os.environ, "OPENBLAS_CORETYPE": kernel, "ESN_KEPT_NUMBERS": str(path)}
        wide = [name for name in __cpu_dispatch__ if "AVX512" in name or name == "X86_V4"]
        told["NPY_DISABLE_CPU_FEATURES"] = " ".join(wide)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "are_kept", __file__]
        run = subprocess.run(command, env=told, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stdout[-3000:]
        found.append(np.load(path))
    one, other = found
    for name in one.files:
        assert other[name] == pytest.approx(one[name], rel=1e-9, abs=1e-12), name
    # What every step of the training and of the exact models rests on is the same to the bit.
    for name in ("gradient weights", "newton coefficients", "association mean_severity"):
        assert one[name].tobytes() == other[name].tobytes(), name
