"""Long-running processes: the embedded servers, the alert bridge, the guard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.shared import (
    ConfigOption,
    StoreOption,
    console,
    explained_errors,
    load,
    say,
)
from tasks.core.errors import ConfigError, PerennialError, UserError

app = typer.Typer()


@app.command()
def server(
    port: Annotated[int, typer.Option(help="Port of Prefect's UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's UI.")] = 5000,
) -> None:
    """Serves the UIs of Prefect and MLflow over the embedded state, until Ctrl-C."""
    with explained_errors():
        from perennial.operations import embedded
        from perennial.operations.credential import read_credential

        embedded.prepare_environment()
        with embedded.servers(port, mlflow_port, say) as (prefect_url, mlflow_url):
            credential = read_credential(embedded.home())
            lines = [f"Prefect  {prefect_url}", f"MLflow   {mlflow_url}", f"Login    {credential}", "Ctrl-C stops both."]
            console.print("\n".join(lines), highlight=False, markup=False)
            embedded.wait_for_interrupt()


@app.command("alert-bridge")
def alert_bridge(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML settings of the bridge; see docs/configuration.md.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8080,
) -> None:
    """Accepts alerts over HTTP and starts runs of `retrain-on-alert` for them, until Ctrl-C."""
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from flows.support.config import load_settings
        from perennial.services.alert_bridge import serve
        from tasks.alerts import BridgeConfig
        from tasks.alerts.authentication import read_secrets

        settings = load_settings(config, BridgeConfig)
        serve(settings, read_secrets(os.environ, required=not settings.accept), host, port)


@app.command()
def approvals(
    store: StoreOption = ".perennial/store",
    name_header: Annotated[
        str, typer.Option(help="Header in which the proxy sends the person's name.")
    ] = "X-Forwarded-Email",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8090,
) -> None:
    """Serves the page on which approvers answer, behind a proxy that authenticates them, until Ctrl-C.

    The proxy sends the secret of PERENNIAL_PROXY_SECRET in the header X-Perennial-Proxy.
    """
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from perennial.services.approvals_page import read_proxy_secret, serve

        serve(read_proxy_secret(os.environ), name_header, store, host, port)


@app.command()
def notify(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Folders or files of models. The models deployed on the server by default.")
    ] = None,
    outbox: Annotated[Path, typer.Option(help="File of the durable outbox (SQLite), on a local disk, not NFS.")] = Path(
        ".perennial/outbox.db"
    ),
    every: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds between two looks.")] = 60,
    once: Annotated[
        bool, typer.Option("--once", help="Look and send once; exit code 3 if something could not be read or sent.")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="Send a test message to every target, and end.")] = False,
) -> None:
    """Tells the targets of `operate.notify` what is new about each model, until Ctrl-C.

    They hear of requests for approval and their expiry, promoted and held versions, failed runs, and violated limits.
    """
    with explained_errors():
        from perennial.operations import embedded

        embedded.prepare_environment()
        embedded.use_running_server()
        from perennial.services.json_lines import log_as_json
        from perennial.services.notifier import Notifier, Watched
        from perennial.services.outbox import Outbox

        log_as_json()
        watched = Watched(models or [])
        try:
            targets, without = watched.check()
            typer.echo(f"Targets: {', '.join(targets)}." + (f" Without one: {', '.join(without)}." if without else ""))
        except UserError:
            raise
        except PerennialError as error:
            if once or test:
                raise
            typer.echo(f"{error} The next look tries again.", err=True)
        if test:
            failed = watched.test()
            typer.echo(f"Not received by {', '.join(failed)}." if failed else "Every target received the test.")
            raise typer.Exit(3 if failed else 0)
        box = Outbox(outbox)
        try:
            notifier = Notifier(box, watched)
            if once:
                raise typer.Exit(0 if notifier.step() else 3)
            notifier.run(every)
        finally:
            box.close()


@app.command()
def serve(
    config: ConfigOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
    live_signals: Annotated[
        Path | None, typer.Option(help="File to append counts to, for `perennial rollout tick`; nothing is counted without.")
    ] = None,
    guarded: Annotated[bool, typer.Option("--guard", help="Filter requests and replies by the configuration.")] = False,
    log: Annotated[
        Path | None, typer.Option(help="Folder to log requests to, scrubbed, for `monitoring.log`; none is logged without.")
    ] = None,
    log_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the requests whose texts are logged.")] = 1.0,
    log_days: Annotated[int, typer.Option(min=1, max=3_650, help="Logs of earlier days are removed.")] = 30,
) -> None:
    """Serves the champion, and the version under rollout at its share, over OpenAI's chat API, until Ctrl-C.

    Clients send the token in PERENNIAL_SERVE_TOKEN; without it one is made and printed.
    """
    with explained_errors():
        settings = load(config)
        from perennial.services.serving_start import run

        requests = None if log is None else (log, log_share, log_days)
        run(settings, host, port, live_signals, guarded=guarded, log=requests, say=typer.echo)


@app.command()
def guard(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML configuration; see examples/.")] = None,
    policy: Annotated[Path | None, typer.Option(help="An exported policy, instead of a configuration.")] = None,
    direction: Annotated[
        str, typer.Option(help="`input` or `output` of the model; inputs are searched for injections.")
    ] = "input",
    export: Annotated[Path | None, typer.Option(help="Write the policy to this file, and filter nothing.")] = None,
) -> None:
    """Filters lines, or JSON objects with a `text`, from standard input; what cannot be checked is blocked."""
    with explained_errors():
        from perennial.operations.embedded import prepare_environment

        prepare_environment()
        from perennial.services.guard import choose_policy, export_policy, filter_lines

        if direction not in ("input", "output"):
            raise ConfigError("--direction", direction, "input or output", "Name one of them.")
        rules = choose_policy(config, policy)
        if export is not None:
            export_policy(rules, export)
            console.print(f"The policy is in {export}.")
            return
        for line in filter_lines(rules, sys.stdin.buffer, "input" if direction == "input" else "output"):
            sys.stdout.buffer.write(f"{line}\n".encode())
            sys.stdout.buffer.flush()
