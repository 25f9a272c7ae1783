"""Shared parts of the commands: options, console, configuration, error messages."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.core.addresses import without_secrets
from tasks.core.errors import ConfigError, PerennialError

# The terminal wraps long lines itself, so that a path or an address stays one word to select.
console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)

StoreOption = Annotated[str, typer.Option(help="The store that the run wrote to.")]
NameOption = Annotated[str, typer.Option(help="Who decides; recorded as written.")]
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML configuration; see examples/.")]


def load(path: Path) -> Any:
    """The configuration, after the embedded environment is prepared."""
    from perennial.operations import embedded

    embedded.prepare_environment()
    from flows.support.config import load_config

    return load_config(path)


def load_for_flow(path: Path) -> Any:
    """The configuration as a flow parameter, which Prefect stores."""
    settings = load(path)
    from flows.support.config import sent_to_prefect

    return sent_to_prefect(settings)


def find_record(store_uri: str, run: str) -> dict[str, Any]:
    """A run's record; see :func:`tasks.dossier.summary.read_record`."""
    from tasks.dossier.summary import read_record

    return read_record(store_uri, run)


def print_record(record: dict[str, Any], store_uri: str) -> None:
    """Prints a record as titled blocks."""
    from tasks.dossier.summary import summary_lines

    for title, lines in summary_lines(record, store_uri):
        print_pairs(title, lines)


def print_pairs(title: str, lines: list[tuple[str, ...]], num_text_columns: int = 1) -> None:
    """Prints a titled block whose lines are aligned columns: text to the left, figures to the right."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for index in range(max((len(line) for line in lines), default=0)):
        table.add_column(justify="left" if index < num_text_columns or len(lines[0]) <= 2 else "right")
    for line in lines:
        table.add_row(*(escape(without_secrets(cell)) for cell in line))
    console.print()
    console.print(escape(title), style="bold", highlight=False)
    print_table(table)


def print_table(table: Table) -> None:
    """Prints a table that breaks lines between words alone; a word as long as a path makes it wider than the terminal."""
    for column in table.columns:
        words = (word for cell in column.cells for word in console.render_str(str(cell)).plain.split())
        column.min_width = max(map(cell_len, words), default=0)
    console.print(table, highlight=False, soft_wrap=False, crop=False)


def say(line: str) -> None:
    """Prints one dim line that says what the command waits for."""
    console.print(f"[dim]{escape(line)} ...[/]", highlight=False)


@contextmanager
def explained_errors() -> Iterator[None]:
    """Turns the project's errors, and those of servers, into one message and an exit code.

    Any other error is a defect and shows its traceback.
    """
    try:
        yield
    except PerennialError as error:
        _exit_with(error)
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished stages are kept; the same command continues from there.")
        sys.exit(130)
    except Exception as error:
        if (explained := _servers_error(error)) is None:
            raise
        _exit_with(explained)


def _exit_with(error: PerennialError) -> NoReturn:
    errors.print(f"[red bold]{type(error).__name__}[/] {escape(str(error))}", highlight=False)
    sys.exit(error.exit_code)


def _servers_error(error: BaseException | None) -> PerennialError | None:
    """The error of a server's client without the response, which may repeat the request; None for a defect."""
    import httpx

    while error is not None and not isinstance(error, httpx.HTTPError):
        error = error.__cause__
    if isinstance(error, httpx.HTTPStatusError):
        where = f"{error.request.method} {error.request.url.copy_with(query=None, userinfo=b'')}"
        todo = "Compare the versions of both sides (`perennial doctor`), then read the server's log."
        return PerennialError(where, f"status {error.response.status_code}", "a response of Prefect or MLflow", todo)
    if isinstance(error, httpx.HTTPError):
        todo = "Check that it runs (`perennial doctor`), then run again: finished stages are kept."
        return PerennialError("a server", f"no response ({type(error).__name__})", "a response of Prefect or MLflow", todo)
    return None


def login_name() -> str:
    """The login name of the user.

    Raises:
        ConfigError: There is none, as in a container.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("--name", "no login", "who does it", "Set it.") from error
