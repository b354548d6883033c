"""A protocol in plain words: what leaves, how often, from whom, and what it costs each child."""

import math
import textwrap
from collections.abc import Container, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esn_client.gate.limits import Limits
from esn_client.gate.policy import violations
from esn_core.analyses.planned_sums import grid_delta_of
from esn_core.identity.public_keys import identity_text
from esn_core.identity.signing import fingerprint
from esn_core.privacy.accounting import epsilon_of, odds_in_words
from esn_core.privacy.release import CHILDREN, Children
from esn_core.protocol.analyses import SEVERITIES
from esn_core.protocol.phases import PHASES
from esn_core.protocol.price import STRICTER_DELTA, PhasePrice, Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signer
from esn_core.protocol.warnings import Fact, cautions

# Each has a place and words of its own in the review; any other is listed near its end.
_SAID_IN_PLACE = {
    Fact.SIMULATED,
    Fact.NO_NOISE,
    Fact.DECLARED_EXACT,
    Fact.LOCAL_STEPS,
    Fact.COMBAT,
    Fact.PUBLISHED_LIST,
    Fact.NO_COLLUSION,
    Fact.WITHOUT_CONTROLS,
}

_ORIGINS = {
    "prepared": "found in the controls of a cohort that was prepared with this recipe",
    "votes": "found by the votes of sites, each about its own controls",
}

_NOISED_HERE = (
    "  The centre sees this site's own sums, and shows those that steer the study to all other sites. This",
    "  site adds all of the noise to them itself, so that the figures below hold whatever the centre and all",
    "  other sites do.",
)
_BARE = (
    "  No masks hide them, so the trust asked for is MORE than under 'secure-sum': a site that demands",
    "  masks in its settings (limits.trust) refuses.",
)


def review(protocol: Protocol) -> str:
    """Return the review of a protocol as text, for whoever has to approve it.

    Raises
    ------
    ProtocolError
        It was altered since it was signed.

    """
    if protocol.voting:
        return _votes(protocol)
    price = price_of(protocol)
    known = {caution.fact: caution.words for caution in cautions(protocol)}
    minimum = protocol.cohort.minimum_children
    lines = [
        f"Study {protocol.study}, protocol {protocol.sha256}",
        *_signature(protocol),
        "All children are simulated." if Fact.SIMULATED in known else "The children are real patients.",
        "Sites, with the fingerprints of their keys:",
        *(f"  {entry.site}: {entry.fingerprint}" for entry in protocol.roster),
        *_made_elsewhere(protocol),
        "",
        "What leaves this site",
        "  First, at roll call: software versions, hashes of recipe and atlas, the number of children as a",
        "  band such as 16-31, and the number of entries in the privacy ledger. No noise protects these.",
    ]
    for phase in price.phases:
        lines += [f"  {phase.phase}, {_times(phase)} from the {phase.children} children:"]
        lines += [f"    {PHASES[phase.phase].leaves}"]
        lines += [f"    {_noise(phase, price.epsilon_alone(phase))}"]
    lines += [
        f"  Each sum asks {minimum} children or more. No image, connectome or score of one child leaves.",
        *_few_in_models(price),
        *_network(protocol),
        *_models(protocol),
        *_summary(protocol, price),
        *_withdrawal(protocol),
        "  A site that has fewer refuses, and the refusal itself tells that a split is below the minimum.",
        *_mixed(protocol, known),
        "",
        *_list(protocol, known),
        *_inputs(protocol),
        *_who_sees(protocol, known),
        "",
        "What it costs one child",
        *(_exact() if Fact.NO_NOISE in known else _cost(price, protocol, known)),
        "",
        "What is not covered",
        *_controls(protocol),
        "  The participation of the site itself, and the roll call above.",
        "",
        *_others(known),
        "This approval is for one run of this protocol. The site's own cap on epsilon holds for all sums",
        "with noise; it does not count exact ones.",
    ]
    return "\n".join(lines)


def _few_in_models(price: Price) -> list[str]:
    """Say of whom exact models are."""
    if not any(phase.phase == "newton" for phase in price.exact):
        return []
    return [
        "  An exact model is of those whose values are known, who may be fewer; a bin may hold one child."
    ]


def _votes(protocol: Protocol) -> str:
    """Return the review of a protocol by which the sites vote on candidates, and nothing else is asked."""
    quorum, least = protocol.rounds.quorum, protocol.cohort.minimum_controls
    lines = [
        f"Votes on the candidates of {protocol.study}, protocol {protocol.sha256}",
        *_signature(protocol),
        "All people are simulated." if protocol.simulated else "The people are real.",
        "Sites, with the fingerprints of their keys:",
        *(f"  {entry.site}: {entry.fingerprint}" for entry in protocol.roster),
        *_made_elsewhere(protocol),
        "",
        "What leaves this site",
        "  First, at roll call: software versions, hashes of recipe and atlas, and the number of entries in",
        "  the privacy ledger. No child with epilepsy is read.",
        f"  votes, once, from {least} or more healthy controls:",
        f"    {PHASES['votes'].leaves}",
        "    exactly as it is, without noise",
        *_pooled(protocol),
        "",
        *_inputs(protocol),
        "Who sees it (trust 'secure-sum')",
        "  The centre sees for each connection how many sites voted for it, and not which. The votes leave",
        "  under random masks that cancel in the sum of the sites and in nothing smaller; they are made from",
        "  keys in this protocol. Ask the other hospitals for their fingerprints, by telephone.",
        f"  A sum is formed of {quorum} or more of the {len(protocol.roster)} sites.",
        "  What most sites voted for becomes public: it is the list of candidates in the study's protocol.",
        "",
        "What it costs one control",
        "  There is NO epsilon. Of fewer than twenty controls, one who lacks a connection turns the site's",
        "  vote on it. Whoever knows the votes of all other sites, and all other controls of this one, can",
        "  tell whether a control has the connection. The site must consent to this in its own settings",
        "  (limits.control_sums); the ledger keeps who was counted.",
        *_known_in_the_pool(protocol),
        "",
        "This approval is for one run of this protocol, and for no study. The study has one of its own.",
    ]
    return "\n".join(lines)


def _pooled(protocol: Protocol) -> list[str]:
    """Say what leaves of controls for a pooled reference."""
    if not protocol.cohort.pool_controls:
        return []
    return [
        f"  reference, once, from the same {protocol.cohort.minimum_controls} or more healthy controls:",
        f"    {PHASES['reference'].leaves}",
        "    exactly as it is, without noise",
    ]


def _known_in_the_pool(protocol: Protocol) -> list[str]:
    """Say what a pooled reference tells of one control."""
    if not protocol.cohort.pool_controls:
        return []
    return [
        "  The pooled reference, mean and spread of connections in the controls of all sites together,",
        "  becomes PUBLIC: it stands in the study's protocol and its model, and hospitals without controls",
        "  judge their children by it. Whoever has a person's connectome can often tell whether that person",
        "  is one of these controls, and surely with those of all others. It has a consent of its own",
        "  (limits.control_reference).",
    ]


def _without_controls(protocol: Protocol) -> list[str]:
    """Say who is judged by the other sites' controls, and what stands behind these."""
    pooled, named = protocol.cohort.reference, protocol.cohort.without_controls
    if pooled is None:
        return []
    carried = [
        f"  The protocol carries a pooled reference: mean and spread of each candidate in {pooled.controls}",
        f"  controls of {pooled.sites} sites. It is public, and stands in the study's model as well.",
    ]
    if not named:
        return carried
    return [
        *carried,
        f"  WITHOUT OWN CONTROLS, judged by it: {', '.join(named)}.",
        "  Nobody trains there, and in sums over training children these sites add nothing. Their held-out",
        "  children are predicted: the ranking is usable, and the absolute score may be off by half a step.",
    ]


def for_site(protocol: Protocol, *, limits: Limits, centre_key: Ed25519PublicKey) -> str:
    """Return what stands between a protocol and this site's approval, as text."""
    said = [f"  - {words}" for words in violations(limits, protocol)]
    found = signer(protocol)
    if found is not None and identity_text(found) != identity_text(centre_key):
        said.append(f"  - it is signed by {fingerprint(found)}, not by the centre, {fingerprint(centre_key)}")
    if found is None:
        said.append("  - it is not signed")
    return "\n".join(["", "What this site's settings say to it", *(said or ["  Nothing forbids it."])])


def _signature(protocol: Protocol) -> list[str]:
    """Say who signed, and until when the protocol counts."""
    found = signer(protocol)
    by = (
        "NOT SIGNED: a draft, which no site can approve."
        if found is None
        else f"Signed by {fingerprint(found)}"
    )
    return [by, f"Questions are answered up to and on {protocol.expires}."]


def _network(protocol: Protocol) -> list[str]:
    """Say how many training children the exact network asks of a site, and why."""
    rules = protocol.analyses.network
    if rules is None:
        return []
    return [
        f"  The exact network asks for {rules.minimum_children} training children at each site: there",
        "  are fewer sums with random numbers than children. From as many a child could be computed.",
    ]


def _withdrawal(protocol: Protocol) -> list[str]:
    """Say what follows when consent is withdrawn in mid-study."""
    if protocol.cohort.after_withdrawal == "stop":
        return [
            "  If consent is withdrawn in mid-study (esn-client withdraw-child), this site stops answering."
        ]
    return [
        "  If consent is withdrawn in mid-study (esn-client withdraw-child), this site goes on without that",
        "  person; it stops where sums without noise have left already. What has left stays.",
    ]


def _models(protocol: Protocol) -> list[str]:
    """Name the columns of the participants' table that models read, the impairments and the models."""
    rules = protocol.analyses.neurocognition
    if rules is None:
        return []
    used = {name for model in rules.models for name in model} | {o.column for o in rules.outcomes}
    columns = [f"{name}, {protocol.phenotypes[name].expected}" for name in sorted(used - set(SEVERITIES))]
    outcomes = [f"{o.name}: {o.column} below {o.impaired_below:g}" for o in rules.outcomes]
    models = [" + ".join(model) for model in rules.models]
    return [
        "  Of the held-out children, these columns of participants.tsv enter the sums of the models, beside",
        "  the clinical and the predicted GASE:",
        *(f"    {column}" for column in columns),
        "  Impairments, each of them an outcome of every model:",
        *(f"    {outcome}" for outcome in outcomes),
        "  Models, by their predictors:",
        *(f"    {model}" for model in models),
    ]


def _summary(protocol: Protocol, price: Price) -> list[str]:
    """Say what the minimum does for those whom a summary of the cohort counts besides the children."""
    if not protocol.analyses.cohort:
        return []
    fewest = protocol.cohort.minimum_children
    exact = any(phase.phase == "cohort" for phase in price.exact)
    return [
        f"  The summary of the cohort sums {fewest} controls or more, or none, and charges all whom it",
        "  counts.",
        *(
            [f"  A reason for being left out that fewer than {fewest} share counts as nobody's."]
            if exact
            else []
        ),
    ]


def _mixed(protocol: Protocol, known: Container[Fact]) -> list[str]:
    """Say how the model is trained, and which numbers depend on several children at once."""
    lines = [f"  Training: {protocol.training.in_words}."]
    if Fact.LOCAL_STEPS in known:
        lines += [
            "  What several steps at this site lead to depends on all of its training children at once: no",
            "  clip bounds what one child does to it. It leaves under masks, weighed by its children.",
        ]
    if Fact.COMBAT in known:
        lines += [
            "  ComBat: this site's other children enter a child's harmonised scores, and those of all sites",
            "  what the sites share. No epsilon bounds what any of the sums tells about one child.",
        ]
    return lines


def _controls(protocol: Protocol) -> list[str]:
    """Say what is promised to the healthy controls."""
    if protocol.cohort.harmonisation == "combat":
        return ["  Healthy controls: under ComBat none of them enters a child's scores."]
    if protocol.cohort.harmonisation == "site-controls":
        return [
            f"  Healthy controls: each child is judged by {protocol.cohort.minimum_controls} or more of this",
            "  site's own. Their mean and spread stay here, but every sum depends on them: the figures above",
            "  are about children, and bound nothing for a control. With ten controls, whether somebody is",
            "  one is about as open as whether somebody is a child of the study; more so with fewer, less so",
            "  with more.",
            *_without_controls(protocol),
        ]
    return [
        "  Healthy controls: each site's offsets are estimated from its own controls, who take part in",
        "  every sum without a bound.",
    ]


def _made_elsewhere(protocol: Protocol) -> list[str]:
    """Say by what all sites make their connectomes, where it is not this software."""
    how = protocol.imaging.made_elsewhere
    return [] if how is None else ["", "Connectomes are made elsewhere, alike at every site:", f"  {how}"]


def _list(protocol: Protocol, known: Container[Fact]) -> list[str]:
    """Say where the candidates come from, and what a published list must not have seen."""
    rules = protocol.severity_network
    pairs = len(rules.pairs)
    if Fact.PUBLISHED_LIST not in known:
        if rules.origin is None:
            return []
        return [
            "Where the candidates come from",
            f"  {pairs} pairs of regions of {protocol.imaging.atlas}, {_ORIGINS[rules.origin.kind]}:",
            *(f"  {line}" for line in textwrap.wrap(rules.origin.in_words, 100)),
            f"  {rules.origin.people} people or more stand behind them.",
            "",
        ]
    return [
        "Where the candidates come from",
        f"  A published list of {pairs} pairs of regions. It is public only for children who were not in the",
        "  study that found it. If one of this site's children was, do NOT approve: no epsilon below covers",
        "  what the list itself tells about that child.",
        *(f"  {line}" for line in textwrap.wrap(rules.origin.in_words if rules.origin else "", 100)),
        "",
    ]


def _inputs(protocol: Protocol) -> list[str]:
    """Say what enters the study beside people's data, where it is from, and how many stand behind it."""
    lines = ["What enters it beside people's data"]
    for one in protocol.public_inputs:
        whose = "ships with this software" if one.ships else "came with the protocol"
        lines += textwrap.wrap(
            f"{one.title}, {whose}. {one.in_words}", 100, initial_indent="  ", subsequent_indent="    "
        )
        for name, digest in one.files.items():
            lines += [f"    {name}, SHA-256", f"      {digest}"]
    unnamed = [one.title for one in protocol.public_inputs if one not in protocol.inputs]
    if unnamed:
        lines += ["  The protocol does not name by hash, and takes as this version has them:"]
        lines += [f"    {title}" for title in unnamed]
    else:
        lines += ["  The hashes are part of the protocol, and were compared with the files just now."]
    return [*lines, ""]


def _who_sees(protocol: Protocol, known: Container[Fact]) -> list[str]:
    """Say whom the children of this site have to trust."""
    quorum, sites = protocol.rounds.quorum, len(protocol.roster)
    if not protocol.masked:
        return [
            "Who sees it (trust 'local')",
            *_local(protocol, known),
        ]
    colluding = protocol.privacy.colluding_sites
    lines = [
        "Who sees it (trust 'secure-sum')",
        "  The centre sees the sum of all sites only, and shows those that steer the study to all other",
        "  sites. This site's numbers leave under random masks that cancel in the sum of the sites and in",
        "  nothing smaller; they are made from keys in this protocol, which the centre cannot exchange. Ask",
        "  the other hospitals for their fingerprints, by telephone: a site that the centre had invented",
        "  would hide nothing from it.",
        f"  A sum is formed of {quorum} or more of the {sites} sites.",
    ]
    if Fact.NO_NOISE in known:
        return [
            *lines,
            "  No noise is added: from sites that tell the centre their own numbers it learns the sum of",
            "  the others.",
        ]
    lines += [
        f"  The sites share out the noise: each adds a part, and {quorum - colluding} parts are enough.",
    ]
    if Fact.NO_COLLUSION not in known:
        lines += [
            f"  So the figures below hold even if {_sites(colluding)} told the centre everything they know.",
            "  They do not hold if more did.",
        ]
    else:
        lines += [
            "  The figures below hold against the centre only while NO site tells what noise it added.",
            "  Another site that subtracts its own noise from a result has less noise than they say.",
        ]
    return lines


def _local(protocol: Protocol, known: Container[Fact]) -> tuple[str, ...]:
    """Say what the centre sees of a site whose sums no masks hide."""
    if Fact.NO_NOISE in known:
        return (
            "  The centre sees this site's own sums, exactly as they are.",
            "  So do all other sites, of the sums that steer the study.",
            *_BARE,
        )
    if Fact.DECLARED_EXACT not in known:
        return _NOISED_HERE
    bare = ", ".join(phase.phase for phase in price_of(protocol).exact)
    return (
        f"  Without noise, exactly as they are, the centre sees this site's own sums of: {bare}.",
        "  So do all other sites, of the sums that steer the study, with noise or without.",
        *_BARE,
        "  To all other sums this site adds all of the noise itself: for them alone the figures below hold",
        "  whatever the centre and all other sites do.",
    )


def _exact() -> list[str]:
    return [
        "  There is NO differential privacy: the sums leave exactly as they are. Whoever knows all",
        "  other children of a sum can compute this child's part of it. The site must consent to this",
        "  in its own settings (limits.exact_sums), or it answers nothing.",
    ]


def _cost(whole: Price, protocol: Protocol, known: Container[Fact]) -> list[str]:
    price = whole.noised
    training, held_out = price.epsilon("training"), price.epsilon("held-out")
    worst: Children = "training" if training >= held_out else "held-out"
    replaced = [price.replace_one_epsilon(split) for split in ("training", "held-out")]
    odds = odds_in_words(price.epsilon(worst))
    stricter = [price.stricter_epsilon(split) for split in CHILDREN]
    exact = Fact.DECLARED_EXACT in known
    nothing = "  Nothing of this protocol is declared exact: every sum carries noise."
    return [
        *(_declared_exact(whole) if exact else []),
        f"  A training child: epsilon {training:.2f}; a held-out child: epsilon {held_out:.2f};",
        f"  at delta {price.delta:g}, adding or removing one child (all its scans). The grid on which the",
        f"  noise is drawn, and its parts being added up, make delta larger by {_grid(protocol)} at most.",
        f"  The same noise at delta {STRICTER_DELTA:g}: epsilon {stricter[0]:.2f} and {stricter[1]:.2f}.",
        "  There is no event of probability delta in which a child is shown: delta says where the curve of",
        "  this noise is read.",
        f"  Exchanging one child for another: epsilon {replaced[0]:.2f} in training, {replaced[1]:.2f} held",
        "  out.",
        "  An attacker who watches everything raises the odds of a right guess about one child's",
        f"  presence at most {odds}-fold, except with probability {price.delta:g}.",
        "  Of a hundred children who took part, an attacker who accepts one false alarm among a hundred",
        f"  who did not finds at most {100 * price.true_positives(worst):.0f}.",
        *_deserted(price, protocol, worst),
        *([] if exact else [nothing]),
    ]


def _others(known: Mapping[Fact, str]) -> list[str]:
    """Say what else is known not to work, or not to protect."""
    said = [
        f"  {line}"
        for fact, words in known.items()
        if fact not in _SAID_IN_PLACE
        for line in textwrap.wrap(words, 100)
    ]
    return ["What is known not to work", *said, ""] if said else []


_STEERED = (
    "  All other sites are shown the sums of newton; one that answers falsely can choose whom they are",
    "  about. For that reason no protocol of patients may have exact models (docs/privacy.md).",
)


def _declared_exact(price: Price) -> list[str]:
    """Say for whom there is no differential privacy, in a protocol that has noise otherwise."""
    children = " and ".join(dict.fromkeys(phase.children for phase in price.exact))
    return [
        f"  Declared EXACT: {', '.join(phase.phase for phase in price.exact)}.",
        f"  These sums leave without noise, and for the {children} children there is NO epsilon:",
        "  whoever knows all others can compute one child's part. The site must consent",
        "  (limits.exact_sums). The figures below are about the sums with noise only.",
        *_STEERED * any(phase.phase == "newton" for phase in price.exact),
    ]


def _deserted(price: Price, protocol: Protocol, worst: Children) -> list[str]:
    """Say what is left when nobody else keeps to the rules."""
    if not protocol.masked:
        return []
    alone = epsilon_of(price.mu(worst) / math.sqrt(protocol.noise_share), price.delta)
    return [
        "  If the centre and ALL other sites worked together against this one, its own part of the noise",
        f"  would be left: epsilon {alone:.2f}.",
    ]


def _grid(protocol: Protocol) -> str:
    return f"{max(grid_delta_of(protocol, children) for children in CHILDREN):.0e}"


def _times(phase: PhasePrice) -> str:
    return "once" if phase.releases == 1 else f"{phase.releases} times"


def _noise(phase: PhasePrice, epsilon: float) -> str:
    if phase.noise_multiplier == 0:
        return "exactly as it is, without noise"
    return (
        f"with noise of {phase.noise_multiplier:.2f} times the largest part of one child; "
        f"alone epsilon {epsilon:.2f}"
    )


def _sites(number: int) -> str:
    return "one other site" if number == 1 else f"{number} other sites"
