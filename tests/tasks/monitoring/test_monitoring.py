"""Signals, drift, the alert rule and preference pairs, on data with known figures."""

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
from tasks.monitoring.exporters import prometheus_lines
from tasks.monitoring.pairs import as_queue, pair_candidates
from tasks.monitoring.rule import add_to_history, check_window
from tasks.monitoring.signals import measure_signals

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def lines(count: int, **columns: list[Any]) -> pa.Table:
    return pa.table({name: columns.get(name, [None] * count) for name in LINES_SCHEMA.names}, schema=LINES_SCHEMA)


def measured(lines: pa.Table, config: SignalConfig | None = None) -> dict[str, SignalMeasurement]:
    return {signal.name: signal for signal in measure_signals(lines, config or SignalConfig())}


def test_a_limit_is_violated_by_the_whole_interval_not_by_the_value() -> None:
    feedback = ["down"] * 32 + ["up"] * 168 + [None] * 400
    found = measured(lines(600, feedback=feedback, latency_ms=[float(n) for n in range(600)]))
    down = found["thumbs_down_rate"]
    assert (down.value, down.num_samples, down.violated) == (0.16, 200, False)
    worse = measured(lines(600, feedback=["down"] * 60 + ["up"] * 140 + [None] * 400))
    assert worse["thumbs_down_rate"].violated
    latency = found["latency_p95_ms"]
    assert latency.value == 569.0
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 569 < latency.high
    assert latency.violated is None
    assert found["error_rate"].value is None


def test_too_few_requests_are_measured_without_a_verdict() -> None:
    found = measured(lines(499, failed=[True] * 499))
    assert found["error_rate"].value == 1.0
    assert found["error_rate"].violated is None
    assert "499 of 500" in found["error_rate"].note


def test_a_signal_with_few_values_gets_no_verdict_in_a_full_window() -> None:
    found = measured(lines(600, feedback=["down"] + [None] * 599))["thumbs_down_rate"]
    assert (found.value, found.violated) == (1.0, None)
    assert "1 of 50" in found.note


def test_a_signal_needs_no_more_values_than_the_window_needs_requests() -> None:
    found = measured(lines(20, feedback=["down"] * 20), SignalConfig(min_requests=20))["thumbs_down_rate"]
    assert (found.violated, found.note) == (True, "")


def checked(violated: bool, end: datetime, history: CheckHistory, rule: AlertRuleConfig, hours: int = 24) -> WindowCheck:
    signal = SignalMeasurement(name="x", signal="drift", value=1.0, violated=violated)
    return check_window("desk", (end - timedelta(hours=hours), end), 1000, [signal], history, rule)


def test_an_alert_needs_k_of_n_windows_and_the_latest_and_is_not_repeated_at_once() -> None:
    rule, history = AlertRuleConfig(violated_windows=2, last_windows=3, repeat_hours=48), CheckHistory()
    alerted = []
    for day, violated in enumerate([True, False, True, False, False, True, True, True, True]):
        check = checked(violated, NOON + day * DAY, history, rule)
        assert checked(violated, NOON + day * DAY, add_to_history(history, check, rule), rule) == check
        history = add_to_history(history, check, rule)
        alerted.append(bool(check.alerted))
    assert alerted == [False, False, True, False, False, False, True, False, True]


def test_overlapping_windows_count_once() -> None:
    rule, history = AlertRuleConfig(), CheckHistory()
    for hour in range(24):
        check = checked(True, NOON + timedelta(hours=hour), history, rule)
        assert not check.alerted
        history = add_to_history(history, check, rule)
    assert checked(True, NOON + timedelta(hours=24), history, rule).alerted == ("drift",)


def test_the_hours_between_windows_are_counted() -> None:
    rule = AlertRuleConfig()
    history = add_to_history(CheckHistory(), checked(False, NOON, CheckHistory(), rule), rule)
    check = checked(False, NOON + 3 * DAY, history, rule)
    assert check.hours_unwatched == 48.0
    assert b'perennial_check_window_end_timestamp_seconds{model="desk"} ' in prometheus_lines(check)


def unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_the_tests_detect_a_new_topic_and_nothing_else() -> None:
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(20, 32)) * 3
    same = [unit(centres[draw.integers(0, 20, 500)] + draw.normal(size=(500, 32))) for _ in range(2)]
    new = unit(draw.normal(size=(1, 32)) * 3 + draw.normal(size=(100, 32)))
    shifted = np.concatenate([same[1][:400], new])
    assert mmd_test(same[0], same[1], num_permutations=499, seed=0).p_value > 0.05
    assert novelty_test(same[0], same[1], seed=0).p_value > 0.05
    assert mmd_test(same[0], shifted, num_permutations=499, seed=0).p_value == 1 / 500
    assert novelty_test(same[0], shifted, seed=0).p_value < 1e-6


def test_equal_rows_are_no_drift_although_all_distances_tie() -> None:
    rows = unit(np.ones((600, 8)))
    assert novelty_test(rows, rows, seed=0).p_value > 0.01
    assert mmd_test(rows, rows, num_permutations=199, seed=0).p_value > 0.9


def test_the_effect_size_of_equal_samples_is_zero() -> None:
    values = np.arange(1000, dtype=np.float32)
    assert population_stability_index(values, values) == pytest.approx(0.0, abs=1e-9)
    assert population_stability_index(values, values + 300) > 0.2


def row(name: str, request: str, answer: str, feedback: str | None = None, context: str | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    groups = [{"name": "feedback", "value": feedback}] if feedback else []
    return {"id": name, "messages": messages, "groups": groups, "context": context}


def test_repeated_requests_count_once_and_too_few_get_no_verdict() -> None:
    rows = [row(str(n), f"Where is parcel number {'abcdefghij'[n % 10] * 4}?", "There.") for n in range(900)]
    found = compare_requests(rows, rows, DriftConfig(vectors="tfidf"))
    assert all(measurement.violated is None for measurement in found.measurements)
    assert found.measurements[0].note
    assert new_terms(["old words"], ["crypto words", "crypto"], 2) == [("crypto", 2)]


def test_pairs_come_from_similar_requests_or_from_a_correction_and_await_a_decision() -> None:
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
