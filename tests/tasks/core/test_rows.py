"""Rows in Arrow are the same rows, and what is written does not depend on the pieces that they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core import rows as rows_module
from tasks.core.rows import RowTable, TableRows, rows_of, rows_to_table
from tasks.core.storage import open_store


def make(count: int) -> list[dict[str, Any]]:
    table = rows_to_table(
        [
            {
                "id": f"r{number}",
                "messages": [{"role": "user", "content": f"Ask {number}"}, {"role": "assistant", "content": "Yes."}],
                "label": None if number % 3 else "x",
                "known_values": ["Ada"] * (number % 2),
            }
            for number in range(count)
        ],
        "messages",
    )
    return rows_of(table)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ROWS_AT_A_TIME", 4)


def test_rows_of_a_table_are_a_sequence() -> None:
    plain = make(11)
    rows = TableRows(rows_to_table(plain, "messages"))
    assert len(rows) == 11
    assert list(rows) == plain
    assert [rows[index] for index in (10, 0, 5, -1)] == [plain[index] for index in (10, 0, 5, -1)]
    assert list(rows[3:9]) == plain[3:9]
    assert list(rows[::-2]) == plain[::-2]
    assert list(rows.take([7, 7, 2])) == [plain[7], plain[7], plain[2]]
    assert list(rows.take([])) == []
    assert [len(batch) for batch in rows.batches(5)] == [5, 5, 1]
    with pytest.raises(IndexError):
        rows[11]


@pytest.mark.parametrize("size", [1, 4, 11])
def test_a_data_set_has_the_same_hash_however_it_was_put_together(tmp_path: Path, size: int) -> None:
    plain, table = make(11), RowTable("messages")
    for first in range(0, 11, size):
        table.extend(plain[first : first + size])
    store = open_store(tmp_path)
    assert store.write_table(table.table(), kind="messages") == store.write_rows(plain, kind="messages")
    sliced = TableRows(table.table()).take(range(2, 9)).table
    assert store.write_table(sliced, kind="messages") == store.write_rows(plain[2:9], kind="messages")
    assert store.write_table(table.table().slice(2, 7), kind="messages") == store.write_rows(plain[2:9], kind="messages")


def test_no_rows_are_a_table_too() -> None:
    assert RowTable("preferences").table().num_rows == 0
    assert list(TableRows(rows_to_table([], "messages"))) == []
