"""The examples in deployments/monitoring/: checked by the tools themselves where they are installed, else by their shape."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from flows.support.config import load_settings
from perennial.services.alert_bridge import Metrics
from tasks.alerts import BridgeConfig
from tasks.alerts.queue import AlertQueue
from tasks.core import errors

MONITORING = Path(__file__).parents[3] / "deployments" / "monitoring"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("promtool", ["check", "rules", "alerts.rules.yaml"]),
        ("promtool", ["test", "rules", "alerts.test.yaml"]),
        ("promtool", ["check", "config", "prometheus.yaml"]),
        ("amtool", ["check-config", "alertmanager.yaml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_the_tools_accept_the_files(tool: str, arguments: list[str]) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run([tool, *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_ask_for_metrics_that_the_bridge_has(tmp_path: Path) -> None:
    metrics = Metrics(AlertQueue(tmp_path / "q.db", cooldown_seconds=1))
    metrics.requests.labels("202").inc()
    offered = generate_latest(metrics.registry).decode()
    asked = set(re.findall(r"perennial_alert_bridge_\w+", (MONITORING / "alerts.rules.yaml").read_text()))
    assert asked
    assert all(re.search(rf"^{name}[ {{]", offered, re.MULTILINE) for name in asked)


def test_the_run_book_says_what_to_do_about_every_alert_and_every_error() -> None:
    book = (MONITORING.parents[1] / "docs" / "operating.md").read_text()
    rules = re.findall(r"- alert: (\w+)", (MONITORING / "alerts.rules.yaml").read_text())
    assert len(rules) > 5
    assert [name for name in rules if name not in book] == []
    roots = (errors.PerennialError, errors.UserError, errors.GateError)
    raised = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, roots[0]) and one not in roots
    ]
    assert [one.__name__ for one in raised if f"| {one.__name__} ({one.exit_code}) |" not in book] == []


def test_the_bridge_reads_its_example() -> None:
    config = load_settings(MONITORING / "bridge.yaml", BridgeConfig)
    deployments = yaml.safe_load((MONITORING.parent / "prefect.yaml").read_text())["deployments"]
    assert {name.partition("/")[2] for name in config.deployments.values()} <= {entry["name"] for entry in deployments}


def test_senders_repeat_a_lasting_alert_after_the_cool_down_of_the_bridge() -> None:
    config = load_settings(MONITORING / "bridge.yaml", BridgeConfig)
    route = yaml.safe_load((MONITORING / "alertmanager.yaml").read_text())["route"]["routes"][0]
    policy = yaml.safe_load((MONITORING / "grafana.yaml").read_text())["policies"][0]["routes"][0]
    for interval in (route["repeat_interval"], policy["repeat_interval"]):
        assert int(interval.removesuffix("h")) * 3600 > config.cooldown_seconds
