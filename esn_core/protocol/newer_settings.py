"""Settings that a later format of protocols brought: an older protocol does not say them, nor mean them.

A setting that is new is marked where it is declared, and its default is what protocols meant before:

    fold_weeks: Annotated[int, Field(ge=0), NewIn(2)] = 0

So is a new value of a setting that is older, `Annotated[Literal["old", "new"], NewIn(2, values=("new",))]`.
Everything else follows: a protocol of an older format keeps its canonical form and its hash, and is refused
where it asks for what its format does not have; a recipe keeps its hash, and what was prepared stays current.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class NewIn:
    """A mark beside a setting's type.

    Attributes
    ----------
    format : int
        The first format of protocols that has the setting.
    values : tuple of str
        Where the setting itself is older: those of its values, or of its items, that are new.

    """

    format: int
    values: tuple[str, ...] = ()


def canonical_content(table: BaseModel) -> dict[str, Any]:
    """Return what a table says as plain data; a newer setting that has its default is not said.

    So a table that was hashed before the setting came keeps its hash, whatever the format: the default of a
    setting, once it is written, is never changed.
    """
    content = table.model_dump(mode="json")
    _leave_out_defaults(content, table)
    return content


def newer_than(version: int, table: object, place: str = "") -> Iterator[str]:
    """Complain of each setting that an older protocol cannot ask for.

    Parameters
    ----------
    version : int
        The protocol's format.
    table : object
        A table, a list or dictionary of tables, or a value, which has no settings.
    place : str
        Where the table stands, for the words.

    Yields
    ------
    str
        A sentence about one setting.

    """
    if isinstance(table, BaseModel):
        for name, field in type(table).model_fields.items():
            value = getattr(table, name)
            yield from newer_setting(version, field, value, f"{place}.{name}" if place else name)
    else:
        for name, part in _parts(table):
            yield from newer_than(version, part, f"{place}.{name}" if place else str(name))


def newer_setting(version: int, field: FieldInfo, value: object, place: str) -> Iterator[str]:
    """Complain of one setting and of what stands in it; see `newer_than`."""
    for mark in _marks(field):
        if mark.format <= version:
            continue
        if not mark.values and value != _default(field):
            yield f"{place} is a setting of format {mark.format}; this protocol has format {version}"
            return
        found = value if isinstance(value, tuple) else (value,)
        for new in (item for item in found if item in mark.values):
            yield f"{place} '{new}' is of format {mark.format}; this protocol has format {version}"
    yield from newer_than(version, value, place)


def _leave_out_defaults(content: Any, value: object) -> None:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            part = getattr(value, name)
            if any(not mark.values for mark in _marks(field)) and part == _default(field):
                del content[name]
            else:
                _leave_out_defaults(content[name], part)
    else:
        for name, part in _parts(value):
            _leave_out_defaults(content[name], part)


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True)


def _parts(value: object) -> Iterator[tuple[Any, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple | list):
        yield from enumerate(value)


def _marks(field: FieldInfo) -> list[NewIn]:
    return [mark for mark in field.metadata if isinstance(mark, NewIn)]
