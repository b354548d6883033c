"""The command line of the coordinating centre."""

from typing import NoReturn

import typer

from esn_core.system.command_line import run, with_examples
from esn_server.cli import protocol, setup, simulation, study
from esn_server.cli.examples import EXAMPLES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The coordinating centre of an esn-federated study. Research software, not a medical device.",
)

protocol_app = typer.Typer(no_args_is_help=True, help="Draft a study, and see what it costs.")
app.add_typer(protocol_app, name="protocol")

audit_app = typer.Typer(no_args_is_help=True, help="Compare what both sides logged.")
app.add_typer(audit_app, name="audit")

app.command()(setup.init)
app.command()(setup.start)
app.command()(setup.enrol)
app.command()(setup.revoke)
app.command()(setup.renew)
app.command()(setup.accept_ledger)
protocol_app.command()(protocol.new)
protocol_app.command()(protocol.validate)
protocol_app.command()(protocol.sign)
protocol_app.command()(protocol.price)
app.command("run")(study.run_study)
app.command()(study.status)
audit_app.command("verify")(study.verify_audit)
app.command()(study.report)
app.command()(study.export)
app.command()(study.release)
app.command()(simulation.pretrain)
app.command()(simulation.demo)

with_examples(app, EXAMPLES)


def main() -> NoReturn:
    """Run the command line."""
    run(app, program="esn-server")


if __name__ == "__main__":
    main()
