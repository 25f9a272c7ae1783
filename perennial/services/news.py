"""What is new about a model, as messages with names, figures and links. Pure; no text of a row is within reach.

Each message has a key: the same fact, seen again, makes the same key, and the outbox takes it once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flows.support.operating import Event
from perennial.operations.ended_runs import EndedRun
from perennial.operations.fleet import ModelStatus, Question
from tasks.core.addresses import without_secrets
from tasks.core.timestamps import ensure_utc

_SOON = dt.timedelta(hours=24)
_OUTCOMES: dict[str, Event] = {
    "Promoted": "promoted",
    "RollsOut": "promoted",
    "Held": "held",
    "Rejected": "held",
    "Aborted": "aborted",
}
"""States of completed runs that are reported. ``Asked`` is reported by its request, ``Passed`` by the run that promotes."""
_ERRORS: dict[str, tuple[Event, str]] = {
    "BudgetError": ("requested", "needs a budget: perennial budget approve, or reject"),
    "ReviewPendingError": ("requested", "waits for a review: perennial review"),
    "ScrubVerificationError": ("leaked", "found personal data in rows that were scrubbed, and stopped before training"),
}
_QUESTION = "perennial approve, or reject, answers it, as does the form of the suspended run."


@dataclass(frozen=True)
class Message:
    """A message about a model.

    Attributes:
        key: Names the fact that it tells.
        model: The model.
        event: Its kind.
        title: One line.
        body: Lines of plain text.
    """

    key: str
    model: str
    event: Event
    title: str
    body: str


def news_of(status: ModelStatus, now: dt.datetime, since: str, reported: str | None) -> Iterator[Message]:
    """What the present status of a model tells: questions with their expiry, and production.

    Args:
        status: The model now.
        now: The time, in UTC.
        since: Expired requests from before this time are old news; ISO 8601 in UTC.
        reported: The limits that production violated at the last look, joined by commas; None at the first.
    """
    for question in status.questions:
        yield _about(status, "requested", question, f"version {question.version} awaits approval", _QUESTION)
        if question.expires_at is not None:
            expiry, opened = _time(question.expires_at), _time(question.requested_at)
            if expiry - now <= _SOON < expiry - opened:
                title = f"the request for version {question.version} expires within a day"
                yield _about(status, "expiring", question, title, _QUESTION)
    for question in status.expired:
        if question.expires_at is not None and _time(question.expires_at) >= _time(since):
            title = f"the request for version {question.version} expired without an answer"
            yield _about(status, "expired", question, title, "The champion stays. The next retrain asks anew.")
    production = status.production
    if production is not None and set(production.violated) - set((reported or "").split(",")):
        body = f"Window until {production.window_end}. Drift: {', '.join(production.drift) or 'none'}."
        title = f"production violates {', '.join(production.violated)}"
        yield _message(f"violated {status.name} {production.window_end}", status.name, "violated", title, body)


def news_of_runs(runs: Iterable[EndedRun]) -> Iterator[Message]:
    """What runs that ended tell."""
    for run in runs:
        if run.succeeded:
            event, what = _OUTCOMES.get(run.state), run.state.lower() if run.state != "RollsOut" else "rolls out"
        else:
            fallback: tuple[Event, str] = ("failed", f"ended as {run.state}" + (f" ({run.error})" if run.error else ""))
            event, what = _ERRORS.get(run.error or "", fallback)
        if event is not None:
            lines = (run.sentence, f"Run {run.name}, ended {run.ended_at}.", run.url or "")
            title = f"{run.flow} {what}"
            # A run that crashed may be started again, and end again.
            yield _message(f"{event} {run.id} {run.ended_at}", run.model, event, title, "\n".join(filter(None, lines)))


def _about(status: ModelStatus, event: Event, question: Question, title: str, todo: str) -> Message:
    champion = f"version {status.champion}" if status.champion else "none"
    lines = [
        f"Requested {question.requested_at}, open until {question.expires_at or 'it is answered'}. Champion: {champion}."
    ]
    if status.decision is not None:
        lines.append(f"Last decision: {status.decision.sentence} Run {status.decision.run}.")
    key = f"{event} {status.registered_model} {question.version} {question.requested_at}"
    return _message(key, status.name, event, title, "\n".join((*lines, todo)))


def _message(key: str, model: str, event: Event, title: str, body: str) -> Message:
    return Message(key, model, event, f"[{model}] {title}", without_secrets(f"{body}\nMessage: {key}"))


def _time(text: str) -> dt.datetime:
    return ensure_utc(dt.datetime.fromisoformat(text))
