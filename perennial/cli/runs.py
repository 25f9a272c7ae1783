"""Runs: start, plan, show and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.shared import (
    ConfigOption,
    StoreOption,
    console,
    explained_errors,
    find_record,
    load,
    load_for_flow,
    print_pairs,
    print_record,
    say,
)

app = typer.Typer()


@app.command()
def retrain(config: ConfigOption) -> None:
    """Runs the whole pipeline: prepare, train, benchmark, decide, register, write the dossier."""
    with explained_errors():
        settings = load_for_flow(config)
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.retrain import retrain as retrain_flow

            with StageLines(console).showing():
                outcome = retrain_flow(settings)
        if outcome.promoted_by:
            console.print(f"{outcome.decision.outcome}. The run {outcome.promoted_by} registers it and writes the dossier.")
            return
        print_record(find_record(settings.store, outcome.run_name), settings.store)


@app.command()
def plan(
    config: ConfigOption,
    show_row: Annotated[bool, typer.Option("--show-row", help="Show the first row's text as the model sees it.")] = False,
) -> None:
    """Prints what `retrain` would do: columns, rows, steps, estimated time; exit code 3 says that it would be refused.

    Writes no model and moves no alias.
    """
    with explained_errors():
        settings = load(config)
        from perennial.operations.planning import plan_retrain
        from perennial.operations.understanding import REFUSED

        blocks = plan_retrain(settings, show_row=show_row)
        for title, lines in blocks:
            print_pairs(title, lines)
        if blocks[-1][0] == REFUSED:
            raise typer.Exit(3)


@app.command()
def search(
    config: ConfigOption,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials on each base model; a larger number continues.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Configuration to write; an existing file is not overwritten.")],
) -> None:
    """Tries settings, and base models if several are named, on the rows of `retrain`; writes the best as a configuration."""
    with explained_errors():
        settings = load_for_flow(config)
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        study_uri = f"sqlite:///{embedded.home() / 'search.db'}"
        with embedded.prefect_api(say):
            from flows.search import base_lines, check_out, trial_lines, write_winner
            from flows.search import search as search_flow

            check_out(out)
            with StageLines(console).showing():
                report = search_flow(settings, trials, study_uri)
        write_winner(config, out, report)
        print_pairs(f"{len(report.trials)} trials, best first", trial_lines(report))
        if report.bases:
            print_pairs(f"{len(report.bases)} base models, on the validation rows", base_lines(report))
        for note in report.notes:
            console.print(note, highlight=False)
        console.print(f"The best settings are in {out}.", highlight=False, soft_wrap=True)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run name, `latest`, or `MODEL/latest` in a store of several.")] = "latest",
    store: StoreOption = ".perennial/store",
) -> None:
    """Prints a run's dossier: verdict, scores, reasons, and the location of the page."""
    with explained_errors():
        print_record(find_record(store, run), store)


@app.command()
def quarantine(
    run: Annotated[
        str, typer.Argument(help="Run name, `latest`, or the address of a quarantine data set that an error names.")
    ] = "latest",
    reason: Annotated[str | None, typer.Option(help="List the rows with this reason code.")] = None,
    stage: Annotated[str | None, typer.Option(help="List the rows that this stage took out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row, in an array.")] = False,
    store: StoreOption = ".perennial/store",
) -> None:
    """Prints the rows that a run took out: stage, reason, field, what to do. Their text stays in the store."""
    with explained_errors():
        from perennial.operations import quarantine as operation

        rows = operation.read_out_rows(store, run, reason, stage)
        if as_json:
            typer.echo(json.dumps(operation.as_json(rows), indent=2, ensure_ascii=False))
            return
        for block in operation.counted(rows):
            print_pairs(*block, num_text_columns=3)
        if reason or stage:
            print_pairs(*operation.listed(rows), num_text_columns=4)
        if not rows:
            console.print("No row was taken out.")


@app.command()
def terms(
    run: Annotated[str, typer.Argument(help="Run name, `latest`, or `MODEL/latest`.")] = "latest",
    store: StoreOption = ".perennial/store",
    out: Annotated[Path | None, typer.Option("--out", help="File of `pii.allowed_terms` to add them to.")] = None,
) -> None:
    """Prints the words that scrubbing masked in many rows, for a person to decide; --out adds them to the allowed terms."""
    with explained_errors():
        found = [one["term"] for one in find_record(store, run)["examples"]["scrub"].get("frequent_terms", ())]
        if out is None:
            for term in found:
                typer.echo(term)
            return
        present = out.read_text(encoding="utf-8") if out.exists() else ""
        known = {line.strip().casefold() for line in present.splitlines()}
        new = [term for term in found if term not in known]
        end = "" if not present or present.endswith("\n") else "\n"
        out.write_text(present + end + "".join(f"{term}\n" for term in new), encoding="utf-8")
        console.print(f"{len(new)} terms added to {out}; look them through before the next run.", highlight=False)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run.")],
    second: Annotated[str, typer.Argument(help="The run to compare it with, or `latest`, `MODEL/latest`.")],
    store: StoreOption = ".perennial/store",
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
) -> None:
    """Compares two runs: rows by stage, removals by reason, scores, decision."""
    with explained_errors():
        from perennial.operations.comparison import compare_runs

        for block in compare_runs(store, first, second, html):
            print_pairs(*block)
        if html:
            console.print(f"\npage  {html}", soft_wrap=True)
