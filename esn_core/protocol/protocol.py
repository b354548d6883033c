"""The study as data: who takes part, what is asked, and what it may cost.

A protocol is one TOML file. Its hash is taken over a canonical form, so that
comments and the order of tables do not matter; a site answers only questions
that carry the hash of the protocol it approved.
"""

import datetime
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
)

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.template import Template, load_template
from esn_core.errors import ConfigError, ProtocolError
from esn_core.formats import PROTOCOL
from esn_core.identity.roster import RosterEntry
from esn_core.privacy.release import CHILDREN, Children
from esn_core.protocol.analyses import SEVERITIES, Analyses
from esn_core.protocol.data_dictionary import Column, Phenotype
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.phases import Asked, PlannedPhase, planned_phases
from esn_core.protocol.rules import (
    CohortRules,
    ModelRules,
    PrivacyRules,
    RoundRules,
    SelectionRules,
    Signature,
    TrainingRules,
)
from esn_core.severity_network.candidates import Candidates, candidates_of, listed_edges
from esn_core.system.toml_file import Table, read_toml

_COMBAT_UNDER_NOISE = (
    "ComBat is for studies without noise, as other children enter a child's harmonised scores "
    "and no noise bounds what one of them does; take 'own-controls', or noise = 'none'"
)
# Sums that mix the children of one site, where the centre would see that site's alone.
_COMBAT_ALONE = "ComBat needs trust 'secure-sum': a site's own sums would give its means away"
_LOCAL_STEPS_ALONE = (
    "several local steps need trust 'secure-sum': a site's own update, seen by itself, tells of its children"
)
_NETWORK_ALONE = (
    "the exact network needs trust 'secure-sum': sums of one site's children tell of each of them"
)


class Protocol(Table):
    """One study, complete."""

    format: Literal[1]
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    simulated: StrictBool
    """Whether every child of the study is simulated."""
    expires: Annotated[datetime.date, Field(strict=True)]
    """Last day, in UTC, on which a site answers questions of this protocol."""
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The only Flower bundle that a site accepts in this study."""
    roster: tuple[RosterEntry, ...] = Field(min_length=3)
    imaging: ImagingRecipe
    cohort: CohortRules
    severity_network: SelectionRules
    model: ModelRules
    training: TrainingRules
    phenotypes: dict[Column, Phenotype] = Field(default={})
    """What the columns of participants.tsv mean that the analyses need."""
    analyses: Analyses = Analyses()
    privacy: PrivacyRules
    rounds: RoundRules
    signature: Signature | None = None
    """By the centre; a draft has none."""

    # Validators of fields, not of the whole: they complain even where another field has a fault.
    @field_validator("roster")
    @classmethod
    def _nobody_twice(cls, roster: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
        said = []
        for what, values in (
            ("site", [entry.site for entry in roster]),
            ("node key", [entry.node_key for entry in roster]),
            ("identity key", [entry.identity_key for entry in roster]),
            ("mask key", [entry.mask_key for entry in roster]),
        ):
            twice = [value for value, times in Counter(values).items() if times > 1]
            if twice:
                said.append(f"the roster lists a {what} twice: {', '.join(twice)}")
        if said:
            raise ValueError("; ".join(said))
        return roster

    @field_validator("severity_network")
    @classmethod
    def _listed_regions_exist(cls, rules: SelectionRules, info: ValidationInfo) -> SelectionRules:
        if rules.pairs and "imaging" in info.data:
            try:
                listed_edges(load_atlas(info.data["imaging"].atlas), rules.pairs)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return rules

    @field_validator("analyses")
    @classmethod
    def _columns_are_explained(cls, analyses: Analyses, info: ValidationInfo) -> Analyses:
        rules = analyses.neurocognition
        if rules is None or "phenotypes" not in info.data:
            return analyses
        explained = info.data["phenotypes"]
        used = {name for model in rules.models for name in model} - set(SEVERITIES)
        used |= {outcome.column for outcome in rules.outcomes}
        said = [
            f"the column {name} is not explained in 'phenotypes'" for name in sorted(used - set(explained))
        ]
        for outcome in rules.outcomes:
            column = explained.get(outcome.column)
            if column is not None and not column.span[0] < outcome.impaired_below < column.span[1]:
                said.append(f"the cut-off of {outcome.name} lies outside the range of {outcome.column}")
        if said:
            raise ValueError("; ".join(said))
        return analyses

    @field_validator("privacy")
    @classmethod
    def _shares_fit(cls, privacy: PrivacyRules, info: ValidationInfo) -> PrivacyRules:
        if not {"training", "analyses"} <= info.data.keys():
            return privacy
        training, analyses = info.data["training"], info.data["analyses"]
        combat = "cohort" in info.data and info.data["cohort"].harmonisation == "combat"
        local = training.local_steps > 1
        if privacy.noise != "none":
            mixed = [_COMBAT_UNDER_NOISE] if combat else []
            if local:
                mixed.append(
                    f"{training.strategy} with {training.local_steps} local steps is for studies without "
                    "noise, as a site's update mixes its children and no noise bounds what one of them does "
                    "to it; take 1 local step, or noise = 'none'"
                )
            if mixed:
                raise ValueError("; ".join(mixed))
        if privacy.trust != "secure-sum":
            alone = [
                words
                for asked, words in (
                    (combat, _COMBAT_ALONE),
                    (local, _LOCAL_STEPS_ALONE),
                    (analyses.network is not None, _NETWORK_ALONE),
                )
                if asked
            ]
            if alone:
                raise ValueError("; ".join(alone))
        if privacy.noise == "none":
            return privacy
        plan = _plan(training, analyses, combat=False)
        planned = {phase.phase for phase in plan if not phase.exact}
        given = set(privacy.shares)
        said = [f"no share of the budget for the phase {name}" for name in sorted(planned - given)]
        said += [f"a share for {name}, which is not asked or is exact" for name in sorted(given - planned)]
        for children in CHILDREN:
            total = sum(privacy.shares.get(p.phase, 0.0) for p in plan if p.children == children)
            if not said and abs(total - 1) > 1e-9:
                said.append(f"the shares of {children} children must sum to 1, not {total:g}")
        if said:
            raise ValueError("; ".join(said))
        return privacy

    @field_validator("rounds")
    @classmethod
    def _quorum_fits(cls, rounds: RoundRules, info: ValidationInfo) -> RoundRules:
        sites = len(info.data.get("roster", ()))
        if sites and rounds.quorum > sites:
            raise ValueError(f"the quorum is {rounds.quorum}, but the roster lists {sites} sites")
        privacy = info.data.get("privacy")
        network = info.data["analyses"].network if "analyses" in info.data else None
        if network is not None and privacy is not None:
            too_many = network.too_many_draws(rounds.quorum - privacy.colluding_sites)
            if too_many is not None:
                raise ValueError(too_many)
        if sites and privacy is not None and privacy.trust == "secure-sum":
            colluding = privacy.colluding_sites
            if rounds.quorum - colluding < 2:
                raise ValueError(
                    f"with {colluding} colluding sites a quorum of {rounds.quorum} leaves "
                    f"{rounds.quorum - colluding} others; a sum hides its parts from 2 on"
                )
            # Any two sets of sites that may be summed then share a site that reveals one seed only.
            if 2 * rounds.quorum <= sites + colluding:
                raise ValueError(
                    f"a quorum of {rounds.quorum} of {sites} sites, {colluding} of them colluding, lets the "
                    f"centre subtract two sums; {(sites + colluding) // 2 + 1} or more are needed"
                )
        return rounds

    @property
    def canonical(self) -> bytes:
        """All that the protocol says, in one form; the signature is no part of it."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @property
    def sha256(self) -> str:
        """Hash of the canonical form."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def phases(self) -> tuple[PlannedPhase, ...]:
        """What is asked, in order, the roll call left out."""
        return _plan(self.training, self.analyses, combat=self.cohort.harmonisation == "combat")

    def minimum(self, children: Children) -> int:
        """Return how many children of a split a site needs to take part."""
        network = self.analyses.network if children == "training" else None
        return max(self.cohort.minimum_children, network.minimum_children if network is not None else 0)

    @property
    def template(self) -> Template:
        """The public template of the atlas; `ConfigError` where none ships for children like these."""
        return load_template(self.imaging.atlas, simulated=self.simulated)

    @property
    def candidates(self) -> Candidates:
        """The edges that may belong to the severity network: a question has so many weights."""
        rules = self.severity_network
        atlas = load_atlas(self.imaging.atlas)
        return candidates_of(rules.candidates, atlas, self.template, pairs=rules.pairs)

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


def _plan(training: TrainingRules, analyses: Analyses, *, combat: bool) -> tuple[PlannedPhase, ...]:
    return planned_phases(
        Asked(
            training_rounds=training.rounds,
            local_steps=training.local_steps,
            combat=combat,
            analyses=analyses,
        )
    )


def load_protocol(path: Path) -> Protocol:
    """Read a protocol file, a draft or a signed one; `load_signed` looks at the signature.

    Raises
    ------
    ProtocolError
        The file cannot be read, is not TOML, or says something impossible;
        the message lists every fault with its place.

    """
    return read_toml(path, Protocol, error=ProtocolError, written_as=PROTOCOL)
