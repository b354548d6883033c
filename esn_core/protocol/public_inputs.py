"""Public inputs: what enters a study beside people's data, by hash, origin, licence and people."""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from esn_core.connectome.own_atlas import LARGEST_TABLE_BYTES, LARGEST_VOLUME_BYTES
from esn_core.errors import ConfigError
from esn_core.system.toml_file import Table, read_toml

Kind = Literal["atlas", "weights", "template"]
InputName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
"""Part of names of files at every site: no path fits."""
_Line = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A sentence or two that fit a review; without control characters, which a terminal would obey."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

WEIGHTS = "compact-3"
"""The weights that ship, which a draft takes."""
ENDINGS: Mapping[Kind, tuple[str, ...]] = {
    "atlas": (".tsv", ".nii.gz"),
    "weights": (".safetensors",),
    "template": (".template.tsv", ".simulated-template.tsv"),
}
"""Of an input's files, each named by the input. The first is the one that an own input cannot do without."""
LARGEST_BYTES: Mapping[str, int] = {
    ".tsv": LARGEST_TABLE_BYTES,
    ".nii.gz": LARGEST_VOLUME_BYTES,
    # The model has 7,435 numbers of four bytes.
    ".safetensors": 2**20,
    # 79,800 edges of 400 regions, a line each.
    ".template.tsv": 2**24,
}
"""Of an own input's files, by their ending."""
_ROOMS = {
    "atlas": "esn_core.connectome/atlases",
    "weights": "esn_core.learning/pretrained",
    "template": "esn_core.connectome/atlases",
}


class Described(Table):
    """An atlas, pre-trained weights, or a template of edge strengths, in words."""

    kind: Kind
    name: InputName
    origin: _Line
    """Where it is from and whom to cite, in a line."""
    licence: _Line
    people: int = Field(ge=0, le=10**7)
    """How many people it was made of; 0 where nobody stands behind it, or nobody knows."""


class DescribedInputs(Table):
    """A file in which a coordinator describes own inputs, whose files lie beside it."""

    inputs: tuple[Described, ...] = Field(min_length=1, max_length=10)
    """A study uses one of each kind."""


class PublicInput(Described):
    """One input, with the hashes of its files."""

    files: dict[str, _Digest] = Field(min_length=1, max_length=2)
    """SHA-256 of each of its files, by their names."""

    @model_validator(mode="after")
    def _files_are_its_own(self) -> Self:
        allowed = {f"{self.name}{ending}" for ending in ENDINGS[self.kind]}
        strange = sorted(set(self.files) - allowed)
        if strange:
            raise ValueError(f"{self.title} has no file {strange[0]!r:.80}; {' or '.join(sorted(allowed))}")
        known = shipped().get((self.kind, self.name))
        if known is not None:
            differing = sorted(n for n in {*self.files, *known} if self.files.get(n) != known.get(n))
            if differing:
                raise ValueError(
                    f"{self.title} ships with this version, and {differing[0]} has the SHA-256 "
                    f"{known.get(differing[0], 'of no file')[:16]} there, not "
                    f"{self.files.get(differing[0], 'that of no file')[:16]}; an input of your own needs a "
                    "name of its own, and another version of the software an update"
                )
        elif self.name + ENDINGS[self.kind][0] not in self.files:
            raise ValueError(f"{self.title} needs the file {self.name}{ENDINGS[self.kind][0]}")
        return self

    @property
    def title(self) -> str:
        """What it is, and its name."""
        return f"{self.kind} {self.name}"

    @property
    def ships(self) -> bool:
        """Whether its files are part of this software."""
        return (self.kind, self.name) in shipped()

    @property
    def in_words(self) -> str:
        """Origin, licence and people in a sentence or two."""
        behind = {0: "nobody known", 1: "one person"}.get(self.people, f"{self.people} people")
        return f"{self.origin}. Licence: {self.licence}. Behind it: {behind}."


def own_inputs(inputs: Iterable[PublicInput], kind: Kind) -> list[PublicInput]:
    """Return those of a kind that came with the protocol, and do not ship."""
    return [one for one in inputs if one.kind == kind and not one.ships]


@cache
def shipped() -> Mapping[tuple[Kind, str], Mapping[str, str]]:
    """Return the digests of the files of every input that ships, by kind and name."""
    found: dict[tuple[Kind, str], Mapping[str, str]] = {}
    for entry in _described():
        package, _, room = _ROOMS[entry["kind"]].partition("/")
        names = [entry["name"] + ending for ending in ENDINGS[entry["kind"]]]
        there = {name: files(package).joinpath(room, name) for name in names}
        found[entry["kind"], entry["name"]] = {
            name: hashlib.sha256(file.read_bytes()).hexdigest()
            for name, file in there.items()
            if file.is_file()
        }
    return found


def shipped_input(kind: Kind, name: str) -> PublicInput | None:
    """Describe an input that ships with this software; None where there is none of that name."""
    for entry in _described():
        if (entry["kind"], entry["name"]) == (kind, name):
            return PublicInput.model_validate({**entry, "files": shipped()[kind, name]})
    return None


def faults_in(inputs: Iterable[PublicInput], given: Mapping[str, bytes]) -> list[str]:
    """Say which files of own inputs are missing, altered, too large, or named by none of them.

    Parameters
    ----------
    inputs : iterable of PublicInput
        A protocol's.
    given : mapping of str to bytes
        The files that came with it.

    """
    said = []
    named: set[str] = set()
    for one in inputs:
        for name, digest in {} if one.ships else one.files.items():
            named.add(name)
            content = given.get(name)
            ending = next(e for e in ENDINGS[one.kind] if name == one.name + e)
            if content is None:
                said.append(
                    f"the file {name} of the {one.title} is not here; read the study package, or its "
                    "protocol.toml with the folder 'inputs' beside it"
                )
            elif len(content) > LARGEST_BYTES.get(ending, 0):
                said.append(
                    f"{name} has {len(content)} bytes; {LARGEST_BYTES.get(ending, 0)} at most are read"
                )
            elif hashlib.sha256(content).hexdigest() != digest:
                found = hashlib.sha256(content).hexdigest()
                said.append(
                    f"{name} is not the file that was signed: it has the SHA-256 {found[:16]}, not "
                    f"{digest[:16]}; get the study package again"
                )
    said += [f"the file {name!r:.80} is none that the protocol names" for name in sorted(set(given) - named)]
    return said


def read_own_inputs(path: Path) -> tuple[tuple[PublicInput, ...], dict[str, bytes]]:
    """Read own inputs from their description and the files beside it.

    Parameters
    ----------
    path : Path
        A TOML file with a table `[[inputs]]` for each.

    Returns
    -------
    inputs : tuple of PublicInput
    given : dict of str to bytes
        Their files, by name.

    Raises
    ------
    ConfigError
        The description cannot be used; a file is missing, or too large.

    """
    found: list[PublicInput] = []
    given: dict[str, bytes] = {}
    for one in read_toml(path, DescribedInputs).inputs:
        beside = [path.parent / f"{one.name}{ending}" for ending in ENDINGS[one.kind]]
        own = {file.name: _read(file) for file in beside if file.is_file()}
        if beside[0].name not in own:
            raise ConfigError(f"{path}: {beside[0].name}, a file of the {one.kind}, is not beside it")
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in own.items()}
        try:
            found.append(PublicInput.model_validate({**one.model_dump(), "files": digests}))
        except ValidationError as cause:
            words = cause.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{path}: {words}") from None
        given |= own
    return tuple(found), given


def _read(path: Path) -> bytes:
    most = max(LARGEST_BYTES.values())
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ConfigError(f"{path}: has more than {most} bytes, and is no such input")
    return content


@cache
def _described() -> tuple[dict[str, Any], ...]:
    text = files("esn_core.protocol").joinpath("shipped_inputs.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["inputs"])
