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


def pretrained(name: str, own: bytes | None = None) -> SeverityModel:
    """Return the model with pre-trained weights.

    Parameters
    ----------
    name : str
    own : bytes, optional
        The safetensors file that came with the protocol; without it, the weights of that name that ship.

    Raises
    ------
    ConfigError
        This version ships no such weights, or the own ones are not this model's.

    """
    model = SeverityModel()
    if own is not None:
        try:
            state = load(own)
        except SafetensorError as cause:
            raise ConfigError(f"the weights '{name}' are no safetensors: {cause}") from None
        found, needed = ({key: p.shape for key, p in s.items()} for s in (state, model.state_dict()))
        if found != needed:
            wrong = sorted(key for key in {*found, *needed} if found.get(key) != needed.get(key))
            raise ConfigError(f"the weights '{name}' are another model's: {wrong[0]!r:.80} differs")
        if not all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in state.values()):
            raise ConfigError(f"the weights '{name}' must be finite numbers of 32 bits")
        model.load_state_dict(state)
        return model
    resource = files("esn_core.learning") / "pretrained" / f"{name}.safetensors"
    try:
        model.load_state_dict(load(resource.read_bytes()))
    except (FileNotFoundError, SafetensorError) as cause:
        raise ConfigError(f"this version ships no weights named '{name}'") from cause
    return model
