"""An alert becomes a retrain on its window, once: the second alert meets the first one's retrain in Prefect's memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow, runtime

from flows import on_alert
from flows.support.alert_runs import origin_tags
from flows.support.config import RetrainConfig
from flows.support.requests import RunRequest
from tasks.alerts import AlertPolicy
from tasks.contracts.alerts import Alert
from tasks.core.errors import IntegrityError

ROOT = Path(__file__).parents[2]
WINDOW_END = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def alert(model: str, signal: str = "feedback", **changes: Any) -> Alert:
    times = {"starts_at": WINDOW_END, "window_start": WINDOW_END - timedelta(hours=6), "window_end": WINDOW_END}
    return Alert(fingerprint=signal, model=model, name=signal, signal=signal, **{**times, **changes})


def config_of(folder: Path, name: str, **source: Any) -> RetrainConfig:
    """Ten rows, one an hour, the last of them after the alerted window."""
    rows = [
        {
            "id": f"r{n}",
            "prompt": f"Question {n}?",
            "completion": "Yes.",
            "created_at": (WINDOW_END - timedelta(hours=n)).isoformat(),
        }
        for n in range(10)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RetrainConfig.model_validate(
        {"name": name, "store": str(folder / "store"), "examples": {"path": str(folder / "rows.jsonl"), **source}}
    )


class Retrains:
    """The configurations that the retrain, replaced by a flow of the same name, was called with."""

    def __init__(self) -> None:
        self.configs: list[RetrainConfig] = []
        self.reasons: list[str] = []
        self.tags: list[set[str]] = []
        self.fail = False


@pytest.fixture
def retrains(monkeypatch: pytest.MonkeyPatch) -> Retrains:
    seen = Retrains()

    @flow(name="retrain")
    def retrain(config: RetrainConfig, request: RunRequest) -> None:
        seen.configs.append(config)
        seen.reasons.append(request.reason)
        seen.tags.append(set(runtime.flow_run.tags))
        if seen.fail:
            raise IntegrityError("a", "b", "c", "d")

    monkeypatch.setattr(on_alert, "retrain", retrain)
    return seen


@pytest.mark.usefixtures("embedded_home")
def test_an_alert_becomes_one_retrain_on_its_window_and_the_next_one_waits(tmp_path: Path, retrains: Retrains) -> None:
    policy = AlertPolicy(min_new_rows=9, history_days=30)
    config = config_of(tmp_path, "alerted-desk")
    first = on_alert.retrain_on_alert(config, alert("alerted-desk"), policy)
    assert first.decision.retrain, first.decision.reasons
    (given,) = retrains.configs
    assert given.examples.created_before == WINDOW_END
    assert given.examples.created_after == WINDOW_END - timedelta(hours=6, days=30)
    assert given.prepare == config.prepare

    second = on_alert.retrain_on_alert(config, alert("alerted-desk", "drift"), policy)
    assert not second.decision.retrain
    assert len(retrains.configs) == 1
    told = " ".join(second.decision.reasons)
    assert "a cool-down of 14 days" in told
    assert "Only 0 rows are new" in told

    other = on_alert.retrain_on_alert(config_of(tmp_path, "other-desk"), alert("other-desk"), policy)
    assert other.decision.retrain


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize(
    ("name", "signal", "sender"),
    [
        ("HighThumbsDown", "feedback", "alertmanager"),
        ("p95 \u0000 slow \u202e", "latency / p95", "grafana"),
        ("x" * 100, "y" * 100, "check"),
        ("Thumbs down", "feedback", "google-cloud"),
    ],
)
def test_a_retrain_says_which_alert_it_was(tmp_path: Path, retrains: Retrains, name: str, signal: str, sender: Any) -> None:
    model = f"told-{sender}"
    changes = {"name": name, "signal": signal, "sender": sender, "fingerprint": "f" * 128}
    fired = alert(model).model_copy(update=changes)
    on_alert.retrain_on_alert(config_of(tmp_path, model), fired, AlertPolicy(min_new_rows=1))
    (reason,), (tags,) = retrains.reasons, retrains.tags
    for told in (sender, signal, "f" * 64, f"{WINDOW_END:%Y-%m-%d %H:%M} UTC", name.partition(" ")[0], "since 20"):
        assert told in reason
    assert {f"signal:{signal}", f"sender:{sender}", *origin_tags(fired)} <= tags


@pytest.mark.usefixtures("embedded_home")
def test_a_failed_retrain_cools_down_too_but_has_learned_nothing(tmp_path: Path, retrains: Retrains) -> None:
    config, policy = config_of(tmp_path, "failed-desk"), AlertPolicy(min_new_rows=9)
    retrains.fail = True
    with pytest.raises(IntegrityError):
        on_alert.retrain_on_alert(config, alert("failed-desk"), policy)
    retrains.fail = False
    second = on_alert.retrain_on_alert(config, alert("failed-desk"), policy)
    assert [reason for reason in second.decision.reasons if "cool-down" in reason] == list(second.decision.reasons)
    third = on_alert.retrain_on_alert(config, alert("failed-desk"), policy.model_copy(update={"cooldown_days": 0.0}))
    assert third.decision.retrain


@pytest.mark.usefixtures("embedded_home")
def test_a_second_witness_is_found_in_the_runs_of_earlier_alerts(tmp_path: Path, retrains: Retrains) -> None:
    config, policy = config_of(tmp_path, "witnessed-desk"), AlertPolicy(min_new_rows=1, min_signals=2)
    for signal, expected in (("feedback", False), ("latency", False), ("drift", True)):
        outcome = on_alert.retrain_on_alert(config, alert("witnessed-desk", signal), policy)
        assert outcome.decision.retrain == expected, outcome.decision.reasons
    assert len(retrains.configs) == 1


def test_a_source_s_own_begin_is_kept_where_the_policy_has_none(tmp_path: Path) -> None:
    config = config_of(tmp_path, "desk", created_after="2026-01-01T00:00:00Z")
    assert config.within(None, WINDOW_END).examples.created_after == datetime(2026, 1, 1, tzinfo=UTC)


def test_pairs_are_read_whole_unless_their_time_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, "desk")
    pairs = config.examples.model_copy(update={"format": "preferences"})
    dated = pairs.model_copy(update={"created_at_column": "made"})
    within = config.model_copy(update={"preferences": pairs}).within(None, WINDOW_END)
    assert within.preferences == pairs
    within = config.model_copy(update={"preferences": dated}).within(None, WINDOW_END)
    assert within.preferences is not None
    assert within.preferences.created_before == WINDOW_END


def test_the_deployment_fills_in_all_but_the_alert() -> None:
    deployments = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
    parameters = next(entry for entry in deployments if entry["name"] == "retrain-on-alert")["parameters"]
    assert RetrainConfig.model_validate(parameters["config"]).name == "support-desk"
    assert AlertPolicy.model_validate(parameters["policy"]) == AlertPolicy()
