"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[Path, typer.Argument(help="The site's settings, such as site.toml.")]
<<<<<<< HEAD
ProtocolFile = Annotated[Path, typer.Argument(help="The study's protocol, or its package.")]
=======
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only said what would happen.")]
ProtocolFile = Annotated[Path, typer.Argument(help="The study's protocol.")]
>>>>>>> e8e7e99 (look at withdrawals before a prediction, name a proxy's authority, sort tables, and say first what cannot be undone)
