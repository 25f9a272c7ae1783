"""A check in the formats of other programs: MLflow metrics, Prometheus' text format, JSON, a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tasks.contracts.monitoring import CheckOutcome, SignalMeasurement, WindowCheck


def metrics_of(check: WindowCheck) -> dict[str, float]:
    """Every figure that was measured, by name; p values as ``<name>_p``."""
    metrics = {"num_requests": float(check.num_requests), "num_violated": float(len(check.violated))}
    for measurement in check.readings:
        if measurement.value is not None:
            metrics[measurement.name] = measurement.value
        if measurement.p_value is not None:
            metrics[f"{measurement.name}_p"] = measurement.p_value
    return metrics


def prometheus_lines(check: WindowCheck) -> bytes:
    """The figures in Prometheus' text format, with the window's end, whose age shows that checking stopped."""
    label = f'{{model="{check.model}"}}'
    figures = {"window_end_timestamp_seconds": check.window_end.timestamp(), **metrics_of(check)}
    lines = [line for name, value in figures.items() for line in _gauge(f"perennial_check_{name}", label, value)]
    return ("\n".join(lines) + "\n").encode()


def _gauge(name: str, label: str, value: float) -> tuple[str, str]:
    return f"# TYPE {name} gauge", f"{name}{label} {value!r}"


def latest_json(outcome: CheckOutcome) -> bytes:
    """The verdict as JSON: the check, the runs that it started by signal, and notes on runs that it did not start."""
    document = {**outcome.check.model_dump(mode="json"), "runs": dict(outcome.runs), "notes": list(outcome.notes)}
    return json.dumps(document, indent=2).encode()


def check_table(check: WindowCheck, runs: Mapping[str, str] | None = None) -> str:
    """The check as Markdown; figures only, and the ids of the runs that it started by signal."""
    lines = [
        f"**{check.status.capitalize()}**: {check.num_requests} requests from {check.window_start:%Y-%m-%d %H:%M} "
        f"to {check.window_end:%Y-%m-%d %H:%M} UTC.",
        "",
        "| figure | value | 95 % interval | p | limit | verdict |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells_of(measurement))} |" for measurement in check.readings),
    ]
    if check.alerted:
        lines += ["", f"Alert: {', '.join(check.alerted)}."]
    for signal, run in (runs or {}).items():
        lines += ["", f"The run `{run}` of retrain-on-alert evaluates the alert on {signal}."]
    return "\n".join(lines)


def cells_of(measurement: SignalMeasurement) -> tuple[str, str, str, str, str, str]:
    """Name, value, interval, p value, limit and verdict of one measurement."""
    interval = (
        f"{measurement.low:.4g} to {measurement.high:.4g}"
        if measurement.low is not None and measurement.high is not None
        else ""
    )
    verdict = measurement.note if measurement.violated is None else "violated" if measurement.violated else "kept"
    limit = "" if measurement.limit is None else f"{'p < ' if measurement.p_value is not None else ''}{measurement.limit:g}"
    return (
        measurement.name.replace("_", " "),
        "not measured" if measurement.value is None else f"{measurement.value:.4g}",
        interval,
        "" if measurement.p_value is None else f"{measurement.p_value:.3g}",
        limit,
        verdict,
    )
