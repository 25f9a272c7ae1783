"""Spans and their events, in the forms of OpenTelemetry's JSON, its SDKs, Phoenix and MLflow, as exchanges.

Conventions of the attributes: OpenTelemetry's for generative AI (messages as attributes or events, older and newer names),
OpenInference, OpenLLMetry, MLflow, Vercel's AI SDK and Pydantic Logfire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.ingest.exchanges.messages import Message, messages_of, prompt_of, reply_of, tools_of
from tasks.ingest.exchanges.values import (
    attributes_of,
    decoded,
    find,
    first,
    milliseconds_between,
    nested,
    plain,
    text_of,
    time_text,
)

_DOCUMENTS = ("resourceSpans", "resource_spans", "resourceLogs", "resource_logs")
_SPAN_IDS = ("spanId", "span_id", "context.span_id")
_TRACE_IDS = ("traceId", "trace_id", "context.trace_id")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time_ns", "start_time", "startTime", "timestamp")
_ENDS = ("endTimeUnixNano", "end_time_unix_nano", "end_time_ns", "end_time", "endTime")
_STATUSES = ("status.code", "status.status_code", "status_code", "statusCode", "status")
_FAILED = {"ERROR", "2", "STATUS_CODE_ERROR", "STATUSCODE.ERROR"}
_KINDS = ("openinference.span.kind", "gen_ai.operation.name", "mlflow.spanType", "traceloop.span.kind", "span_kind")
_CALLS = {"llm", "chat", "text_completion", "generate_content", "chat_model", "completion", "responses", "message"}
"""Kinds of spans that are a call of a model."""
_OTHERS = {
    "chain",
    "agent",
    "tool",
    "retriever",
    "embedding",
    "embeddings",
    "reranker",
    "guardrail",
    "evaluator",
    "parser",
    "task",
}
_OTHERS |= {"workflow", "execute_tool", "invoke_agent", "create_agent"}
_SESSIONS = ("session.id", "gen_ai.conversation.id", "session_id", "mlflow.trace.session", "conversation_id")
_VERSIONS = (
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.model_name",
    "mlflow.llm.model",
    "ai.response.model",
    "ai.model.id",
)
_EVENT_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


@dataclass
class Exchange:
    """One call of a model: what was sent and what came back, with what is known about it.

    ``feedback`` maps the name of a score to its value. ``is_call`` is whether the record says that it is a call of a model;
    where it says nothing (None), its messages decide.
    """

    id: str | None = None
    trace: str | None = None
    session: str | None = None
    version: str | None = None
    start: Any = None
    latency_ms: float | None = None
    error: str | None = None
    prompt: list[Message] = field(default_factory=list)
    reply: list[Message] = field(default_factory=list)
    tools: Any = None
    feedback: dict[str, Any] = field(default_factory=dict)
    is_call: bool | None = True


def is_span_document(fields: Mapping[str, Any]) -> bool:
    """Whether a record is an export of OpenTelemetry's JSON."""
    return any(name in fields for name in _DOCUMENTS)


def is_span(fields: Mapping[str, Any]) -> bool:
    """Whether a record is one span: a trace, a span, and attributes."""
    has_attributes = "attributes" in fields or any(name.startswith("attributes.") for name in fields)
    tree = nested(fields) if any("." in name for name in fields) else fields
    return has_attributes and all(first(tree, names) is not None for names in (_SPAN_IDS, _TRACE_IDS))


def exchanges_of_document(fields: Mapping[str, Any]) -> Iterator[Exchange]:
    """The calls in an export of OpenTelemetry's JSON: of its spans, and of log records that are events of none of them."""
    spans, logs = list(_spans_in(fields)), list(_logs_in(fields))
    for span in spans:
        own = [log for log in logs if first(log, _SPAN_IDS) == first(span, _SPAN_IDS)]
        yield exchange_of_span({**span, "events": [*(span.get("events") or ()), *own]})
    known = {first(span, _SPAN_IDS) for span in spans}
    apart: dict[Any, list[Mapping[str, Any]]] = {}
    for number, log in enumerate(logs):
        if (span_id := first(log, _SPAN_IDS)) not in known:
            apart.setdefault(span_id or number, []).append(log)
    for events in apart.values():
        yield exchange_of_span({**events[0], "attributes": events[0].get("attributes"), "events": events})


def _spans_in(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in _listed(document, "resourceSpans", "resource_spans"):
        for scope in _listed(resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            yield from _listed(scope, "spans")


def _logs_in(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in _listed(document, "resourceLogs", "resource_logs"):
        for scope in _listed(resource, "scopeLogs", "scope_logs"):
            yield from _listed(scope, "logRecords", "log_records")


def _listed(value: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    for name in names:
        items = value.get(name) if isinstance(value, Mapping) else None
        yield from (item for item in items or () if isinstance(item, Mapping))


def exchange_of_span(given: Mapping[str, Any]) -> Exchange:
    """A span as an exchange; without messages where it is no call of a model."""
    span = nested({name: value for name, value in given.items() if name != "attributes"})
    attributes = attributes_of(given.get("attributes"))
    for name, value in (span.pop("attributes", None) or {}).items():  # columns such as `attributes.llm.model_name`
        attributes[name] = decoded(value)
    events = [_event(event) for event in decoded(span.get("events")) or () if isinstance(event, Mapping)]
    prompt, reply, tools = _messages_of(attributes, events)
    kind = str(decoded(first({**span, **attributes}, _KINDS)) or "").lower()
    start, end = first(span, _STARTS) or first(span, ("timeUnixNano", "observedTimeUnixNano")), first(span, _ENDS)
    return Exchange(
        id=text_of(first(span, _SPAN_IDS)),
        trace=text_of(first(span, _TRACE_IDS)),
        session=text_of(decoded(first(attributes, _SESSIONS))),
        version=text_of(decoded(first(attributes, _VERSIONS))),
        start=time_text(start),
        latency_ms=milliseconds_between(start, end),
        error=_error(span, attributes, events),
        prompt=prompt,
        reply=reply,
        tools=tools,
        feedback={name: value for event in events for name, value in _score(event)},
        is_call=True if kind in _CALLS else False if kind in _OTHERS else None,
    )


def _messages_of(
    attributes: Mapping[str, Any], events: Sequence[tuple[str, dict[str, Any], Any]]
) -> tuple[list[Message], list[Message], Any]:
    """Prompt, reply and tools, by the first convention that has messages."""
    tools = decoded(
        first(attributes, ("gen_ai.tool.definitions", "llm.tools", "mlflow.chat.tools", "llm.request.functions"))
    )
    tools = tools_of({"tools": tools}) if tools else None
    sources = [attributes, *(details for _, details, _ in events)]
    for source in sources:
        system = messages_of(find(source, "gen_ai.system_instructions"), "system")
        for sent, received in (
            ("gen_ai.input.messages", "gen_ai.output.messages"),
            ("llm.input_messages", "llm.output_messages"),
            ("gen_ai.prompt", "gen_ai.completion"),
            ("ai.prompt.messages", "ai.response"),
        ):
            prompt = messages_of(find(source, sent), "user")
            if prompt:
                reply = messages_of(_received(source, received), "assistant")
                if not reply:
                    later = (_received(details, received) for _, details, _ in events)
                    reply = next((found for one in later if (found := messages_of(one, "assistant"))), [])
                return _with_system(system, prompt), reply, tools
    prompt, reply = _messages_in_events(events)
    if prompt:
        return prompt, reply, tools
    for sent, received in (
        ("mlflow.spanInputs", "mlflow.spanOutputs"),
        ("request_data", "response_data"),
        ("input.value", "output.value"),
        ("traceloop.entity.input", "traceloop.entity.output"),
    ):
        prompt = prompt_of(find(attributes, sent))
        if prompt:
            return prompt, reply_of(find(attributes, received)), tools or tools_of(find(attributes, sent))
    return [], [], tools


def _received(source: Mapping[str, Any], path: str) -> Any:
    """What came back: the first of several choices."""
    value = decoded(find(source, path))
    if path == "ai.response" and isinstance(value, Mapping):
        calls = decoded(value.get("toolCalls"))
        calls = [{"id": one.get("toolCallId"), "name": one.get("toolName"), **one} for one in calls] if calls else None
        return {"role": "assistant", "content": value.get("text"), **({"tool_calls": calls} if calls else {})}
    return value[:1] if isinstance(value, list) else value


def _with_system(system: list[Message], prompt: list[Message]) -> list[Message]:
    return prompt if not system or prompt[0].get("role") in ("system", "developer") else [*system, *prompt]


def _event(event: Mapping[str, Any]) -> tuple[str, dict[str, Any], Any]:
    """Name, attributes and body of an event of a span, or of a log record."""
    attributes = attributes_of(event.get("attributes"))
    name = event.get("name") or event.get("eventName") or event.get("event_name") or find(attributes, "event.name") or ""
    return str(name), attributes, decoded(plain(event.get("body")))


def _messages_in_events(events: Sequence[tuple[str, dict[str, Any], Any]]) -> tuple[list[Message], list[Message]]:
    """The messages of events that carry one each; a choice is the reply."""
    prompt: list[Message] = []
    reply: list[Message] = []
    for name, attributes, body in events:
        content = body if isinstance(body, Mapping) else attributes
        if role := _EVENT_ROLES.get(name):
            prompt += messages_of({"role": role, **content} if "content" in content else content, role)
        elif name == "gen_ai.choice":
            message = decoded(content.get("message"))
            reply += messages_of(message if message else content.get("content"), "assistant")
        elif name == "gen_ai.content.prompt":
            prompt += messages_of(find(attributes, "gen_ai.prompt"), "user")
        elif name == "gen_ai.content.completion":
            reply += messages_of(find(attributes, "gen_ai.completion"), "assistant")
    return prompt, reply


def _score(event: tuple[str, dict[str, Any], Any]) -> Iterator[tuple[str, Any]]:
    """A user's verdict that stands in an event."""
    name, attributes, _ = event
    if name == "gen_ai.evaluation.result":
        value = first(attributes, ("gen_ai.evaluation.score.label", "gen_ai.evaluation.score.value"))
        yield str(find(attributes, "gen_ai.evaluation.name")), value


def _error(span: Mapping[str, Any], attributes: Mapping[str, Any], events: Sequence[tuple[str, Any, Any]]) -> str | None:
    """The kind of error of a call that failed; never its message, which may repeat the request."""
    status = (text_of(first(span, _STATUSES)) or "").upper()
    kind = find(attributes, "error.type")
    if kind is None and status not in _FAILED:
        return None  # an exception that is recorded and handled is no failure
    raised = (find(details, "exception.type") for name, details, _ in events if name == "exception")
    return str(kind or next(raised, None) or "error")
