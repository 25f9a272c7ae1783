"""Starts `perennial serve`: registry, guard, token and uvicorn."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from perennial.services.serving import create_app
from perennial.services.serving_counts import LiveCounts
from perennial.services.serving_log import RequestLog, log_scrubber
from perennial.services.serving_versions import Versions, load_from_registry
from tasks.alerts.authentication import MIN_SECRET_LENGTH
from tasks.core.errors import ConfigError
from tasks.registry import live
from tasks.tracking import connect, registry_errors

if TYPE_CHECKING:
    from flows.support.config import RetrainConfig

TOKEN = "PERENNIAL_SERVE_TOKEN"


def run(
    settings: RetrainConfig,
    host: str,
    port: int,
    live_signals: Path | None,
    *,
    guarded: bool,
    log: tuple[Path, float, int] | None,
    say: Callable[[str], None],
) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that are being answered are finished first.

    Raises:
        ConfigError: The token is short, or the log cannot be written.
        IntegrityError: A file of a version is not the registered one.
        InputError: There is no champion.
        RegistryError: MLflow does not answer.
    """
    token = os.environ.get(TOKEN, "").strip()
    if token and len(token) < MIN_SECRET_LENGTH:
        found = f"{len(token)} characters"
        raise ConfigError(TOKEN, found, f"at least {MIN_SECRET_LENGTH}", "Make one with `openssl rand -hex 32`.")
    guard = None
    if guarded:
        from perennial.services.guard import policy_of
        from tasks.guard.filtering import Guard

        guard = Guard(policy_of(settings))
    requests = RequestLog(log[0], log_scrubber(settings), share=log[1], days=log[2]) if log else None
    client, name = connect(), settings.registry.registered_name

    def read() -> live.Traffic:
        with registry_errors(f"registered model {name}"):
            return live.read_traffic(client, name)

    versions = Versions(read, lambda alias: load_from_registry(client, name, alias))
    shares = versions.follow().shares
    say(f"Serving {name}: " + ", ".join(f"version {version} {share} %" for version, share in shares.items()))
    if not token:
        token = secrets.token_hex(16)
        say(f"Token {token}")
    app = create_app(name, versions, LiveCounts(live_signals, guarded=guarded), token, guard, requests)
    uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, access_log=False, server_header=False, ws="none", log_level="warning")
    ).run()
