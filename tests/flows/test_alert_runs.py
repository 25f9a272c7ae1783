"""The seam to a real Prefect server: one key, one run; and every way in which it can say no."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import embedded
from flows.alert_bridge import PrefectRuns
from flows.on_alert import retrain_on_alert
from flows.rollback import rollback
from tasks.alerts.delivery import RefusedError, UnavailableError
from tasks.contracts import Alert

START = datetime(2026, 5, 1, 6, tzinfo=UTC)
ALERT = Alert(
    fingerprint="f", model="desk", name="a", signal="drift", sender="grafana", starts_at=START,
    window_start=START - timedelta(hours=6), window_end=START,
)  # fmt: skip


@pytest.mark.usefixtures("embedded_home")
def test_the_same_key_is_the_same_run_with_the_alert_as_its_parameter() -> None:
    config = {"name": "desk", "examples": {"path": "rows.jsonl"}}
    retrain_on_alert.to_deployment("for-runs", parameters={"config": config}).apply()
    runs = PrefectRuns({"desk": "retrain-on-alert/for-runs"})

    async def scenario() -> tuple[list[str], Alert]:
        ids = [await runs(ALERT, key) for key in ("key-1", "key-1", "key-2")]
        async with get_client() as client:
            run = await client.read_flow_run(ids[0])  # type: ignore[arg-type]
        return ids, Alert.model_validate(run.parameters["alert"])

    ids, alert = asyncio.run(scenario())
    assert ids[0] == ids[1] != ids[2]
    assert alert == ALERT


@pytest.mark.usefixtures("embedded_home")
def test_a_missing_or_unfit_deployment_refuses() -> None:
    rollback.to_deployment("unfit").apply()
    for name, words in (("retrain-on-alert/absent", "no deployment"), ("rollback/unfit", "status 4")):
        with pytest.raises(RefusedError, match=words):
            asyncio.run(PrefectRuns({"desk": name})(ALERT, "key"))
    with pytest.raises(RefusedError, match="no deployment is configured for desk"):
        asyncio.run(PrefectRuns({"bank": "a/b"})(ALERT, "key"))


def test_a_server_that_is_down_is_unavailable() -> None:
    url = f"http://127.0.0.1:{embedded.free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(UnavailableError, match="ConnectError"),
    ):
        asyncio.run(PrefectRuns({"desk": "retrain-on-alert/any"})(ALERT, "key"))
