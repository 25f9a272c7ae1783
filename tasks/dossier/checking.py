"""The page of a check of production: the verdict, every figure against its limit, and the words that are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.monitoring import DriftReport, SignalMeasurement, WindowCheck
from tasks.dossier.blocks import Block, Cell, Page, Plot, Section, State, Table, Text, Tile
from tasks.dossier.notation import count, short, words
from tasks.dossier.plots import Whisker, plot_scores
from tasks.dossier.verdict import Tone, Verdict

_TONES: Mapping[str, Tone] = {"healthy": "good", "violated": "hold", "insufficient": "ask"}


def compose_check(check: WindowCheck, drift: DriftReport, terms: Sequence[Mapping[str, Any]]) -> Page:
    """Everything that the template shows.

    Args:
        check: The window with its verdict.
        drift: Where the drift readings come from.
        terms: New words with the number of requests that hold them.
    """
    signals = [reading for reading in check.readings if reading.signal != "drift"]
    compared = [reading for reading in check.readings if reading.signal == "drift"]
    sections = [
        Section("signals", "Signals", [_readings(signals), *_plot(signals)]),
        Section("drift", "Requests against the training rows", [_about(drift), _readings(compared)], short="Drift"),
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
        return "There are not enough requests to judge anything; that is no good news and no bad news."
    if check.status == "healthy":
        return "Nothing that was judged breaks its limit."
    told = f"An alert was raised for {', '.join(check.alerted)}." if check.alerted else "The rule asks for no alert yet."
    return f"{', '.join(words(signal) for signal in check.violated)}: beyond the limit. {told}"


def _readings(readings: Sequence[SignalMeasurement]) -> Table:
    rows = [
        [
            Cell(words(reading.name)),
            Cell(
                reading.note if reading.violated is None else "violated" if reading.violated else "kept",
                state=_state(reading),
            ),
            Cell("not measured" if reading.value is None else f"{reading.value:.4g}", note=_interval(reading)),
            Cell("" if reading.p_value is None else f"{reading.p_value:.3g}"),
            Cell("" if reading.limit is None else f"{reading.limit:g}"),
            Cell(count(reading.num_samples)),
        ]
        for reading in readings
    ]
    return Table(("figure", "verdict", "value", "p", "limit", "over"), rows, num_text_columns=2, stacks=True)


def _plot(readings: Sequence[SignalMeasurement]) -> list[Block]:
    rates = [reading for reading in readings if reading.value is not None and reading.name.endswith("_rate")]
    if not rates:
        return []
    rows = [(words(r.name), [Whisker("this window", r.value or 0.0, r.low, r.high)]) for r in rates]
    return [Plot(plot_scores(rows, "Rates of the window"), "Rates with their 95 % intervals.")]


def _about(drift: DriftReport) -> Text:
    if drift.reference is None:
        return Text("There is nothing to compare the requests with.")
    return Text(
        f"Compared with the {count(drift.reference.num_rows)} rows that the champion learned from "
        f"({short(drift.reference.sha256)}), by {drift.vectors or 'no vectors'}. A test below its limit says that "
        "the requests differ, not that the model is wrong."
    )


def _state(reading: SignalMeasurement) -> State:
    return "open" if reading.violated is None else "fail" if reading.violated else "pass"


def _interval(reading: SignalMeasurement) -> str:
    return f"{reading.low:.4g} to {reading.high:.4g}" if reading.low is not None and reading.high is not None else ""
