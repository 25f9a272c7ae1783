"""The command `perennial`: thin, each command calls a flow or prints a contract. Heavy imports wait for their command."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.addresses import without_secrets
from tasks.errors import ConfigError, PerennialError
from tasks.texts import check_text

app = typer.Typer(
    name="perennial",
    help="Keeps fine-tuned language models fresh: prepare, train, judge, promote, explain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()
errors = Console(stderr=True)

review_app = typer.Typer(
    help="The review queue: what the audit wants a person to decide, out as a file and back in.", no_args_is_help=True
)
app.add_typer(review_app, name="review")
rollout_app = typer.Typer(help="How a new version takes over the traffic from the champion.", no_args_is_help=True)
app.add_typer(rollout_app, name="rollout")

budget_app = typer.Typer(help="A training above its ceiling: the question, and a person's answer.", no_args_is_help=True)
app.add_typer(budget_app, name="budget")

store_app = typer.Typer(help="Where data sets, models and dossiers lie.", no_args_is_help=True)
app.add_typer(store_app, name="store")

StoreOption = Annotated[str, typer.Option(help="The store that the run wrote to.")]
NameOption = Annotated[str, typer.Option(help="Who decides; goes on record as you write it.")]
TrainingArgument = Annotated[str, typer.Argument(help="The training, as the run named it.")]
BudgetReasonOption = Annotated[str, typer.Option(help="Why; kept with the training and in the dossier.")]
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML configuration; see examples/.")]


@app.command()
def retrain(config: ConfigOption) -> None:
    """Runs the whole job: prepare, train, benchmark, decide, register, dossier."""
    with _explained_errors():
        settings = _load_for_flow(config)
        from flows import embedded
        from flows.terminal import StageLines

        with embedded.prefect_api(_say):
            from flows.retrain import retrain as retrain_flow

            with StageLines(console).showing():
                outcome = retrain_flow(settings)
        if outcome.promoted_by:
            console.print(f"{outcome.decision.outcome}. The run {outcome.promoted_by} registers it and writes the dossier.")
            return
        _print_record(_read_record(settings.store, outcome.run_name), settings.store)


@app.command()
def plan(config: ConfigOption) -> None:
    """Prints what `retrain` would do: rows, stages, steps, estimated time. Writes no model and moves no alias."""
    with _explained_errors():
        settings = _load(config)
        from flows.planning import plan_retrain

        for title, lines in plan_retrain(settings):
            _print_pairs(title, lines)


@app.command()
def search(
    config: ConfigOption,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials in all; more of them go on from where it ended.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Configuration to write; an existing file is not overwritten.")],
) -> None:
    """Tries learning rates, ranks and epochs on the rows that `retrain` trains on; writes the best as a configuration."""
    with _explained_errors():
        settings = _load_for_flow(config)
        from flows import embedded
        from flows.terminal import StageLines

        study_uri = f"sqlite:///{embedded.home() / 'search.db'}"
        with embedded.prefect_api(_say):
            from flows.search import check_out, trial_lines, write_winner
            from flows.search import search as search_flow

            check_out(out)
            with StageLines(console).showing():
                report = search_flow(settings, trials, study_uri)
        write_winner(config, out, report)
        _print_pairs(f"{len(report.trials)} trials, best first", trial_lines(report))
        for note in report.notes:
            console.print(note, highlight=False)
        console.print(f"The best settings are in {out}.", highlight=False, soft_wrap=True)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run name, `latest`, or `MODEL/latest` in a store of several.")] = "latest",
    store: StoreOption = ".perennial/store",
) -> None:
    """Prints a run's dossier: verdict, scores, reasons, where the page is."""
    with _explained_errors():
        _print_record(_read_record(store, run), store)


@app.command()
def rollback(
    config: ConfigOption,
    reason: Annotated[str, typer.Option(help="Why; kept with the version, for the record.")],
    name: Annotated[str | None, typer.Option(help="Who does it; goes on record. Your login by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at the terminal.")] = False,
) -> None:
    """Makes the previous champion the champion again, and records who did it and why; a rollout under way is aborted."""
    with _explained_errors():
        settings = _load(config)
        reason = check_text(reason, "--reason", least=3)
        from flows import embedded

        with embedded.prefect_api(_say):
            from flows.rollback import rollback as rollback_flow
            from flows.rollback import sentence_of
            from tasks.contracts import PromotionRecord
            from tasks.registry.task import way_back

            plan = way_back(settings.registry)
            console.print(sentence_of(plan), highlight=False, soft_wrap=True)
            if sys.stdin.isatty() and not yes:
                typer.confirm("Go on?", abort=True)
            record = rollback_flow(settings.registry, reason, name or _login(), plan)
            assert isinstance(record, PromotionRecord)  # it is the way back that was shown
        console.print(f"Champion of {settings.name} is now version {record.champion_version}. {record.reason}")


@app.command()
def check(
    config: ConfigOption,
    until: Annotated[datetime | None, typer.Option(help="End of the window (UTC); none: the last full hour.")] = None,
) -> None:
    """Judges a window of production; exit code 0 when healthy or too little to judge, 3 when an alert was raised."""
    with _explained_errors():
        settings = _load_for_flow(config)
        from flows import embedded
        from flows.terminal import StageLines

        with embedded.prefect_api(_say):
            from flows.monitor import check_production

            with StageLines(console).showing():
                outcome = check_production(settings, until)
        from tasks.monitoring.telling import cells_of
        from tasks.storage import Store

        store = Store(settings.store)
        found = outcome.check
        lines: list[tuple[str, ...]] = [cells_of(reading) for reading in found.readings]
        title = f"{found.status}: {found.num_requests} requests until {found.window_end:%Y-%m-%d %H:%M} UTC"
        _print_pairs(title, lines, num_text_columns=6)
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


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Examine this configuration too.")] = None,
) -> None:
    """Looks at everything a retrain needs; each line is OK, or says what to do. Exit code 1 when something is wrong."""
    with _explained_errors():
        from flows import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from flows.doctor import examine

        signs = {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "fault": "[red]fault[/]"}
        num_faults = 0
        for finding in examine(_load(config) if config else None):
            num_faults += finding.status == "fault"
            todo = f"  [dim]{escape(finding.todo)}[/]" if finding.todo else ""
            line = f"{signs[finding.status]} {finding.check:<12} {escape(finding.found)}{todo}"
            console.print(line, highlight=False, soft_wrap=True)
        if num_faults:
            raise typer.Exit(1)


@app.command()
def prune(
    config: ConfigOption,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it; without this it is only listed.")] = False,
) -> None:
    """Lists what no version in use and no recent run needs any more, with its size; --remove makes the room."""
    with _explained_errors():
        settings = _load_for_flow(config)
        from flows import embedded

        with embedded.prefect_api(_say):
            from flows.prune import prune as prune_flow

            report = prune_flow(settings, remove)
        from tasks.pruning.listing import read_items
        from tasks.storage import Store

        store = Store(settings.store)
        items = read_items(store, report)
        shown: list[tuple[str, ...]] = [
            (one.kind, one.name, f"{one.age_days:.0f} days", f"{one.size_bytes / 1e6:.1f} MB") for one in items[:20]
        ]
        if shown:
            _print_pairs(f"Largest of {report.num_items}", shown, num_text_columns=2)
            console.print(f"all   {without_secrets(store.uri_of(report.listing))}", soft_wrap=True)
        if report.note:
            console.print(f"Work folders and unfinished writes alone: {report.note}.", highlight=False, markup=False)
        verb = "Removed" if report.removed else "Would remove"
        console.print(f"{verb} {report.num_items} things, {report.size_bytes / 1e6:.1f} MB in the store.", highlight=False)


@store_app.command("verify")
def verify(config: ConfigOption) -> None:
    """Reads the whole store back, and checks that it holds what the registry's versions need; exit code 1 if not."""
    with _explained_errors():
        settings = _load(config)
        from flows.terminal import StageLines
        from tasks.progress import report_progress
        from tasks.registry.versions import needed_references
        from tasks.storage import Store
        from tasks.store_check import verify_store
        from tasks.tracking import connect

        store = Store(settings.store)
        with StageLines(console).showing(), report_progress("verify_store", unit="things") as progress:
            report = verify_store(store, progress, needed_references(connect(), settings.registry.registered_name))
            progress.finish(", ".join(f"{count} {kind}s" for kind, count in report.counts.items()) or "nothing")
        signs, place = {"note": "[yellow]note[/] ", "fault": "[red]fault[/]"}, escape(without_secrets(store.uri))
        for one in report.findings:
            console.print(f"{signs[one.severity]} {escape(one.name)}: {escape(one.what)}", highlight=False, soft_wrap=True)
        if report.faults:
            console.print(f"{len(report.faults)} faults in {place}. Restore what is missing or altered from a backup.")
            raise typer.Exit(1)
        size = f"{report.size_bytes / 1e6:,.1f} MB"
        console.print(f"{place} holds {size}, all of it as it was written.", highlight=False, soft_wrap=True)


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


@budget_app.command("show")
def show_budget(config: ConfigOption) -> None:
    """Prints the trainings that wait for a person's word, `training.budget.on_exceeded: ask`."""
    with _explained_errors():
        settings = _load(config)
        from tasks.storage import Store
        from tasks.training.allowance import open_requests

        requests = open_requests(Store(settings.store), settings.name)
        if not requests:
            console.print("No training waits.")
            return
        _print_pairs("Trainings above their ceiling", [(one.training, one.question) for one in requests])


@budget_app.command("allow")
def allow_budget(training: TrainingArgument, config: ConfigOption, name: NameOption, reason: BudgetReasonOption) -> None:
    """Lets a training go above its ceiling; start the run again afterwards."""
    _answer_budget(training, config, "allow", name, reason)


@budget_app.command("refuse")
def refuse_budget(training: TrainingArgument, config: ConfigOption, name: NameOption, reason: BudgetReasonOption) -> None:
    """Lets a training not go above its ceiling; the run says so when it is started again."""
    _answer_budget(training, config, "refuse", name, reason)


def _answer_budget(training: str, config: Path, verdict: Literal["allow", "refuse"], name: str, reason: str) -> None:
    with _explained_errors():
        settings = _load(config)
        from tasks.storage import Store
        from tasks.training.allowance import answer

        answered = answer(Store(settings.store), settings.name, training, verdict, name, reason)
        console.print(f"{answered.training}: {answered.verdict}. {answered.question}.")


@app.command()
def history(config: ConfigOption) -> None:
    """Prints the champions over time: since when, by whom, with which figures, and what ended them."""
    with _explained_errors():
        settings = _load(config)
        from flows.registering import history_blocks

        blocks = history_blocks(settings.registry)
        if not blocks:
            console.print(f"{settings.name} has had no champion yet.")
        for title, lines in blocks:
            _print_pairs(title, lines)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run.")],
    second: Annotated[str, typer.Argument(help="The run to set beside it, or `latest`, `MODEL/latest`.")],
    store: StoreOption = ".perennial/store",
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page to this file too.")] = None,
) -> None:
    """Sets two runs side by side: rows by stage, what was removed and why, scores, decision."""
    with _explained_errors():
        from flows.comparing import compare_runs

        for block in compare_runs(store, first, second, html):
            _print_pairs(*block)
        if html:
            console.print(f"\npage  {html}", soft_wrap=True)


@rollout_app.command("start")
def rollout_start(config: ConfigOption) -> None:
    """Begins a rollout at the first step of `registry.rollout`: of the aborted one, else of the champion anew."""
    with _explained_errors():
        settings = _load(config)
        from flows import embedded

        with embedded.prefect_api(_say):
            from flows.registering import start_rollout

            _print_pairs(*start_rollout(settings.registry))


@rollout_app.command("advance")
def rollout_advance(
    config: ConfigOption,
    metrics: Annotated[Path | None, typer.Option(help="JSON file of live metrics by name.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="One live metric, NAME=VALUE; may be repeated.")] = None,
) -> None:
    """Goes to the next step once this one has baked; a live metric beyond its limit aborts instead (exit code 3)."""
    with _explained_errors():
        settings = _load(config)
        from flows import embedded

        with embedded.prefect_api(_say):
            from flows.registering import advance_rollout, read_metrics

            title, lines, aborted = advance_rollout(settings.registry, read_metrics(metrics, metric or []))
        _print_pairs(title, lines)
        if aborted:
            sys.exit(3)


@rollout_app.command("abort")
def rollout_abort(config: ConfigOption, reason: Annotated[str, typer.Option(help="Why; kept with the version.")]) -> None:
    """Takes all traffic from the version under rollout; the champion, which never left its place, has it again."""
    with _explained_errors():
        settings = _load(config)
        from flows import embedded

        with embedded.prefect_api(_say):
            from flows.registering import abort_rollout

            _print_pairs(*abort_rollout(settings.registry, reason))


@rollout_app.command("status")
def rollout_status(config: ConfigOption) -> None:
    """Prints the share of the traffic, the plan, and what happened so far."""
    with _explained_errors():
        settings = _load(config)
        from flows import registering

        _print_pairs(*registering.rollout_status(settings.registry))


@review_app.command("export")
def review_export(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; an existing one is not overwritten.")],
    label_studio: Annotated[bool, typer.Option(help="Label Studio tasks, and their interface beside them (.xml).")] = False,
) -> None:
    """Writes the rows that await an answer. Fill in `decision` (keep, drop or fix) and, for fix, `label`."""
    with _explained_errors():
        from flows.review import export_questions

        written, count = export_questions(_load(config), out, label_studio=label_studio)
        console.print(f"{count} rows await an answer: {', '.join(map(str, written)) or 'nothing to write'}", soft_wrap=True)


@review_app.command("import")
def review_import(
    answers: Annotated[Path, typer.Argument(help="The exported file with answers, or Label Studio's JSON export.")],
    config: ConfigOption,
) -> None:
    """Takes answers over; partial ones are welcome, and the same file twice changes nothing."""
    with _explained_errors():
        from flows.review import import_answers

        taken, waiting = import_answers(_load(config), answers)
        console.print(f"Answers taken over: {taken}. {waiting} rows still await one. The next run applies them.")


@app.command()
def canaries(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON Lines file to write; an existing one is not overwritten.")],
) -> None:
    """Writes made-up customers to add to the raw rows; the red team then looks whether the model knows them."""
    with _explained_errors():
        from flows.canaries import write_canaries

        count = write_canaries(_load(config), out)
        console.print(
            f"{count} canaries in {out}. Add them to the raw rows; the scrubber must take them out.", soft_wrap=True
        )


@app.command()
def fetch(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; `mlflow models serve -m` takes it.")],
    alias: Annotated[str, typer.Option(help="Which version.")] = "champion",
) -> None:
    """Fetches a version's files for serving; each must be the one that was registered, code included."""
    with _explained_errors():
        settings = _load(config)
        from tasks.registry.fetching import fetch_version
        from tasks.tracking import connect

        version = fetch_version(connect(), settings.registry.registered_name, out, alias)
        console.print(f"Version {version} of {settings.registry.registered_name} is in {out}.", soft_wrap=True)


@app.command()
def guard(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML configuration; see examples/.")] = None,
    policy: Annotated[Path | None, typer.Option(help="An exported policy, in place of a configuration.")] = None,
    direction: Annotated[
        str, typer.Option(help="`input` or `output` of the model; inputs are searched for injections.")
    ] = "input",
    export: Annotated[Path | None, typer.Option(help="Writes the policy to this file, and filters nothing.")] = None,
) -> None:
    """Filters lines, or JSON objects with a `text`, from standard input; what cannot be checked is blocked."""
    with _explained_errors():
        from flows.embedded import prepare_environment

        prepare_environment()
        from flows.guard import choose_policy, export_policy, filter_lines

        if direction not in ("input", "output"):
            raise ConfigError("--direction", direction, "input or output", "Name one of them.")
        rules = choose_policy(config, policy)
        if export is not None:
            export_policy(rules, export)
            console.print(f"The policy is in {export}.", soft_wrap=True)
            return
        for line in filter_lines(rules, sys.stdin.buffer, "input" if direction == "input" else "output"):
            sys.stdout.buffer.write(f"{line}\n".encode())
            sys.stdout.buffer.flush()


@app.command()
def server(
    port: Annotated[int, typer.Option(help="Port of Prefect's page.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's page.")] = 5000,
) -> None:
    """Serves Prefect's and MLflow's pages over the embedded state, until Ctrl-C."""
    with _explained_errors():
        from flows import embedded
        from flows.credential import read_credential

        embedded.prepare_environment()
        with embedded.servers(port, mlflow_port, _say) as (prefect_url, mlflow_url):
            credential = read_credential(embedded.home())
            lines = [f"Prefect  {prefect_url}", f"MLflow   {mlflow_url}", f"Login    {credential}", "Ctrl-C stops both."]
            console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
            embedded.wait_for_interrupt()


@app.command("alert-bridge")
def alert_bridge(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML settings of the bridge; see docs/configuration.md.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8080,
) -> None:
    """Takes in alerts over HTTP and makes them runs of `retrain-on-alert`, until Ctrl-C."""
    with _explained_errors():
        from flows import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from flows.alert_bridge import serve
        from flows.config import load_settings
        from tasks.alerts import BridgeConfig
        from tasks.alerts.authentication import read_secrets

        serve(load_settings(config, BridgeConfig), read_secrets(os.environ), host, port)


@app.command()
def deploy(
    profile: Annotated[
        Literal["local", "docker", "kubernetes"],
        typer.Option(help="Where runs work: processes here, processes in the workers' containers, or Jobs of a cluster."),
    ] = "local",
    file: Annotated[Path, typer.Option(help="The deployments.")] = Path("deployments/prefect.yaml"),
    gpus: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="How many runs may hold a GPU at a time; none: as it is, at first 1."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what came from this file and is no longer in it; else it is named.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="This file replaces another that has deployments of the same names.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Experiments and registered models that exist already are this installation's.")
    ] = False,
) -> None:
    """Brings the Prefect server to the deployments of a file, with their pools, limit and automations; other files' stay."""
    with _explained_errors():
        from flows import embedded

        # Servers of other machines have an MLflow that must be named; here it is the embedded one.
        claims = profile == "local" or bool(os.environ.get("MLFLOW_TRACKING_URI", "").strip())
        embedded.prepare_environment()
        embedded.use_running_server()
        if not os.environ.get("PREFECT_API_URL"):
            raise ConfigError("PREFECT_API_URL", "no server", "a Prefect server", "Set it, or start `perennial server`.")
        from flows.deploying import deploy as deploy_all

        options = {"prune": prune, "take_over": take_over, "adopt": adopt, "claims": claims}
        for word, what in deploy_all(file, profile, gpus, **options):
            console.print(f"{word:<9} {what}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `perennial` command."""
    app()


# ------------------------------------------------------------------------------------------------------------- internals


def _login() -> str:
    """Who is at the terminal, as the system knows it.

    Raises:
        ConfigError: It does not, as in a container.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("--name", "no login", "who does it", "State it.") from error


def _load(path: Path) -> Any:
    from flows import embedded

    embedded.prepare_environment()
    from flows.config import load_config

    return load_config(path)


def _load_for_flow(path: Path) -> Any:
    """The configuration as a flow may be given it: Prefect stores what a flow is given."""
    settings = _load(path)
    from flows.config import sent_to_prefect

    return sent_to_prefect(settings)


def _answer(run: str, verdict: Literal["approve", "reject"], name: str, reason: str, store: str) -> None:
    with _explained_errors():
        from flows import embedded

        embedded.prepare_environment()
        with embedded.prefect_api(_say):
            from flows.approving import answer_run, read_answer

            record, resumed = answer_run(store, run, read_answer(verdict, name, reason))
        console.print(f"Champion of {record.candidate.name}: version {record.champion_version or 'none'}. {record.reason}")
        if resumed:
            console.print("The run that waited goes on and writes the dossier.")


def _read_record(store_uri: str, run: str) -> dict[str, Any]:
    from tasks.dossier.summary import read_record

    return read_record(store_uri, run)


def _print_record(record: dict[str, Any], store_uri: str) -> None:
    from tasks.dossier.summary import summary_lines

    for title, lines in summary_lines(record, store_uri):
        _print_pairs(title, lines)


def _print_pairs(title: str, lines: list[tuple[str, ...]], num_text_columns: int = 1) -> None:
    """Prints a titled block whose lines are aligned columns: text to the left, figures to the right."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for index in range(max((len(line) for line in lines), default=0)):
        table.add_column(justify="left" if index < num_text_columns or len(lines[0]) <= 2 else "right", overflow="fold")
    for line in lines:
        table.add_row(*(escape(without_secrets(cell)) for cell in line))
    console.print()
    console.print(escape(title), style="bold", highlight=False, soft_wrap=True)  # a table's own title wraps at its width
    console.print(table, highlight=False)


def _say(line: str) -> None:
    console.print(f"[dim]{escape(line)} ...[/]", highlight=False)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Turns the project's errors, and a server's, into one message and their exit code.

    Anything else is a defect and shows its trace.
    """
    try:
        yield
    except PerennialError as error:
        _exit_with(error)
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished stages are kept; the same command continues from there.")
        sys.exit(130)
    except Exception as error:
        if (explained := _servers_error(error)) is None:
            raise
        _exit_with(explained)


def _exit_with(error: PerennialError) -> NoReturn:
    errors.print(f"[red bold]{type(error).__name__}[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(error.exit_code)


def _servers_error(error: BaseException | None) -> PerennialError | None:
    """What a server's client raised, without the server's answer, which repeats what it was sent; None for a defect."""
    import httpx

    while error is not None and not isinstance(error, httpx.HTTPError):
        error = error.__cause__
    if isinstance(error, httpx.HTTPStatusError):
        where = f"{error.request.method} {error.request.url.copy_with(query=None, userinfo=b'')}"
        todo = "Compare the versions of both sides (`perennial doctor`), then read the server's log."
        return PerennialError(where, f"status {error.response.status_code}", "an answer of Prefect's or MLflow's", todo)
    if isinstance(error, httpx.HTTPError):
        todo = "Look whether it runs (`perennial doctor`), then run again: finished stages are kept."
        return PerennialError("a server", f"no answer ({type(error).__name__})", "Prefect's or MLflow's", todo)
    return None


if __name__ == "__main__":
    main()
