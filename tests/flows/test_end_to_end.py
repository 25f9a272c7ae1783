"""An alert, posted as Alertmanager posts it, ends as a decision in the registry; all servers and workers are real."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import POOLS, TOKEN, WINDOW_END, Installation, await_value, installation, small_job


def post_alert(place: Installation) -> Any:
    """The bridge's answer to Alertmanager's body, sent by curl."""
    labels = {"alertname": "ThumbsDown", "model": "desk", "signal": "feedback", "severity": "page"}
    window = {"window_start": (WINDOW_END - timedelta(hours=24)).isoformat(), "window_end": WINDOW_END.isoformat()}
    alert = {"status": "firing", "labels": labels, "annotations": window, "startsAt": WINDOW_END.isoformat()}
    body = {"version": "4", "status": "firing", "receiver": "perennial", "alerts": [{**alert, "fingerprint": "f00d"}]}
    posting = ["curl", "-sS", "-X", "POST", f"{place.bridge}/alerts", "-H", f"Authorization: Bearer {TOKEN}"]
    done = subprocess.run([*posting, "-d", json.dumps(body)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_alert_ends_in_the_registry(tmp_path: Path) -> None:
    config = small_job(tmp_path)
    with installation(tmp_path, "prefect", "mlflow", "bridge") as place:
        place.start(*POOLS)
        policy = {"min_new_rows": 20, "history_days": 30, "cooldown_days": 14}
        told = place.perennial("deploy", "--file", str(place.deployments(config, policy=policy)))
        assert "created   deployment retrain-on-alert/retrain-on-alert" in told

        assert post_alert(place)["accepted"] == 1
        assert post_alert(place)["repeated"] == 1, "the same alert again starts nothing"
        (alerted,) = await_value(lambda: place.runs(flows={"name": {"any_": ["retrain-on-alert"]}}), seconds=60)
        ended = place.await_run(alerted["id"])
        assert ended["state_type"] == "COMPLETED", place.log_of(alerted["id"])
        (promoted,) = await_value(lambda: place.runs(flows={"name": {"any_": ["promote"]}}), seconds=30)
        outcome = place.await_run(promoted["id"], "COMPLETED", "FAILED", "CRASHED", "PAUSED")
        assert outcome["state_type"] in ("COMPLETED", "PAUSED"), place.log_of(promoted["id"])

        # The decision stands in the registry, on a version that names what it was made from.
        (version,) = versions(place)
        tags = {tag["key"]: tag["value"] for tag in version["tags"]}
        assert tags["perennial.decision"] in {"PROMOTE", "HOLD", "NEEDS_HUMAN"}
        (dossier,) = (tmp_path / "store" / "dossiers").glob("*/dossier.json")
        record = json.loads(dossier.read_text())
        assert tags["perennial.run_name"] == record["run_name"]
        # The rows are those up to the end of the alerted window; the five made after it are left for the next run.
        assert record["examples"]["snapshot"]["dropped"] == {"outside_window": 5}
        # Training and benchmark ran on the GPU pool, one at a time.
        handed = [run for run in place.runs() if run["work_pool_name"] == "perennial-gpu"]
        assert [run["state_type"] for run in handed] == ["COMPLETED", "COMPLETED"]


def versions(place: Installation) -> list[dict[str, Any]]:
    """The registered versions, from MLflow's REST API."""
    url = f"{place.mlflow}/api/2.0/mlflow/model-versions/search?filter=name%3D%27desk%27"
    done = subprocess.run(["curl", "-sS", url], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout).get("model_versions", [])
    return found
