"""The installation: deployments, its health, planted canaries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

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
    with explained_errors():
        from perennial.operations import embedded

        # Servers of other machines have an MLflow that must be named; here it is the embedded one.
        claims = profile == "local" or bool(os.environ.get("MLFLOW_TRACKING_URI", "").strip())
        embedded.prepare_environment()
        embedded.use_running_server()
        if not os.environ.get("PREFECT_API_URL"):
            raise ConfigError("PREFECT_API_URL", "no server", "a Prefect server", "Set it, or start `perennial server`.")
        from perennial.operations.deploying import deploy as deploy_all

        options = {"prune": prune, "take_over": take_over, "adopt": adopt, "claims": claims}
        for word, what in deploy_all(file, profile, gpus, **options):
            console.print(f"{word:<9} {what}", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Examine this configuration too.")] = None,
) -> None:
    """Looks at everything a retrain needs; each line is OK, or says what to do. Exit code 1 when something is wrong."""
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from perennial.operations.doctor import examine

        signs = {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "fault": "[red]fault[/]"}
        num_faults = 0
        for finding in examine(load(config) if config else None):
            num_faults += finding.status == "fault"
            todo = f"  [dim]{escape(finding.todo)}[/]" if finding.todo else ""
            line = f"{signs[finding.status]} {finding.check:<12} {escape(finding.found)}{todo}"
            console.print(line, highlight=False, soft_wrap=True)
        if num_faults:
            raise typer.Exit(1)


@app.command()
def canaries(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON Lines file to write; an existing one is not overwritten.")],
) -> None:
    """Writes made-up customers to add to the raw rows; the red team then looks whether the model knows them."""
    with explained_errors():
        from perennial.operations.canaries import write_canaries

        count = write_canaries(load(config), out)
        console.print(
            f"{count} canaries in {out}. Add them to the raw rows; the scrubber must take them out.", soft_wrap=True
        )
