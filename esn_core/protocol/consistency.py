"""What the tables of a protocol must not say together: each check returns its complaints as sentences.

A check knows nothing of where the tables come from. `Protocol` asks it as soon as the
tables that it needs can be read, so that one reading of a file tells every fault.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from esn_core.connectome.atlas import SIMULATED_HEADS
from esn_core.connectome.template import load_template
from esn_core.errors import ConfigError, DataError
from esn_core.identity.roster import RosterEntry
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.analyses import SEVERITIES, Analyses
from esn_core.protocol.data_dictionary import Phenotype
from esn_core.protocol.imaging_recipe import ImagingRecipe
from esn_core.protocol.phases import PHASES, PlannedPhase
from esn_core.protocol.public_inputs import Kind, PublicInput, own_inputs, shipped
from esn_core.protocol.rules import (
    CohortRules,
    ModelRules,
    PrivacyRules,
    RoundRules,
    SelectionRules,
    TrainingRules,
)
from esn_core.severity_network.candidates import listed_edges
from esn_core.severity_network.pooled_reference import FEWEST_AT_A_SITE, FEWEST_SITES

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
# Nothing bounds what an adversary learns of one child from exact sums: neither a price nor a proof.
_NO_NOISE_FOR_PATIENTS = (
    "noise = 'none' is for simulated children; these are real, and no epsilon would bound what is told of "
    "one; take noise = 'gaussian'"
)

# A hospital reads the results, and knows what it added to them.
_OWN_NOISE = (
    "colluding_sites must be 1 or more, as these children are real: a site that reads a result can subtract "
    "its own share of the noise"
)


def listed_twice(roster: Sequence[RosterEntry]) -> list[str]:
    """Name every site and every key that the roster lists more than once."""
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
    return said


def unknown_regions(rules: SelectionRules, imaging: ImagingRecipe) -> list[str]:
    """Name the listed pairs of regions that the recipe's atlas does not have; a list of all edges is none."""
    if not rules.pairs:
        return []
    try:
        listed = listed_edges(imaging.parcellation, rules.pairs)
    except ConfigError as error:
        return [str(error)]
    if listed.all():
        said = f"'pairs' lists all {len(listed)} edges of {imaging.atlas}: most join nothing, and the noise"
        return [f"{said} of the association grows with each; list those that most controls have"]
    return []


def simulated_heads(imaging: ImagingRecipe, *, simulated: bool) -> list[str]:
    """Refuse an atlas of simulated heads for real children."""
    if simulated or imaging.atlas not in SIMULATED_HEADS:
        return []
    said = f"the atlas {imaging.atlas} is of simulated heads, and these children are real"
    return [f"{said}; take one of real brains, such as desikan-killiany-83"]


def outdated(rules: CohortRules, *, version: int) -> list[str]:
    """Refuse what a newer format says in other words."""
    if version == 1 or rules.harmonisation != "own-controls":
        return []
    said = "harmonisation 'own-controls' is of format 1, where it means a public template less the offset"
    return [f"{said} of the site's controls; say 'site-controls' (mean and spread) or 'public-template'"]


def unused_inputs(inputs: Sequence[PublicInput], *, kind: Kind, name: str | None) -> list[str]:
    """Name the own inputs of a kind that the study does not use, and those that are named twice.

    Parameters
    ----------
    inputs : sequence of PublicInput
    kind : {'atlas', 'weights', 'template'}
    name : str or None
        Of the one that it uses; None where it may have any name.

    """
    found = own_inputs(inputs, kind)
    said = [f"nothing uses the {one.title}" for one in found if name not in (None, one.name)]
    if name is None and len(found) > 1:
        said.append(f"a study has one {kind} of its own, not {len(found)}")
    return said


def unknown_weights(rules: ModelRules, inputs: Sequence[PublicInput]) -> list[str]:
    """Refuse weights that neither ship nor come with the protocol."""
    name = rules.initial_weights
    if ("weights", name) in shipped() or any((one.kind, one.name) == ("weights", name) for one in inputs):
        return []
    ships = ", ".join(known for kind, known in shipped() if kind == "weights")
    return [f"no weights {name} ship with this version ({ships}), and 'inputs' names none of its own"]


def missing_template(
    cohort: CohortRules,
    rules: SelectionRules,
    imaging: ImagingRecipe,
    inputs: Sequence[PublicInput] = (),
    *,
    simulated: bool,
) -> list[str]:
    """Say what asks for a public template where neither one ships for children like these nor one came along.

    One that came along is refused where nothing asks for it, and for real children where no people stand
    behind it.
    """
    own = own_inputs(inputs, "template")
    asks = []
    if cohort.harmonisation != "site-controls":
        asks.append(f"harmonisation '{cohort.harmonisation}' (take 'site-controls')")
    if rules.candidates in ("template", "modules"):
        asks.append(f"candidates '{rules.candidates}' (take 'list')")
    if not asks:
        return [f"nothing uses the {one.title}" for one in own]
    if own:
        unreal = not simulated and own[0].people == 0
        return ["the children are real, and nobody stands behind the template"] * unreal
    try:
        load_template(imaging.atlas, simulated=simulated)
    except (ConfigError, DataError) as error:
        return [f"{error}; asked for by {' and by '.join(asks)}"]
    return []


def unexplained_columns(analyses: Analyses, phenotypes: Mapping[str, Phenotype]) -> list[str]:
    """Name the columns that the analyses use and the data dictionary lacks, and cut-offs out of range."""
    rules = analyses.neurocognition
    if rules is None:
        return []
    used = {name for model in rules.models for name in model} - set(SEVERITIES)
    used |= {outcome.column for outcome in rules.outcomes}
    said = [f"the column {name} is not explained in 'phenotypes'" for name in sorted(used - set(phenotypes))]
    for outcome in rules.outcomes:
        column = phenotypes.get(outcome.column)
        if column is not None and not column.span[0] < outcome.impaired_below < column.span[1]:
            said.append(f"the cut-off of {outcome.name} lies outside the range of {outcome.column}")
    return said


def unprotected_sums(
    privacy: PrivacyRules, training: TrainingRules, analyses: Analyses, *, combat: bool
) -> list[str]:
    """Name what mixes a site's children, and so needs exact sums or the company of other sites' sums."""
    local = training.local_steps > 1
    said = []
    if privacy.noise != "none":
        said = [_COMBAT_UNDER_NOISE] if combat else []
        if local:
            said.append(
                f"{training.strategy} with {training.local_steps} local steps is for studies without "
                "noise, as a site's update mixes its children and no noise bounds what one of them does "
                "to it; take 1 local step, or noise = 'none'"
            )
    if said or privacy.trust == "secure-sum":
        return said
    return [
        words
        for asked, words in (
            (combat, _COMBAT_ALONE),
            (local, _LOCAL_STEPS_ALONE),
            (analyses.network is not None, _NETWORK_ALONE),
        )
        if asked
    ]


def bare_sums(
    privacy: PrivacyRules, analyses: Analyses, plan: Sequence[PlannedPhase], *, simulated: bool
) -> list[str]:
    """Name the sums of real children without noise that a site could steer, or that are of one site."""
    if simulated:
        return []
    if privacy.noise == "none":
        return [_NO_NOISE_FOR_PATIENTS]
    if privacy.trust == "secure-sum" and privacy.colluding_sites < 1:
        return [_OWN_NOISE]
    # Votes decide which edges of all controls are summed, and never whom.
    about_children = [phase for phase in plan if phase.exact and phase.children != "controls"]
    steered = [phase.phase for phase in about_children if PHASES[phase.phase].needs]
    if steered:
        instead = dict.fromkeys(PHASES[phase].instead for phase in steered)
        said = f"exact sums of {', '.join(steered)} are for simulated children; these are real, and one"
        said += " hospital that answers falsely, with the centre or without it, could choose which child they"
        return [f"{said} are about; {'; '.join(instead)}"]
    # The network is refused under 'local' whoever the children are, in words of its own.
    bare = [name for name in analyses.exact if name != "network"]
    if privacy.trust == "secure-sum" or not bare:
        return []
    said = f"exact under trust 'local': {', '.join(bare)}; a site's own sums of real children would leave"
    return [f"{said} with neither noise nor masks; take trust 'secure-sum', or declare nothing exact"]


def chosen_lines(
    cohort: CohortRules, inputs: Sequence[PublicInput], plan: Sequence[PlannedPhase], *, simulated: bool
) -> list[str]:
    """Name the exact sums of real children whose scores follow from a template that came with the protocol.

    A score by a template is cut off at a bound, so that who writes its means, spreads and slopes chooses for
    each edge on which side of a line, also one of age and sex, a child has to lie.
    """
    own = own_inputs(inputs, "template")
    exact = [phase.phase for phase in plan if phase.exact and PHASES[phase.phase].harmonised]
    if simulated or not own or not exact or cohort.harmonisation == "site-controls":
        return []
    said = f"exact sums of {', '.join(exact)} are of scores by the {own[0].title}, and who wrote it could"
    said += " choose which child they are about; these are real: take harmonisation 'site-controls', or"
    return [f"{said} leave [analyses.network] out"]


def unfit_votes(privacy: PrivacyRules, analyses: Analyses, *, voting: bool) -> list[str]:
    """Refuse votes that the centre would see one by one, or beside anything else."""
    if not voting:
        return []
    said = []
    if privacy.trust != "secure-sum":
        said.append("votes need trust 'secure-sum': a site's own vote tells of its few controls")
    if analyses != Analyses():
        said.append("a protocol by which the sites vote asks for nothing else; leave [analyses] empty")
    return said


def unfit_reference(cohort: CohortRules, rules: SelectionRules, roster: Sequence[RosterEntry]) -> list[str]:
    """Name what a pooled reference, or a site that is judged by it, does not go with."""
    said, voting = [], rules.candidates == "votes"
    if cohort.pool_controls and not voting:
        said.append("'pool_controls' belongs to a protocol by which the sites vote (candidates 'votes')")
    if cohort.pool_controls and cohort.minimum_controls < FEWEST_AT_A_SITE:
        said.append(
            f"'pool_controls' needs a minimum_controls of {FEWEST_AT_A_SITE} or more, not "
            f"{cohort.minimum_controls}: the sums are exact"
        )
    if cohort.reference is not None:
        if rules.candidates != "list" or cohort.harmonisation != "site-controls":
            said.append("a pooled 'reference' belongs to candidates 'list' and harmonisation 'site-controls'")
        elif len(cohort.reference.mean) != len(rules.pairs):
            said.append(
                f"the reference is of {len(cohort.reference.mean)} edges, the list of {len(rules.pairs)}"
            )
    named = cohort.without_controls
    if named and cohort.reference is None:
        said.append(
            f"'without_controls' names {', '.join(named)}, and there is no pooled 'reference' to judge by; "
            "pool controls when the sites vote (pool_controls = true)"
        )
    unknown = [site for site in named if site not in {entry.site for entry in roster}]
    if unknown or len(set(named)) < len(named):
        said.append(f"'without_controls' names sites of the roster, each once, not {', '.join(named)}")
    return said


def unfit_shares(privacy: PrivacyRules, plan: Sequence[PlannedPhase]) -> list[str]:
    """Compare the shares of the budget with the phases that have noise."""
    if privacy.noise == "none":
        return []
    planned = {phase.phase for phase in plan if not phase.exact}
    given = set(privacy.shares)
    said = [f"no share of the budget for the phase {name}" for name in sorted(planned - given)]
    said += [f"a share for {name}, which is not asked or is exact" for name in sorted(given - planned)]
    for children in CHILDREN:
        asked = [p for p in plan if p.children == children]
        total = sum(privacy.shares.get(p.phase, 0.0) for p in asked) if asked else 1.0
        if not said and abs(total - 1) > 1e-9:
            said.append(f"the shares of {children} children must sum to 1, not {total:g}")
    return said


def unfit_quorum(
    rounds: RoundRules,
    *,
    sites: int,
    privacy: PrivacyRules | None,
    analyses: Analyses | None,
    without_controls: int = 0,
) -> list[str]:
    """Compare the quorum with the roster, with the draws of the network, and with the sites that collude.

    Parameters
    ----------
    rounds : RoundRules
    sites : int
        On the roster; 0 where it cannot be read.
    privacy, analyses : PrivacyRules, Analyses or None
        None where the table cannot be read: what concerns it is not said.
    without_controls : int
        Sites that add nothing to sums over training children: they hide no other site in them.

    Returns
    -------
    list of str
        The first complaint alone: the others would follow from it.

    """
    if sites and rounds.quorum > sites:
        return [f"the quorum is {rounds.quorum}, but the roster lists {sites} sites"]
    if privacy is None:
        return []
    colluding = privacy.colluding_sites
    training = rounds.quorum - without_controls
    if without_controls and (training < FEWEST_SITES or training - colluding < 2):
        said = f"a quorum of {rounds.quorum} may hold {training} sites that train, as {without_controls} have"
        return [f"{said} no controls; {max(FEWEST_SITES, colluding + 2)} or more hide each other in a sum"]
    if analyses is not None and analyses.network is not None:
        too_many = analyses.network.too_many_draws(training - colluding)
        if too_many is not None:
            return [too_many]
    if not sites or privacy.trust != "secure-sum":
        return []
    if rounds.quorum - colluding < 2:
        others = rounds.quorum - colluding
        said = f"with {colluding} colluding sites a quorum of {rounds.quorum} leaves {others} others"
        return [f"{said}; a sum hides its parts from 2 on"]
    # Any two sets of sites that may be summed then share a site that reveals one seed only.
    if 2 * rounds.quorum <= sites + colluding:
        needed = (sites + colluding) // 2 + 1
        said = f"a quorum of {rounds.quorum} of {sites} sites, {colluding} of them colluding"
        return [f"{said}, lets the centre subtract two sums; {needed} or more are needed"]
    return []
