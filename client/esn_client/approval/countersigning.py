"""A site's countersignature of a model: what would be published, in plain words, and the site's consent."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from esn_client.site.centre_kit import centre_key
from esn_client.site.keys import load_identity_key
from esn_client.site.settings import SiteSettings
from esn_core.errors import ConfigError, ProtocolError
from esn_core.identity.public_keys import identity_text
from esn_core.identity.signing import fingerprint
from esn_core.privacy.accounting import odds_in_words
from esn_core.privacy.release import CHILDREN
from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.study_package import kept_study
from esn_core.released_model.archive import ReleasedModel, read_model
from esn_core.released_model.signatures import AuditSaid, Countersignature

_WIDTH = 78


def proposal_for(settings: SiteSettings, path: Path) -> ReleasedModel:
    """Read a model that this site's centre proposes, of a study that this site took part in.

    Raises
    ------
    ProtocolError
        It cannot be read, another centre signed it, or the site was not in the study or had not approved it.

    """
    model, key = read_model(path), centre_key(settings)
    if identity_text(model.centre_key) != identity_text(key):
        raise ProtocolError(
            f"{path}: is signed by {fingerprint(model.centre_key)}; this site's centre is {fingerprint(key)}"
        )
    if settings.site not in model.content.sites:
        raise ProtocolError(
            f"{path}: site {settings.site} took no part in that run: {', '.join(model.content.sites)}"
        )
    digest = model.content.protocol_sha256
    approved = (settings.approved_path, settings.withdrawn_path)
    if not any(kept_study(where, digest).is_file() for where in approved):
        raise ProtocolError(f"{path}: this site never approved the protocol {digest[:16]}")
    return model


def in_words(model: ReleasedModel) -> str:
    """Say what is published, and what it can reveal."""
    return "\n".join(
        textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in _lines(model.content.sha256, model)
    )


def _lines(digest: str, model: ReleasedModel) -> Iterator[str]:
    content, protocol, network = model.content, model.protocol, model.numbers.network
    yield f"Model {digest[:16]} of the study {content.study}, run {content.run}"
    if content.simulated:
        yield "Every child of this study is simulated."
    yield ""
    yield "What would be published, for anybody to keep, and for good:"
    yield (
        f"* the {len(model.numbers.weights)} weights of the network, and weight and uncertainty of "
        f"{len(network.edges)} connections;"
    )
    error = content.error
    yield (
        f"* how well it did in children held out: r {error.r:.2f} (95 % interval "
        f"{_between(error.r_interval)}), root mean squared error {error.rmse:.2f} "
        f"({_between(error.rmse_interval)}) steps of GASE;"
    )
    if content.risks:
        names = ", ".join(dict.fromkeys(one.outcome for one in content.risks))
        yield f"* {len(content.risks)} models of impairment ({names}), with their coefficients;"
    yield f"* the names and public keys of the sites: {', '.join(content.sites)};"
    yield "* the protocol and result.json, as the report has them, and a model card."
    yield ""
    yield "What it can reveal:"
    yield from _reveals(protocol)
    yield (
        "* Nothing new is computed from children for it: all of it follows from sums that left the sites "
        "during the study, and costs nothing more in the ledger. But those sums went to the centre, and this "
        "goes to everybody."
    )
    yield (
        "* Of healthy controls, no number is in it; each hospital's controls had a part in the scores of its "
        "children, without a bound."
    )
    yield "* A model that is out cannot be called back; a child's later withdrawal does not change it."


def _between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _reveals(protocol: Protocol) -> Iterator[str]:
    price = price_of(protocol)
    if protocol.privacy.noise == "none":
        yield (
            "* The sums were exact. There is NO bound on what the model tells of a child: whoever knows all "
            "other children may compute this one's part."
        )
        return
    if price.exact:
        phases = ", ".join(phase.phase for phase in price.exact)
        yield f"* The sums of {phases} were exact: of the figures from them there is NO bound."
    epsilon = max(price.noised.epsilon(children) for children in CHILDREN)
    yield (
        f"* Of one child in the sums with noise: epsilon {epsilon:.2f} at delta {price.delta:g}. Whoever has "
        f"the model can raise the odds of a right guess that the child took part at most "
        f"{odds_in_words(epsilon)}-fold, apart from that delta."
    )


def audit_of(path: Path, model: ReleasedModel, settings: SiteSettings) -> AuditSaid:
    """Read what the site's own audit of the protocol found.

    Parameters
    ----------
    path : Path
        What 'esn-client audit --json' printed.
    model : ReleasedModel
    settings : SiteSettings

    Raises
    ------
    ConfigError
        It cannot be read, is of another site or protocol, or found a fault.

    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        site, digest, passed = facts["site"], facts["protocol_sha256"], facts["passed"]
        said = AuditSaid(at=facts["at"], software=facts["software"], repeats=facts["repeats"])
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as cause:
        raise ConfigError(f"{path}: is not what 'esn-client audit --json' prints") from cause
    if (site, digest) != (settings.site, model.content.protocol_sha256):
        raise ConfigError(f"{path}: is the audit of site {site} and protocol {str(digest)[:16]}, of another")
    if passed is not True:
        raise ConfigError(f"{path}: the audit found a fault; a model of this protocol is not countersigned")
    return said


def countersigned(settings: SiteSettings, model: ReleasedModel, audit: AuditSaid) -> bytes:
    """Return the site's countersignature, as a file."""
    key = load_identity_key(settings.identity_key_path)
    return Countersignature.of(model.content.sha256, site=settings.site, audit=audit, key=key).text
