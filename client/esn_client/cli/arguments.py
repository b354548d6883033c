"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[Path, typer.Argument(help="The site's settings, such as site.toml.")]
ProtocolFile = Annotated[Path, typer.Argument(help="The study's protocol, or its package.")]
