"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Centre = Annotated[Path, typer.Argument(help="The centre's directory, made by 'esn-server init'.")]
