"""Commands that set a centre up: its authority, its service, its sites."""

from pathlib import Path
from typing import Annotated

import typer

from esn_core.system.command_line import Yes, say
from esn_server.cli.arguments import Centre


def init(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    name: Annotated[list[str], typer.Option(help="Host name or IP address of this centre; may be repeated.")],
) -> None:
    """Make the centre's certificates, its signing key, and a protocol to read."""
    from esn_core.identity.signing import fingerprint
    from esn_core.system.files import write_whole
    from esn_server.enrolment.centre_keys import create_authority, load_centre_key
    from esn_server.protocol.drafting import example

    create_authority(directory, names=name)
    write_whole(directory / "protocol.example.toml", example().encode())
    typer.echo(str(directory))
    say(
        f"The centre signs with {fingerprint(load_centre_key(directory).public_key())}. Sites get what they "
        "need in their kits, from 'esn-server enrol'; the directory itself stays here. protocol.example.toml "
        "in it is for you to read."
    )


def start(
    directory: Centre,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9092,
    health_host: Annotated[
        str, typer.Option(help="Address of the gRPC health service; it has no TLS, keep it inside.")
    ] = "127.0.0.1",
    health_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the gRPC health service.")
    ] = 9093,
) -> None:
    """Serve the link that sites connect to, until stopped; what dies of it is started again."""
    from esn_server.service.supervisor import serve

    _warn_of_expiry(directory)
    serve(directory, host=host, port=port, health_host=health_host, health_port=health_port, ready=typer.echo)


def enrol(
    directory: Centre,
    request: Annotated[Path, typer.Argument(help="The site's enrolment.toml, from 'esn-client init'.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the site read it out; without it, a terminal is asked.")
    ] = None,
    public_address: Annotated[
        str | None,
        typer.Option(help="host:port at which sites reach this centre; else its first name and its port."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Exchange the keys of a site that has rotated them.")
    ] = False,
) -> None:
    """Let a site in by its keys, and write the kit to send to it. The centre must be started."""
    from esn_core.system.command_line import compare_by_telephone
    from esn_server.link.admission import enrol as let_in

    _warn_of_expiry(directory)
    path, kit = let_in(
        directory,
        request,
        confirm=lambda entry: compare_by_telephone(
            f"the request of {entry.site}", entry.fingerprint, heard=fingerprint
        ),
        public_address=public_address,
        replace=replace,
    )
    typer.echo(str(path))
    say(
        f"Send this kit to {kit.entry.site}; there is no secret in it. When they call, read out:\n"
        f"  {kit.fingerprint}"
    )


def revoke(
    directory: Centre,
    site: Annotated[str, typer.Argument(help="The site's name.")],
    yes: Yes = False,
) -> None:
    """Take a site's enrolment back, for good. The centre must be started."""
    from esn_server.enrolment.sites import enrolled_as
    from esn_server.link.admission import revoke as take_back

    if not yes:
        entry = enrolled_as(directory, site)
        keys = "which were revoked before, " if entry is None else f"{entry.fingerprint}, "
        typer.echo(
            f"With --yes, the keys of {site}, {keys}are taken back for good: no protocol that names them is "
            "signed or run any more. Nothing is changed yet."
        )
        return
    take_back(directory, site, tell=say)
    typer.echo(site)


def accept_ledger(
    directory: Centre,
    site: Annotated[str, typer.Argument(help="The site's name.")],
    entries: Annotated[int, typer.Option(min=0, help="How many entries the rebuilt ledger has.")],
    head: Annotated[str, typer.Option(help="The hash of the last one, as the site read it out.")],
    yes: Yes = False,
) -> None:
    """Take a ledger that a site had to rebuild for its own; ask the site on the telephone why."""
    from pydantic import ValidationError

    from esn_core.errors import ConfigError
    from esn_core.messages.facts import LedgerMark
    from esn_server.run.memory import accept_ledger as accept

    try:
        mark = LedgerMark(entries=entries, head=head.strip().lower())
    except ValidationError as cause:
        raise ConfigError(f"the head of a ledger is 64 digits, not {head!r}") from cause
    before = accept(directory, site, mark, yes=yes)
    if not yes:
        typer.echo(
            f"This centre saw {before.entries} entries of {site} last, head {before.head}. With --yes it "
            f"forgets them, and takes {mark.entries} entries, head {mark.head}, for the ledger of {site} "
            "from now on. Nothing is changed yet."
        )
        return
    typer.echo(site)


def renew(
    directory: Centre,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name or IP address; without any, those of before.")
    ] = None,
) -> None:
    """Make a new server certificate of the same authority; then start the centre again."""
    from esn_server.enrolment.centre_keys import renew_server

    names = renew_server(directory, names=name or ())
    typer.echo(str(directory / "server.crt"))
    say(f"good for {', '.join(names) or 'the loopback'}; stop the centre and start it again")


def _warn_of_expiry(directory: Path) -> None:
    """Say which of the centre's certificates end within 30 days."""
    from esn_server.enrolment.centre_keys import expiry_warnings

    for warning in expiry_warnings(directory):
        typer.echo(f"esn-server: {warning}", err=True)
