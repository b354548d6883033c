"""Compilation: loops that numpy cannot express, made into machine code once for each machine."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function at its first call and keep the result on disk where that is possible.

    Numba keeps it beside the source, or else under the user's cache directory or ``NUMBA_CACHE_DIR``. Where
    none of them can be written (a read-only container without a home), each process compiles for itself.

    Parameters
    ----------
    function : callable
        Of arrays and numbers; no Python objects.

    Returns
    -------
    callable

    """
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # "no locator available"
        return njit(error_model="numpy")(function)
