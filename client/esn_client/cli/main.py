"""The command line of a hospital."""

from typing import NoReturn

import typer

from esn_client.cli import data, model, people, protocol, records, service, setup
from esn_client.cli.examples import EXAMPLES
from esn_core.system.command_line import run, with_examples

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One hospital of an esn-federated study. Research software, not a medical device.",
)
ledger_app = typer.Typer(
    no_args_is_help=True, help="The privacy ledger: read it, or count again what it lost."
)
app.add_typer(ledger_app, name="ledger")
audit_log_app = typer.Typer(no_args_is_help=True, help="The log of every message that came or left.")
app.add_typer(audit_log_app, name="audit-log")

app.command()(setup.init)
app.command()(setup.kit)
app.command()(setup.rotate)
app.command()(data.simulate)
app.command()(data.prepare)
app.command()(data.rate)
app.command("import")(data.take_in)
app.command()(data.candidates)
app.command()(protocol.review)
app.command()(protocol.approve)
app.command()(protocol.withdraw)
app.command()(protocol.audit)
app.command()(model.countersign)
app.command()(model.predict)
app.command()(model.personal_model)
app.command()(people.withdraw_child)
app.command()(service.check)
app.command()(service.status)
app.command()(service.join)
ledger_app.command()(records.show)
ledger_app.command()(records.verify)
ledger_app.command()(records.export)
ledger_app.command()(records.rebuild)
audit_log_app.command("export")(records.export_audit_log)

with_examples(app, EXAMPLES)


def main() -> NoReturn:
    """Run the command line."""
    run(app, program="esn-client")


if __name__ == "__main__":
    main()
