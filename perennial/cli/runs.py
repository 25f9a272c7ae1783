"""Runs: start, plan, show and compare them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.json_output import JsonOption, blocks_document, print_json
from perennial.cli.shared import (
    ConfigOption,
    StoreOption,
    console,
    explained_errors,
    find_record,
    load,
    load_for_flow,
    login_name,
    print_pairs,
    print_record,
    say,
)

app = typer.Typer()


class ExitOn(StrEnum):
    """Outcomes of a retrain that may have an exit code of their own."""

    HOLD = "hold"
    WAITING = "waiting"


_EXIT_CODES = {"Held": (ExitOn.HOLD, 4), "Rejected": (ExitOn.HOLD, 4), "Asked": (ExitOn.WAITING, 5)}


@app.command()
def retrain(
    config: ConfigOption,
    exit_on: Annotated[
        list[ExitOn] | None,
        typer.Option(help="Exit with 4 if the candidate is held or rejected, with 5 if it waits for a person. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Runs the whole pipeline: prepare, train, benchmark, decide, register, write the dossier."""
    with explained_errors():
        settings = load_for_flow(config)
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.retrain import retrain as retrain_flow
            from flows.support.requests import RunRequest

            request = None
            if settings.registry.excluded("whoever starts it"):  # four eyes: who that is must be on record
                request = RunRequest(reason="Started by command.", name=login_name())
            with StageLines(console).showing():
                outcome = retrain_flow(settings, request)
        from flows.support.outcomes import name_of_outcome

        name = name_of_outcome(outcome)
        if as_json:
            print_json({"outcome": name, **outcome.model_dump()})
        elif outcome.promoted_by:
            console.print(f"{outcome.decision.outcome}. The run {outcome.promoted_by} registers it and writes the dossier.")
        else:
            print_record(find_record(settings.store, outcome.run_name), settings.store)
        kind, code = _EXIT_CODES.get(name, (None, 0))
        if kind in (exit_on or ()):
            raise typer.Exit(code)


@app.command()
def plan(
    config: ConfigOption,
    show_row: Annotated[bool, typer.Option("--show-row", help="Show the first row's text as the model sees it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prints what `retrain` would do: columns, rows, steps, estimated time; exit code 3 says that it would be refused.

    Writes no model and moves no alias.
    """
    with explained_errors():
        settings = load(config)
        from perennial.operations.planning import plan_retrain
        from perennial.operations.understanding import REFUSED

        blocks = plan_retrain(settings, show_row=show_row)
        refused = blocks[-1][0] == REFUSED
        if as_json:
            print_json({"refused": refused, "blocks": blocks_document(blocks)})
        for title, lines in blocks if not as_json else ():
            print_pairs(title, lines)
        if refused:
            raise typer.Exit(3)


@app.command()
def search(
    config: ConfigOption,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials on each base model; a larger number continues.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Configuration to write; an existing file is not overwritten.")],
    as_json: JsonOption = False,
) -> None:
    """Tries settings, and base models if several are named, on the rows of `retrain`; writes the best as a configuration."""
    with explained_errors():
        settings = load_for_flow(config)
        from flows.search import base_lines, check_out, trial_lines, write_winner
        from flows.search import search as search_flow
        from perennial.cli.terminal import StageLines
        from perennial.operations import embedded

        study_uri = f"sqlite:///{embedded.home() / 'search.db'}"
        check_out(out)
        with embedded.prefect_api(say), StageLines(console).showing():
            report = search_flow(settings, trials, study_uri)
        write_winner(config, out, report)
        if as_json:
            print_json({"out": out, **report.model_dump()})
            return
        print_pairs(f"{len(report.trials)} trials, best first", trial_lines(report))
        if report.bases:
            print_pairs(f"{len(report.bases)} base models, on the validation rows", base_lines(report))
        for note in report.notes:
            console.print(note, highlight=False)
        console.print(f"The best settings are in {out}.", highlight=False)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run name, `latest`, or `MODEL/latest` in a store of several.")] = "latest",
    store: StoreOption = ".perennial/store",
    as_json: JsonOption = False,
) -> None:
    """Prints a run's dossier: verdict, scores, reasons, and the location of the page; as JSON, its whole record."""
    with explained_errors():
        record = find_record(store, run)
        if as_json:
            print_json(record)
        else:
            print_record(record, store)


@app.command()
def quarantine(
    run: Annotated[
        str, typer.Argument(help="Run name, `latest`, or the address of a quarantine data set that an error names.")
    ] = "latest",
    reason: Annotated[str | None, typer.Option(help="List the rows with this reason code.")] = None,
    stage: Annotated[str | None, typer.Option(help="List the rows that this stage took out.")] = None,
    store: StoreOption = ".perennial/store",
    as_json: JsonOption = False,
) -> None:
    """Prints the rows that a run took out: stage, reason, field, what to do. Their text stays in the store."""
    with explained_errors():
        from perennial.operations import quarantine as operation

        rows = operation.read_out_rows(store, run, reason, stage)
        if as_json:
            print_json(rows)
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
    as_json: JsonOption = False,
) -> None:
    """Prints the words that scrubbing masked in many rows, for a person to decide; --out adds them to the allowed terms."""
    with explained_errors():
        found = [one["term"] for one in find_record(store, run)["examples"]["scrub"].get("frequent_terms", ())]
        if as_json:
            print_json(found)
        elif out is None:
            for term in found:
                typer.echo(term)
        if out is None:
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
    as_json: JsonOption = False,
) -> None:
    """Compares two runs: rows by stage, removals by reason, scores, decision."""
    with explained_errors():
        from perennial.operations.comparison import compare_runs

        blocks = compare_runs(store, first, second, html)
        if as_json:
            print_json(blocks_document(blocks))
            return
        for block in blocks:
            print_pairs(*block)
        if html:
            console.print(f"\npage  {html}")
