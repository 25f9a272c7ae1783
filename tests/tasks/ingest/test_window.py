"""A window on `created_at`: rows outside it are dropped and counted, rows whose time is not known are quarantined."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.errors import InputError
from tasks.ingest import SourceConfig, count_new_rows, take_snapshot
from tasks.ingest.reading import read_source
from tasks.ingest.snapshot import Ingested, make_snapshot
from tasks.ingest.window import Window, count_rows


def write(path: Path, times: dict[str, Any]) -> Path:
    rows = [
        {"id": name, "prompt": f"Question {name}?", "completion": "Yes.", "created_at": at} for name, at in times.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ingest(path: Path, **settings: Any) -> Ingested:
    return make_snapshot(read_source(str(path)), SourceConfig(path=str(path), **settings))


def outcomes(result: Ingested) -> dict[str, str]:
    kept = {row["id"]: "kept" for row in result.rows}
    return kept | {row["id"]: f"{row['disposition']}: {row['reason']}" for row in result.quarantined_rows}


TIMES = {
    "before": "2026-03-31T23:59:59Z",
    "first": "2026-04-01T00:00:00Z",
    "zoned": "2026-04-01T01:30:00+02:00",  # 23:30 in UTC, the day before
    "naive": "2026-04-15 12:00:00",
    "last": "2026-06-30T23:59:59.999Z",
    "after": "2026-07-01T00:00:00Z",
    "none": None,
    "odd": "last spring",
}


def test_only_rows_made_inside_the_window_are_kept_and_each_other_row_has_its_reason(tmp_path: Path) -> None:
    result = ingest(write(tmp_path / "rows.jsonl", TIMES), created_after="2026-04-01", created_before="2026-07-01T00:00:00Z")
    assert outcomes(result) == {
        "before": "dropped: outside_window",
        "first": "kept",
        "zoned": "dropped: outside_window",
        "naive": "kept",
        "last": "kept",
        "after": "dropped: outside_window",
        "none": "quarantined: missing_created_at",
        "odd": "quarantined: unreadable_created_at",
    }


def test_the_report_accounts_for_every_row(tmp_path: Path) -> None:
    source = SourceConfig(path=str(write(tmp_path / "rows.jsonl", TIMES)), created_before=datetime(2026, 7, 1), max_rows=2)
    report = take_snapshot.fn(source, str(tmp_path / "store"))
    assert report.dropped == {"not_sampled": 3, "outside_window": 1}
    assert report.quarantined == {"missing_created_at": 1, "unreadable_created_at": 1}


def test_without_a_window_no_time_is_needed(tmp_path: Path) -> None:
    assert set(outcomes(ingest(write(tmp_path / "rows.jsonl", TIMES))).values()) == {"kept"}


def test_a_window_without_rows_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside_window 6"):
        ingest(write(tmp_path / "rows.jsonl", TIMES), created_after="2027-01-01")


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match="created_after must lie before created_before"):
        SourceConfig(path="a", created_after=datetime(2026, 2, 1), created_before=datetime(2026, 1, 1))


def test_new_rows_are_counted_whatever_the_window_and_sample_of_the_source(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", TIMES)
    source = SourceConfig(path=str(path), max_rows=1, created_after=datetime(2026, 6, 1))
    until = datetime(2026, 7, 1, tzinfo=UTC)
    assert count_new_rows.fn(source, None, until).num_rows == 5
    assert count_new_rows.fn(source, datetime(2026, 4, 1, tzinfo=UTC), until).num_rows == 3
    assert count_new_rows.fn(source, datetime(2027, 4, 1, tzinfo=UTC), until + timedelta(days=900)).num_rows == 0


MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(times=st.lists(MOMENTS, max_size=20), cut=MOMENTS)
def test_two_windows_that_meet_share_no_row_and_miss_none(times: list[datetime], cut: datetime) -> None:
    rows = [{"created_at": time.isoformat()} for time in times]
    assert count_rows(rows, Window(None, cut)) + count_rows(rows, Window(cut, None)) == len(rows)
