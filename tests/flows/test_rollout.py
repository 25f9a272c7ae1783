"""The scheduled look at a rollout: its record, its event, and the command beside it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.rollout import watch_rollout
from perennial.cli.app import app
from tasks.registry import RegistryConfig
from tasks.registry.rollout import ROLLOUT, start
from tasks.tracking import connect

WATCH: Any = {"signals": [{"name": "error_rate"}], "min_requests": 100}


def begin(name: str) -> RegistryConfig:
    """Version 2 at 5 % beside champion 1, since two hours ago."""
    config = RegistryConfig.model_validate({"model_name": name, "rollout": {"at_promotion": True, "watch": WATCH}})
    client = connect()
    client.create_registered_model(name)
    for alias in ("champion", "rollout"):
        client.set_registered_model_alias(name, alias, client.create_model_version(name, "somewhere").version)
    began = (datetime.now(UTC) - timedelta(hours=2)).isoformat(timespec="seconds")
    rollout = start(config.rollout, "1", began).model_copy(update={"share": 5})
    client.set_model_version_tag(name, "2", ROLLOUT, rollout.model_dump_json())
    return config


def write_windows(path: Path, errors: int) -> Path:
    end = datetime.now(UTC) - timedelta(minutes=5)
    sides = (("2", 200, errors), ("1", 3_800, 38))
    lines = [
        {
            "version": version,
            "start": (end - timedelta(hours=1)).isoformat(),
            "end": end.isoformat(),
            "requests": requests,
            "signals": {"error_rate": {"events": events, "trials": requests}},
        }
        for version, requests, events in sides
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.usefixtures("embedded_home")
def test_the_flow_waits_and_then_takes_a_bad_version_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    monkeypatch.setattr("tasks.registry.task.emit_event", lambda **event: events.append(event))
    config = begin("watched-desk")
    waits = watch_rollout(config, str(write_windows(tmp_path / "live.jsonl", errors=2)))
    assert (waits.verdict.action, waits.share, waits.champion) == ("wait", 5, "1")
    assert "24 h are needed" in waits.verdict.reason
    state = watch_rollout(config, str(write_windows(tmp_path / "live.jsonl", errors=40)), return_state=True)
    aborted = state.result()
    assert state.name == "Aborted"
    assert (state.message or "").startswith("version 2 is aborted; version 1 has all the traffic: error_rate: 40 of 200")
    assert (aborted.verdict.action, aborted.share, aborted.champion) == ("abort", 0, "1")
    after = watch_rollout(config, str(tmp_path / "live.jsonl"))
    assert after.verdict.action == "none"
    assert [event["payload"]["action"] for event in events] == ["wait", "abort", "none"]
    assert {event["resource"]["prefect.resource.id"] for event in events} == {"perennial.model.watched-desk"}


@pytest.mark.usefixtures("embedded_home", "wide_console")
def test_the_command_shows_the_signals_and_exits_with_3_after_an_abort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr("perennial.operations.embedded.prefect_api", lambda say: nullcontext("nowhere"))
    monkeypatch.setattr("perennial.operations.embedded.prepare_environment", lambda: None)
    begin("typed-desk")
    config = tmp_path / "config.yaml"
    config.write_text("name: typed-desk\nexamples: {path: rows.jsonl}\n")

    def tick(errors: int, code: int) -> str:
        signals = write_windows(tmp_path / "live.jsonl", errors)
        result = CliRunner().invoke(app, ["rollout", "tick", "--config", str(config), "--signals", str(signals)])
        assert result.exit_code == code, result.output
        return result.output

    shown = tick(2, code=0)
    assert "version 2 stays at 5 %" in shown
    assert "38 of 3,800" in shown
    status = CliRunner().invoke(app, ["rollout", "status", "--config", str(config)]).output
    for kind, code, found in (("nginx", 0, "5%    2;"), ("gateway", 0, "weight: 95"), ("haproxy", 2, "nginx or gateway")):
        rendered = CliRunner().invoke(app, ["rollout", "render", "--config", str(config), "--kind", kind])
        assert (rendered.exit_code, found in rendered.output) == (code, True), rendered.output
    assert "error_rate 1.25 (largest odds ratio to the champion), alpha 0.01" in status
    assert "version 1 has all the traffic: error_rate: 40 of 200" in tick(40, code=3)
    assert "no rollout is in progress" in tick(40, code=0)
