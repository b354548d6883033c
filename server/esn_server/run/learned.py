"""What a run learned, in numbers: the file from which a model is released."""

import hashlib
from pathlib import Path

import numpy as np

from esn_core.arrays import Floats
from esn_core.errors import StudyError
from esn_core.released_model.numbers import ModelNumbers
from esn_core.system.files import write_whole
from esn_server.study.neurocognition import ModelFound
from esn_server.study.study import Findings

LEARNED = "model.safetensors"
"""Among a run's files. It is computed from the sums that the report is computed from: nothing more left."""


def numbers_of(findings: Findings) -> ModelNumbers:
    """Return what a study learned."""
    models = () if findings.neurocognition is None else findings.neurocognition.models
    return ModelNumbers(
        weights=findings.weights,
        network=findings.network,
        calibration=np.array(findings.calibration),
        risks=[_risk(found) for found in models],
    )


def write_learned(findings: Findings, directory: Path) -> str:
    """Write the file into a run's directory; return its hash."""
    content = numbers_of(findings).to_bytes()
    write_whole(directory / LEARNED, content)
    return hashlib.sha256(content).hexdigest()


def read_learned(directory: Path) -> bytes:
    """Return the bytes of the file; `StudyError` where a run has none."""
    try:
        return (directory / LEARNED).read_bytes()
    except OSError as cause:
        raise StudyError(
            f"{directory}: holds no {LEARNED}, which a run writes at its end; 'esn-server run --resume' "
            "writes it from the finished steps"
        ) from cause


def _risk(found: ModelFound) -> tuple[Floats, Floats] | None:
    """Return coefficients, and their covariance for the choice of children and the noise together.

    None where there are none, or the noise hides them. It is known by coefficient alone; what it adds goes
    together as the choice of children does.
    """
    fit = found.logistic
    if fit is None or not fit.told:
        return None
    errors = fit.standard_errors
    grown = np.hypot(errors, fit.noise_sd_of_coefficients) / np.maximum(errors, np.finfo(float).tiny)
    return fit.coefficients, fit.covariance * np.outer(grown, grown)
