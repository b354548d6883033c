"""Joining: the guard that talks to the centre, and the worker that answers, until they are stopped."""

import sys
from collections.abc import Callable
from pathlib import Path

from esn_client.approval.approvals import Approvals
from esn_client.gate.audit_log import AuditLog
from esn_client.link.guard import GuardSettings
from esn_client.link.guard import join as answer_questions
from esn_client.site.centre_kit import authorities, centre_key, load_kit
from esn_client.site.settings import load_site
from esn_client.worker.executor import Executor
from esn_client.worker.following import followed
from esn_core.identity.certificates import expiry_warning
from esn_core.system.logs import keep_in


def join(path: Path, *, warn: Callable[[str], None]) -> None:
    """Answer the centre's questions until stopped; a centre that is away is waited for.

    Parameters
    ----------
    path : Path
        The site's settings.
    warn : callable
        Told what a person should know before it begins, and then what is answered and what is refused, and
        why: for a terminal of the hospital, as it may name patients.

    Raises
    ------
    ConfigError
        The settings cannot be used, or the site has no kit of its centre.
    LinkError
        The centre turns this site away.

    """
    site = load_site(path)
    keep_in(site.state / "logs" / "join.log")
    with Executor(
        [sys.executable, "-m", "esn_client.worker.process", str(path)],
        log_file=site.state / "logs" / "answers.log",
        question_limit_s=site.compute.question_limit_s,
        memory_limit_gb=site.compute.memory_limit_gb,
    ) as executor:
        audit = AuditLog(site.audit_path, site=site.site)
        approvals = Approvals(site, centre_key=centre_key(site), audit=audit)
        warning = expiry_warning(site.ca_certificate_path, cure="ask the centre for a new kit")
        if warning:
            warn(warning)
        guard = GuardSettings(
            server_address=load_kit(site).address,
            ca_certificate=authorities(site),
            node_key=site.node_key_path,
            state_directory=site.state,
            allowed_bundles=approvals.bundles,
            audit=lambda line: audit.write("bundle-refused", reason=line),
            connect_timeout_s=site.centre.connect_timeout_s,
        )
        with followed(site.state / "logs" / "answers.log", tell=warn):
            answer_questions(guard, executor.ask)
