"""The store: verify and prune it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load,
    load_for_flow,
    print_pairs,
    say,
)
from tasks.core.addresses import without_secrets

app = typer.Typer()
store_app = typer.Typer(help="The store of data sets, models and dossiers.", no_args_is_help=True)


@store_app.command("verify")
def verify(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Verifies the whole store, and that it holds what the registered versions need; exit code 1 if not."""
    with explained_errors():
        settings = load(config)
        from perennial.cli.terminal import StageLines
        from perennial.operations.store_check import verify_store
        from tasks.core.progress import report_progress
        from tasks.core.storage import Store
        from tasks.registry.versions import needed_references
        from tasks.tracking import connect

        store = Store(settings.store)
        with StageLines(console).showing(), report_progress("verify_store", unit="things") as progress:
            report = verify_store(store, progress, needed_references(connect(), settings.registry.registered_name))
            progress.finish(", ".join(f"{count} {kind}s" for kind, count in report.counts.items()) or "nothing")
        if as_json:
            print_json({"store": store.uri, **asdict(report)})
            raise typer.Exit(1 if report.faults else 0)
        signs, place = {"note": "[yellow]note[/] ", "fault": "[red]fault[/]"}, escape(without_secrets(store.uri))
        for finding in report.findings:
            line = f"{signs[finding.severity]} {escape(finding.name)}: {escape(finding.what)}"
            console.print(line, highlight=False)
        if report.faults:
            console.print(f"{len(report.faults)} faults in {place}. Restore what is missing or altered from a backup.")
            raise typer.Exit(1)
        size = f"{report.size_bytes / 1e6:,.1f} MB"
        console.print(f"{place} holds {size}, all of it unaltered.", highlight=False)


@app.command()
def prune(
    config: ConfigOption,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it; without this option it is only listed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists what no version in use and no recent run needs any more, with its size; --remove deletes it."""
    with explained_errors():
        settings = load_for_flow(config)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.prune import prune as prune_flow

            report = prune_flow(settings, remove)
        from tasks.core.storage import Store
        from tasks.pruning.listing import read_items

        store = Store(settings.store)
        items = read_items(store, report)
        if as_json:
            print_json({"report": report, "items": items})
            return
        shown: list[tuple[str, ...]] = [
            (item.kind, item.name, f"{item.age_days:.0f} days", f"{item.size_bytes / 1e6:.1f} MB") for item in items[:20]
        ]
        if shown:
            print_pairs(f"Largest of {report.num_items}", shown, num_text_columns=2)
            console.print(f"all   {without_secrets(store.uri_of(report.listing))}")
        if report.note:
            console.print(f"Only work folders and unfinished writes: {report.note}.", highlight=False, markup=False)
        verb = "Removed" if report.removed else "Would remove"
        console.print(f"{verb} {report.num_items} items, {report.size_bytes / 1e6:.1f} MB in the store.", highlight=False)
