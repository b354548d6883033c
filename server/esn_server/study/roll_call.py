"""What sites say at roll call, held against the protocol."""

from collections.abc import Mapping

from esn_core.errors import StudyError
from esn_core.messages.facts import SiteFacts
from esn_core.protocol.protocol import Protocol


def require_alike(protocol: Protocol, facts: Mapping[str, SiteFacts]) -> None:
    """Refuse sites that would compute something else than the protocol says.

    Raises
    ------
    StudyError
        A site has another recipe, atlas or template; or delta is too large for so many children.

    """
    ours = {
        "recipe": protocol.imaging.sha256,
        "atlas": protocol.atlas.sha256,
        "template": protocol.template_sha256,
    }
    for site, said in facts.items():
        theirs = {
            "recipe": said.recipe_sha256,
            "atlas": said.atlas_sha256,
            "template": said.template_sha256,
        }
        for what, digest in ours.items():
            if theirs[what] != digest:
                raise StudyError(f"{site} uses another {what}: {theirs[what][:16]} instead of {digest[:16]}")
    largest = sum(int(said.cohort_band.split("-")[1]) for said in facts.values())
    if protocol.privacy.delta >= 1 / largest:
        raise StudyError(
            f"delta {protocol.privacy.delta:g} must be below 1 over the pooled cohort, "
            f"which has up to {largest} children"
        )
