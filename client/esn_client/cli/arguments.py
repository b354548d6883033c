"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[Path, typer.Argument(help="The site's settings, such as site.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only said what would happen.")]
ProtocolFile = Annotated[Path, typer.Argument(help="The study's protocol, or its package.")]
