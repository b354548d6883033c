"""TOML files as checked models: complain once, completely."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from esn_core.errors import ConfigError, EsnError
from esn_core.formats import Format, version_in


class Table(BaseModel):
    """A table of settings: frozen, without unknown entries, without infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_M = TypeVar("_M", bound=BaseModel)


def read_toml(
    path: Path,
    model: type[_M],
    *,
    error: type[EsnError] = ConfigError,
    written_as: Format | None = None,
) -> _M:
    """Read a TOML file into a checked model, and complain once, completely.

    Parameters
    ----------
    path : Path
    model : type of pydantic model
    error : type of EsnError
    written_as : Format, optional
        Of a file that names its format: one of another version is refused for that alone, as nothing else
        that it says can be judged.

    Raises
    ------
    EsnError
        Of class `error`; one line that lists every unknown, missing or impossible setting.

    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as cause:
        raise error(f"{path}: there is no such file") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read as a text file") from cause
    return parse_toml(content, model, name=str(path), error=error, written_as=written_as)


def parse_toml(
    text: bytes,
    model: type[_M],
    *,
    name: str,
    error: type[EsnError] = ConfigError,
    written_as: Format | None = None,
    context: object = None,
) -> _M:
    """Read the bytes of a TOML file; `name` is what complaints call it, and the rest as in `read_toml`.

    The model's validators are given the `context`.
    """
    try:
        content: dict[str, Any] = tomllib.loads(text.decode())
    except UnicodeDecodeError as cause:
        raise error(f"{name}: cannot be read as a text file") from cause
    # ValueError: numbers of thousands of digits; RecursionError: tables in tables without end.
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as cause:
        raise error(f"{name}: is not TOML: {cause}") from cause
    fault = written_as.fault_in(version_in(content)) if written_as else None
    if fault:
        raise error(f"{name}: {fault}")
    try:
        return model.model_validate(content, context=context)
    except ValidationError as cause:
        raise error(f"{name}: {_faults(cause)}") from cause


def _faults(cause: ValidationError) -> str:
    said = []
    for fault in cause.errors():
        place = ".".join(str(part) for part in fault["loc"]) or "file"
        if fault["type"] == "missing":
            said.append(f"missing setting '{place}'")
        elif fault["type"] == "extra_forbidden":
            said.append(f"unknown setting '{place}'")
        else:
            text = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            said.append(f"'{place}': {text[:1].lower()}{text[1:]}")
    return "; ".join(said)
