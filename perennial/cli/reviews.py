"""Export and import of the review queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load,
)

review_app = typer.Typer(
    help="Export and import of the review queue: the rows that need a person's decision.", no_args_is_help=True
)


@review_app.command("export")
def review_export(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; an existing one is not overwritten.")],
    label_studio: Annotated[bool, typer.Option(help="Label Studio tasks, with their interface beside them (.xml).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Exports the rows that await a decision. Fill in `decision` (keep, drop or fix) and, for fix, `label`."""
    with explained_errors():
        from perennial.operations.review import export_questions

        written, count = export_questions(load(config), out, label_studio=label_studio)
        if as_json:
            print_json({"rows": count, "files": written})
            return
        console.print(f"{count} rows await a decision: {', '.join(map(str, written)) or 'nothing to write'}")


@review_app.command("import")
def review_import(
    answers: Annotated[Path, typer.Argument(help="The exported file with answers, or Label Studio's JSON export.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Imports decisions; a partly completed file is accepted, and a repeated import changes nothing."""
    with explained_errors():
        from perennial.operations.review import import_answers

        taken, waiting = import_answers(load(config), answers)
        if as_json:
            print_json({"imported": taken, "waiting": waiting})
            return
        counts = ", ".join(f"{count} {action}" for action, count in taken.items())
        console.print(f"Decisions imported: {counts}. {waiting} rows still await one. The next run applies them.")
