"""The installation: deployments, health, canaries."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    console,
    explained_errors,
    load,
)
from tasks.core.errors import ConfigError

app = typer.Typer()


@app.command()
def deploy(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders or files of models, each a configuration with its section `operate`; see docs/deploying.md."
        ),
    ] = None,
    profile: Annotated[
        Literal["local", "docker", "kubernetes"],
        typer.Option(help="Where runs execute: processes here, processes in the workers' containers, or Jobs of a cluster."),
    ] = "local",
    file: Annotated[
        Path | None, typer.Option(help="The file of deployments, instead of models. [default: deployments/prefect.yaml]")
    ] = None,
    template: Annotated[Path, typer.Option(help="What is deployed for each model.")] = Path("deployments/model.yaml"),
    gpus: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Maximum number of runs that hold a GPU; unset keeps the limit, initially 1."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove deployments that are no longer in the files; else they are listed.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Replace deployments of the same names that another file deployed.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Mark existing experiments and registered models as owned by this installation.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Deploys models, or a file of deployments, with their pools, limit and automations; those of other files stay."""
    with explained_errors():
        if models and file is not None:
            raise ConfigError("perennial deploy", "models and --file", "one of them", "Deploy them by two commands.")
        from perennial.operations import embedded

        # Servers on other machines need a configured MLflow; locally it is the embedded one.
        claims = profile == "local" or bool(os.environ.get("MLFLOW_TRACKING_URI", "").strip())
        embedded.prepare_environment()
        embedded.use_running_server()
        if not os.environ.get("PREFECT_API_URL"):
            raise ConfigError("PREFECT_API_URL", "no server", "a Prefect server", "Set it, or start `perennial server`.")
        from perennial.operations.deployment import deploy as deploy_all
        from perennial.operations.deployment_file import FileSet
        from perennial.operations.model_files import deployments_of

        files = deployments_of(models, template) if models else FileSet.of(file or Path("deployments/prefect.yaml"))
        options = {"prune": prune, "take_over": take_over, "adopt": adopt, "claims": claims, "dry_run": dry_run}
        changes = deploy_all(files, profile, gpus, **options)
        if as_json:
            print_json({"dry_run": dry_run, "changes": list(changes)})
            return
        if dry_run:
            console.print("Dry run: these changes would be made; nothing is written.", highlight=False)
        for action, subject in changes:
            console.print(f"{action:<9} {subject}", highlight=False)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Check this configuration too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Checks everything a retrain needs. `ok` and `note` need no action; a `fault` does, and sets exit code 1."""
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from perennial.operations.doctor import examine

        signs = {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "fault": "[red]fault[/]"}
        findings = []
        for finding in examine(load(config) if config else None):
            findings.append(finding)
            if as_json:
                continue
            todo = f"  [dim]{escape(finding.todo)}[/]" if finding.todo else ""
            line = f"{signs[finding.status]} {finding.check:<12} {escape(finding.found)}{todo}"
            console.print(line, highlight=False)
        if as_json:
            print_json(findings)
        if any(finding.status == "fault" for finding in findings):
            raise typer.Exit(1)


@app.command()
def init(
    data: Annotated[str | None, typer.Argument(help="A file, folder, pattern, URL or database of rows.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Configuration to write; an existing file is not overwritten.")
    ] = Path("config.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the model; unset: that of the data.")] = None,
    query: Annotated[str | None, typer.Option(help="Of a database: a table, or one SELECT statement.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a configuration, for editors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Looks at rows and writes a configuration for them: format, columns, label, groups, time, known values."""
    with explained_errors():
        from perennial.operations import initial

        if schema and as_json:
            print_json(initial.schema())
            return
        if schema:
            typer.echo(json.dumps(initial.schema(), indent=1))
            return
        if data is None:
            raise ConfigError("perennial init", "no data", "a file of rows, or --schema", "Name the file.")
        guess, num_rows, found = initial.write_initial(data, out, name, query)
        if as_json:
            print_json({"file": out, "rows": num_rows, "format": found, **asdict(guess)})
            return
        console.print(f"{num_rows} rows of the format {found}.", highlight=False)
        for setting, reason in guess.reasons.items():
            line = f"  {setting}: {escape(str(guess.settings[setting]))}  [dim]{escape(reason)}[/]"
            console.print(line, highlight=False)
        console.print(f"Written to {out}. Look at it, then: perennial plan --config {out}", highlight=False)


@app.command()
def canaries(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON Lines file to write; an existing one is not overwritten.")],
    as_json: JsonOption = False,
) -> None:
    """Writes fictitious customers to add to the raw rows; the red team tests whether the model reproduces them."""
    with explained_errors():
        from perennial.operations.canaries import write_canaries

        count = write_canaries(load(config), out)
        if as_json:
            print_json({"file": out, "canaries": count})
            return
        console.print(f"{count} canaries in {out}. Add them to the raw rows; the scrubber must remove them.")
