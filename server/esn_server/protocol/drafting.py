"""Drafts of protocols: a commented file that a coordinator edits and every site reads."""

import datetime
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from jinja2 import Environment, StrictUndefined
from pydantic import ValidationError

from esn_core.connectome.atlas import SIMULATED_HEADS
from esn_core.connectome.own_controls import FEWEST_CONTROLS
from esn_core.connectome.template import load_template
from esn_core.errors import ConfigError
from esn_core.identity.roster import RosterEntry
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.analyses import Analyses
from esn_core.protocol.imaging_recipe import ImagingRecipe, recipe_settings
from esn_core.protocol.phases import PHASES, Asked, PhaseName, planned_phases
from esn_core.protocol.public_inputs import WEIGHTS, Kind, PublicInput, shipped_input
from esn_core.protocol.signature import today_utc
from esn_core.severity_network.candidate_list import CandidateList
from esn_core.severity_network.pooled_reference import FEWEST_AT_A_SITE
from esn_core.statistics.logistic_fit import EXACT_ROUNDS, ROUNDS
from esn_server.link.bundle import bundle_sha256

_SCORE = {"kind": "number", "unit": "standard score, mean 100, sd 15", "range": [40, 160]}
_PHENOTYPES = {
    "age": {"kind": "number", "unit": "years", "range": [0, 21]},
    "sex": {"kind": "category", "codes": ["F", "M"]},
    "duration": {"kind": "number", "unit": "years since the first seizure", "range": [0, 21]},
    "medicines": {"kind": "number", "unit": "antiseizure medicines taken now", "range": [0, 10]},
    "global_score": _SCORE,
    "verbal_score": _SCORE,
    "nonverbal_score": _SCORE,
}

_COVARIATES = ["age", "sex", "duration", "medicines"]
_NEUROCOGNITION = {
    "models": [
        ["gase"],
        ["predicted_gase"],
        *([name] for name in _COVARIATES),
        ["gase", "predicted_gase"],
        ["gase", *_COVARIATES],
        ["predicted_gase", *_COVARIATES],
    ],
    # One standard deviation below the mean of a standard score.
    "outcomes": [
        {"name": "global", "column": "global_score", "impaired_below": 85.0},
        {"name": "verbal", "column": "verbal_score", "impaired_below": 85.0},
        {"name": "nonverbal", "column": "nonverbal_score", "impaired_below": 85.0},
    ],
    "primary": {"outcome": "global"},
}


# So many draws need a hundred children and some; a study of larger hospitals raises both numbers.
_NETWORK = {"t_threshold": 3.1, "null_draws": 60, "bootstrap_draws": 40, "minimum_children": 20}


def analyses_of(*, network: bool, neurocognition: bool, exact: Sequence[str], **asked: object) -> Analyses:
    """Return the table ``[analyses]`` of a draft.

    With `network`, the usual threshold and draws; with `neurocognition`, the usual outcomes and models.

    Raises
    ------
    ConfigError
        What is asked makes no sense; the message says all that is wrong.

    """
    try:
        # Without noise a step costs nothing, and there is time for a model that separates its children.
        rules = _NEUROCOGNITION | {"rounds": EXACT_ROUNDS if "neurocognition" in exact else ROUNDS}
        return Analyses.model_validate(
            {
                **asked,
                "exact": exact,
                "network": _NETWORK if network else None,
                "neurocognition": rules if neurocognition else None,
            }
        )
    except ValidationError as cause:
        said = [fault["msg"].removeprefix("Value error, ") for fault in cause.errors()]
        raise ConfigError(f"these analyses cannot be asked: {'; '.join(said)}") from cause


VALID_DAYS = 365
HELD_OUT_FRACTION = 0.333


def example() -> str:
    """Return a draft without sites, for a coordinator to read before there are any.

    Its numbers are those of a rehearsal: budget, salt and deadline are the study's own choice.
    """
    return draft(
        study="example",
        roster=(),
        simulated=True,
        trust="secure-sum",
        colluding_sites=1,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt="example",
        training_rounds=8,
        deadline_s=600.0,
        analyses=Analyses(),
    )


def draft(
    *,
    study: str,
    roster: Sequence[RosterEntry],
    simulated: bool,
    trust: Literal["secure-sum", "local"],
    colluding_sites: int,
    noise: Literal["gaussian", "none"],
    epsilon: float,
    delta: float,
    split_salt: str,
    training_rounds: int,
    deadline_s: float,
    atlas: str = "phantom-28",
    scan: str = "usual",
    recipe: ImagingRecipe | None = None,
    candidates: CandidateList | Literal["template"] | None = "template",
    votes: bool = False,
    pool_controls: bool = False,
    without_controls: Sequence[str] = (),
    held_out_fraction: float = HELD_OUT_FRACTION,
    analyses: Analyses,
    valid_days: int = VALID_DAYS,
    inputs: Sequence[PublicInput] = (),
    given: Mapping[str, bytes] = MappingProxyType({}),
    initial_weights: str = WEIGHTS,
) -> str:
    """Return a protocol as commented TOML.

    The imaging recipe is the one that ships with the atlas, or the clinical one for an atlas of its own; or
    another protocol's.

    Parameters
    ----------
    study : str
    roster : sequence of RosterEntry
    simulated : bool
        Whether every child is simulated.
    trust : {'secure-sum', 'local'}
    colluding_sites : int
        Under 'secure-sum', so many sites may side with the centre.
    noise : {'gaussian', 'none'}
    epsilon, delta : float
        Budget of one child.
    split_salt : str
        Decides who is held out.
    training_rounds : int
    deadline_s : float
        Longest that one question may take.
    atlas : str
        One that ships, or among the own inputs.
    scan : str
        What is scanned, for the recipe: see `recipe_settings`.
    recipe : ImagingRecipe, optional
        Taken as it is, with its atlas, in place of `atlas` and `scan`.
    candidates : CandidateList or 'template', or None
        The edges that may belong to the network; 'template' takes those of the template of simulated
        controls, which simulated children have alone. None where the sites vote.
    votes : bool
        Draft the step before the study, in which the sites vote on candidates.
    pool_controls : bool
        Let them pool their controls there, for hospitals without.
    without_controls : sequence of str
        Sites that have too few: they do not vote, and in the study they are judged by the pooled reference.
    held_out_fraction : float
        Of the children, by hash; they judge the prediction and train nothing.
    analyses : Analyses
        What is asked beyond the network and its prediction.
    valid_days : int
        The protocol expires so many days from today.
    inputs : sequence of PublicInput
        Public inputs of the study's own.
    given : mapping of str to bytes
        Their files, by name.
    initial_weights : str
        Those that ship, or among the own inputs.

    Raises
    ------
    ConfigError
        No such atlas or recipe ships, the list is of another atlas or recipe, or there is neither a list nor
        a template that these children may have.

    """
    if not simulated:
        analyses = _without_bootstrap(analyses)
    unknown = set(without_controls) - {entry.site for entry in roster}
    if unknown:
        raise ConfigError(f"without controls: {', '.join(sorted(unknown))}, which no enrolled site is called")
    if votes:
        roster = [entry for entry in roster if entry.site not in without_controls]
    elif without_controls and not (isinstance(candidates, CandidateList) and candidates.reference):
        raise ConfigError(
            f"without controls: {', '.join(without_controls)}; the candidates carry no pooled reference to "
            "judge their children by: let the other sites vote with --pool-controls first"
        )
    elif pool_controls:
        raise ConfigError("controls are pooled where the sites vote: say 'votes' as well")
    training = max(len(roster), 3) - (0 if votes else len(without_controls))
    analyses = _enough_children(analyses, sites=training - colluding_sites)
    own = {(one.kind, one.name) for one in inputs}
    if recipe is None:
        # Refuses an unknown name with the known ones.
        imaging = recipe_settings(atlas, scan=scan, own=("atlas", atlas) in own)
    else:
        atlas, imaging = recipe.atlas, recipe.model_dump(mode="json", exclude_none=True)
    if votes and (candidates is not None or analyses != Analyses()):
        raise ConfigError(
            "a protocol by which the sites vote has no candidates yet, and asks for nothing else"
        )
    if not votes:
        drafted = ImagingRecipe.model_validate(imaging, context=given)
        _require_candidates(candidates, drafted, simulated=simulated)
    used: list[tuple[Kind, str]] = [("atlas", atlas), ("weights", initial_weights)]
    if not votes and not isinstance(candidates, CandidateList):
        used.append(("template", atlas))
    ships = [shipped_input(kind, name) for kind, name in used if (kind, name) not in own]
    template = (files("esn_server.protocol") / "protocol.toml.j2").read_text(encoding="utf-8")
    # TOML, not HTML: values pass through 'tojson', whose strings and numbers TOML shares.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    # TOML has no surrogate pairs, which JSON writes for characters beyond the first 65,536.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": True}
    return environment.from_string(template).render(
        study=study,
        simulated=simulated,
        expires=(today_utc() + datetime.timedelta(days=valid_days)).isoformat(),
        bundle_sha256=bundle_sha256(),
        roster=[entry.model_dump() for entry in roster],
        imaging=imaging,
        inputs=[*(one for one in ships if one is not None), *inputs],
        initial_weights=initial_weights,
        candidates=candidates if isinstance(candidates, CandidateList) else None,
        votes=votes,
        pool_controls=pool_controls,
        minimum_controls=FEWEST_AT_A_SITE if pool_controls else FEWEST_CONTROLS,
        without_controls=[] if votes else list(without_controls),
        held_out_fraction=held_out_fraction,
        split_salt=split_salt,
        training_rounds=training_rounds,
        learning_rate=0.001,
        max_gradient_norm=1.0,
        trust=trust,
        colluding_sites=colluding_sites,
        noise=noise,
        epsilon=epsilon,
        delta=delta,
        deadline_s=deadline_s,
        analyses=analyses.model_dump(mode="json", exclude_none=True),
        phenotypes=_PHENOTYPES if analyses.neurocognition else {},
        shares=_shares(
            Asked(
                training_rounds=training_rounds, local_steps=1, combat=False, analyses=analyses, votes=votes
            )
        ),
    )


_WAYS_TO_CANDIDATES = (
    "let the sites vote first (--votes, then --candidates OUT/candidates.toml), or take a list from "
    "'esn-client candidates' or an article (--candidates FILE)"
)


def _require_candidates(
    candidates: CandidateList | Literal["template"] | None, recipe: ImagingRecipe, *, simulated: bool
) -> None:
    """Refuse to go without candidates, a list of another atlas or recipe, and a template of other people."""
    if not simulated and recipe.atlas in SIMULATED_HEADS:
        return  # which the protocol itself refuses, in better words
    if candidates == "template":
        if not simulated:
            raise ConfigError(
                "the candidates 'template' are edges of a template of simulated controls, and these children "
                f"are real: {_WAYS_TO_CANDIDATES}"
            )
        try:
            load_template(recipe.atlas, simulated=True)
        except ConfigError as error:
            raise ConfigError(f"{error}: {_WAYS_TO_CANDIDATES}") from None
    elif candidates is None:
        template = "; or say --candidates template: the simulated template's edges, which rehearses no votes"
        raise ConfigError(
            f"the study needs a public list of candidates: {_WAYS_TO_CANDIDATES}{template * simulated}"
        )
    elif candidates.atlas != recipe.atlas:
        raise ConfigError(f"the candidates are edges of {candidates.atlas}, the study is on {recipe.atlas}")
    elif candidates.recipe_sha256 not in (None, recipe.sha256):
        raise ConfigError(
            f"the candidates were found with another imaging recipe, {candidates.recipe_sha256[:16]}, than "
            f"the study's, {recipe.sha256[:16]}: take the one by which the sites voted (--recipe-of PROTOCOL)"
        )


def _without_bootstrap(analyses: Analyses) -> Analyses:
    """Ask for no bootstrap of the exact network: a protocol of real children may not."""
    if analyses.network is None:
        return analyses
    rules = analyses.network.model_copy(update={"bootstrap_draws": 0})
    return analyses.model_copy(update={"network": rules})


def _enough_children(analyses: Analyses, *, sites: int) -> Analyses:
    """Ask so many training children of each site as the draws of the exact network need, if any do."""
    rules = analyses.network
    if rules is None or sites < 1:
        return analyses
    while rules.too_many_draws(sites) is not None:
        rules = rules.model_copy(update={"minimum_children": rules.minimum_children + 1})
    return analyses.model_copy(update={"network": rules})


def _shares(asked: Asked) -> dict[PhaseName, float]:
    """Divide the budget of each split among its phases; three decimals, which sum to 1."""
    shares: dict[PhaseName, float] = {}
    for children in CHILDREN:
        parts = {
            planned.phase: PHASES[planned.phase].share or 0.0
            for planned in planned_phases(asked)
            if planned.children == children and not planned.exact
        }
        if not parts:
            continue
        whole = sum(parts.values())
        rounded = {phase: max(round(part / whole, 3), 0.001) for phase, part in parts.items()}
        largest = max(rounded, key=lambda phase: rounded[phase])
        rounded[largest] = round(rounded[largest] + 1 - sum(rounded.values()), 3)
        shares |= rounded
    return shares
