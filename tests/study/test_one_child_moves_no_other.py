"""No child moves another child's row by a bit, in any phase, whatever the centre asks with.

The bounds of `docs/privacy.md` are for a child that is added or removed while all other rows stay. So they
have to stay to the bit: numbers that cancel would make anything of a last bit.
"""

import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__
from threadpoolctl import threadpool_info

from esn_client.answers import combat, exact_network
from esn_client.answers.hospital import ROWS, local_update, rows_of
from esn_client.answers.study import Study
from esn_client.cohort.cohort import Cohort, Split
from esn_client.cohort.members import People
from esn_client.privacy_audit.arguments import arguments_of
from esn_core.analyses.neurocognition import kinds_of
from esn_core.errors import ProtocolError
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.phases import PHASES, Asked
from esn_core.protocol.price import price_of
from esn_core.statistics.logistic_sums import LARGEST_COEFFICIENT
from esn_core.transcript.arguments import Arguments
from esn_server.protocol.drafting import _shares

SITES = ("north", "south", "west", "east")
PHENOTYPES = {
    "age": {"kind": "number", "unit": "years", "range": (0, 20)},
    "sex": {"kind": "category", "codes": ("F", "M")},
    "verbal_score": {"kind": "number", "unit": "standard score", "range": (40, 160)},
    **{f"more{i}": {"kind": "number", "unit": "standard score", "range": (-4, 4)} for i in range(5)},
}
# With the intercept nine features: from eight on, every kernel rounds by how many children there are.
MANY = ("age", "sex", *(f"more{i}" for i in range(5)))
ANALYSES = {
    "cohort": True,
    "cross_site": True,
    "folds": 2,
    "random_scores": 1,
    "subgroups": True,
    "explanation": True,
    "neurocognition": {
        "rounds": 2,
        "models": [["gase"], ["gase", *MANY], ["predicted_gase", *MANY]],
        "outcomes": [{"name": "verbal", "column": "verbal_score", "impaired_below": 95.0}],
    },
}
EXACT = {
    **ANALYSES,
    "network": {"t_threshold": 2.5, "null_draws": 18, "bootstrap_draws": 15, "minimum_children": 16},
    "exact": ["cohort", "explanation", "network", "neurocognition"],
}

# Their rows are centred at the mean of a site's children, or are what a site's training led to, by design.
# They are asked without noise only, under masks, and no bound of theirs is called a sensitivity.
CENTRED = "rows are centred at the means of the site's children"
EXCEPTIONS = {
    "combat": CENTRED,
    "network": CENTRED,
    "network-null": CENTRED,
    "network-bootstrap": CENTRED,
    "local-update": "each child's row holds where the training of the whole site led",
}
ROW_PHASES = [name for name, phase in PHASES.items() if phase.children in CHILDREN]
ALONE = [name for name in ROW_PHASES if name not in EXCEPTIONS]

MODELS = ("linear", "newton", "comparison", "ranking")

# How many children are there, the one who comes and goes included: every remainder of a division by four,
# as BLAS computes four rows at once and the others by themselves; and one child alone.
SIZES = (9, 10, 11, 12, 2)
POSITIONS = (0, 0.5, 1)

# Kernels of OpenBLAS that the tests force, and what numpy itself may use beside them. The first machines of a
# hospital are without AVX-512, others have it.
KERNELS = {"x86_64": ("Haswell", "SkylakeX", "Nehalem"), "aarch64": ("ARMV8", "NEOVERSEN1")}


def can_run(kernel):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return {"Haswell": "avx2" in flags, "SkylakeX": "avx512f" in flags}.get(kernel, True)


@pytest.fixture(scope="module")
def studies(build_consortium, protocol_content, tmp_path_factory):
    """Studies of one site with many children: without noise, with it, and with pairs of modules."""
    opened, made = [], {}
    asked = Asked(
        training_rounds=protocol_content["training"]["rounds"],
        local_steps=1,
        combat=False,
        analyses=Analyses.model_validate(ANALYSES),
    )
    noisy = {"shares": _shares(asked), "analyses": ANALYSES, "sites": SITES}
    before = protocol_content["severity_network"]
    try:
        for name, selection, arguments in (
            ("exact", before, {"exact": True, "analyses": EXACT, "sites": SITES}),
            ("noise", before, noisy),
            ("modules", {"candidates": "modules"}, noisy),
        ):
            protocol_content["severity_network"] = selection
            directory = tmp_path_factory.mktemp(name)
            consortium = build_consortium(
                directory, opened, trust="secure-sum", phenotypes=PHENOTYPES, **arguments
            )
            made[name] = Study("north", consortium.protocol, together(consortium.cohorts.values()), "cpu")
    finally:
        protocol_content["severity_network"] = before
        for file in opened:
            file.close()
    return made


def together(cohorts):
    """One cohort of the children of all sites."""

    def joined(splits):
        parts = {
            name: np.concatenate([getattr(split, name) for split in splits])
            for name in ("scores", "gase", "age_years", "sex")
        }
        names = splits[0].phenotypes
        told = {name: np.concatenate([split.phenotypes[name] for split in splits]) for name in names}
        rng = np.random.default_rng(len(told))
        more = rng.uniform(-4, 4, (3, len(parts["gase"])))
        # The first two are alike, and so are the next two.
        told |= {f"more{i}": more[i // 2] for i in range(5)}
        labels = tuple(f"sub-{i:03d}" for i in range(len(parts["gase"])))
        return Split(labels, parts["scores"], parts["gase"], told, parts["age_years"], parts["sex"])

    cohorts = list(cohorts)
    training, held_out = (joined([c.split(which) for c in cohorts]) for which in ("training", "held-out"))
    people = People(
        tuple(f"sub-{i:03d}" for i in range(40)),
        ("child",) * 20 + ("control",) * 19 + ("no-connectome",),
        np.linspace(4, 18, 40),
        np.arange(40) % 2.0,
    )
    return Cohort(training, held_out, controls=8, people=people)


def of(study, chosen, *, extreme=None):
    """The same study of chosen children only; the scores of one of them are as large as numbers are."""

    def pick(split):
        scores = split.scores.copy()
        if extreme is not None:
            scores[extreme] = np.where(scores[extreme] > 0, 1e300, -1e300)
        return Split(
            tuple(split.participants[i] for i in chosen),
            scores[chosen],
            split.gase[chosen],
            {name: values[chosen] for name, values in split.phenotypes.items()},
            split.age_years[chosen],
            split.sex[chosen],
        )

    old = study.cohort.people
    people = People(
        tuple(old.participants[i] for i in chosen),
        tuple(old.standing[i] for i in chosen),
        old.age_years[chosen],
        old.sex[chosen],
    )
    cohort = Cohort(pick(study.cohort.training), pick(study.cohort.held_out), controls=8, people=people)
    return replace(study, cohort=cohort)


def asked_with(phase, arrays):
    return Arguments(phase, arrays)


def adversarial(study, phase):
    """Arrays as a study has them; and some that are large and cancel, within what a site accepts."""
    rng = np.random.default_rng(3)
    plain = dict(arguments_of(phase, study).arrays)
    for name in plain.keys() & {"edge_weights", "mean_severity", "coefficients"}:
        plain[name] = rng.normal(size=plain[name].shape)
    hard = dict(plain)
    for name, array in plain.items():
        if name == "weights":
            hard[name] = array + 30 * rng.normal(size=array.shape)
        elif name == "edge_weights":
            hard[name] = rng.choice([-1.0, 1.0], array.shape) * 10 ** rng.uniform(-6, 6, array.shape)
        elif name == "calibration":
            hard[name] = np.tile([-1e5, 0.9e5], len(array) // 2)
        elif name == "mean_severity":
            hard[name] = np.array([1 / 3])
        elif name == "coefficients":
            # Columns that are alike cancel: what is left of them is rounding.
            kinds = kinds_of(study.protocol)
            times = kinds.tracks if phase == "newton" else (1,) * len(kinds.models)
            largest = LARGEST_COEFFICIENT * np.array([1.0, -1.0, 0.77, -0.77])
            turns = [
                np.concatenate([[0.1, 0.5, 0.3, 0.2], largest, [0.1]])[: len(model.names)]
                for model, tracked in zip(kinds.models, times, strict=True)
                for _ in range(tracked)
            ]
            hard[name] = np.concatenate(turns)
    return plain, hard


def rows_by_child(study, phase, arrays):
    rows = rows_of(asked_with(phase, arrays), study)
    return {label: row.tobytes() for label, row in zip(rows.participants, rows.values, strict=True)}


def those_who_moved(study, phase, arrays, *, size, position, extreme):
    """The children whose rows change when another comes in at a position."""
    at = round(position * (size - 1))
    everybody = list(range(size))
    others = everybody[:at] + everybody[at + 1 :]
    with_it = of(study, everybody, extreme=at if extreme else None)
    before = rows_by_child(of(study, others), phase, arrays)
    after = rows_by_child(with_it, phase, arrays)
    assert len(before) == size - 1
    assert len(after) == size
    return [label for label in before if before[label] != after[label]]


def test_every_phase_is_held_to_it_or_named():
    # Votes and what is pooled are about controls, who are in no row of a child's, and are exact.
    assert set(ROW_PHASES) == set(ROWS) - {"votes", "reference"}
    assert set(EXCEPTIONS) < set(ROW_PHASES)
    # An exception never has noise: nothing that is called a sensitivity rests on it.
    assert {PHASES[name].exact for name in EXCEPTIONS} == {"always"}


@pytest.mark.parametrize("phase", ALONE)
def test_a_child_moves_no_other_childs_row_by_a_bit(studies, phase):
    asked = [
        study
        for study in studies.values()
        if any(price.phase == phase for price in price_of(study.protocol).phases)
    ]
    assert asked
    slow = "edge_weights" in PHASES[phase].arrays
    # Candidates are grouped in associations alone; and the model takes milliseconds a child.
    asked = asked[-1:] if "association" not in phase else asked
    sizes = (2, 11) if slow and phase not in MODELS else SIZES
    for study in asked:
        for hard, arrays in enumerate(adversarial(study, phase)):
            if slow and not hard and phase not in MODELS:
                continue
            for size in sizes:
                for position in POSITIONS[: 2 if slow else 3]:
                    moved = those_who_moved(
                        study, phase, arrays, size=size, position=position, extreme=bool(hard)
                    )
                    assert moved == [], (size, position, hard)


@pytest.mark.parametrize("phase", EXCEPTIONS)
def test_an_exception_is_one(studies, phase, monkeypatch):
    """Should a phase stop being an exception, it has to leave the list."""
    numbers = np.random.default_rng(0).normal(size=(12, 20))
    monkeypatch.setattr(exact_network, "secret_normals", lambda children, _: numbers[:children])
    study = studies["exact"]
    answers = {"combat": combat.sums, "local-update": local_update}

    def rows(children):
        own = of(study, list(range(children)))
        asked = arguments_of(phase, own)
        found = answers[phase](asked, own) if phase in answers else rows_of(asked, own)
        return found.values[:11]

    assert not np.array_equal(rows(11), rows(12))


def test_coefficients_beyond_what_a_site_accepts_are_refused(studies):
    study = studies["noise"]
    for phase in ("newton", "comparison"):
        arrays = arguments_of(phase, study).arrays
        for value in (1.01 * LARGEST_COEFFICIENT, -1e15, 1e300):
            wrong = {**arrays, "coefficients": np.full_like(arrays["coefficients"], value)}
            with pytest.raises(ProtocolError, match="a coefficient lies within -1000 and 1000"):
                rows_of(asked_with(phase, wrong), study)


def test_the_kernel_is_the_one_that_was_forced():
    forced = os.environ.get("ESN_FORCED_KERNEL")
    used = {pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}
    if forced is not None:
        assert used == {forced}


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("kernel", KERNELS.get(platform.machine(), ()))
def test_the_same_holds_on_other_kernels_of_openblas(kernel):
    """Which kernel multiplies depends on the processor: the tests above run again under others."""
    if not can_run(kernel):
        pytest.skip(f"this processor cannot run OpenBLAS's {kernel}")
    told = {**os.environ, "OPENBLAS_CORETYPE": kernel, "ESN_FORCED_KERNEL": kernel}
    if kernel in ("Haswell", "Nehalem"):
        # numpy's own loops then do without AVX-512 as well; each release of numpy names it in its own way.
        wide = [name for name in __cpu_dispatch__ if "AVX512" in name or name == "X86_V4"]
        told["NPY_DISABLE_CPU_FEATURES"] = " ".join(wide)
    # Not this test again: it would never end.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "not other_kernels",
        __file__,
    ]
    run = subprocess.run(command, env=told, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    (passed,) = re.findall(r"(\d+) passed", run.stdout)
    assert int(passed) > len(ALONE)
