"""What users said of replies: disliked ones are not learned from, corrected ones are, and a log keeps them all."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.storage import run_store
from tasks.ingest import LogConfig, SourceConfig, take_log, take_snapshot
from tasks.ingest.reading import read_configured
from tasks.ingest.snapshot import make_snapshot

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


def kto(folder: Path, form: str) -> str:
    """TRL's KTO rows, every third of them disliked, in one of the forms in which they are kept."""
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}.", "label": n % 3 > 0} for n in range(30)]
    path = folder / f"rows.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        lines = [*(",".join(map(str, row.values())) for row in rows), "Is it rated?,It is not.,"]
        path.write_text("\n".join(["prompt,completion,label", *lines]))
    elif form == "db":
        with sqlite3.connect(path) as connection:
            connection.execute("create table rows (prompt text, completion text, label text)")
            values = [(row["prompt"], row["completion"], str(row["label"]).upper()) for row in rows]
            connection.executemany("insert into rows values (?, ?, ?)", values)
        return f"sqlite:///{path}"
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "db"])
def test_a_disliked_reply_of_kto_rows_is_not_learned_in_any_form(tmp_path: Path, form: str) -> None:
    source = SourceConfig(path=kto(tmp_path, form))
    result = make_snapshot(read_configured(source), source)
    assert len(result.rows) == 20 + (form == "csv")
    assert {row["reason"] for row in result.quarantined_rows} == {"negative_feedback"}
    assert all(row["label"] is None for row in result.rows)
    named = SourceConfig(path=source.path, label_column="label")
    labels = {row["label"] for row in make_snapshot(read_configured(named), named).rows} - {None}
    assert {str(label).lower() for label in labels} == {"true", "false"}


def test_words_of_truth_among_other_labels_are_classes(tmp_path: Path) -> None:
    labels = ("true", "false", "disputed")
    rows = [{"prompt": f"Is {n} odd?", "completion": f"See {n}.", "label": labels[n % 3]} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"))
    assert [row["label"] for row in make_snapshot(read_configured(source), source).rows][:3] == list(labels)


@pytest.mark.parametrize("values", [(True, False), (1, 0), ("1", "-1")])
def test_a_label_that_may_be_a_verdict_is_said(tmp_path: Path, values: tuple[object, object]) -> None:
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}.", "label": values[n % 2]} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for settings, said in (({}, True), ({"label_column": "label"}, False)):
        source = SourceConfig(path=str(tmp_path / "rows.jsonl"), **settings)
        notes = make_snapshot(read_configured(source), source).notes
        assert any("feedback_column: label" in note for note in notes) is said


def test_openais_preference_format_is_read_as_pairs(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    given = {"developer": "Be brief.", "user": "Rain?"}
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in given.items()]
    pair = {
        "input": {"messages": messages, "tools": [tool], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "No."}],
        "non_preferred_output": [{"role": "assistant", "content": "Perhaps it rains."}],
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    pq.write_table(pa.Table.from_pylist([pair]), tmp_path / "pairs.parquet")
    for name in ("pairs.jsonl", "pairs.parquet"):
        source = SourceConfig(path=str(tmp_path / name))
        (row,) = make_snapshot(read_configured(source), source).rows
        assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == [("system", "Be brief."), ("user", "Rain?")]
        assert [row[side][0]["content"] for side in ("chosen", "rejected")] == ["No.", "Perhaps it rains."]
        assert len(row["tools"]) == 1
