"""A model's weights as one vector, and the pre-trained weights that ship with the software."""

from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load

from esn_core.errors import ConfigError, ProtocolError
from esn_core.learning.severity_model import SeverityModel


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of parameters of `model`."""
    return sum(p.numel() for p in model.parameters())


def to_vector(model: torch.nn.Module) -> NDArray[np.float64]:
    """Return all parameters of `model` as (P,) float64, in the order of their definition."""
    return torch.cat([p.detach().flatten().cpu().double() for p in model.parameters()]).numpy()


def from_vector(vector: NDArray[np.float64], *, device: torch.device | None = None) -> SeverityModel:
    """Build the model whose parameters are the (P,) `vector`.

    Raises
    ------
    ProtocolError
        The vector has another length than the model, or is not finite or too large for float32.

    """
    model = SeverityModel()
    expected = parameter_count(model)
    if vector.shape != (expected,):
        raise ProtocolError(f"the model's weights are {expected} numbers, not of shape {vector.shape}")
    # Compared with the model's own precision: what overflows there is not finite either.
    if not (np.abs(vector) <= np.finfo(np.float32).max).all():
        raise ProtocolError("the model's weights must be finite, and not too large for float32")
    single = torch.from_numpy(vector.astype(np.float32))
    at = 0
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(single[at : at + p.numel()].reshape(p.shape))
            at += p.numel()
    return model.to(device) if device is not None else model


def pretrained(name: str) -> SeverityModel:
    """Return the model with the shipped weights `name`.

    Raises
    ------
    ConfigError
        This version ships no such weights.

    """
    resource = files("esn_core.learning") / "pretrained" / f"{name}.safetensors"
    try:
        state = load(resource.read_bytes())
    except (FileNotFoundError, SafetensorError) as cause:
        raise ConfigError(f"this version ships no weights named '{name}'") from cause
    model = SeverityModel()
    model.load_state_dict(state)
    return model
