"""A check in other programs' words: MLflow metrics, Prometheus lines for a textfile collector, a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tasks.contracts.monitoring import CheckOutcome, SignalMeasurement, WindowCheck


def metrics_of(check: WindowCheck) -> dict[str, float]:
    """Every figure that was measured, by name; p values as ``<name>_p``."""
    metrics = {"num_requests": float(check.num_requests), "num_violated": float(len(check.violated))}
    for reading in check.readings:
        if reading.value is not None:
            metrics[reading.name] = reading.value
        if reading.p_value is not None:
            metrics[f"{reading.name}_p"] = reading.p_value
    return metrics


def prometheus_lines(check: WindowCheck) -> bytes:
    """The figures in Prometheus' text format, with the window's end: a check that stopped is seen by its age."""
    label = f'{{model="{check.model}"}}'
    figures = {"window_end_timestamp_seconds": check.window_end.timestamp(), **metrics_of(check)}
    lines = [line for name, value in figures.items() for line in _gauge(f"perennial_check_{name}", label, value)]
    return ("\n".join(lines) + "\n").encode()


def _gauge(name: str, label: str, value: float) -> tuple[str, str]:
    return f"# TYPE {name} gauge", f"{name}{label} {value!r}"


def latest_json(outcome: CheckOutcome) -> bytes:
    """The verdict for programs: the check, with the runs that it started by signal, and the notes on those it did not."""
    told = {**outcome.check.model_dump(mode="json"), "runs": dict(outcome.runs), "notes": list(outcome.notes)}
    return json.dumps(told, indent=2).encode()


def check_table(check: WindowCheck, runs: Mapping[str, str] | None = None) -> str:
    """The check as Markdown; figures only, and the ids of the runs that it started by signal."""
    lines = [
        f"**{check.status.capitalize()}**: {check.num_requests} requests from {check.window_start:%Y-%m-%d %H:%M} "
        f"to {check.window_end:%Y-%m-%d %H:%M} UTC.",
        "",
        "| figure | value | 95 % interval | p | limit | verdict |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells_of(reading))} |" for reading in check.readings),
    ]
    if check.alerted:
        lines += ["", f"Alert: {', '.join(check.alerted)}."]
    for signal, run in (runs or {}).items():
        lines += ["", f"The run `{run}` of retrain-on-alert weighs the alert on {signal}."]
    return "\n".join(lines)


def cells_of(reading: SignalMeasurement) -> tuple[str, str, str, str, str, str]:
    """Name, value, interval, p value, limit and verdict of one reading."""
    interval = f"{reading.low:.4g} to {reading.high:.4g}" if reading.low is not None and reading.high is not None else ""
    verdict = reading.note if reading.violated is None else "violated" if reading.violated else "kept"
    limit = "" if reading.limit is None else f"{'p < ' if reading.p_value is not None else ''}{reading.limit:g}"
    return (
        reading.name.replace("_", " "),
        "not measured" if reading.value is None else f"{reading.value:.4g}",
        interval,
        "" if reading.p_value is None else f"{reading.p_value:.3g}",
        limit,
        verdict,
    )
