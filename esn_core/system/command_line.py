"""What the two command lines share: how a command ends, and how long work shows itself."""

import datetime
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from esn_core.errors import ConfigError, EsnError, ProtocolError
from esn_core.system.logs import LEVELS, Form, set_up

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only said what would happen.")]

_INTERRUPTED = 130

# Packages that an extra of one side or the other brings.
_OPTIONAL = {"bids", "dipy", "jinja2", "matplotlib", "nibabel", "nilearn", "numba", "opacus", "trx"}


_LIBRARIES = (
    *("numpy", "scipy", "torch", "flwr", "opendp", "cryptography", "pydantic", "safetensors", "statsmodels"),
    *("dipy", "nibabel", "numba", "opacus", "nilearn", "matplotlib"),
)


def _say_version(wanted: bool) -> None:
    """Print the versions of the program, of Python and of the libraries that its numbers come from."""
    if not wanted:
        return
    typer.echo(f"esn-federated {version('esn-federated')}")
    typer.echo(f"python {platform.python_version()}")
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # of the other side's extra
            typer.echo(f"{name} {version(name)}")
    raise typer.Exit


def _common(
    log_format: Annotated[Form | None, typer.Option(help="Of what is logged; text by itself.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info or warning; info by itself.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Results, errors and warnings; nothing else is said.")
    ] = False,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Versions, libraries' too."),
    ] = False,
) -> None:
    if log_level is not None and log_level not in LEVELS:
        raise ConfigError(f"--log-level is {', '.join(LEVELS)}, not '{log_level}'")
    set_up(form=log_format, level=log_level, quiet=quiet)


def say(words: str, *, end: str = "\n") -> None:
    """Tell whoever is at the terminal, on stderr, unless ``--quiet`` was said."""
    if not is_quiet():
        typer.echo(words, err=True, nl=end == "\n")


def is_quiet() -> bool:
    """Tell whether ``--quiet`` was said; a command's own thread knows."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def with_examples(app: typer.Typer, examples: Mapping[str, str], *, group: str = "") -> None:
    """Give every command its example, and the program the options that all commands share.

    Parameters
    ----------
    app : typer.Typer
        With all commands and groups.
    examples : dict of str to str
        A command line by its command's name, a group's name before it.
    group : str
        Name of the group that `app` is.

    """
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        example = examples.get(f"{group} {name}".strip())
        command.epilog = example and f"Example: {example}"
    for below in app.registered_groups:
        if below.typer_instance is not None:
            with_examples(below.typer_instance, examples, group=f"{group} {below.name}".strip())
    if not group:
        app.callback()(_common)


def run(app: typer.Typer, *, program: str) -> NoReturn:
    """Run a command line to its end: a user's mistake is one line, and each class has its status."""
    try:
        set_up()
        # A request to end is an interrupt: what was started is stopped in order.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        app(prog_name=program)
    except KeyboardInterrupt:  # before typer has begun
        _complain(program, "interrupted")
        sys.exit(_INTERRUPTED)
    except EsnError as error:
        _complain(program, str(error))
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OPTIONAL:
            raise
        extra = program.removeprefix("esn-")
        _complain(program, f"needs {package}: pip install 'esn-federated[{extra}]'")
        sys.exit(EsnError.exit_status)
    except OSError as error:
        # A user's mistake or a machine's state: no permission, a directory for a file, a full disk.
        place = f"{error.filename}: " if error.filename else ""
        _complain(program, f"{place}{error.strerror or error}")
        sys.exit(EsnError.exit_status)
    except SystemExit as end:
        # typer has turned the interrupt into its status, without a word.
        if end.code == _INTERRUPTED:
            _complain(program, "interrupted")
        raise
    sys.exit(0)


def compare_by_telephone(what: str, fingerprint: str, *, heard: str | None) -> None:
    """Do not go on before two people have compared a fingerprint.

    Parameters
    ----------
    what : str
        Whose fingerprint it is, such as 'the request of north'.
    fingerprint : str
        As computed from what came in.
    heard : str or None
        As the other side read it out; without it, a terminal is asked.

    Raises
    ------
    ProtocolError
        The two differ.
    ConfigError
        Nothing was heard, and nobody can be asked.

    """
    if heard is not None:
        if "".join(heard.split()).lower() != fingerprint.replace(" ", ""):
            raise ProtocolError(
                f"{what} has the fingerprint {fingerprint}, not {heard}: somebody may have exchanged it on "
                "its way; do not use it, and have it sent again"
            )
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{what} has the fingerprint {fingerprint}: let the other side read theirs out, on the "
            "telephone, and repeat the command with --fingerprint and what they said"
        )
    typer.echo(f"{what} has the fingerprint\n  {fingerprint}", err=True)
    if not typer.confirm("Did the other side read out the same, on the telephone?", err=True):
        raise ProtocolError(f"the fingerprint of {what} was not confirmed; nothing was changed")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a long piece of work is, on stderr, unless ``--quiet`` was said.

    Yields a function that is told what was done last, how many are done, and
    of how many. Where stderr is no terminal, it writes a line now and then.
    """
    if is_quiet():
        yield lambda _what, _done, _total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _sparse_lines(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Clock())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda what, done, total: progress.update(
            task, description=f"{title} {what}", completed=done, total=total
        )


class _Clock(TimeElapsedColumn):
    """The time since the work began; it goes on while the last step of a phase is made."""

    def render(self, task: Task) -> Text:
        """Say how long it has taken."""
        return Text(str(datetime.timedelta(seconds=int(task.elapsed or 0))), style="progress.elapsed")


def _sparse_lines(title: str) -> Callable[[str, int, int], None]:
    def tell(what: str, done: int, total: int) -> None:
        if done == total or done % max(total // 4, 1) == 0:
            typer.echo(f"{title}: {done}/{total} {what}", err=True)

    return tell


def _complain(program: str, text: str) -> None:
    line = " ".join(text.split())
    typer.echo(f"{program}: {line}", err=True)
