"""The tables of a protocol, each with the rules that concern it alone."""

import hashlib
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, field_validator, model_validator

from esn_core.connectome.control_offset import SHRINKAGE_CONTROLS, SHRINKAGE_CONTROLS_1
from esn_core.connectome.own_controls import FEWEST_CONTROLS
from esn_core.identity.public_keys import identity_key, readable
from esn_core.identity.roster import SiteName
from esn_core.privacy.fixed_point import LARGEST_SITES
from esn_core.privacy.release import LARGEST_CHILDREN
from esn_core.protocol.newer_settings import NewIn
from esn_core.protocol.phases import PhaseName
from esn_core.protocol.public_inputs import InputName
from esn_core.severity_network.candidate_list import Line, Origin
from esn_core.severity_network.candidates import Source
from esn_core.severity_network.centring import Centring
from esn_core.severity_network.pooled_reference import PooledReference
from esn_core.system.toml_file import Table

Harmonisation = Literal["own-controls", "site-controls", "public-template", "combat"]


class CohortRules(Table):
    """Who is in the study, and who is held out."""

    held_out_fraction: float = Field(gt=0, lt=0.9)
    """Of the children; with nine in ten or more held out, a tenth would find the network."""
    split_salt: str = Field(min_length=1, max_length=80)
    """Mixed into the hash that decides, for each child alone, whether it is held out. A line of text: it is
    hashed once a child."""
    minimum_children: int = Field(ge=3, le=LARGEST_CHILDREN)
    """A sum over fewer children than this does not leave a site. No sum holds more than the limit: it
    would be a protocol that nobody answers."""
    harmonisation: Annotated[Harmonisation, NewIn(2, values=("site-controls", "public-template"))] = (
        "own-controls"
    )
    """What a child's edges are judged by, and so how a scanner's effect is removed. `site-controls`: mean and
    spread of each edge in the site's own controls. `public-template`: a template that ships, less the site's
    own offset. `own-controls`: the same with the shrinkage of format 1, which alone has it. `combat`: the
    template, and ComBat on the children with epilepsy of all sites; for studies without noise, as other
    children enter a child's scores."""
    minimum_controls: Annotated[int, Field(ge=FEWEST_CONTROLS, le=1000), NewIn(2)] = FEWEST_CONTROLS
    """Under `site-controls`: a site with fewer that have a connectome has no reference of its own."""
    missing_edges: Annotated[float, Field(ge=0, le=1), NewIn(2)] = 1.0
    """Largest share of the candidates that may be missing in a person, after a resection for instance. A
    missing edge counts as unknown, with the score 0; who lacks more is left out."""

    pool_controls: Annotated[StrictBool, NewIn(2)] = False
    """In a protocol by which the sites vote: whether they also pool their controls into a reference for
    hospitals without controls. Exact sums about controls, which become public."""
    reference: Annotated[PooledReference | None, NewIn(2)] = None
    """In the study's protocol: the pooled reference, one mean and spread for each of the listed `pairs`."""
    without_controls: Annotated[tuple[SiteName, ...], Field(max_length=LARGEST_SITES), NewIn(2)] = ()
    """Sites whose children are judged by the pooled reference: they train nothing, their held-out children
    are predicted, and their own controls, if any, take no part."""
    after_withdrawal: Annotated[Literal["go-on", "stop"], NewIn(2)] = "go-on"
    """What a site does when somebody's consent is withdrawn in mid-study: `go-on` without that person, or
    `stop` to answer. Where sums without noise have left already, it stops in any case: others, subtracted,
    would be of that person alone."""

    @property
    def offset_shrinkage(self) -> float | None:
        """How many controls a public template is worth against a site's own; None where none are set off."""
        return {"public-template": SHRINKAGE_CONTROLS, "own-controls": SHRINKAGE_CONTROLS_1}.get(
            self.harmonisation
        )

    def holds_out(self, label: str, *, site: str) -> bool:
        """Decide whether a child is held out.

        The decision depends on the child's own label alone, so that adding a child
        moves no other from one split to the other: without that, the sums of the
        two splits would have no bounded sensitivity.
        """
        digest = hashlib.sha256(f"{self.split_salt}\n{site}\n{label}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.held_out_fraction * 2**64


RegionName = Annotated[str, Field(min_length=1, max_length=100)]
"""As in an atlas's table, where a name is a word or two."""


class CarriedOrigin(Origin):
    """The origin of a list of candidates, as a protocol carries it."""

    licence: Annotated[Line | None, NewIn(2)] = None
    """As in the list; a protocol whose list has none keeps its hash."""


class SelectionRules(Table):
    """How the severity network is found."""

    candidates: Annotated[Source, NewIn(2, values=("votes",))]
    """Public list of edges that may belong to the network: those present in the atlas's template, each by
    itself; those that the protocol lists; or the template's edges by pairs of modules, one number a pair.
    `votes`: the sites vote on them, and the protocol asks for nothing else."""
    pairs: tuple[tuple[RegionName, RegionName], ...] = Field(default=(), max_length=10_000)
    """The list, by region names, for candidates 'list' alone. It is public only for children who were not in
    the study that found it: a site with such a child must not approve the protocol. The largest atlas that
    ships has 6,670 pairs."""
    origin: Annotated[CarriedOrigin | None, NewIn(2)] = None
    """Where the list comes from; a list without an origin was published."""
    centre: Annotated[Centring, NewIn(2)] = "mean"
    """Where severity is centred. `levels`: at which the clipped residuals sum to zero, from how many children
    have each GASE; `adjusted`: the same, and what goes with age and sex is taken out; `mean`: at the mean,
    which leaks where scores are skewed."""

    @model_validator(mode="after")
    def _list_belongs_to_its_source(self) -> Self:
        if self.candidates == "list" and not self.pairs:
            raise ValueError("candidates 'list' need 'pairs', the published pairs of regions")
        if self.candidates != "list" and self.origin is not None:
            raise ValueError(f"'origin' belongs to candidates 'list', not '{self.candidates}'")
        if self.candidates != "list" and self.pairs:
            raise ValueError(f"'pairs' belong to candidates 'list', not '{self.candidates}'")
        return self

    @property
    def published(self) -> bool:
        """Whether the list was found in somebody's study, whose children it tells of."""
        return bool(self.pairs) and (self.origin is None or self.origin.kind == "published")


class ModelRules(Table):
    """The network and where it starts from."""

    name: Literal["compact"]
    initial_weights: InputName
    """Pre-trained weights: those that ship are of simulated children; or the protocol's own."""


class TrainingRules(Table):
    """Full batches; with one local step, a round is one step of DP-SGD."""

    rounds: int = Field(ge=0, le=1000)
    """Each is a question to every site and an entry in every ledger. The noise of a step grows with the root
    of their number, so that a thousand rounds have thirty times the noise of one."""
    strategy: Literal["fedadam", "fedavg", "fedprox"] = "fedadam"
    """`fedadam`: the centre's Adam on the mean gradient; `fedavg`: sites descend by themselves, and the
    centre takes the mean of where they arrived; `fedprox`: the same, held near where they began."""
    local_steps: int = Field(default=1, ge=1, le=100)
    """Steps of a site in a round. Several are for studies without noise: what they give is no sum over
    children. Each goes over all training children, and all of them are one
    question, for which a site has the deadline."""
    proximal: float = Field(default=0.0, ge=0, le=1000)
    """FedProx's mu. Times the learning rate it has to be below 1; a thousand holds the weights still."""
    learning_rate: float = Field(gt=0, le=1)
    """Of the centre's Adam, or of the sites' descent. Adam moves each weight by about so much: at 1, no
    weight stays near where it began."""
    max_gradient_norm: float = Field(gt=0, le=1000)
    """Of one child's gradient; with several local steps, of a site's update over the learning rate. Noise
    is in units of it: a bound that no gradient reaches clips nothing and adds noise."""

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


class PrivacyRules(Table):
    """What the study may learn about one child."""

    trust: Literal["secure-sum", "local"]
    """Whether the sites' noise is shared out under masks, or each site adds all of it."""
    colluding_sites: int = Field(ge=0, le=LARGEST_SITES)
    """So many sites may tell the centre all they know, and the noise of the others still suffices.
    With 0, a site that subtracts its own noise from a result is left with too little. Fewer than the quorum,
    and so than the largest roster."""
    noise: Literal["gaussian", "none"]
    epsilon: float = Field(gt=0, le=20)
    """Budget of one child: training and held-out children spend it separately. Unused without noise.
    At 20 the odds change up to 500 million times, which protects nobody, and the grid of the noise is
    still far below delta (`esn_core.analyses.planned_sums`); from 30 on it is not."""
    delta: float = Field(gt=0, lt=0.1)
    """Below one over the children of the study, which is looked at when the sites have told their bands. A
    tenth is the least study: three sites of three children."""
    shares: dict[PhaseName, Annotated[float, Field(gt=0, le=1)]]
    """How the budget is divided among the phases that have noise: parts of mu squared. Those that touch
    training children sum to 1, and so do those that touch held-out children. Unused without noise."""


class RoundRules(Table):
    """When a phase counts as answered."""

    quorum: int = Field(ge=3, le=LARGEST_SITES)
    """So many sites answer, or a question fails; no more than the roster lists."""
    deadline_s: float = Field(gt=0, le=7 * 86400)
    """Of one question. A week: a hospital that was down over a weekend is waited for."""


class Signature(Table):
    """The centre's signature under a protocol; see `esn_core.protocol.signature`."""

    key: str = Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]{1,100}$")
    """Public key of whoever signed, in OpenSSH form without a comment."""
    value: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")
    """Ed25519 signature of the canonical form, in base64."""

    @field_validator("key")
    @classmethod
    def _is_key(cls, text: str) -> str:
        return readable(text, identity_key)
