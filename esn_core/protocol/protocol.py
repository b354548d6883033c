"""The study as data: who takes part, what is asked, and what it may cost.

A protocol is one TOML file. Its hash is taken over a canonical form, so that
comments and the order of tables do not matter; a site answers only questions
that carry the hash of the protocol it approved.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, StrictBool, ValidationInfo, field_validator, model_validator

from esn_core.connectome.atlas import Atlas
from esn_core.connectome.own_controls import ControlReference
from esn_core.connectome.template import Template, load_template, parse_template
from esn_core.errors import DataError, ProtocolError
from esn_core.formats import PROTOCOL
from esn_core.identity.roster import RosterEntry
from esn_core.privacy.fixed_point import LARGEST_SITES
from esn_core.privacy.release import People
from esn_core.protocol import consistency
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.data_dictionary import Column, Phenotype
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.newer_settings import NewIn, canonical_content, newer_setting
from esn_core.protocol.phases import Asked, PlannedPhase, planned_phases
from esn_core.protocol.public_inputs import ENDINGS, Kind, PublicInput, faults_in, own_inputs, shipped_input
from esn_core.protocol.rules import (
    CohortRules,
    ModelRules,
    PrivacyRules,
    RoundRules,
    SelectionRules,
    Signature,
    TrainingRules,
)
from esn_core.protocol.study_package import read_study
from esn_core.severity_network.candidates import Candidates, candidates_of
from esn_core.system.toml_file import Table, parse_toml


class Protocol(Table):
    """One study, complete."""

    format: Literal[1, 2]
    """Drafts are written in the newest; a signed protocol keeps the meaning and the hash of its own."""
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    simulated: StrictBool
    """Whether every child of the study is simulated."""
    expires: Annotated[datetime.date, Field(strict=True)]
    """Last day, in UTC, on which a site answers questions of this protocol."""
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The only Flower bundle that a site accepts in this study."""
    roster: tuple[RosterEntry, ...] = Field(min_length=3, max_length=LARGEST_SITES)
    """Who takes part. The grid holds the sums of so many sites, and no more."""
    inputs: Annotated[tuple[PublicInput, ...], Field(max_length=10), NewIn(2)] = ()
    """The public inputs by hash, origin, licence and people. An older draft names none: it takes those that
    ship. The files of those that do not ship came with the protocol, or there is no protocol."""
    imaging: ImagingRecipe
    cohort: CohortRules
    severity_network: SelectionRules
    model: ModelRules
    training: TrainingRules
    phenotypes: dict[Column, Phenotype] = Field(default={}, max_length=100)
    """What the columns of participants.tsv mean that the analyses need."""
    analyses: Analyses = Analyses()
    privacy: PrivacyRules
    rounds: RoundRules
    signature: Signature | None = None
    """By the centre; a draft has none."""
    _own_files: dict[str, bytes] = PrivateAttr(default={})

    # Validators of fields, not of the whole: they complain even where another field has a fault.
    @field_validator("*")
    @classmethod
    def _belongs_to_the_format(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name
        if name is not None and "format" in info.data:
            _complain(list(newer_setting(info.data["format"], cls.model_fields[name], value, name)))
        return value

    @field_validator("roster")
    @classmethod
    def _nobody_twice(cls, roster: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
        _complain(consistency.listed_twice(roster))
        return roster

    @field_validator("inputs")
    @classmethod
    def _inputs_are_here(
        cls, inputs: tuple[PublicInput, ...], info: ValidationInfo
    ) -> tuple[PublicInput, ...]:
        twice = [one.title for at, one in enumerate(inputs) if one.title in {o.title for o in inputs[:at]}]
        _complain([f"'inputs' names the {title} twice" for title in twice])
        _complain(faults_in(inputs, info.context or {}))
        return inputs

    @field_validator("model")
    @classmethod
    def _weights_are_known(cls, rules: ModelRules, info: ValidationInfo) -> ModelRules:
        if "inputs" in info.data:
            inputs = info.data["inputs"]
            _complain(consistency.unknown_weights(rules, inputs))
            _complain(consistency.unused_inputs(inputs, kind="weights", name=rules.initial_weights))
        return rules

    @field_validator("imaging")
    @classmethod
    def _heads_are_theirs(cls, imaging: ImagingRecipe, info: ValidationInfo) -> ImagingRecipe:
        if "simulated" in info.data:
            _complain(consistency.simulated_heads(imaging, simulated=info.data["simulated"]))
        if "inputs" in info.data:
            _complain(consistency.unused_inputs(info.data["inputs"], kind="atlas", name=imaging.atlas))
        return imaging

    @field_validator("cohort")
    @classmethod
    def _cohort_is_of_the_format(cls, rules: CohortRules, info: ValidationInfo) -> CohortRules:
        if "format" in info.data:
            _complain(consistency.outdated(rules, version=info.data["format"]))
        return rules

    @field_validator("severity_network")
    @classmethod
    def _public_numbers_exist(cls, rules: SelectionRules, info: ValidationInfo) -> SelectionRules:
        if "imaging" in info.data:
            _complain(consistency.unknown_regions(rules, info.data["imaging"]))
        if {"imaging", "cohort", "simulated", "inputs"} <= info.data.keys():
            simulated, imaging, inputs = info.data["simulated"], info.data["imaging"], info.data["inputs"]
            cohort = info.data["cohort"]
            _complain(consistency.unused_inputs(inputs, kind="template", name=None))
            _complain(consistency.missing_template(cohort, rules, imaging, inputs, simulated=simulated))
        if {"cohort", "roster"} <= info.data.keys():
            _complain(consistency.unfit_reference(info.data["cohort"], rules, info.data["roster"]))
        return rules

    @field_validator("analyses")
    @classmethod
    def _columns_are_explained(cls, analyses: Analyses, info: ValidationInfo) -> Analyses:
        if "phenotypes" in info.data:
            _complain(consistency.unexplained_columns(analyses, info.data["phenotypes"]))
        return analyses

    @field_validator("privacy")
    @classmethod
    def _shares_fit(cls, privacy: PrivacyRules, info: ValidationInfo) -> PrivacyRules:
        if {"training", "analyses"} <= info.data.keys():
            training, analyses = info.data["training"], info.data["analyses"]
            cohort = info.data.get("cohort")
            combat = cohort is not None and cohort.harmonisation == "combat"
            _complain(consistency.unprotected_sums(privacy, training, analyses, combat=combat))
            voting = "severity_network" in info.data and info.data["severity_network"].candidates == "votes"
            plan = _planned(training, analyses, cohort, votes=voting)
            if "simulated" in info.data:
                simulated = info.data["simulated"]
                _complain(consistency.bare_sums(privacy, analyses, plan, simulated=simulated))
                if cohort is not None and "inputs" in info.data:
                    inputs = info.data["inputs"]
                    _complain(consistency.chosen_lines(cohort, inputs, plan, simulated=simulated))
            _complain(consistency.unfit_votes(privacy, analyses, voting=voting))
            _complain(consistency.unfit_shares(privacy, plan))
        return privacy

    @field_validator("rounds")
    @classmethod
    def _quorum_fits(cls, rounds: RoundRules, info: ValidationInfo) -> RoundRules:
        _complain(
            consistency.unfit_quorum(
                rounds,
                sites=len(info.data.get("roster", ())),
                privacy=info.data.get("privacy"),
                analyses=info.data.get("analyses"),
                without_controls=len(info.data["cohort"].without_controls) if "cohort" in info.data else 0,
            )
        )
        return rounds

    @model_validator(mode="after")
    def _take_own_files(self, info: ValidationInfo) -> Self:
        """Keep the files of the own inputs, whose hashes were compared, and read what can be read here."""
        self._own_files = dict(info.context or {})
        try:
            _ = self._own_file("template") and self.template
        except (DataError, UnicodeDecodeError) as error:
            raise ValueError(f"the template cannot be used: {error}") from None
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with some fields exchanged; what was computed of the old fields is no part of it."""
        copy = super().model_copy(update=update, deep=deep)
        for name in _COMPUTED:
            copy.__dict__.pop(name, None)
        return copy

    @cached_property
    def canonical(self) -> bytes:
        """All that the protocol says, in one form; the signature is no part of it."""
        content = canonical_content(self)
        del content["signature"]
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def sha256(self) -> str:
        """Hash of the canonical form."""
        return hashlib.sha256(self.canonical).hexdigest()

    @cached_property
    def phases(self) -> tuple[PlannedPhase, ...]:
        """What is asked, in order, the roll call left out."""
        return _planned(self.training, self.analyses, self.cohort, votes=self.voting)

    @property
    def voting(self) -> bool:
        """Whether the sites vote on candidates, and nothing else is asked."""
        return self.severity_network.candidates == "votes"

    def minimum(self, people: People) -> int:
        """Return how many children of a split, or controls, a site needs for a sum over them."""
        if people == "controls":
            return self.cohort.minimum_controls
        network = self.analyses.network if people == "training" else None
        return max(self.cohort.minimum_children, network.minimum_children if network is not None else 0)

    @cached_property
    def template(self) -> Template | None:
        """The public template of the atlas; None where nothing of the protocol asks for one."""
        asks = ("template", "modules")
        if self.cohort.harmonisation == "site-controls" and self.severity_network.candidates not in asks:
            return None
        own = self._own_file("template")
        if own is not None:
            return parse_template(self.atlas, own.decode())
        return load_template(self.imaging.atlas, simulated=self.simulated)

    @property
    def atlas(self) -> Atlas:
        """The atlas, one that ships or the protocol's own; `ConfigError` where there is none."""
        return self.imaging.parcellation

    @property
    def own_weights(self) -> bytes | None:
        """The pre-trained weights that came with the protocol; None for those that ship."""
        return self._own_file("weights")

    @property
    def own_files(self) -> Mapping[str, bytes]:
        """Every file that came with the protocol, by name: with them it is a study package."""
        return self._own_files

    @property
    def public_inputs(self) -> tuple[PublicInput, ...]:
        """The inputs that the study uses; where an older draft names none, as this version describes them."""
        template = None if self.template is None else self.imaging.atlas
        used: tuple[tuple[Kind, str | None], ...] = (
            ("atlas", self.imaging.atlas),
            ("weights", None if self.voting else self.model.initial_weights),
            ("template", template),
        )
        found = []
        for kind, name in used:
            named = [
                one for one in self.inputs if one.kind == kind and (kind == "template" or one.name == name)
            ]
            known = named[0] if named else shipped_input(kind, name) if name else None
            found += [] if known is None or name is None else [known]
        return tuple(found)

    def _own_file(self, kind: Kind) -> bytes | None:
        """Return the first file of the own input of a kind; None where there is none."""
        own = own_inputs(self.inputs, kind)
        return self._own_files[own[0].name + ENDINGS[kind][0]] if own else None

    @cached_property
    def candidates(self) -> Candidates:
        """The edges that may belong to the severity network: a question has so many weights."""
        rules = self.severity_network
        present = None if self.template is None else self.template.present
        return candidates_of(rules.candidates, self.atlas, present, pairs=rules.pairs)

    @cached_property
    def pooled_reference(self) -> ControlReference | None:
        """By which children are judged where a hospital has no controls; None where nothing was pooled."""
        pooled, pairs = self.cohort.reference, self.severity_network.pairs
        return None if pooled is None else pooled.reference(self.atlas, pairs)

    def trains(self, site: str) -> bool:
        """Tell whether a site judges its children by its own controls, and so takes part in training."""
        return site not in self.cohort.without_controls

    @property
    def training_quorum(self) -> int:
        """How many sites that train are in any sum, at least."""
        return self.rounds.quorum - len(self.cohort.without_controls)

    @property
    def against_personal_models(self) -> tuple[str, ...]:
        """Why hospitals have no personal model, in words after the study's name; nothing where they have."""
        faults = []
        if self.cohort.harmonisation != "site-controls":
            faults.append("scores its children by a public template, not by own controls")
        if self.candidates.grouped:
            faults.append("releases averages of modules, not of connections")
        if self.severity_network.centre == "adjusted":
            faults.append("adjusts its network for age and sex")
        return tuple(faults)

    def gives_personal_model(self, site: str) -> bool:
        """Tell whether a site that has answered everything can have a personal model of the study."""
        return not self.voting and not self.against_personal_model_of(site)

    def against_personal_model_of(self, site: str) -> tuple[str, ...]:
        """Why one hospital has no personal model, in the same words; nothing where it has."""
        by_others = () if self.trains(site) else ("judges this site's children by other sites' controls",)
        return self.against_personal_models + by_others

    @property
    def template_sha256(self) -> str:
        """Hash of the public template, which is compared at roll call; zeros where there is none."""
        return "0" * 64 if self.template is None else self.template.sha256

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the roster."""
        return tuple(entry.site for entry in self.roster)

    @property
    def masked(self) -> bool:
        """Whether the sites' vectors are hidden by masks."""
        return self.privacy.trust == "secure-sum"

    @property
    def self_masked(self) -> bool:
        """Whether a site may be asked with another set of sites, and so needs a mask of its own."""
        return self.masked and self.rounds.quorum < len(self.roster)

    @property
    def noise_share(self) -> float:
        """The part of a release's noise variance that each site adds.

        Under masks, the fewest sites that answer and do not collude add all of
        it together (Kairouz, Liu & Steinke 2021, arXiv:2102.06387, section 4).
        """
        return 1 / (self.rounds.quorum - self.privacy.colluding_sites) if self.masked else 1.0


_COMPUTED = tuple(name for name, found in vars(Protocol).items() if isinstance(found, cached_property))


def _planned(
    training: TrainingRules, analyses: Analyses, cohort: CohortRules | None, *, votes: bool
) -> tuple[PlannedPhase, ...]:
    return planned_phases(
        Asked(
            training_rounds=training.rounds,
            local_steps=training.local_steps,
            combat=cohort is not None and cohort.harmonisation == "combat",
            analyses=analyses,
            votes=votes,
            reference=cohort is not None and cohort.pool_controls,
        )
    )


def _complain(said: list[str]) -> None:
    """Raise what pydantic turns into a complaint about the field; nothing where nothing was said."""
    if said:
        raise ValueError("; ".join(said))


def load_protocol(path: Path) -> Protocol:
    """Read a protocol, a draft or a signed one, or a study package; `load_signed` looks at the signature.

    Raises
    ------
    ProtocolError
        The file cannot be read, is not TOML, or says something impossible; a file of an own input is missing
        or is another than the one that was named. The message lists every fault with its place.

    """
    text, given = read_study(path)
    return parse_protocol(text, given, name=str(path))


def parse_protocol(text: bytes, given: Mapping[str, bytes], *, name: str) -> Protocol:
    """Read a protocol from its text and the files that came with it, by name; else as `load_protocol`."""
    return parse_toml(
        text, Protocol, name=name, error=ProtocolError, written_as=PROTOCOL, context=dict(given)
    )
