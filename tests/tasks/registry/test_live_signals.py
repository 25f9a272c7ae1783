"""The file of live signals: read whole, never twice, and never a half-written line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.registry.live_signals import pair_windows, read_windows, tables_of
from tasks.stats.sequences import Table


def line(version: str | int, hour: int, **more: Any) -> str:
    window = {"version": version, "start": f"2026-11-02T{hour:02}:00:00Z", "end": f"2026-11-02T{hour + 1:02}:00:00Z"}
    return json.dumps({**window, "requests": 100, **more}) + "\n"


def errors(events: int, trials: int = 100) -> dict[str, Any]:
    return {"signals": {"error_rate": {"events": events, "trials": trials}}}


def latency(fast: int, slow: int, slower: int) -> dict[str, Any]:
    return {"latency_ms": {"100": fast, "500": fast + slow, "+Inf": fast + slow + slower}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "live.jsonl"


def test_windows_are_paired_by_their_hours(file: Path) -> None:
    # A number for a version, a zone of its own, another version, a window of one side alone, a repeated and an empty line.
    file.write_text(
        line(2, 3, **errors(4))
        + line("1", 2, **errors(1))
        + line("2", 2, **errors(2)) * 2
        + "\n"
        + line("1", 3, **errors(3)).replace("T03:00:00Z", "T04:00:00+01:00")
        + line("7", 2, **errors(50))
        + line("1", 5, **errors(9))
    )
    pairs = pair_windows(read_windows(file), "2", "1")
    assert [(pair.new.start.hour, pair.hours) for pair in pairs] == [(2, 1.0), (3, 1.0)]
    assert tables_of(pairs, "error_rate") == [Table(2, 100, 1, 100), Table(4, 100, 3, 100)]
    assert tables_of(pairs, "escalation_rate") == []


def test_a_line_that_is_still_being_written_waits_for_its_end(file: Path) -> None:
    whole = line("1", 2, **errors(1))
    for length in (1, len(whole) // 2, len(whole) - 1):
        file.write_text(line("2", 2) + whole[:length])
        assert [window.version for window in read_windows(file)] == ["2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (line("1", 2) + line("1", 2, **errors(1)), "line 2: found other counts of version 1"),
        (line("1", 2) + line("1", 2).replace("T03:", "T04:"), "overlap"),
        (line("1", 2, **errors(5, 4)), "more events than trials"),
        (line("1", 2, **errors(-1)), "greater than or equal to 0"),
        (line("1", 2, requests=True), "requests"),
        (line("1", 2, requests=1.5), "requests"),
        (line("1", 2).replace("Z", ""), "timezone"),
        (line("1", 2).replace("T03:", "T01:"), "ends before it starts"),
        (line("1", 2, latency_ms={"100": 5, "500": 4, "+Inf": 5}), "must not fall"),
        (line("1", 2, latency_ms={"100": 5}), r"\+Inf"),
        (line("1", 2, latency_ms={"nan": 5, "+Inf": 5}), "above 0"),
        (line("1", 2, signals={"slow_rate": {"events": 1, "trials": 2}}), "latency_ms"),
        (line("1", 2, text="My name is Ann Lee"), "text"),
        ("not json\n", "line 1"),
        ("[1]\n", "line 1"),
    ],
)
def test_what_cannot_be_counted_is_named_by_its_line(file: Path, text: str, found: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=found) as caught:
        read_windows(file)
    assert "Ann Lee" not in str(caught.value)


@pytest.mark.parametrize("data", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(file: Path, data: bytes | None) -> None:
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError, match=r"live\.jsonl"):
        read_windows(file)


def test_slow_is_what_the_champion_was_not_in_the_windows_before(file: Path) -> None:
    file.write_text(
        line("1", 2, **latency(90, 8, 2)) + line("2", 2, **latency(9, 1, 0))  # fixes the bound: 500 ms holds 98 %
        + line("1", 3, **latency(20, 70, 10)) + line("2", 3, **latency(5, 1, 4))  # both are slow: the night's load
        + line("1", 4) + line("2", 4, **latency(5, 1, 4))  # counted on one side alone
        + line("1", 5, **latency(0, 0, 0)) + line("2", 5, **latency(3, 3, 3))
    )  # fmt: skip
    pairs = pair_windows(read_windows(file), "2", "1")
    assert tables_of(pairs, "slow_rate") == [Table(4, 10, 10, 100), Table(3, 9, 0, 0)]


def test_latencies_beyond_the_last_bound_use_the_last_bound(file: Path) -> None:
    file.write_text("".join(line(version, hour, **latency(10, 10, 80)) for hour in (2, 3) for version in ("1", "2")))
    assert tables_of(pair_windows(read_windows(file), "2", "1"), "slow_rate") == [Table(80, 100, 80, 100)]
    file.write_text("".join(line(version, hour, latency_ms={"+Inf": 9}) for hour in (2, 3) for version in ("1", "2")))
    assert tables_of(pair_windows(read_windows(file), "2", "1"), "slow_rate") == []
