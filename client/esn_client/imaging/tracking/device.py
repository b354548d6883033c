"""Device: whether streamlines are followed on the processor or on a graphics card."""

from esn_core.errors import ConfigError


def choose_device(device: str) -> str:
    """Decide where to track.

    Parameters
    ----------
    device : 'auto', 'cpu' or 'cuda'
        'auto' takes a card where there is one that numba can use.

    Returns
    -------
    'cpu' or 'cuda'

    Raises
    ------
    ConfigError
        'cuda' is asked for, and there is no card or no CUDA toolkit.

    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}")
    if device == "cpu":
        return "cpu"
    from numba import cuda  # half a second, which nobody pays who asks for no card

    usable = cuda.is_available()
    if not usable and device == "cuda":
        raise ConfigError(
            "device 'cuda' cannot be used: numba finds no NVIDIA card with its driver and a CUDA toolkit of "
            "11.2 or later. Install the toolkit (NVVM, libdevice and cudart) under /usr/local/cuda or name "
            "its place in CUDA_HOME; `python -m numba -s` lists what is found"
        )
    return "cuda" if usable else "cpu"
