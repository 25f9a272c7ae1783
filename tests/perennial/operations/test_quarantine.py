"""Every row that a run took out is told by stage, reason, field and remedy, and no text of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perennial.cli.app import app
from perennial.operations.quarantine import counted, listed, read_out_rows
from tasks.core.errors import InputError
from tasks.core.quarantine import quarantine_row
from tasks.core.storage import open_store


@pytest.fixture
def address(tmp_path: Path) -> str:
    store = open_store(tmp_path)
    rows = [
        quarantine_row("ingest", "line-3", "not_text", {"answer": ["Ann Bell"]}, field="answer"),
        quarantine_row("ingest", "line-9", "not_text", {"answer": ["Bo Li"]}, field="answer"),
        quarantine_row("validate", "r7", "no_reply_at_end", {"messages": "Ann Bell"}),
        quarantine_row("deduplicate", "r8", "exact_duplicate", "Ann Bell", disposition="dropped"),
        quarantine_row("own_stage", "r9", "own_reason", "Ann Bell"),
    ]
    ref = store.write_quarantine(rows, parents=["f" * 64])
    assert ref is not None
    return store.uri_of(ref)


def test_rows_are_counted_by_stage_reason_and_field(tmp_path: Path, address: str) -> None:
    blocks = dict(counted(read_out_rows(str(tmp_path), address)))
    count, what, remedy = blocks["data set: ingest"][0]
    assert (count, what) == ("2", "not_text in answer")
    assert "`columns`" in remedy
    assert all(line[2] for lines in blocks.values() for line in lines)


def test_rows_of_one_reason_or_stage_are_listed(tmp_path: Path, address: str) -> None:
    _, lines = listed(read_out_rows(str(tmp_path), address, reason="not_text"))
    assert lines == [("line-3", "ingest", "not_text", "answer"), ("line-9", "ingest", "not_text", "answer")]
    with pytest.raises(InputError, match=r"one of not_text \(2\)"):
        read_out_rows(str(tmp_path), address, reason="not_txt")
    with pytest.raises(InputError, match="no quarantine data set"):
        read_out_rows(str(tmp_path), "0" * 64)


def test_the_command_prints_no_text_of_a_row(tmp_path: Path, address: str) -> None:
    for options in ([], ["--json"], ["--stage", "validate"]):
        result = CliRunner().invoke(app, ["quarantine", address, "--store", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
        assert "Ann" not in result.output
    rows = json.loads(CliRunner().invoke(app, ["quarantine", address, "--store", str(tmp_path), "--json"]).output)
    assert rows[0] == {
        "source": "data set",
        "id": "line-3",
        "stage": "ingest",
        "reason": "not_text",
        "field": "answer",
        "disposition": "quarantined",
        "remedy": rows[0]["remedy"],
    }
