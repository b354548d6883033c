"""The numbers of a released model: weights, severity network, and models of impairment, as safetensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from esn_core.arrays import Floats
from esn_core.connectome.atlas import Atlas
from esn_core.errors import DataError, ProtocolError
from esn_core.learning.severity_model import SeverityModel, as_matrices, predict
from esn_core.learning.weights import from_vector
from esn_core.severity_network.selection import SeverityNetwork

_NETWORK = ("edges", "weight", "posterior_sd", "inclusion")


@dataclass(frozen=True)
class ModelNumbers:
    """What a study learned, in numbers.

    Attributes
    ----------
    weights : (P,) float64
        Of the trained network, as a question is asked with them.
    network : SeverityNetwork
        Weight and uncertainty of each candidate connection.
    calibration : (2,) float64
        Intercept and slope.
    risks : sequence of ((k + 1,), (k + 1, k + 1)) float64 or None
        Coefficients and covariance of each model of impairment, in the protocol's order; None where a model
        could not be fitted.

    """

    weights: Floats
    network: SeverityNetwork
    calibration: Floats
    risks: Sequence[tuple[Floats, Floats] | None] = ()

    @property
    def model(self) -> SeverityModel:
        """The trained network; `ProtocolError` where the weights are none of it."""
        return from_vector(self.weights)

    def probe(self, atlas: Atlas) -> float:
        """Return what the network gives for a public pattern of the candidates: software is tried by it."""
        values = np.sin(np.arange(len(self.network.edges), dtype=np.float64))[None]
        matrices = as_matrices(values, self.network.edges, ends=atlas.edges, regions=len(atlas.regions))
        return float(predict(self.model, matrices)[0])

    def to_bytes(self) -> bytes:
        """Return the numbers as a safetensors file; equal numbers have equal bytes."""
        tensors = {"weights": self.weights, "calibration": self.calibration}
        tensors |= {f"network.{name}": getattr(self.network, name) for name in _NETWORK}
        for number, risk in enumerate(self.risks):
            if risk is not None:
                tensors |= {f"risk.{number}.coefficients": risk[0], f"risk.{number}.covariance": risk[1]}
        contiguous = {name: np.ascontiguousarray(found) for name, found in sorted(tensors.items())}
        return save(contiguous, {"risks": str(len(self.risks))})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read the numbers.

        Raises
        ------
        ProtocolError
            They are no such file, or not the numbers of a model.

        """
        try:
            tensors = load(content)
            network = SeverityNetwork(*(tensors[f"network.{name}"] for name in _NETWORK))
            count = 1 + max(
                (int(name.split(".")[1]) for name in tensors if name.startswith("risk.")), default=-1
            )
            risks = [
                (tensors[f"risk.{i}.coefficients"], tensors[f"risk.{i}.covariance"])
                if f"risk.{i}.coefficients" in tensors
                else None
                for i in range(count)
            ]
            found = cls(tensors["weights"], network, tensors["calibration"], risks)
        except (SafetensorError, KeyError, ValueError, TypeError, DataError) as cause:
            raise ProtocolError("model.safetensors holds no numbers of a model") from cause
        if found.calibration.shape != (2,) or not np.isfinite(found.calibration).all():
            raise ProtocolError("model.safetensors holds no calibration of two numbers")
        _ = found.model  # refuses weights that are none
        return found
