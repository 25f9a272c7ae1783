"""All models: what each does now."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import console, explained_errors, print_table

app = typer.Typer()


@app.command()
def status(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Folders or files of models. The models deployed on the server by default.")
    ] = None,
    as_json: JsonOption = False,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="Also write metrics to this file (*.prom), for node-exporter's textfile collector.")
    ] = None,
) -> None:
    """Prints each model's champion, last decision, open question, next run, production and cost; names what is away."""
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from perennial.operations.fleet import read_fleet
        from perennial.operations.fleet_page import HEADERS, cells_of, prometheus_text, render_fleet, write_whole

        fleet = read_fleet(models or [], dt.datetime.now(dt.UTC))
        if html is not None:
            write_whole(html, render_fleet(fleet))
        if prometheus is not None:
            write_whole(prometheus, prometheus_text(fleet))
        if as_json:
            print_json(fleet)
            return
        table = Table(*HEADERS, box=None, pad_edge=False, header_style="bold")
        for model in fleet.models:
            cells = cells_of(model, fleet.written_at)
            table.add_row(*(escape(cell.text) + (f"\n[dim]{escape(cell.note)}[/]" if cell.note else "") for cell in cells))
        print_table(table)
        for model in fleet.models:
            for concern in model.concerns:
                console.print(f"[yellow]{escape(model.name)}[/]: {escape(concern)}", highlight=False)
