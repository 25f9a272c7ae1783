"""The status of all models as one HTML page, as Prometheus' text format, and as lines for a terminal."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from perennial.operations.fleet import Decision, FleetStatus, ModelStatus
from tasks.core.errors import ConfigError
from tasks.core.storage.writing import replace_file
from tasks.dossier.blocks import Bullets, Cell, Page, Section, State, Table, Tile
from tasks.dossier.formatting import amount
from tasks.dossier.rendering import render_page
from tasks.dossier.verdict import Tone, Verdict

HEADERS = ("model", "champion", "last decision", "open question", "next run", "production", "last cost")
_STATES: dict[Tone, State] = {"good": "pass", "hold": "attention", "ask": "open"}
_PRODUCTION: dict[str, State] = {"healthy": "pass", "violated": "fail", "insufficient": "open"}


def render_fleet(fleet: FleetStatus) -> bytes:
    """A self-contained page that makes no request; it has figures and names, and no text of a row."""
    concerned = [model for model in fleet.models if model.concerns]
    num_questions = sum(len(model.questions) for model in fleet.models)
    num_violated = sum(model.production is not None and model.production.status == "violated" for model in fleet.models)
    costs: dict[str, float] = {}
    for model in fleet.models:
        if model.decision is not None and model.decision.cost is not None:
            costs[model.decision.currency] = costs.get(model.decision.currency, 0.0) + model.decision.cost
    sections = [
        Section(
            "models",
            "Models",
            [Table(HEADERS, [cells_of(one, fleet.written_at) for one in fleet.models], stacks=True, num_text_columns=7)],
        )
    ]
    if concerned:
        items = [f"{model.name}: {'; '.join(model.concerns)}." for model in concerned]
        sections.insert(0, Section("attention", "What to look at", [Bullets(items)], short="Attention"))
    written = dt.datetime.fromisoformat(fleet.written_at)
    return render_page(
        Page(
            model="All models",
            run=f"{len(fleet.models)} models",
            written=f"{written:%-d %B %Y, %H:%M} UTC",
            verdict=_verdict(fleet, concerned),
            tiles=[
                Tile(
                    "Models",
                    str(len(fleet.models)),
                    f"{sum(one.champion is not None for one in fleet.models)} with a champion",
                ),
                Tile("Open questions", str(num_questions)),
                Tile("Production violated", str(num_violated)),
                Tile(
                    "Cost of the last runs",
                    ", ".join(f"{amount(cost)} {name}" for name, cost in costs.items()) or "no price",
                ),
            ],
            sections=sections,
        )
    )


def _verdict(fleet: FleetStatus, concerned: list[ModelStatus]) -> Verdict:
    if not concerned:
        return Verdict("Nothing to do", "good", "No question is open, no limit is violated, and every part responds.")
    questions = any(model.questions for model in concerned)
    sentence = f"{len(concerned)} of {len(fleet.models)} models need a look: {', '.join(one.name for one in concerned[:10])}"
    return Verdict(
        "Needs a person" if questions else "Needs a look",
        "ask" if questions else "hold",
        f"{sentence}{' and more' if len(concerned) > 10 else ''}.",
    )


def cells_of(model: ModelStatus, now: str) -> list[Cell]:
    """One model as the cells of a line, see :data:`HEADERS`."""
    decision, production = model.decision, model.production
    champion = Cell("none") if model.champion is None else Cell(f"version {model.champion}", _age(model.champion_since, now))
    if any(note.startswith("MLflow") for note in model.away):
        champion = Cell("not readable", state="attention")
    question = model.questions[0] if model.questions else None
    request = Cell("none")
    if question is not None:
        until = (
            f"until {_day(question.expires_at)}, {_time(question.expires_at)}" if question.expires_at else "without an end"
        )
        request = Cell(f"version {question.version}", until, state="open")
    following = (
        Cell("not readable", state="attention") if any(note.startswith("Prefect") for note in model.away) else Cell("none")
    )
    if model.next_run is not None:
        following = Cell(_day(model.next_run), "one is running" if model.running else _time(model.next_run))
    elif model.running:
        following = Cell("running")
    elif model.paused:
        following = Cell("off", model.paused[0], state="attention")
    checked = Cell("not checked")
    if production is not None:
        note = ", ".join((*production.violated, *(name for name in production.drift if name not in production.violated)))
        checked = Cell(
            production.status, note or f"until {_day(production.window_end)}", state=_PRODUCTION.get(production.status)
        )
    decided = Cell("none") if decision is None else Cell(decision.label, decision.reason, state=_STATES[decision.tone])
    return [Cell(model.name, model.owner or ""), champion, decided, request, following, checked, _cost(decision)]


def _cost(decision: Decision | None) -> Cell:
    if decision is None:
        return Cell("")
    hours = f"{decision.training_hours:.2g}\u00a0h"
    return Cell(hours) if decision.cost is None else Cell(f"{amount(decision.cost)}\u00a0{decision.currency}", hours)


def _age(since: str | None, now: str) -> str:
    if since is None:
        return "since an unknown time"
    days = (dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(since)).days
    return f"for {days} day{'' if days == 1 else 's'}"


def _day(moment: str) -> str:
    """``1 Nov 2026`` for a time in ISO 8601; the parts stay on one line."""
    return f"{dt.datetime.fromisoformat(moment).astimezone(dt.UTC):%-d\u00a0%b\u00a0%Y}"


def _time(moment: str) -> str:
    """``02:00 UTC`` for a time in ISO 8601."""
    return f"{dt.datetime.fromisoformat(moment).astimezone(dt.UTC):%H:%M}\u00a0UTC"


def prometheus_text(fleet: FleetStatus) -> bytes:
    """The figures in Prometheus' text format; a model without a figure has no line of it."""
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"perennial_{name}", meaning, ["model", *labels], registry=registry)

    written = Gauge("perennial_fleet_written_timestamp_seconds", "When this was written.", registry=registry)
    written.set(_seconds(fleet.written_at))
    champion = gauge("model_champion_since_timestamp_seconds", "When the champion became it.", "version")
    decided = gauge("model_last_decision", "1 for the last decision.", "decision")
    questions = gauge("model_open_questions", "Open requests for approval.")
    expires = gauge("model_question_expires_timestamp_seconds", "When the first open request expires.")
    following = gauge("model_next_run_timestamp_seconds", "When the next retrain is scheduled.")
    failed = gauge("model_last_run_failed", "1 if the last retrain failed or crashed.")
    violated = gauge("model_production_violated_signals", "Violated signals in the last check of production.")
    drifted = gauge("model_production_drift_tests", "Tests of drift that the last check violated.")
    checked = gauge("model_production_checked_timestamp_seconds", "End of the last checked window.")
    cost = gauge("model_last_cost", "Cost of the last run's training.", "currency")
    away = gauge("model_parts_away", "Parts whose state could not be read.")
    for model in fleet.models:
        name = model.name
        if model.champion is not None and model.champion_since is not None:
            champion.labels(name, model.champion).set(_seconds(model.champion_since))
        if model.decision is not None:
            decided.labels(name, model.decision.label).set(1)
            if model.decision.cost is not None:
                cost.labels(name, model.decision.currency).set(model.decision.cost)
        away.labels(name).set(len(model.away))
        if not any(note.startswith("MLflow") for note in model.away):
            questions.labels(name).set(len(model.questions))
        if ends := [one.expires_at for one in model.questions if one.expires_at]:
            expires.labels(name).set(_seconds(min(ends)))
        if model.next_run is not None:
            following.labels(name).set(_seconds(model.next_run))
        if model.last_run is not None:
            failed.labels(name).set(model.has_failed)
        if model.production is not None:
            violated.labels(name).set(len(model.production.violated))
            drifted.labels(name).set(len(model.production.drift))
            checked.labels(name).set(_seconds(model.production.window_end))
    return generate_latest(registry)


def _seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that a reader sees whole or not at all, readable by all, as node-exporter needs it.

    Raises:
        ConfigError: The folder is missing or not writable.
    """
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(path.parent)
        replace_file(path, data, 0o644)
    except OSError as error:
        raise ConfigError(str(path), type(error).__name__, "a file in a folder that exists", "Make the folder.") from error
