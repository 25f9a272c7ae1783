"""A check writes the files of the model's newest window; an older window that is checked again does not replace them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.contracts.monitoring import CheckOutcome, WindowCheck
from tasks.core.pages import artifact_key
from tasks.core.storage import open_store
from tasks.monitoring import remember_check
from tasks.monitoring.config import AlertRuleConfig

DAY = timedelta(days=1)
END = datetime(2026, 11, 3, tzinfo=UTC)


def test_an_old_window_that_is_checked_again_is_not_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store(tmp_path / "store")

    def remember(model: str, end: datetime) -> None:
        check = WindowCheck(model=model, window_start=end - DAY, window_end=end, num_requests=1, status="healthy")
        page, record = store.write_bytes(f"{end}".encode(), ".html"), store.write_bytes(b"{}", ".json")
        remember_check.fn(CheckOutcome(check=check, page=page, record=record), AlertRuleConfig())

    def latest(model: str) -> tuple[str, str, float]:
        folder = tmp_path / "store" / "monitoring" / model
        shown = json.loads((folder / "latest.json").read_text())["window_end"][:10]
        stamp = (folder / "metrics.prom").read_text().partition("seconds{")[2].split()[1]
        return shown, (folder / "latest.html").read_text()[:10], float(stamp)

    for end, newest in ((END, END), (END - DAY, END), (END, END), (END + DAY, END + DAY)):
        remember("watched", end)
        assert latest("watched") == (f"{newest:%Y-%m-%d}", f"{newest:%Y-%m-%d}", newest.timestamp())
    remember("another", END - DAY)
    assert latest("another")[0] == "2026-11-02"
    assert latest("watched")[0] == "2026-11-04"


def test_an_artifact_s_key_is_the_model_s_own_and_one_that_prefect_takes() -> None:
    assert artifact_key("champion", "support-desk") != artifact_key("champion", "billing")
    assert artifact_key("champion", "Support_Desk.v2") == "champion-support-desk-v2"
