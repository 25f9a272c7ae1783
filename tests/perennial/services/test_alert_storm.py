"""A storm of alerts against a real bridge and a real Prefect server, both killed on the way: one run for each alert."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest
from prefect.context import refresh_global_settings_context

from benchmarks.alert_bridge_load import measure, plan_requests


@pytest.mark.slow
def test_every_distinct_alert_becomes_one_run_whatever_dies(tmp_path: Path) -> None:
    with patch.dict(os.environ):
        tally = measure(num_alerts=800, num_connections=20, num_distinct=24, outage_seconds=5.0, folder=tmp_path)
    refresh_global_settings_context()
    expected = {fingerprint for fingerprint, _, _ in plan_requests(800, 24) if fingerprint}
    assert set(tally.runs) == expected == tally.answered
    assert (tally.lost, tally.doubled) == (0, 0)
    assert set(tally.codes) == {200, 202, 401, 422}
    assert (tally.codes[401], tally.codes[422]) == (8, 8)
    assert tally.num_unanswered > 0, "the bridge was not killed while alerts came"
    log = (tmp_path / "bridge.log").read_text()
    assert "Prefect does not respond" in log, "the outage reached the courier"
    assert "Traceback" not in log
