"""The page of a privacy audit, for a hospital's security officer: one HTML file that needs nothing else."""

import math
from pathlib import Path

from esn_client.privacy_audit.findings import CANARY_DELTA, FALSE_POSITIVES, Audit, Canaries
from esn_core.privacy.accounting import odds_in_words
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.phases import PHASES
from esn_core.severity_network.candidate_list import PRESENT_SHARE
from esn_core.system.files import write_whole
from esn_core.system.pages import templates_of


def write_page(path: Path, audit: Audit) -> None:
    """Write the page, whole or not at all."""
    write_whole(path, page_text(audit).encode())


def page_text(audit: Audit) -> str:
    """Return the HTML that `write_page` writes."""
    templates = templates_of("esn_client.privacy_audit")
    templates.filters["percent"] = _percent
    templates.filters["epsilon"] = lambda value: f"{value:.2f}" if math.isfinite(value) else "unbounded"
    return templates.get_template("page.html.j2").render(
        audit=audit,
        votes=audit.votes,
        present_share=PRESENT_SHARE,
        phases=PHASES,
        noise_found=_noise_found,
        canary_delta=f"{CANARY_DELTA:.6f}",
        false_positives=_percent(FALSE_POSITIVES),
        exact=all(kind.canaries is None for kind in audit.kinds),
        factor=odds_in_words(max(audit.price.noised.epsilon(split) for split in CHILDREN)),
    )


def _noise_found(canaries: Canaries) -> str:
    """Say between which shares of the claimed noise the noise lies."""
    least = canaries.mu_claimed / canaries.mu_high if canaries.mu_high else 0.0
    if canaries.mu_low == 0:
        return f"{_percent(least)} or more"
    return f"{_percent(least)} to {_percent(canaries.mu_claimed / canaries.mu_low)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
