"""The study as data: who takes part, what is asked, and what it may cost.

A protocol is one TOML file. Its hash is taken over a canonical form, so that
comments and the order of tables do not matter; a site answers only questions
that carry the hash of the protocol it approved.
"""

import datetime
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from esn_core.connectome.atlas import load_atlas
from esn_core.connectome.connectome import Template, load_template
from esn_core.errors import ConfigError, EsnError, ProtocolError
from esn_core.identity.public_keys import identity_key, mask_key, spoken
from esn_core.privacy.release import CHILDREN, Children
from esn_core.protocol.analyses import SEVERITIES, Analyses
from esn_core.protocol.data_dictionary import Column, Phenotype
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.phases import Phase, PlannedPhase, planned_phases
from esn_core.severity_network.candidates import Candidates, Source, candidates_of, listed_edges

SiteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RosterEntry(_Table):
    """One site of the study."""

    site: SiteName
    node_key: str = Field(pattern=r"^ecdsa-sha2-nistp(256|384|521) [A-Za-z0-9+/=]+$")
    """Public key of the site's SuperNode, in OpenSSH form without a comment."""
    identity_key: str = Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]+$")
    """Public key by which the site signs its ledger, in OpenSSH form without a comment."""
    mask_key: str = Field(pattern=r"^x25519 [A-Za-z0-9+/=]+$")
    """Public key from which the masks of the secure sum are made."""

    @field_validator("identity_key")
    @classmethod
    def _is_identity_key(cls, text: str) -> str:
        return _readable(text, identity_key)

    @field_validator("mask_key")
    @classmethod
    def _is_mask_key(cls, text: str) -> str:
        return _readable(text, mask_key)

    @property
    def fingerprint(self) -> str:
        """What two people compare by telephone: a hash of the name and all keys, in groups of four."""
        said = "\n".join((self.site, self.node_key, self.identity_key, self.mask_key))
        return spoken(hashlib.sha256(said.encode()).digest())


def _readable(text: str, read: Callable[[str], object]) -> str:
    try:
        read(text)
    except ProtocolError as fault:
        raise ValueError(str(fault)) from fault
    return text


class CohortRules(_Table):
    """Who is in the study, and who is held out."""

    held_out_fraction: float = Field(gt=0, lt=0.9)
    split_salt: str = Field(min_length=1, max_length=80)
    """Mixed into the hash that decides, for each child alone, whether it is held out."""
    minimum_children: int = Field(ge=3)
    """A sum over fewer children than this does not leave a site."""
    harmonisation: Literal["own-controls", "combat"] = "own-controls"
    """How a scanner's effect is removed: by the site's healthy controls, or by ComBat on the children with
    epilepsy of all sites. ComBat is for studies without noise: other children enter a child's scores."""

    def holds_out(self, label: str, *, site: str) -> bool:
        """Decide whether a child is held out.

        The decision depends on the child's own label alone, so that adding a child
        moves no other from one split to the other: without that, the sums of the
        two splits would have no bounded sensitivity.
        """
        digest = hashlib.sha256(f"{self.split_salt}\n{site}\n{label}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.held_out_fraction * 2**64


class SelectionRules(_Table):
    """How the severity network is found."""

    candidates: Source
    """Public list of edges that may belong to the network: those present in the atlas's template, each by
    itself; those of a published list; or the template's edges by pairs of modules, one number a pair."""
    pairs: tuple[tuple[str, str], ...] = ()
    """The published list, by region names, for candidates 'list' alone. It is public only for children who
    were not in the study that found it: a site with such a child must not approve the protocol."""

    @model_validator(mode="after")
    def _list_belongs_to_its_source(self) -> Self:
        if self.candidates == "list" and not self.pairs:
            raise ValueError("candidates 'list' need 'pairs', the published pairs of regions")
        if self.candidates != "list" and self.pairs:
            raise ValueError(f"'pairs' belong to candidates 'list', not '{self.candidates}'")
        return self


class ModelRules(_Table):
    """The network and where it starts from."""

    name: Literal["compact"]
    initial_weights: Literal["compact-3"]
    """Weights pre-trained on simulated children, shipped with this software."""


class TrainingRules(_Table):
    """Full batches; with one local step, a round is one step of DP-SGD."""

    rounds: int = Field(ge=0, le=1000)
    strategy: Literal["fedadam", "fedavg", "fedprox"] = "fedadam"
    """`fedadam`: the centre's Adam on the mean gradient; `fedavg`: sites descend by themselves, and the
    centre takes the mean of where they arrived; `fedprox`: the same, held near where they began."""
    local_steps: int = Field(default=1, ge=1, le=100)
    """Steps of a site in a round. Several are for studies without noise: what they give is no sum over
    children."""
    proximal: float = Field(default=0.0, ge=0, le=1000)
    """FedProx's mu."""
    learning_rate: float = Field(gt=0, le=1)
    """Of the centre's Adam, or of the sites' descent."""
    max_gradient_norm: float = Field(gt=0, le=1000)
    """Of one child's gradient; with several local steps, of a site's update over the learning rate."""

    @model_validator(mode="after")
    def _settings_belong_to_the_strategy(self) -> Self:
        if self.strategy == "fedadam" and self.local_steps > 1:
            raise ValueError(f"fedadam takes 1 local step, not {self.local_steps}; choose fedavg or fedprox")
        if self.strategy == "fedprox" and (self.local_steps < 2 or self.proximal == 0):
            raise ValueError(
                f"fedprox needs 2 local steps or more and a proximal term above 0, not {self.local_steps} "
                f"and {self.proximal:g}: it would be fedavg"
            )
        if self.strategy != "fedprox" and self.proximal > 0:
            raise ValueError(f"a proximal term belongs to fedprox, not to {self.strategy}")
        pull = self.proximal * self.learning_rate
        if pull >= 1:
            raise ValueError(
                f"the proximal term times the learning rate must be below 1, not {pull:g}: each step would "
                "overshoot the weights that it is to stay near"
            )
        return self

    @property
    def in_words(self) -> str:
        """The strategy, its rounds and steps, as people read them."""
        names = {"fedadam": "FedAdam", "fedavg": "FedAvg", "fedprox": "FedProx"}
        words = f"{names[self.strategy]}, {self.rounds} {'round' if self.rounds == 1 else 'rounds'}"
        if self.local_steps > 1:
            words += f" of {self.local_steps} steps at each site"
        if self.proximal:
            words += f", proximal term {self.proximal:g}"
        return f"{words}, learning rate {self.learning_rate:g}"


class PrivacyRules(_Table):
    """What the study may learn about one child."""

    trust: Literal["secure-sum", "local"]
    """Whether the sites' noise is shared out under masks, or each site adds all of it."""
    colluding_sites: int = Field(ge=0, le=100)
    """So many sites may tell the centre all they know, and the noise of the others still suffices.
    With 0, a site that subtracts its own noise from a result is left with too little."""
    noise: Literal["gaussian", "none"]
    epsilon: float = Field(gt=0, le=50)
    """Budget of one child: training and held-out children spend it separately. Unused without noise."""
    delta: float = Field(gt=0, lt=0.1)
    shares: dict[Phase, Annotated[float, Field(gt=0, le=1)]]
    """How the budget is divided among the phases that have noise: parts of mu squared. Those that touch
    training children sum to 1, and so do those that touch held-out children. Unused without noise."""


class RoundRules(_Table):
    """When a phase counts as answered."""

    quorum: int = Field(ge=3)
    deadline_s: float = Field(gt=0, le=7 * 86400)


class Signature(_Table):
    """The centre's signature under a protocol; see `esn_core.protocol.signature`."""

    key: str = Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]+$")
    """Public key of whoever signed, in OpenSSH form without a comment."""
    value: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")
    """Ed25519 signature of the canonical form, in base64."""

    @field_validator("key")
    @classmethod
    def _is_key(cls, text: str) -> str:
        return _readable(text, identity_key)


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


class Protocol(_Table):
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
    phenotypes: dict[Column, Phenotype] = {}
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
        training_rounds=training.rounds, local_steps=training.local_steps, combat=combat, analyses=analyses
    )


_M = TypeVar("_M", bound=BaseModel)


def load_protocol(path: Path) -> Protocol:
    """Read a protocol file, a draft or a signed one; `load_signed` looks at the signature.

    Raises
    ------
    ProtocolError
        The file cannot be read, is not TOML, or says something impossible;
        the message lists every fault with its place.

    """
    return read_toml(path, Protocol, error=ProtocolError)


def read_toml(path: Path, model: type[_M], *, error: type[EsnError] = ConfigError) -> _M:
    """Read a TOML file into a checked model, and complain once, completely.

    Raises
    ------
    EsnError
        Of class `error`; one line that lists every unknown, missing or impossible setting.

    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise error(f"{path}: there is no such file") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path}: cannot be read as a text file") from cause
    # ValueError: numbers of thousands of digits; RecursionError: tables in tables without end.
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as cause:
        raise error(f"{path}: is not TOML: {cause}") from cause
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        raise error(f"{path}: {_faults(cause)}") from cause


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
