"""Forgetting a person."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import ConfigOption, NameOption, console, explained_errors, load, print_pairs
from tasks.core.addresses import without_secrets

app = typer.Typer()


@app.command()
def forget(
    config: ConfigOption,
    by: NameOption,
    values: Annotated[
        str | None,
        typer.Option("--values", help="File with names, addresses and numbers, one a line; - reads the standard input."),
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="Id of a row; may be repeated.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this option it is only listed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists everything that holds a person, in store and registry; --apply removes the person from it for good."""
    with explained_errors():
        settings = load(config)
        from perennial.operations.forget import forget_everywhere, read_values
        from tasks.core.documents import read_text
        from tasks.core.storage import Store
        from tasks.tracking import connect

        text = "" if values is None else sys.stdin.read() if values == "-" else read_text(Path(values))
        store, now = Store(settings.store), datetime.now(UTC)
        certificate = forget_everywhere(
            store, connect(), settings, read_values(text), row or (), by=by, now=now, apply=apply
        )
        if as_json:
            print_json({"applied": apply, "certificate": certificate})
            return
        verb = "Removed" if apply else "Would change"
        if certificate.objects:
            lines: list[tuple[str, ...]] = [(one.kind, one.name, one.action) for one in certificate.objects]
            print_pairs(f"{verb}: {len(lines)} places, {certificate.num_rows} rows", lines, num_text_columns=3)
        else:
            console.print("No store and no run holds any of it.")
        versions = ", ".join(certificate.marked_versions) or "none"
        console.print(f"Versions that learned from a removed row: {versions}. Weights cannot be searched: retrain.")
        for note in certificate.notes:
            console.print(f"[yellow]note[/] {escape(note)}", highlight=False)
        if apply:
            uri = without_secrets(f"{store.uri}/certificates/{certificate.name}.json")
            console.print(f"Certificate: {escape(uri)}. The source itself is yours to correct.")
