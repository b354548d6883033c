"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only said what would happen.")]
Centre = Annotated[Path, typer.Argument(help="The centre's directory, made by 'esn-server init'.")]
