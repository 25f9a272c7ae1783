"""The champion: who decides, what was before, the way back, the rollout, the files to serve."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from perennial.cli.shared import (
    ConfigOption,
    NameOption,
    StoreOption,
    console,
    explained_errors,
    load,
    print_pairs,
    say,
)
from tasks.core.errors import ConfigError
from tasks.core.typed_text import check_text

app = typer.Typer()
rollout_app = typer.Typer(help="How a new version takes over the traffic from the champion.", no_args_is_help=True)


@app.command()
def approve(
    run: Annotated[str, typer.Argument(help="The run that asked.")],
    name: NameOption,
    reason: Annotated[str, typer.Option(help="Why; kept with the version and in the dossier.")],
    store: StoreOption = ".perennial/store",
) -> None:
    """Makes the candidate that a run asked about champion, if the champion it was judged against still reigns."""
    _answer(run, "approve", name, reason, store)


@app.command()
def reject(
    run: Annotated[str, typer.Argument(help="The run that asked.")],
    name: NameOption,
    reason: Annotated[str, typer.Option(help="Why; kept with the version and in the dossier.")],
    store: StoreOption = ".perennial/store",
) -> None:
    """Refuses the candidate that a run asked about; no alias moves."""
    _answer(run, "reject", name, reason, store)


def _answer(run: str, verdict: Literal["approve", "reject"], name: str, reason: str, store: str) -> None:
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        with embedded.prefect_api(say):
            from flows.support.approvals import answer_run, read_answer

            record, resumed = answer_run(store, run, read_answer(verdict, name, reason))
        console.print(f"Champion of {record.candidate.name}: version {record.champion_version or 'none'}. {record.reason}")
        if resumed:
            console.print("The run that waited goes on and writes the dossier.")


@app.command()
def history(config: ConfigOption) -> None:
    """Prints the champions over time: since when, by whom, with which figures, and what ended them."""
    with explained_errors():
        settings = load(config)
        from perennial.operations.registering import history_blocks

        blocks = history_blocks(settings.registry)
        if not blocks:
            console.print(f"{settings.name} has had no champion yet.")
        for title, lines in blocks:
            print_pairs(title, lines)


@app.command()
def rollback(
    config: ConfigOption,
    reason: Annotated[str, typer.Option(help="Why; kept with the version, for the record.")],
    name: Annotated[str | None, typer.Option(help="Who does it; goes on record. Your login by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at the terminal.")] = False,
) -> None:
    """Makes the previous champion the champion again, and records who did it and why; a rollout under way is aborted."""
    with explained_errors():
        settings = load(config)
        reason = check_text(reason, "--reason", least=3)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.rollback import rollback as rollback_flow
            from flows.rollback import sentence_of
            from tasks.contracts.registry import PromotionRecord
            from tasks.registry.task import way_back

            plan = way_back(settings.registry)
            console.print(sentence_of(plan), highlight=False, soft_wrap=True)
            if sys.stdin.isatty() and not yes:
                typer.confirm("Go on?", abort=True)
            record = rollback_flow(settings.registry, reason, name or _login(), plan)
            assert isinstance(record, PromotionRecord)  # it is the way back that was shown
        console.print(f"Champion of {settings.name} is now version {record.champion_version}. {record.reason}")


def _login() -> str:
    """Who is at the terminal, as the system knows it.

    Raises:
        ConfigError: It does not, as in a container.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("--name", "no login", "who does it", "State it.") from error


@app.command()
def fetch(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; `mlflow models serve -m` takes it.")],
    alias: Annotated[str, typer.Option(help="Which version.")] = "champion",
) -> None:
    """Fetches a version's files for serving; each must be the one that was registered, code included."""
    with explained_errors():
        settings = load(config)
        from tasks.registry.fetching import fetch_version
        from tasks.tracking import connect

        version = fetch_version(connect(), settings.registry.registered_name, out, alias)
        console.print(f"Version {version} of {settings.registry.registered_name} is in {out}.", soft_wrap=True)


@rollout_app.command("start")
def rollout_start(config: ConfigOption) -> None:
    """Begins a rollout at the first step of `registry.rollout`: of the aborted one, else of the champion anew."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from perennial.operations.registering import start_rollout

            print_pairs(*start_rollout(settings.registry))


@rollout_app.command("advance")
def rollout_advance(
    config: ConfigOption,
    metrics: Annotated[Path | None, typer.Option(help="JSON file of live metrics by name.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="One live metric, NAME=VALUE; may be repeated.")] = None,
) -> None:
    """Goes to the next step once this one has baked; a live metric beyond its limit aborts instead (exit code 3)."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from perennial.operations.registering import advance_rollout, read_metrics

            title, lines, aborted = advance_rollout(settings.registry, read_metrics(metrics, metric or []))
        print_pairs(title, lines)
        if aborted:
            sys.exit(3)


@rollout_app.command("abort")
def rollout_abort(config: ConfigOption, reason: Annotated[str, typer.Option(help="Why; kept with the version.")]) -> None:
    """Takes all traffic from the version under rollout; the champion, which never left its place, has it again."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from perennial.operations.registering import abort_rollout

            print_pairs(*abort_rollout(settings.registry, reason))


@rollout_app.command("status")
def rollout_status(config: ConfigOption) -> None:
    """Prints the share of the traffic, the plan, and what happened so far."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import registering

        print_pairs(*registering.rollout_status(settings.registry))
