"""The fresh set holds newest rows only, no model that is compared has seen them, and they come back to be learned."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.preparation import RecentHoldout
from tasks.contracts.references import DatasetRef
from tasks.core.rows import TableRows, rows_to_table
from tasks.core.storage import Store, open_store
from tasks.splitting import SplitConfig, decontaminate, freeze_test_set, hold_out_fresh
from tasks.splitting.freshness import choose_fresh

START = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = SplitConfig(fresh_share=0.3)
CHOICE: dict[str, Any] = {"share": 0.3, "days": 92, "threshold": 0.7, "seed": 0}
_TEXT = """parcel heating invoice password router refund branch card lorry kettle garden window bicycle teacher harbour
    ticket carpet orchard engine violin ladder mirror pepper blanket shovel statue candle bakery tunnel anchor saddle
    helmet cinema quarry tailor vessel barrel canyon fossil magnet"""
_WORDS = _TEXT.split()


def rows_of(days: range) -> list[dict[str, Any]]:
    """A row a day, none near another."""
    return [
        {
            "id": f"d{day:03d}",
            "messages": [
                {"role": "user", "content": " ".join(random.Random(day).sample(_WORDS, 7))},
                {"role": "assistant", "content": "Yes."},
            ],
            "split_group": f"g-{day:03d}",
            "created_at": (START + timedelta(days=day)).isoformat(),
        }
        for day in days
    ]


def ids(rows: Any) -> set[str]:
    return {row["id"] for row in rows}


def choose(
    rows: list[dict[str, Any]], frozen: list[dict[str, Any]], **changes: Any
) -> tuple[set[str], datetime | None, str]:
    """The ids of the rows held out, since when, and why there are none."""
    tables = [TableRows(rows_to_table(each, "messages")) for each in (rows, frozen)]
    fresh = choose_fresh(*tables, **{**CHOICE, **changes})
    return {rows[place]["id"] for place in fresh.places}, fresh.since, fresh.reason


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def write(store: Store, rows: list[dict[str, Any]]) -> DatasetRef:
    return store.write_rows(rows, kind="messages", parents=["f" * 64], passed=["scrubbed"])


def test_only_rows_newer_than_the_frozen_set_and_in_the_window_are_held_out() -> None:
    frozen = rows_of(range(0, 90, 6))
    fresh, since, _ = choose(rows_of(range(250)), frozen)
    assert since == START + timedelta(days=249 - 92)
    assert all(int(name[1:]) > 249 - 92 for name in fresh)
    assert 15 <= len(fresh) <= 40  # about 30 % of 92
    assert choose(rows_of(range(120)), frozen)[1] == START + timedelta(days=84)


def test_the_first_snapshot_has_no_fresh_set_and_says_why() -> None:
    rows = rows_of(range(90))
    assert "rows are newer than 2026-03-26" in choose(rows, rows[::6])[2]
    timeless = [{**row, "created_at": None} for row in rows]
    assert choose(timeless, timeless[:9])[2] == "no row says when it was made (created_at)"


def test_an_overlapping_later_run_holds_out_what_the_champion_s_run_held_out() -> None:
    frozen = rows_of(range(0, 90, 6))
    first = choose(rows_of(range(200)), frozen)[0]
    second = choose(rows_of(range(220)), frozen)[0]
    since = 219 - 92
    assert {name for name in second if int(name[1:]) < 200} == {name for name in first if int(name[1:]) > since}
    assert not first & choose(rows_of(range(400)), frozen)[0]  # to be learned by now


def test_a_new_row_with_an_older_twin_is_not_fresh() -> None:
    frozen, rows = rows_of(range(0, 60, 6)), rows_of(range(160))
    renamed = {"split_group": None, "created_at": "2026-06-20T08:00:00"}
    again = [{**row, "id": f"again-{row['id']}", **renamed} for row in rows[:60]]
    fresh, *_ = choose([*rows, *again], frozen, share=0.5)
    assert fresh
    assert not {name for name in fresh if name.startswith("again")}


def test_fresh_rows_and_what_is_near_them_are_not_trained_on(store: Store) -> None:
    frozen = freeze_test_set.fn(write(store, rows_of(range(90))), CONFIG, "desk")
    rows = rows_of(range(250))
    fresh = hold_out_fresh.fn(write(store, rows), frozen, CONFIG)
    assert fresh.dataset is not None
    held_out = ids(store.read_rows(fresh.dataset))
    assert fresh.dataset.passed == ("scrubbed",)
    report = decontaminate.fn(write(store, rows), frozen, CONFIG, fresh)
    assert not held_out & ids(store.read_rows(report.dataset))
    assert report.dropped["held_out_fresh"] == len(held_out)
    copies = [{**row, "id": f"pair-{row['id']}", "split_group": None} for row in rows]
    others = decontaminate.fn(write(store, copies), frozen, CONFIG, fresh)
    assert others.dropped == {"near_frozen": frozen.num_rows, "near_fresh": len(held_out)}


def test_no_share_no_fresh_set(store: Store) -> None:
    frozen = freeze_test_set.fn(write(store, rows_of(range(90))), CONFIG, "desk")
    none = hold_out_fresh.fn(write(store, rows_of(range(250))), frozen, SplitConfig(fresh_share=0.0))
    assert none == RecentHoldout(reason="prepare.splitting.fresh_share is 0")
