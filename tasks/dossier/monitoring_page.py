"""The page of a check of production: the verdict, every figure with its limit, and the new words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.monitoring import DriftReport, SignalMeasurement, WindowCheck
from tasks.dossier.blocks import Block, Cell, Page, Plot, Section, State, Table, Text, Tile
from tasks.dossier.formatting import count, short, words
from tasks.dossier.plots import Whisker, plot_scores
from tasks.dossier.verdict import Tone, Verdict

_TONES: Mapping[str, Tone] = {"healthy": "good", "violated": "hold", "insufficient": "ask"}


def compose_check(check: WindowCheck, drift: DriftReport, terms: Sequence[Mapping[str, Any]]) -> Page:
    """Everything that the template shows.

    Args:
        check: The window with its verdict.
        drift: The comparison with the training rows.
        terms: New words with the number of requests that contain them.
    """
    signals = [measurement for measurement in check.readings if measurement.signal != "drift"]
    compared = [measurement for measurement in check.readings if measurement.signal == "drift"]
    sections = [
        Section("signals", "Signals", [_measurements(signals), *_plot(signals)]),
        Section("drift", "Requests against the training rows", [_about(drift), _measurements(compared)], short="Drift"),
    ]
    if terms:
        rows = [[Cell(str(term["term"])), Cell(count(int(term["num_requests"])))] for term in terms]
        sections.append(Section("terms", "New words", [Table(("word, in no training row", "requests"), rows)]))
    window = f"{check.window_start:%Y-%m-%d %H:%M} to {check.window_end:%Y-%m-%d %H:%M} UTC"
    return Page(
        model=check.model,
        run=f"Production, {window}",
        written=f"{check.window_end:%-d %B %Y, %H:%M} UTC",
        verdict=Verdict(check.status.capitalize(), _TONES[check.status], _sentence(check)),
        tiles=[
            Tile("Requests", count(check.num_requests)),
            Tile("Violated", count(len(check.violated)), ", ".join(check.violated)),
            Tile("Alerts", count(len(check.alerted)), ", ".join(check.alerted)),
        ],
        sections=sections,
    )


def _sentence(check: WindowCheck) -> str:
    if check.status == "insufficient":
        return "There are not enough requests for a verdict."
    if check.status == "healthy":
        return "No limit is violated."
    alert = f"An alert was raised for {', '.join(check.alerted)}." if check.alerted else "The rule raises no alert yet."
    return f"{', '.join(words(signal) for signal in check.violated)}: beyond the limit. {alert}"


def _measurements(measurements: Sequence[SignalMeasurement]) -> Table:
    rows = [
        [
            Cell(words(measurement.name)),
            Cell(
                measurement.note if measurement.violated is None else "violated" if measurement.violated else "kept",
                state=_state(measurement),
            ),
            Cell("not measured" if measurement.value is None else f"{measurement.value:.4g}", note=_interval(measurement)),
            Cell("" if measurement.p_value is None else f"{measurement.p_value:.3g}"),
            Cell("" if measurement.limit is None else f"{measurement.limit:g}"),
            Cell(count(measurement.num_samples)),
        ]
        for measurement in measurements
    ]
    return Table(("figure", "verdict", "value", "p", "limit", "over"), rows, num_text_columns=2, stacks=True)


def _plot(measurements: Sequence[SignalMeasurement]) -> list[Block]:
    rates = [
        measurement for measurement in measurements if measurement.value is not None and measurement.name.endswith("_rate")
    ]
    if not rates:
        return []
    rows = [(words(r.name), [Whisker("this window", r.value or 0.0, r.low, r.high)]) for r in rates]
    return [Plot(plot_scores(rows, "Rates of the window"), "Rates with their 95 % intervals.")]


def _about(drift: DriftReport) -> Text:
    if drift.reference is None:
        return Text("There is nothing to compare the requests with.")
    return Text(
        f"Compared with the {count(drift.reference.num_rows)} rows that the champion was trained on "
        f"({short(drift.reference.sha256)}), by {drift.vectors or 'no vectors'}. A test below its limit says that "
        "the requests differ, not that the model is wrong."
    )


def _state(measurement: SignalMeasurement) -> State:
    return "open" if measurement.violated is None else "fail" if measurement.violated else "pass"


def _interval(measurement: SignalMeasurement) -> str:
    return (
        f"{measurement.low:.4g} to {measurement.high:.4g}"
        if measurement.low is not None and measurement.high is not None
        else ""
    )
