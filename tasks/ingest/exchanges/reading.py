"""A source of telemetry or logged calls as a source of conversations: what each record is, its shape says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from tasks.core.errors import InputError
from tasks.ingest.config import LogConfig, SourceConfig
from tasks.ingest.exchanges import calls, spans
from tasks.ingest.exchanges.messages import Message
from tasks.ingest.exchanges.spans import Exchange
from tasks.ingest.records import Record, Records, Source

Read = Callable[[Mapping[str, Any]], Iterable[Exchange]]

_SHAPES: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], Read], ...] = (
    ("exports of OpenTelemetry", spans.is_span_document, spans.exchanges_of_document),
    ("traces of MLflow", calls.is_mlflow_trace, calls.exchanges_of_mlflow),
    ("spans", spans.is_span, lambda fields: [spans.exchange_of_span(fields)]),
    ("records of Langfuse", calls.is_langfuse, calls.exchanges_of_langfuse),
    ("requests with responses", calls.is_call, lambda fields: [calls.exchange_of_call(fields)]),
)
_NUM_LOOKED_AT = 50
_CONTENTS = {
    "request", "response", "request_body", "response_body", "input", "output", "inputs", "outputs", "messages", "choices",
    "prompt", "completion", "spans", "trace", "data", "info", "events", "observations", "scores", "attributes",
}  # fmt: skip
"""What an exchange is read from; the other fields of its record stay, for columns of groups, labels and known values."""
_VERDICT_NAMES = {"feedback", "userfeedback", "thumbs", "thumbsup", "userscore", "userrating"}


@dataclass
class _Survey:
    """What has to be known of all records before one is read."""

    shapes: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    """Scores by the trace or span that they are about, and by name."""
    steps: set[bytes] = field(default_factory=set)
    """Digests of conversations that a later call of the same trace continues."""
    traces_of_calls: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    other_scores: Counter[str] = field(default_factory=Counter)


def with_conversations(source: Source, config: SourceConfig) -> Source:
    """The source itself, or where its records are telemetry or logged calls, one record for each call of a model.

    A step of an agent, whose conversation a later call of the same trace continues, is part of that call. A verdict that
    stands in a record of its own is joined by the trace or span that it names.

    Raises:
        InputError: It is telemetry, and holds no call of a model.
    """
    readable = (record.fields for record in source.records if record.fault is None)
    if config.format not in ("auto", "chat") or not any(map(_shape_of, islice(readable, _NUM_LOOKED_AT))):
        return _with_verdicts(source, config)
    survey = _look(source, config)
    records = Records(partial(_conversations, source, config, survey), source.name, config.ceilings)
    found = ", ".join(f"{count} {shape}" for shape, count in survey.shapes.items() if count)
    if not len(records) or not survey.counts["with messages"]:
        raise InputError(
            source.name,
            f"{found}, none of which holds the messages of a call of a model",
            "calls with their messages",
            "Turn on the recording of contents where the spans are made; for OpenTelemetry's instrumentation that is "
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT.",
        )
    notes = [f"read as telemetry: {found}; {survey.counts['with messages']} calls of a model with their messages"]
    notes += [f"{survey.counts[name]} {name}" for name in _COUNTED if survey.counts[name]]
    notes += [
        f"{count} scores named {name!r} are not taken as feedback; name one in `feedback_column`"
        for name, count in sorted(survey.other_scores.items())
    ]
    return replace(source, records=records, notes=(*source.notes, *notes))


_STEPS = "calls are steps of one that follows in their trace, and are read as part of it"
_NO_MESSAGES = "calls have no messages: only their figures count"
_NO_CALLS = "spans are no calls of a model"
_UNJOINED = "verdicts name a trace or span that is not in the source"
_UNKNOWN = "records are of no known shape, and are left as they are"
_COUNTED = (_STEPS, _NO_MESSAGES, _NO_CALLS, _UNJOINED, _UNKNOWN)


def _shape_of(fields: Mapping[str, Any]) -> str | None:
    return next((name for name, fits, _ in _SHAPES if fits(fields)), None)


def _exchanges(fields: Mapping[str, Any]) -> list[Exchange] | None:
    """The exchanges of a record; None for a record of no known shape."""
    return next((list(read(fields)) for _, fits, read in _SHAPES if fits(fields)), None)


def _look(source: Source, config: SourceConfig) -> _Survey:
    survey = _Survey()
    targets: set[str] = set()
    for record in source.records:
        shape = None if record.fault else _shape_of(record.fields)
        if shape is None:
            verdicts = calls.verdict_of(record.fields) if not record.fault and calls.is_verdict(record.fields) else ()
            for target, name, value in verdicts:
                _take_score(survey, config, target, name, value)
            survey.shapes["verdicts"] += bool(verdicts)
            survey.counts[_UNKNOWN] += not verdicts and not record.fault
            continue
        survey.shapes[shape] += 1
        for exchange in _exchanges(record.fields) or ():
            targets |= {name for name in (exchange.trace, exchange.id) if name}
            if exchange.trace and exchange.prompt:
                places = [
                    k for k, message in enumerate(exchange.prompt) if k and exchange.prompt[k - 1]["role"] == "assistant"
                ]
                survey.steps |= {_digest(exchange.trace, exchange.prompt[:k]) for k in places}
                if exchange.is_call is not False:
                    survey.traces_of_calls.add(exchange.trace)
            for name, value in exchange.feedback.items():
                _take_score(survey, config, exchange.id or exchange.trace or "", name, value)
    survey.counts[_UNJOINED] = sum(target not in targets for target in survey.verdicts)
    for record in source.records:
        for exchange in (_exchanges(record.fields) or ()) if record.fault is None else ():
            survey.counts[_fate(exchange, survey)] += 1
    return survey


def _take_score(survey: _Survey, config: SourceConfig, target: str, name: str, value: Any) -> None:
    wanted = {_letters(config.feedback_column or "feedback"), *_VERDICT_NAMES}
    if _letters(name) in wanted:
        survey.verdicts[target][name] = value
    elif value is not None:
        survey.other_scores[name] += 1


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _fate(exchange: Exchange, survey: _Survey) -> str:
    """What becomes of an exchange, in words that follow a count."""
    if exchange.is_call is False and (not exchange.prompt or exchange.trace in survey.traces_of_calls):
        return _NO_CALLS
    if not exchange.prompt:
        return _NO_MESSAGES if exchange.is_call else _NO_CALLS
    if exchange.trace and _digest(exchange.trace, [*exchange.prompt, *exchange.reply]) in survey.steps:
        return _STEPS
    return "with messages"


def _conversations(source: Source, config: SourceConfig, survey: _Survey) -> Iterator[Record]:
    for record in source.records:
        found = None if record.fault else _exchanges(record.fields)
        if found is None:
            if record.fault or not calls.is_verdict(record.fields):
                yield record
            continue
        for number, exchange in enumerate(found):
            if _fate(exchange, survey) in ("with messages", _NO_MESSAGES):
                place = record.place if len(found) == 1 else f"{record.place}.{number}"
                others = record.fields if len(found) == 1 else {}
                kept = {name: value for name, value in others.items() if name not in _CONTENTS}
                yield Record(place, kept | _fields_of(exchange, config, survey))


def _fields_of(exchange: Exchange, config: SourceConfig, survey: _Survey) -> dict[str, Any]:
    """The exchange as a flat record, under the names that the configuration gives to its columns."""
    verdicts = [survey.verdicts[key] for key in (exchange.id, exchange.trace) if key and key in survey.verdicts]
    return {
        "id": exchange.id or exchange.trace,
        "messages": [*exchange.prompt, *exchange.reply],
        **({"tools": exchange.tools} if exchange.tools else {}),
        config.created_at_column or "created_at": exchange.start,
        getattr(config, "latency_column", None) or "latency_ms": exchange.latency_ms,
        getattr(config, "error_column", None) or "error": exchange.error,
        config.feedback_column or "feedback": next(
            (_verdict(value) for scores in verdicts for value in scores.values()), None
        ),
        "trace_id": exchange.trace,
        "session_id": exchange.session,
        "model_version": exchange.version,
    }


def _with_verdicts(source: Source, config: SourceConfig) -> Source:
    """A log of flat records, with the verdicts that stand in records of their own, such as `perennial serve` writes them."""
    verdicts: dict[str, Any] = {}
    for record in source.records if isinstance(config, LogConfig) else ():
        if calls.is_plain_verdict(record.fields):
            verdicts[str(record.fields["trace_id"])] = record.fields["feedback"]
    if not verdicts:
        return source
    column, taken = config.feedback_column or "feedback", set()

    def joined() -> Iterator[Record]:
        for record in source.records:
            if calls.is_plain_verdict(record.fields):
                continue
            trace = str(record.fields.get("trace_id"))
            if trace in verdicts and not record.fields.get(column):
                taken.add(trace)
                yield replace(record, fields={**record.fields, column: verdicts[trace]})
            else:
                yield record

    records = Records(joined, source.name, config.ceilings)
    note = f"{len(taken)} verdicts joined by trace"
    missing = len(verdicts) - len(taken)
    return replace(
        source,
        records=records,
        notes=(*source.notes, note, *([f"{missing} {_UNJOINED}"] if missing else [])),
    )


def _verdict(value: Any) -> Any:
    """A score as a verdict: a number that is not above 0 is a negative one, as somebody gave it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "down" if value <= 0 else "up"
    return value


def _digest(trace: str, messages: Sequence[Message]) -> bytes:
    """What a conversation of a trace says, whatever the names of its calls."""
    said = [
        (
            message["role"],
            message.get("content") or "",
            [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()],
        )
        for message in messages
    ]
    return hashlib.blake2b(json.dumps([trace, said], sort_keys=True, default=str).encode(), digest_size=16).digest()
