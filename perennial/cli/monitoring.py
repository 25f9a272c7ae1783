"""Production monitoring."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load_for_flow,
    print_pairs,
    say,
)
from tasks.core.addresses import without_secrets

if TYPE_CHECKING:
    from tasks.contracts.monitoring import CheckOutcome

app = typer.Typer()


@app.command()
def check(
    config: ConfigOption,
    until: Annotated[datetime | None, typer.Option(help="End of the window (UTC). The last full hour by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Checks a window of production; exit code 0 if it is healthy or has too few requests, 3 if an alert was raised."""
    with explained_errors():
        settings = load_for_flow(config)
        from flows.monitor import check_production, monitoring_of
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        monitoring_of(settings)
        with embedded.prefect_api(say), StageLines(console).showing():
            outcome = check_production(settings, until)
        if as_json:
            print_json(outcome)
        else:
            _print_check(outcome, settings.store)
        if outcome.check.alerted:
            sys.exit(3)


def _print_check(outcome: CheckOutcome, store_uri: str) -> None:
    from tasks.core.storage import Store
    from tasks.monitoring.exporters import cells_of

    store, window = Store(store_uri), outcome.check
    lines: list[tuple[str, ...]] = [cells_of(reading) for reading in window.readings]
    title = f"{window.status}: {window.num_requests} requests until {window.window_end:%Y-%m-%d %H:%M} UTC"
    print_pairs(title, lines, num_text_columns=6)
    for signal, run in outcome.runs.items():
        console.print(f"{signal}: run {run} of retrain-on-alert evaluates it", highlight=False)
    for note in outcome.notes:
        console.print(note, highlight=False)
    if outcome.pairs:
        console.print(
            f"{outcome.num_pairs} preference pairs to confirm: {without_secrets(store.uri_of(outcome.pairs))}",
        )
    console.print(f"page  {without_secrets(store.uri_of(outcome.page))}")
