"""Commands that set a site up: its keys, its centre's kit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esn_client.cli.arguments import SettingsFile
from esn_core.system.command_line import Yes, say

if TYPE_CHECKING:
    from esn_client.site.settings import SiteSettings


def init(
    directory: Annotated[Path, typer.Argument(help="Where settings and state are written.")],
    site: Annotated[str, typer.Option(help="The site's name in the roster.")],
    epsilon_cap: Annotated[float, typer.Option(help="Largest epsilon of one patient, over all studies.")],
    delta: Annotated[float, typer.Option(help="Delta at which the cap is read.")],
    dataset: Annotated[Path, typer.Option(help="BIDS dataset.")],
    derivatives: Annotated[Path, typer.Option(help="Where 'prepare' writes.")],
    trust: Annotated[
        Literal["secure-sum", "local"],
        typer.Option(help="local: this site adds all of the noise to its own sums, whatever others do."),
    ] = "secure-sum",
    colluding_sites: Annotated[
        int, typer.Option(min=0, help="Other sites that may side with the centre without harm.")
    ] = 1,
    exact_sums: Annotated[
        bool, typer.Option("--exact-sums", help="Consent to releases without noise.")
    ] = False,
    control_sums: Annotated[
        bool,
        typer.Option(
            "--control-sums", help="Consent to exact sums about healthy controls, under masks: votes."
        ),
    ] = False,
    control_reference: Annotated[
        bool,
        typer.Option(
            "--control-reference",
            help="Consent to the controls' exact strengths in a pooled, public reference.",
        ),
    ] = False,
) -> None:
    """Write the site's settings, its keys and enrolment request, and an empty ledger."""
    from esn_client.site.state import initialise

    settings = initialise(
        directory,
        site=site,
        dataset=dataset,
        derivatives=derivatives,
        trust=trust,
        epsilon_cap=epsilon_cap,
        delta=delta,
        colluding_sites=colluding_sites,
        exact_sums=exact_sums,
        control_sums=control_sums,
        control_reference=control_reference,
    )
    typer.echo(str(settings.enrolment_path))
    _say_request(settings)


def kit(
    settings: SettingsFile,
    kit_file: Annotated[Path, typer.Argument(help="The kit that the centre sent back.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the centre read it out; without it, a terminal is asked.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Accept another signing key or authority than the one before.")
    ] = False,
) -> None:
    """Take in the centre's kit: from then on, only that centre is connected to and believed."""
    from esn_client.site.centre_kit import read_kit, take_in
    from esn_client.site.settings import load_site
    from esn_core.system.command_line import compare_by_telephone

    site, found = load_site(settings), read_kit(kit_file)
    compare_by_telephone(f"the kit {kit_file}", found.fingerprint, heard=fingerprint)
    take_in(site, found, replace=replace)
    typer.echo(found.address)


def rotate(
    settings: SettingsFile,
    yes: Yes = False,
) -> None:
    """Make new node and mask keys, and a request for the centre to exchange them; the ledger's key stays."""
    from esn_client.site.settings import load_site
    from esn_client.site.state import require_no_approval
    from esn_client.site.state import rotate as make_new_keys

    site = load_site(settings)
    if not yes:
        require_no_approval(site)
        typer.echo(
            f"With --yes, {site.node_key_path} and {site.mask_key_path} are replaced, and the present ones "
            "are gone: the centre knows this site again once it has enrolled the new request. Nothing is "
            "changed yet."
        )
        return
    make_new_keys(site)
    typer.echo(str(site.enrolment_path))
    _say_request(site)


def _say_request(site: "SiteSettings") -> None:
    """Say what becomes of an enrolment request."""
    from esn_client.site.state import own_entry

    say(
        "Send this request to the centre; there is no secret in it. When they call, read out:\n"
        f"  {own_entry(site).fingerprint}\n"
        "Everything else in the state directory stays here."
    )
