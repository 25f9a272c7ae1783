"""What users said of replies: disliked ones are not learned from, corrected ones are, and a log keeps them all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.storage import run_store
from tasks.ingest import LogConfig, SourceConfig, take_log, take_snapshot

RECORDS = [
    {"id": "liked", "feedback": "up"},
    {"id": "unrated"},
    {"id": "disliked", "feedback": "down"},
    {"id": "corrected", "feedback": "down", "better": "Four."},
    {"id": "odd", "feedback": "meh"},
    {"id": "failed", "response": None, "error": "timeout", "latency_ms": 9000},
    {"id": "refused", "response": "I'm sorry, I can't help with that.", "escalated": True},
    {"id": "early", "created_at": "2026-10-31T23:59:59Z"},
]


def write(folder: Path) -> str:
    given = {"request": "What is two and two?", "response": "Five.", "created_at": "2026-11-01T08:00:00Z", "latency_ms": 40}
    (folder / "log.jsonl").write_text("".join(json.dumps({**given, **record}) + "\n" for record in RECORDS))
    return str(folder / "log.jsonl")


def test_disliked_replies_are_not_learned_from_unless_somebody_wrote_a_better_one(tmp_path: Path) -> None:
    source = SourceConfig(path=write(tmp_path), feedback_column="feedback", correction_column="better")
    snapshot = take_snapshot.fn(source, str(tmp_path / "store"))
    replies = {row["id"]: row["messages"][-1]["content"] for row in run_store().read_rows(snapshot.dataset)}
    assert "disliked" not in replies
    assert (replies["corrected"], replies["liked"], replies["unrated"]) == ("Four.", "Five.", "Five.")
    assert snapshot.dropped == {"negative_feedback": 1}
    assert snapshot.quarantined["unknown_feedback"] == 1


def test_a_log_counts_every_request_of_its_window_and_keeps_what_users_said(tmp_path: Path) -> None:
    log = LogConfig(path=write(tmp_path), correction_column="better")
    times = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    window = take_log.fn(log, *times, str(tmp_path / "store"))
    store = run_store()
    lines = store.read_table(window.lines).to_pylist()
    assert len(lines) == 7
    assert window.dropped == {"outside_window": 1}
    assert [line["feedback"] for line in lines] == ["up", None, "down", "down", None, None, None]
    assert [line["failed"] for line in lines] == [None] * 5 + [True, None]
    assert [line["refused"] for line in lines] == [False] * 5 + [None, True]
    rows = {row["id"]: row for row in store.read_rows(window.dataset)}
    assert rows["corrected"]["messages"][-1]["content"] == "Five."
    assert rows["corrected"]["context"] == "Four."
    assert rows["disliked"]["groups"] == [{"name": "feedback", "value": "down"}]


def test_a_window_may_be_empty(tmp_path: Path) -> None:
    times = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
    window = take_log.fn(LogConfig(path=write(tmp_path)), *times, str(tmp_path / "store"))
    assert (window.dataset.num_rows, window.lines.num_rows) == (0, 0)
