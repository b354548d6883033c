"""A site's policy against a protocol: what the site allows, whatever is asked."""

from esn_client.gate.limits import Limits
from esn_core.analyses.planned_sums import misfits
from esn_core.messages.envelope import LARGEST_NUMBERS_BYTES
from esn_core.privacy.accounting import epsilon_of
from esn_core.privacy.release import Children, People
from esn_core.protocol.price import Price, price_of
from esn_core.protocol.protocol import Protocol

_SPLITS: tuple[Children, ...] = ("training", "held-out")
# As the ledger's: a protocol that spends the cap to the last digit is not above it.
_ROUNDING = 1e-9


def violations(limits: Limits, protocol: Protocol) -> tuple[str, ...]:
    """Name all that a protocol asks for and the site does not allow; nothing where it may be approved."""
    return (
        *size_violations(protocol),
        *trust_violations(limits, protocol),
        *_minimum(limits, protocol),
        *consent_violations(limits, price_of(protocol)),
        *_cap(limits, protocol),
    )


def size_violations(protocol: Protocol) -> tuple[str, ...]:
    """Name the sums that could not leave once the study comes to them: too long, or beyond the grid."""
    return misfits(protocol, largest_bytes=LARGEST_NUMBERS_BYTES)


def fewest(limits: Limits, protocol: Protocol, people: People) -> int:
    """Return how many of a kind of people a sum over them needs: what the site asks for, or the protocol."""
    return max(limits.minimum_children, protocol.minimum(people))


def trust_violations(limits: Limits, protocol: Protocol) -> tuple[str, ...]:
    """Name what the protocol trusts the others with, and the site does not."""
    if not protocol.masked:
        return _clear_sums(limits, protocol)
    said = []
    if limits.trust != "secure-sum":
        said.append("the protocol shares out the noise; this site adds all of it (limits.trust)")
    withstood, demanded = protocol.privacy.colluding_sites, limits.colluding_sites
    if withstood < demanded:
        said.append(
            f"the protocol's noise suffices with {withstood} colluding sites; this site demands "
            f"{demanded} (limits.colluding_sites)"
        )
    return tuple(said)


def _clear_sums(limits: Limits, protocol: Protocol) -> tuple[str, ...]:
    """Say that sums of this site alone would leave with neither noise nor masks."""
    # With noise 'local' asks for less trust than 'secure-sum' does; without noise it asks for more.
    bare = [phase.phase for phase in price_of(protocol).exact]
    if not bare or limits.trust == "local":
        return ()
    asked = f"the protocol asks for this site's own exact sums, without noise or masks: {', '.join(bare)}"
    return (f"{asked}; this site demands masks (limits.trust)",)


def consent_violations(limits: Limits, price: Price) -> tuple[str, ...]:
    """Say which exact releases a protocol asks for that the site has not consented to."""
    said = []
    if price.exact and not limits.exact_sums:
        said.append("the protocol asks for exact sums; this site has not consented (limits.exact_sums)")
    if price.about_controls and not limits.control_sums:
        said.append(
            "the protocol asks for exact sums about healthy controls; this site has not consented "
            "(limits.control_sums)"
        )
    if any(phase.phase == "reference" for phase in price.phases) and not limits.control_reference:
        said.append(
            "the protocol pools the strengths of healthy controls into a public reference; this site has not "
            "consented (limits.control_reference)"
        )
    return tuple(said)


def _minimum(limits: Limits, protocol: Protocol) -> tuple[str, ...]:
    asked, allowed = protocol.cohort.minimum_children, limits.minimum_children
    if asked >= allowed:
        return ()
    return (
        f"the protocol sums {asked} children or more; this site {allowed} or more (limits.minimum_children)",
    )


def _cap(limits: Limits, protocol: Protocol) -> tuple[str, ...]:
    # Exact sums have no epsilon: they are a matter of consent.
    price = price_of(protocol).noised
    worst = max(epsilon_of(price.mu(split), limits.delta) for split in _SPLITS)
    if worst <= limits.epsilon_cap * (1 + _ROUNDING):
        return ()
    said = f"the protocol costs one child epsilon {worst:.2f} at delta {limits.delta:g}"
    return (f"{said}; this site's cap is {limits.epsilon_cap:g} (limits.epsilon_cap)",)
