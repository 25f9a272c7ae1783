"""A column that no record has stops the run; missing stays missing; a time is read, or refused by its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import InputError
from tasks.ingest import SourceConfig
from tasks.ingest.columns import did_you_mean
from tasks.ingest.reading import read_source
from tasks.ingest.snapshot import Ingested, make_snapshot
from tasks.ingest.times import iso_time

ROW = {"question": "Where is it?", "answer": "There.", "customer": "Ann Bell", "thumb": "down", "Region": "EU"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def ingest(path: Path, **settings: Any) -> Ingested:
    config = SourceConfig(path=str(path), **settings)
    return make_snapshot(read_source(str(path)), config)


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"known_value_columns": ["custmer"]}, "customer"),
        ({"feedback_column": "thumbs"}, "thumb"),
        ({"group_columns": ["region "]}, "Region"),
        ({"columns": {"id": "Customer"}}, "customer"),
        ({"correction_column": "answerr"}, "answer"),
        ({"context_column": "QUESTION"}, "question"),
        ({"annotation_columns": ["a1"]}, None),
        ({"label_column": "klass"}, None),
        ({"created_at_column": "ticket.at"}, None),
    ],
)
def test_a_misspelt_column_is_an_error_that_names_the_similar_one(
    tmp_path: Path, settings: dict[str, Any], meant: str | None
) -> None:
    with pytest.raises(InputError) as error:
        ingest(write(tmp_path / "d.jsonl", [ROW] * 3), **settings)
    assert next(iter(settings)) in str(error.value)
    assert ("did you mean" in str(error.value)) == (meant is not None)
    assert meant is None or f"`{meant}`" in str(error.value)
    assert "Ann" not in str(error.value)


def test_a_column_that_most_records_lack_is_said(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(n), **({"fix": "Here."} if n == 0 else {})} for n in range(5)]
    result = ingest(write(tmp_path / "d.jsonl", rows), correction_column="fix")
    assert result.notes == ["`correction_column: fix` has a value in 1 of 5 records"]


@pytest.mark.parametrize("name", ["context", "system", "history"])
def test_a_text_with_a_meaning_that_is_not_read_is_said(tmp_path: Path, name: str) -> None:
    (note,) = ingest(write(tmp_path / "d.jsonl", [{**ROW, name: "Be kind."}])).notes
    assert f"`{name}` (1 records) is not read" in note
    assert "kind" not in note


def test_customary_names_in_another_case_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("Instruction, OUTPUT \nHi,Ho\n", encoding="utf-8")
    with pytest.raises(InputError, match='instruction: "Instruction", output: "OUTPUT"'):
        ingest(tmp_path / "d.csv")


def test_a_path_names_a_nested_value(tmp_path: Path) -> None:
    nested = {"ticket": {"question": "Why?"}, "comments": [{"body": "a"}, {"body": "Because."}], "a.b": "x"}
    columns = {"prompt": "ticket.question", "completion": "comments.-1.body", "id": "a.b"}
    (row,) = ingest(write(tmp_path / "d.jsonl", [nested]), columns=columns).rows
    assert [message["content"] for message in row["messages"]] == ["Why?", "Because."]
    assert row["id"] == "x"
    pq.write_table(pa.Table.from_pylist([nested] * 2), tmp_path / "d.parquet")
    assert len(ingest(tmp_path / "d.parquet", columns={**columns, "completion": "comments.1.body"}).quarantined_rows) == 1


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.0, 2.0, float("nan")], ["1", "2", None]),
        ([True, False, None], ["true", "false", None]),
        (["1.0", "2.0", ""], ["1", "2", None]),
        (["1.0", "1.5", "2.0"], ["1.0", "1.5", "2.0"]),
        ([1.0, 2.5, 2.0], ["1", "2.5", "2"]),
        (["card", "2.0", "2"], ["card", "2.0", "2"]),
    ],
)
def test_what_is_missing_stays_missing_and_a_whole_number_has_one_form(
    tmp_path: Path, values: list[Any], labels: list[str | None]
) -> None:
    rows = [{"id": str(n), "question": f"q{n}", "answer": "a", "label": value} for n, value in enumerate(values)]
    assert [row["label"] for row in ingest(write(tmp_path / "d.jsonl", rows)).rows] == labels


def test_no_number_is_no_reply(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "q", "answer": float("nan")}, {"id": "b", "question": "q", "answer": "a"}]
    (refused,) = ingest(write(tmp_path / "d.jsonl", rows)).quarantined_rows
    assert (refused["reason"], refused["field"]) == ("missing_field", "completion")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_767_225_600, "2026-01-01T00:00:00+00:00"),
        ("1767225600", "2026-01-01T00:00:00+00:00"),
        (1_767_225_600_000, "2026-01-01T00:00:00+00:00"),
        (1_767_225_600.5, "2026-01-01T00:00:00.500000+00:00"),
        (1_767_225_600_000_000, "2026-01-01T00:00:00+00:00"),
        ("1767225600000000000", "2026-01-01T00:00:00+00:00"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00 UTC", "2026-01-01T00:00:00+00:00"),
        ("2026/01/01 10:30", "2026-01-01T10:30:00+00:00"),
        ("01.02.2026 10:30", "2026-02-01T10:30:00+00:00"),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00+00:00"),
        ("Jan 1, 2026 3:05 PM", "2026-01-01T15:05:00+00:00"),
        ("1 January 2026", "2026-01-01T00:00:00+00:00"),
        ("01/Jan/2026:10:30:00 +0200", "2026-01-01T10:30:00+02:00"),
        ("20260101", "20260101"),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_read_in_the_forms_that_exports_write(value: Any, expected: str | None) -> None:
    assert iso_time(value) == expected


@pytest.mark.parametrize("value", ["03/04/2026", "yesterday", 46_023.5, 7, True, ["2026-01-01"], "99999999999999999999"])
def test_a_time_that_can_mean_two_days_is_not_guessed(value: Any) -> None:
    with pytest.raises(ValueError, match=r"time|Invalid|number"):
        iso_time(value)


def test_times_in_an_unknown_form_are_refused_by_it_and_read_with_the_setting(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(n), "created_at": f"0{n}/04/2026"} for n in range(1, 4)]
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(InputError, match=r"3 of 3 times in `created_at` of the form 99/99/9999.*created_at_format"):
        ingest(path)
    assert ingest(path, created_at_format="%d/%m/%Y").rows[0]["created_at"] == "2026-04-01T00:00:00+00:00"
    mixed = [*rows[:1], *({**row, "created_at": "2026-01-01"} for row in rows[1:])]
    assert "1 of 3 times" in ingest(write(tmp_path / "m.jsonl", mixed)).notes[0]


def test_names_that_may_be_values_are_not_suggested() -> None:
    assert did_you_mean("4111 1111 1111 111", ["4111 1111 1111 1111"]) is None
    assert did_you_mean("agent-reply", ["Agent Reply", "agent"]) == "Agent Reply"


@pytest.mark.parametrize("decision", [None, "drop", "", "fix"])
def test_a_pair_that_nobody_confirmed_is_not_learned(tmp_path: Path, decision: str | None) -> None:
    pair = {"prompt": "Hi", "chosen": "Yes", "rejected": "No", "row_sha256": "a" * 64}
    rows = [{**pair, "id": "a", "decision": "keep"}, {**pair, "id": "b", "decision": decision}]
    result = ingest(write(tmp_path / "d.jsonl", rows))
    assert [row["id"] for row in result.rows] == ["a"]
    assert [(row["id"], row["reason"]) for row in result.quarantined_rows] == [("b", "not_confirmed")]
