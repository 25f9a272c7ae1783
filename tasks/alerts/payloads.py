"""The alerts of a request, by the rule of its sender (:mod:`tasks.alerts.accept`). Pure; no clock.

A payload is not trusted, and no message repeats it except for the names of its fields: label and annotation values may hold
personal data, so a fault names its place and the kind of value, never the value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic_core import from_json

from tasks.alerts.accept import AcceptRule, rule_of
from tasks.alerts.expressions import Evaluator, Received
from tasks.contracts.alerts import Alert
from tasks.core.typed_text import cut

MAX_ALERTS = 1_000
"""In one request; Alertmanager's `max_alerts` limits a group on its side."""
_MAX_CLOCK_SKEW = timedelta(hours=1)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}", re.ASCII)
_PATH = re.compile(r"(\w+|\[\d+\])(\.\w+|\[\d+\])*", re.ASCII)
"""An expression that is one place in the alert."""
_NUMBER = re.compile(r"\d{9,20}(\.\d{1,9})?", re.ASCII)
_NO_SLUG = re.compile(r"[^a-z0-9]+")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_NAME_CHARACTERS = 100
_TIME = "a time with a zone in ISO 8601, such as 2026-01-31T06:00:00Z, or Unix time"


@dataclass(frozen=True)
class Fault:
    """A fault of a request, in the parts of :mod:`tasks.core.errors`."""

    where: str
    found: str
    expected: str


@dataclass(frozen=True)
class Parsed:
    """The firing alerts of a request, the numbers of resolved, ignored and invalid ones, and the faults of the latter.

    An invalid alert may have several faults; a body that holds no alerts at all has a fault and no invalid alert. ``notes``
    say why an alert starts nothing.
    """

    sender: str
    alerts: tuple[Alert, ...] = ()
    num_resolved: int = 0
    num_ignored: int = 0
    num_invalid: int = 0
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """The models that alerts may be about, and the length of the window, up to its start, of an alert that names none."""

    models: Sequence[str]
    default_window: timedelta


def parse_alerts(request: Received, rule: AcceptRule | None, served: Served) -> Parsed:
    """The alerts in a request; an invalid one does not affect the others.

    Args:
        request: The request as received. An alert more than an hour after its receipt is a fault.
        rule: The rule of its sender. None: Alertmanager's, Grafana's or plain JSON, whichever it is.
        served: The models, and the default window.
    """
    sender = rule.sender if rule else "json"
    try:
        document = from_json(request.body)
    except ValueError:
        return Parsed(sender, faults=(Fault("body", f"{len(request.body)} bytes that are not JSON", "a JSON object"),))
    if rule is None:
        if not isinstance(document, dict):
            return Parsed(sender, faults=(Fault("body", _kind_of(document), "a JSON object"),))
        rule = _usual_rule(document)
    evaluate = Evaluator(request, document)
    if not is_required(rule, request, document):
        fault = Fault("body", _kind_of(document), f"one that fulfils `{rule.require}`")
        return Parsed(rule.sender, faults=(fault,))
    found = evaluate(rule.each, document)
    items = found if isinstance(found, list) else [found]
    place = "body" if rule.each == "@" else _field_of(rule.each, document, evaluate) or f"body ({rule.each})"
    if found is None or not 1 <= len(items) <= MAX_ALERTS:
        kind = f"nothing in {_kind_of(document)}" if found is None else _kind_of(found)
        return Parsed(rule.sender, faults=(Fault(place, kind, f"1 to {MAX_ALERTS:,} alerts"),))
    return _collect(rule, place, items, isinstance(found, list), evaluate, request, served)


def is_required(rule: AcceptRule, request: Received, document: Any) -> bool:
    """Whether a body fulfils ``require`` of its rule."""
    return rule.require is None or bool(Evaluator(request, document)(rule.require, document))


def _usual_rule(document: dict[str, Any]) -> AcceptRule:
    """The rule of a body without a sender in its path."""
    if "alerts" not in document:
        return rule_of("json")
    return rule_of("grafana" if "orgId" in document else "alertmanager")


def _collect(
    rule: AcceptRule,
    place: str,
    items: Sequence[Any],
    numbered: bool,
    evaluate: Evaluator,
    request: Received,
    served: Served,
) -> Parsed:
    alerts: list[Alert] = []
    faults: list[Fault] = []
    notes: list[str] = []
    counts = {"resolved": 0, "ignored": 0, "invalid": 0}
    for number, item in enumerate(items):
        reader = _Reader(rule, f"{place}.{number}" if numbered else place, item, evaluate, request.now)
        read = reader.alert(request, served)
        if isinstance(read, Alert):
            alerts.append(read)
            continue
        counts[read] += 1
        faults += reader.faults
        if read != "invalid":
            notes.append(f"{reader.where}: its state means {read}, so it starts nothing")
    return Parsed(
        rule.sender, tuple(alerts), counts["resolved"], counts["ignored"], counts["invalid"], tuple(faults), tuple(notes)
    )


class _Reader:
    """Reads one alert, and notes its faults."""

    def __init__(self, rule: AcceptRule, where: str, item: Any, evaluate: Evaluator, now: datetime) -> None:
        self.where = where
        self.faults: list[Fault] = []
        self._rule = rule
        self._item = item
        self._evaluate = evaluate
        self._now = now

    def alert(self, request: Received, served: Served) -> Alert | str:
        """The alert; or ``resolved``, ``ignored`` or ``invalid``."""
        rule = self._rule
        if not isinstance(self._item, dict):
            self.faults.append(Fault(self.where, _kind_of(self._item), "an object"))
            return "invalid"
        state = self._state()
        if state in ("resolved", "ignored"):
            return state
        self._check_fields()
        name = self._text("name", required=True)
        signal = self._text("signal") or _clean(request.query.get("signal", "")) or name
        model = self._model(request, served.models)
        began = self._time("time", required=True)
        end = self._time("window_end") or began
        start = self._time("window_start") or (end - served.default_window if end else None)
        if start and end and start >= end:
            place = self._place("window_start") if rule.window_start else f"{self.where}.window"
            self.faults.append(Fault(place, "a time not before the window's end", "a window with a length"))
        if self.faults:
            return "invalid"
        return Alert(
            fingerprint=self._fingerprint([name, model, signal]),
            model=model,
            name=name,
            signal=signal,
            sender=rule.sender,
            starts_at=began,
            window_start=start,
            window_end=end,
        )

    def _state(self) -> str:
        rule = self._rule
        if rule.state is None:
            return "firing"
        value = self._evaluate(rule.state, self._item)
        word = _text_of(value)
        for kind, words in (("firing", rule.firing), ("resolved", rule.resolved), ("ignored", rule.ignored)):
            if word is not None and word.casefold() in (each.casefold() for each in words):
                return kind
        known = ", ".join((*rule.firing, *rule.resolved, *rule.ignored))
        self._note("state", value, f"one of {known}")
        return "invalid"

    def _check_fields(self) -> None:
        if self._rule.fields:
            unknown = [name for name in self._item if name not in self._rule.fields]
            self.faults += [
                Fault(f"{self.where}.{_shown(name)}", _kind_of(self._item[name]), "no such field") for name in unknown
            ]

    def _text(self, key: str, *, required: bool = False) -> str:
        """A name, with single spaces and of limited length; empty where there is none."""
        value = self._evaluate(getattr(self._rule, key), self._item)
        text = _clean(_text_of(value) or "")
        if not text and (required or (value is not None and _text_of(value) is None)):
            self._note(key, value, f"a text, the alert's {key}")
        return text

    def _model(self, request: Received, models: Sequence[str]) -> str:
        """The model. A single value must be one that is served; of a list of values, the first that is served counts."""
        given = self._evaluate(self._rule.model, self._item)
        hints = given if isinstance(given, list) else []
        texts = [_clean(_text_of(value) or "") for value in hints]
        if not hints:
            texts = [self._text("model")]
        if not any(texts) or (hints and not any(self._served(text, models) for text in texts)):
            texts, hints = [_clean(request.query.get("model", ""))], []
        served = next(filter(None, (self._served(text, models) for text in texts)), None)
        if served is None and len(models) == 1 and not any(texts):
            served = models[0]
        if served is None:
            found = "a model that is not served" if any(texts) else "no model"
            self.faults.append(Fault(f"{self.where}.model", found, f"one of {', '.join(sorted(models))}"))
        return served or ""

    def _served(self, text: str, models: Sequence[str]) -> str | None:
        """The served model of a sender's name, which may write spaces and capitals; None where none is."""
        name = self._rule.models.get(text, text)
        return next((model for model in (name, _NO_SLUG.sub("-", name.lower()).strip("-")) if model in models), None)

    def _time(self, key: str, *, required: bool = False) -> datetime | None:
        expression = getattr(self._rule, key)
        value = self._evaluate(expression, self._item)
        if value is None or value == "":
            if required:
                self._note(key, value, _TIME)
            return None
        moment = parse_moment(value, self._rule.time_format, self._rule.timezone)
        if moment is None:
            self._note(key, value, _TIME)
        elif not _EARLIEST <= moment <= self._now + _MAX_CLOCK_SKEW:
            fault = Fault(self._place(key), "a time out of range", "a time since 2000 and not in the future")
            self.faults.append(fault)
            return None
        return moment

    def _fingerprint(self, default: list[str]) -> str:
        value = self._evaluate(self._rule.key, self._item)
        text = _text_of(value)
        if text and _FINGERPRINT.fullmatch(text):
            return text
        written = json.dumps(default if value in (None, "") else value, sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:32]

    def _note(self, key: str, value: Any, expected: str) -> None:
        found = f"nothing in {_kind_of(self._item)}" if value is None else _kind_of(value)
        self.faults.append(Fault(self._place(key), found, expected))

    def _place(self, key: str) -> str:
        expression = str(getattr(self._rule, key))
        field = _field_of(expression, self._item, self._evaluate)
        return f"{self.where}.{field}" if field else f"{self.where}.{key} ({expression})"


def _field_of(expression: str, value: Any, evaluate: Evaluator) -> str | None:
    """The field that an expression takes its result from, where it is a field or a choice of fields; else None."""
    if _PATH.fullmatch(expression):
        return expression
    for choice in map(str.strip, expression.split("||")):
        if not _PATH.fullmatch(choice):
            return None
        if evaluate(choice, value) not in (None, "", [], {}, False):
            return choice
    return None


def parse_moment(value: Any, time_format: str | None = None, timezone: str | None = None) -> datetime | None:
    """A sender's time: ISO 8601, RFC 2822, or Unix time in s, ms, µs or ns, which their size tells apart; None for others.

    Args:
        value: A text or a number.
        time_format: Another form, as in :func:`datetime.strptime`.
        timezone: The zone of a time that has none; without it such a time is no time.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = (repr(value) if isinstance(value, float) else str(value)).strip()[:100]
    if _NUMBER.fullmatch(text):
        return _unix_time(text)
    for read in (datetime.fromisoformat, lambda given: datetime.strptime(given, time_format or ""), parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, OverflowError):
            continue
        if moment.tzinfo is None and timezone is not None:
            moment = moment.replace(tzinfo=ZoneInfo(timezone))
        return moment if moment.tzinfo is not None else None
    return None


def _unix_time(text: str) -> datetime | None:
    seconds = float(text)
    while seconds >= 1e11:  # seconds until the year 5138, milliseconds from 1973 on
        seconds /= 1000.0
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _text_of(value: Any) -> str | None:
    """A value as a text; None for what is no text, number or truth value."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float() | str():
            return str(value)
        case [single]:
            return _text_of(single)
    return None


def _clean(text: str) -> str:
    return cut(" ".join(text.split()), _NAME_CHARACTERS)


def _shown(part: str) -> str:
    """A field's name; one with other characters might hold data and is not repeated."""
    return part if _PLAIN_NAME.fullmatch(part) else "?"


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return f"a text of {len(value):,} character{'' if len(value) == 1 else 's'}"
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return f"an object with {len(value):,} field{'' if len(value) == 1 else 's'}"
    return "a value"
