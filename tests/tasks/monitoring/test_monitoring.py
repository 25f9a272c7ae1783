"""Signals, drift, the alert rule and preference pairs: figures that are known, and what must change nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.contracts.monitoring import CheckHistory, SignalMeasurement, WindowCheck
from tasks.ingest.log import LINES_SCHEMA
from tasks.monitoring import AlertRuleConfig, DriftConfig, SignalConfig
from tasks.monitoring.comparing import compare_requests
from tasks.monitoring.drift import mmd_test, new_terms, novelty_test, population_stability_index
from tasks.monitoring.pairs import as_queue, pair_candidates
from tasks.monitoring.rule import add_to_history, check_window
from tasks.monitoring.signals import read_signals
from tasks.monitoring.telling import prometheus_lines

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def lines(count: int, **columns: list[Any]) -> pa.Table:
    return pa.table({name: columns.get(name, [None] * count) for name in LINES_SCHEMA.names}, schema=LINES_SCHEMA)


def by_name(readings: list[SignalMeasurement]) -> dict[str, SignalMeasurement]:
    return {reading.name: reading for reading in readings}


def test_a_limit_is_broken_by_the_whole_interval_not_by_the_figure() -> None:
    feedback = ["down"] * 32 + ["up"] * 168 + [None] * 400
    found = by_name(read_signals(lines(600, feedback=feedback, latency_ms=[float(n) for n in range(600)]), SignalConfig()))
    down = found["thumbs_down_rate"]
    assert (down.value, down.num_samples, down.violated) == (0.16, 200, False)
    worse = by_name(read_signals(lines(600, feedback=["down"] * 60 + ["up"] * 140 + [None] * 400), SignalConfig()))
    assert worse["thumbs_down_rate"].violated
    latency = found["latency_p95_ms"]
    assert latency.value == 569.0
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 569 < latency.high
    assert latency.violated is None
    assert found["error_rate"].value is None


def test_too_few_requests_are_measured_and_not_judged() -> None:
    found = by_name(read_signals(lines(499, failed=[True] * 499), SignalConfig()))
    assert found["error_rate"].value == 1.0
    assert found["error_rate"].violated is None
    assert "insufficient data" in found["error_rate"].note


def test_a_signal_of_few_values_is_not_judged_in_a_full_window() -> None:
    found = by_name(read_signals(lines(600, feedback=["down"] + [None] * 599), SignalConfig()))["thumbs_down_rate"]
    assert (found.value, found.violated, found.note) == (1.0, None, "insufficient data: 1 of 50 values")


def test_a_window_that_is_large_enough_is_not_held_to_more_values_than_requests() -> None:
    found = by_name(read_signals(lines(20, feedback=["down"] * 20), SignalConfig(min_requests=20)))["thumbs_down_rate"]
    assert (found.violated, found.note) == (True, "")


def judged(violated: bool, end: datetime, history: CheckHistory, rule: AlertRuleConfig, hours: int = 24) -> WindowCheck:
    reading = SignalMeasurement(name="x", signal="drift", value=1.0, violated=violated)
    return check_window("desk", (end - timedelta(hours=hours), end), 1000, [reading], history, rule)


def test_an_alert_wants_k_of_n_windows_and_the_latest_and_is_not_repeated_at_once() -> None:
    rule, history = AlertRuleConfig(violated_windows=2, last_windows=3, repeat_hours=48), CheckHistory()
    told = []
    for day, violated in enumerate([True, False, True, False, False, True, True, True, True]):
        check = judged(violated, NOON + day * DAY, history, rule)
        assert judged(violated, NOON + day * DAY, add_to_history(history, check, rule), rule) == check
        history = add_to_history(history, check, rule)
        told.append(bool(check.alerted))
    assert told == [False, False, True, False, False, False, True, False, True]


def test_overlapping_windows_are_one_witness() -> None:
    rule, history = AlertRuleConfig(), CheckHistory()
    for hour in range(24):
        check = judged(True, NOON + timedelta(hours=hour), history, rule)
        assert not check.alerted
        history = add_to_history(history, check, rule)
    assert judged(True, NOON + timedelta(hours=24), history, rule).alerted == ("drift",)


def test_a_gap_between_windows_is_told() -> None:
    rule = AlertRuleConfig()
    history = add_to_history(CheckHistory(), judged(False, NOON, CheckHistory(), rule), rule)
    check = judged(False, NOON + 3 * DAY, history, rule)
    assert check.hours_unwatched == 48.0
    assert b'perennial_check_window_end_timestamp_seconds{model="desk"} ' in prometheus_lines(check)


def unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_the_tests_find_a_new_topic_and_nothing_where_nothing_is() -> None:
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(20, 32)) * 3
    same = [unit(centres[draw.integers(0, 20, 500)] + draw.normal(size=(500, 32))) for _ in range(2)]
    new = unit(draw.normal(size=(1, 32)) * 3 + draw.normal(size=(100, 32)))
    shifted = np.concatenate([same[1][:400], new])
    assert mmd_test(same[0], same[1], num_permutations=499, seed=0).p_value > 0.05
    assert novelty_test(same[0], same[1], seed=0).p_value > 0.05
    assert mmd_test(same[0], shifted, num_permutations=499, seed=0).p_value == 1 / 500
    assert novelty_test(same[0], shifted, seed=0).p_value < 1e-6


def test_equal_rows_are_no_drift_though_all_distances_tie() -> None:
    rows = unit(np.ones((600, 8)))
    assert novelty_test(rows, rows, seed=0).p_value > 0.01
    assert mmd_test(rows, rows, num_permutations=199, seed=0).p_value > 0.9


def test_an_effect_size_of_nothing_is_nothing() -> None:
    values = np.arange(1000, dtype=np.float32)
    assert population_stability_index(values, values) == pytest.approx(0.0, abs=1e-9)
    assert population_stability_index(values, values + 300) > 0.2


def row(name: str, request: str, answer: str, feedback: str | None = None, context: str | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    groups = [{"name": "feedback", "value": feedback}] if feedback else []
    return {"id": name, "messages": messages, "groups": groups, "context": context}


def test_requests_that_were_made_often_count_once_and_too_few_are_not_judged() -> None:
    rows = [row(str(n), f"Where is parcel number {'abcdefghij'[n % 10] * 4}?", "There.") for n in range(900)]
    found = compare_requests(rows, rows, DriftConfig(vectors="tfidf"))
    assert all(reading.violated is None for reading in found.readings)
    assert "insufficient data" in found.readings[0].note
    assert new_terms(["old words"], ["crypto words", "crypto"], 2) == [("crypto", 2)]


def test_pairs_come_from_like_requests_or_from_a_correction_and_await_a_person() -> None:
    rows = [
        row("a", "How do I reset my password for the shop?", "Use the link on the sign-in page.", "up"),
        row("b", "How do I reset my password for the shop?", "No idea.", "down"),
        row("c", "Where can I read about the returns policy?", "Somewhere.", "down", "On the page Returns."),
        row("d", "When does the store open on Sundays?", "Never.", "down"),
        row("e", "Which colours does the bag come in?", "Red.", "up"),
    ]
    found = [json.loads(line) for line in as_queue(pair_candidates(rows, 0.7)).splitlines()]
    assert [(pair["id"], pair["kinds"], pair["decision"]) for pair in found] == [
        ("pair-b", ["liked_reply"], None),
        ("pair-c", ["corrected_reply"], None),
    ]
    assert found[0]["chosen"][0]["content"] == "Use the link on the sign-in page."
    assert found[1]["chosen"][0]["content"] == "On the page Returns."
    assert found[1]["rejected"][0]["content"] == "Somewhere."
