"""The champion: approval, history, rollback, rollout, and the files to serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    NameOption,
    StoreOption,
    console,
    explained_errors,
    find_record,
    load,
    login_name,
    print_pairs,
    say,
)
from tasks.core.typed_text import check_text

if TYPE_CHECKING:
    from tasks.registry.live import Traffic

app = typer.Typer()
rollout_app = typer.Typer(help="Gradual rollout of a new version in place of the champion.", no_args_is_help=True)


@app.command()
def approve(
    run: Annotated[str, typer.Argument(help="The run that requested approval.")],
    name: NameOption,
    reason: Annotated[str, typer.Option(help="Why; recorded with the version and in the dossier.")],
    store: StoreOption = ".perennial/store",
    as_json: JsonOption = False,
) -> None:
    """Promotes the candidate of a run, unless the champion has changed since the candidate was evaluated.

    Where names must come from tokens, PERENNIAL_IDENTITY_TOKEN holds yours, and the name in it counts.
    """
    _answer(run, "approve", name, reason, store, as_json)


@app.command()
def reject(
    run: Annotated[str, typer.Argument(help="The run that requested approval.")],
    name: NameOption,
    reason: Annotated[str, typer.Option(help="Why; recorded with the version and in the dossier.")],
    store: StoreOption = ".perennial/store",
    as_json: JsonOption = False,
) -> None:
    """Rejects the candidate of a run; no alias moves."""
    _answer(run, "reject", name, reason, store, as_json)


def _answer(run: str, verdict: Literal["approve", "reject"], name: str, reason: str, store: str, as_json: bool) -> None:
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        from flows.support.approvals import answer_run, read_answer

        answer = read_answer(verdict, name, reason)
        find_record(store, run)
        with embedded.prefect_api(say):
            token = os.environ.get("PERENNIAL_IDENTITY_TOKEN", "")
            record, resumed = answer_run(store, run, answer, token)
        if as_json:
            print_json({"promotion": record, "resumed": resumed})
            return
        console.print(f"Champion of {record.candidate.name}: version {record.champion_version or 'none'}. {record.reason}")
        if resumed:
            console.print("The suspended run resumes and writes the dossier.")


@app.command()
def history(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Prints the champions over time: start, approver, scores, and why each was replaced."""
    with explained_errors():
        settings = load(config)
        from perennial.operations.champion_history import history_block
        from tasks.registry.champion_history import champion_tenures
        from tasks.tracking import connect

        tenures = champion_tenures(connect(), settings.registry.registered_name)
        if as_json:
            print_json(tenures)
            return
        if not tenures:
            console.print(f"{settings.name} has had no champion yet.")
        for tenure in tenures:
            print_pairs(*history_block(tenure))


@app.command()
def rollback(
    config: ConfigOption,
    reason: Annotated[str, typer.Option(help="Why; recorded with the version.")],
    name: Annotated[str | None, typer.Option(help="Who does it; recorded with the version. Your login by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    to: Annotated[
        str | None, typer.Option(help="The version that comes back; by default the one that the champion replaced.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Makes an earlier champion the champion again, or aborts an active rollout; the same command again changes nothing."""
    with explained_errors():
        settings = load(config)
        reason = check_text(reason, "--reason", least=3)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from flows.rollback import describe_plan
            from flows.rollback import rollback as rollback_flow
            from tasks.contracts.registry import PromotionRecord
            from tasks.registry.task import read_rollback_plan

            plan = read_rollback_plan(settings.registry, to)
            console.print(describe_plan(plan), highlight=False)
            if plan.already:
                if as_json:
                    print_json({"plan": plan, "promotion": None})
                return
            if sys.stdin.isatty() and not yes:
                typer.confirm("Continue?", abort=True)
            record = rollback_flow(settings.registry, reason, name or login_name(), plan)
            assert isinstance(record, PromotionRecord)  # the plan was confirmed, so it is not cancelled
        if as_json:
            print_json({"plan": plan, "promotion": record})
            return
        console.print(f"Champion of {settings.name} is now version {record.champion_version}. {record.reason}")


@app.command()
def fetch(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to create, for `mlflow models serve -m`.")],
    alias: Annotated[str, typer.Option(help="Alias of the version.")] = "champion",
    as_json: JsonOption = False,
) -> None:
    """Fetches the files of a version for serving; each file, including code, is verified against the registered one."""
    with explained_errors():
        settings = load(config)
        from tasks.registry.fetching import fetch_version
        from tasks.tracking import connect

        version = fetch_version(connect(), settings.registry.registered_name, out, alias)
        if as_json:
            print_json({"name": settings.registry.registered_name, "version": version, "folder": out})
            return
        console.print(f"Version {version} of {settings.registry.registered_name} is in {out}.")


@rollout_app.command("start")
def rollout_start(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Starts a rollout at the first step of `registry.rollout`: of the aborted version, else of the champion."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from perennial.operations.rollout import start_rollout

            _print_traffic(settings.registry.registered_name, start_rollout(settings.registry), as_json)


@rollout_app.command("advance")
def rollout_advance(
    config: ConfigOption,
    metrics: Annotated[Path | None, typer.Option(help="JSON file of live metrics by name.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="One live metric, NAME=VALUE; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Advances to the next step after the bake time; a live metric beyond its limit aborts instead (exit code 3)."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded
        from perennial.operations.rollout import advance_rollout, is_aborted, read_metrics

        live = read_metrics(metrics, metric or [])
        with embedded.prefect_api(say):
            traffic = advance_rollout(settings.registry, live)
        _print_traffic(settings.registry.registered_name, traffic, as_json)
        if is_aborted(traffic):
            sys.exit(3)


@rollout_app.command("tick")
def rollout_tick(
    config: ConfigOption,
    signals: Annotated[Path, typer.Option(help="File of live signals: counts by version and window; docs/operating.md.")],
    as_json: JsonOption = False,
) -> None:
    """Looks at the live signals of both versions, and advances, waits, or aborts (exit code 3); for a schedule."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import embedded
        from perennial.operations.rollout import tick_lines
        from tasks.registry.live_signals import read_windows
        from tasks.registry.task import look_at_rollout

        read_windows(signals)  # a file that cannot be read is refused before a server starts
        with embedded.prefect_api(say):
            tick = look_at_rollout(settings.registry, signals)
        if as_json:
            print_json(tick)
        else:
            print_pairs(*tick_lines(tick))
        if tick.verdict.action == "abort":
            sys.exit(3)


@rollout_app.command("abort")
def rollout_abort(
    config: ConfigOption,
    reason: Annotated[str, typer.Option(help="Why; for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Returns all traffic from the version under rollout to the champion."""
    with explained_errors():
        settings = load(config)
        reason = check_text(reason, "--reason", 400)
        from perennial.operations import embedded

        with embedded.prefect_api(say):
            from perennial.operations.rollout import abort_rollout

            _print_traffic(settings.registry.registered_name, abort_rollout(settings.registry, reason), as_json)


@rollout_app.command("render")
def rollout_render(
    config: ConfigOption,
    kind: Annotated[str, typer.Option(help="Router: `nginx`, `gateway` (HTTPRoute), `llm-d` or `mlflow`.")],
    backend: Annotated[
        str | None, typer.Option(help="Name of a version's backend, with {version}; MODEL-v{version} by default.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the backends, for `gateway`.")] = 8000,
    key: Annotated[
        str, typer.Option(help="Variable that nginx hashes; one of a cookie keeps a user at one version.")
    ] = "$request_id",
) -> None:
    """Prints the present shares of traffic as a router's configuration; render it again after each step."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import rollout

        typer.echo(rollout.render_rollout(settings.registry, kind, backend=backend, port=port, key=key), nl=False)


@rollout_app.command("status")
def rollout_status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Prints the share of the traffic, the plan, and the changes so far."""
    with explained_errors():
        settings = load(config)
        from perennial.operations import rollout

        _print_traffic(settings.registry.registered_name, rollout.rollout_status(settings.registry), as_json)


def _print_traffic(name: str, traffic: Traffic, as_json: bool) -> None:
    from perennial.operations.rollout import rollout_lines

    if as_json:
        print_json(traffic)
    else:
        print_pairs(*rollout_lines(name, traffic))
