"""Quality signals of a window: rates and the 95th percentile of latency, each with its interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tasks.contracts.monitoring import SignalMeasurement
from tasks.monitoring.config import SignalConfig
from tasks.stats.intervals import Z_95, wilson_interval

_QUANTILE = 0.95


def measure_signals(lines: pa.Table, config: SignalConfig) -> list[SignalMeasurement]:
    """Every signal of the window's lines; see :data:`tasks.ingest.log.LINES_SCHEMA` for their columns."""
    columns = {name: lines[name].to_pylist() for name in lines.column_names}
    enough = lines.num_rows >= config.min_requests
    why = "" if enough else f"insufficient data: {lines.num_rows} of {config.min_requests} requests"
    rates: list[tuple[str, str, list[bool], float | None]] = [
        ("thumbs_down_rate", "feedback", [v == "down" for v in columns["feedback"] if v], config.max_thumbs_down_rate),
        ("escalation_rate", "escalation", _present(columns["escalated"]), config.max_escalation_rate),
        ("refusal_rate", "refusal", _present(columns["refused"]), config.max_refusal_rate),
        ("error_rate", "error", _present(columns["failed"]), config.max_error_rate),
    ]
    latencies = _present(columns["latency_ms"])

    min_values = min(config.min_values, config.min_requests)

    def reason(values: Sequence[Any]) -> str:
        return why or (f"insufficient data: {len(values)} of {min_values} values" if len(values) < min_values else "")

    measured = [_rate(name, signal, values, limit, reason(values)) for name, signal, values, limit in rates]
    return [*measured, _latency(latencies, config.max_latency_p95_ms, reason(latencies))]


def _present(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _rate(name: str, signal: str, values: Sequence[bool], limit: float | None, why: str) -> SignalMeasurement:
    if not values:
        return SignalMeasurement(name=name, signal=signal, value=None, limit=limit, note="not in the log")
    low, high = wilson_interval(sum(values), len(values))
    return _evaluated(name, signal, sum(values) / len(values), low, high, limit, len(values), why)


def _latency(values: Sequence[float], limit: float | None, why: str) -> SignalMeasurement:
    """The 95th percentile; its interval is that of the order statistics, which assumes nothing of the distribution."""
    if not values:
        return SignalMeasurement(name="latency_p95_ms", signal="latency", value=None, limit=limit, note="not in the log")
    ordered, count = sorted(values), len(values)
    spread = Z_95 * math.sqrt(count * _QUANTILE * (1 - _QUANTILE))
    low, middle, high = (
        ordered[min(count - 1, max(0, math.ceil(count * _QUANTILE + shift) - 1))] for shift in (-spread, 0.0, spread)
    )
    return _evaluated("latency_p95_ms", "latency", middle, low, high, limit, count, why)


def _evaluated(
    name: str, signal: str, value: float, low: float, high: float, limit: float | None, count: int, why: str
) -> SignalMeasurement:
    note = why or ("no limit is set" if limit is None else "")
    violated = None if note or limit is None else low > limit
    return SignalMeasurement(
        name=name,
        signal=signal,
        value=value,
        low=low,
        high=high,
        limit=limit,
        num_samples=count,
        violated=violated,
        note=note,
    )
