"""The review queue, out as a file and back in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load,
)

review_app = typer.Typer(
    help="The review queue: what the audit wants a person to decide, out as a file and back in.", no_args_is_help=True
)


@review_app.command("export")
def review_export(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; an existing one is not overwritten.")],
    label_studio: Annotated[bool, typer.Option(help="Label Studio tasks, and their interface beside them (.xml).")] = False,
) -> None:
    """Writes the rows that await an answer. Fill in `decision` (keep, drop or fix) and, for fix, `label`."""
    with explained_errors():
        from perennial.operations.review import export_questions

        written, count = export_questions(load(config), out, label_studio=label_studio)
        console.print(f"{count} rows await an answer: {', '.join(map(str, written)) or 'nothing to write'}", soft_wrap=True)


@review_app.command("import")
def review_import(
    answers: Annotated[Path, typer.Argument(help="The exported file with answers, or Label Studio's JSON export.")],
    config: ConfigOption,
) -> None:
    """Takes answers over; partial ones are welcome, and the same file twice changes nothing."""
    with explained_errors():
        from perennial.operations.review import import_answers

        taken, waiting = import_answers(load(config), answers)
        console.print(f"Answers taken over: {taken}. {waiting} rows still await one. The next run applies them.")
