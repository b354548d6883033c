"""Documents for those who decide whether a hospital takes part, filled in from the protocol alone.

They say what the software does and can show. What the law calls it is for the hospital's own officers:
nothing here says that what leaves is no personal data. The texts are in `governance/`.
"""

import json
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from esn_core.errors import ConfigError
from esn_core.identity.signing import fingerprint
from esn_core.privacy.accounting import epsilon_of, odds_in_words
from esn_core.privacy.release import CHILDREN, People
from esn_core.protocol.phases import PHASES, PhaseName
from esn_core.protocol.price import PhasePrice, Price, price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.signature import signer
from esn_core.system.files import write_whole
from esn_core.system.pages import templates_of
from esn_core.transcript.course import steering

Facts = Mapping[str, Any]
"""What 'esn-client audit --json' printed, or nothing."""

DOCUMENTS = (
    *("data-flow", "impact-assessment", "ethics-paragraph"),
    *("security-measures", "residual-risk"),
)
_WHOSE: Mapping[People, str] = {
    "training": "children it trains on",
    "held-out": "children it is tested on",
    "controls": "controls",
}


def read_audit(path: Path, protocol: Protocol) -> Facts:
    """Read what the site's audit of a protocol printed; `ConfigError` where it is of another, or none."""
    try:
        facts: Facts = json.loads(path.read_text(encoding="utf-8"))
        of, _ = facts["protocol_sha256"], (facts["at"], facts["kinds"], facts["passed"])
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{path}: is not what 'esn-client audit --json' prints") from cause
    if of != protocol.sha256:
        raise ConfigError(f"{path}: is the audit of protocol {str(of)[:16]}, not of {protocol.sha256[:16]}")
    return facts


def write_documents(protocol: Protocol, directory: Path, *, audit: Facts) -> list[Path]:
    """Write all documents into a directory.

    Raises
    ------
    ConfigError
        One of the files is there already: somebody may have written in it.

    """
    files = {directory / name: text for name, text in documents_of(protocol, audit=audit).items()}
    present = [path.name for path in files if path.exists()]
    if present:
        raise ConfigError(f"{directory}: {', '.join(present)} would be overwritten; choose another directory")
    for path, text in files.items():
        write_whole(path, text.encode())
    return list(files)


def documents_of(protocol: Protocol, *, audit: Facts) -> dict[str, str]:
    """Return the text of every document, Markdown, by the name of its file."""
    templates = templates_of("esn_client.approval", "governance", html=False)
    given = _facts(protocol, price_of(protocol)) | {
        "audit": audit,
        "faults": "; ".join(fault for kind in audit.get("kinds", ()) for fault in kind.get("faults", ())),
    }
    return {
        f"{name}.md": templates.get_template(f"{name}.md.j2").render(given).rstrip("\n") + "\n"
        for name in DOCUMENTS
    }


def _facts(protocol: Protocol, price: Price) -> dict[str, object]:
    key, noise = signer(protocol), protocol.privacy.noise != "none"
    worst = max(CHILDREN, key=price.noised.epsilon)
    epsilon = price.noised.epsilon(worst)
    alone = None
    if noise and protocol.masked:
        alone = epsilon_of(price.mu(worst) / math.sqrt(protocol.noise_share), price.delta)
    return {
        "protocol": protocol,
        "signed": "not signed yet: a draft" if key is None else f"signed by the centre, {fingerprint(key)}",
        "phases": [_phase(phase, steering(protocol)) for phase in price.phases],
        "noise": noise,
        "epsilon": epsilon,
        "delta": price.delta,
        "stricter": price.noised.stricter_epsilon(worst),
        "odds": odds_in_words(epsilon),
        "alone": alone,
        "exact": ", ".join(phase.phase for phase in price.exact),
        "found": max(map(price.true_positives, CHILDREN)) if noise and not price.exact else None,
        "fewest": protocol.minimum("training"),
        "columns": ", ".join(protocol.phenotypes) or "none beyond these",
    }


def _phase(phase: PhasePrice, steers: Container[PhaseName]) -> dict[str, object]:
    multiplier = phase.noise_multiplier
    return {
        "name": phase.phase,
        "leaves": PHASES[phase.phase].leaves,
        "whose": _WHOSE[phase.children],
        "releases": phase.releases,
        "to_whom": "the centre, which shows it to all sites" if phase.phase in steers else "the centre",
        "noise": f"{multiplier:.2f} times the largest part of one child" if multiplier else "none: exact",
    }
