"""Two bad days in production become one retrain, asked for once; the windows follow the schedule, not the clock."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.types import DateTime

from flows import monitor
from flows.monitor import check_production, window_of
from flows.on_alert import retrain_on_alert
from flows.support.config import RetrainConfig
from tasks.contracts.references import DatasetRef
from tasks.core.storage import open_store

END = datetime(2026, 11, 3, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def config_of(folder: Path, **monitoring: Any) -> RetrainConfig:
    """Two days of 40 requests; on the second, as on the first, half of the replies were disliked."""
    records = [
        {
            "request": f"My parcel {n} to Anna Miller (anna.miller@example.com) is late, where is it?",
            "response": f"It comes on day {n}.",
            "feedback": "down" if n % 2 else "up",
            "created_at": (END - timedelta(hours=47) + n * timedelta(minutes=34)).isoformat(),
        }
        for n in range(80)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    log = {"path": str(folder / "log.jsonl"), "format": "prompt_completion", "correction_column": "better"}
    section = {"log": log, "signals": {"min_requests": 20}, **monitoring}
    return RetrainConfig.model_validate(
        {"name": "watched", "store": str(folder / "store"), "examples": {"path": log["path"]}, "monitoring": section}
    )


def test_a_window_ends_at_a_full_hour_before_the_scheduled_time(tmp_path: Path) -> None:
    settings = config_of(tmp_path).monitoring
    assert settings is not None
    assert window_of(settings, END + timedelta(minutes=59)) == (END - timedelta(hours=24), END)
    assert window_of(settings, END + timedelta(minutes=4)) == (END - timedelta(hours=25), END - timedelta(hours=1))
    as_prefect_tells = DateTime(2026, 11, 3, 1, 59, tzinfo=timezone(timedelta(hours=1)))
    for scheduled in (as_prefect_tells, END.replace(minute=59, tzinfo=None)):
        window = window_of(settings, scheduled)
        assert window == (END - timedelta(hours=24), END)
        assert all(moment.tzinfo is UTC for moment in window)


@pytest.mark.slow
@pytest.mark.usefixtures("embedded_home")
def test_two_bad_days_ask_for_one_retrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scrubbed: list[DatasetRef] = []
    collect = monitor.monitoring.collect_pairs
    monkeypatch.setattr(monitor.monitoring, "collect_pairs", lambda ref, *rest: scrubbed.append(ref) or collect(ref, *rest))
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name(retrain_on_alert.name)
        client.create_deployment(flow_id, name="watched", enforce_parameter_schema=False)
    config = config_of(tmp_path, alert={"deployment": "retrain-on-alert/watched"})
    first = check_production(config, END - timedelta(hours=23, minutes=30))
    assert (first.check.violated, first.check.alerted, first.runs) == (("feedback",), (), {})
    second = check_production(config, END + timedelta(minutes=30))
    assert (second.check.violated, second.check.alerted) == (("feedback",), ("feedback",))
    again = check_production(config, END + timedelta(minutes=30))
    assert again.runs == second.runs
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(second.runs["feedback"])
    assert run.parameters["alert"]["window_end"] == "2026-11-03T00:00:00Z"
    assert run.parameters["alert"]["sender"] == "check"
    latest = json.loads(open_store(config.store).read_named("monitoring/watched/latest.json") or b"")
    assert (latest["status"], latest["runs"]) == ("violated", second.runs)
    drift = next(reading for reading in second.check.readings if reading.name == "drift_mmd")
    assert "no champion" in drift.note

    store = open_store(config.store)
    page = store.read_bytes(second.page).decode()
    assert "Violated" in page
    texts = json.dumps([store.read_rows(ref) for ref in scrubbed])
    assert "anna.miller" not in texts
    assert b"thumbs_down_rate" in (store.read_named("monitoring/watched/metrics.prom") or b"")
