"""Production: judge a window of it."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load_for_flow,
    print_pairs,
    say,
)
from tasks.core.addresses import without_secrets

app = typer.Typer()


@app.command()
def check(
    config: ConfigOption,
    until: Annotated[datetime | None, typer.Option(help="End of the window (UTC); none: the last full hour.")] = None,
) -> None:
    """Judges a window of production; exit code 0 when healthy or too little to judge, 3 when an alert was raised."""
    with explained_errors():
        settings = load_for_flow(config)
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.monitor import check_production

            with StageLines(console).showing():
                outcome = check_production(settings, until)
        from tasks.core.storage import Store
        from tasks.monitoring.telling import cells_of

        store = Store(settings.store)
        found = outcome.check
        lines: list[tuple[str, ...]] = [cells_of(reading) for reading in found.readings]
        title = f"{found.status}: {found.num_requests} requests until {found.window_end:%Y-%m-%d %H:%M} UTC"
        print_pairs(title, lines, num_text_columns=6)
        for signal, run in outcome.runs.items():
            console.print(f"{signal}: run {run} of retrain-on-alert weighs it", highlight=False)
        for note in outcome.notes:
            console.print(note, highlight=False)
        if outcome.pairs:
            console.print(
                f"{outcome.num_pairs} preference pairs to confirm: {without_secrets(store.uri_of(outcome.pairs))}",
                soft_wrap=True,
            )
        console.print(f"page  {without_secrets(store.uri_of(outcome.page))}", soft_wrap=True)
        if found.alerted:
            sys.exit(3)
