"""Calls of a model as gateways, SDKs and observability tools log or export them, as exchanges.

Read are OpenAI's request and response bodies and what wraps them, stored completions, MLflow's traces and Langfuse's traces,
observations and scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.ingest.exchanges.messages import prompt_of, reply_of, tools_of
from tasks.ingest.exchanges.spans import Exchange, exchange_of_span
from tasks.ingest.exchanges.values import decoded, first, milliseconds_between, nested, text_of, time_text

_PAIRS = (("request", "response"), ("request_body", "response_body"), ("input", "output"), ("inputs", "outputs"))
_IDS = ("id", "request_id", "custom_id", "call_id")
_TRACES = ("trace_id", "traceId", "context.trace_id", "metadata.trace_id", "request_id")
_SESSIONS = ("session_id", "sessionId", "metadata.session_id", "conversation_id", "thread_id")
_VERSIONS = ("model_version", "provided_model_name", "model")
_STARTS = (
    "created_at", "timestamp", "startTime", "start_time", "time", "request_time", "requested_at", "createdAt", "created",
)  # fmt: skip
_ENDS = ("endTime", "end_time", "completed_at", "completionEndTime")
_LATENCIES = (
    "latency_ms",
    "duration_ms",
    "response_time_ms",
    "execution_duration",
    "execution_duration_ms",
    "execution_time_ms",
)
_ERRORS = ("error.type", "error.code", "error", "response.error.code", "response.error", "response.body.error.code")
_FEEDBACK = ("feedback", "user_feedback", "thumbs", "rating")
_TRACE_KEYS = {"sessionId", "session_id", "projectId", "project_id", "htmlPath"}
_OBSERVED = {"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL"}


def is_call(fields: Mapping[str, Any]) -> bool:
    """Whether a record holds a request and its response, as bodies of an API."""
    for sent, received in _PAIRS:
        request, response = decoded(fields.get(sent)), decoded(fields.get(received))
        if _is_body(request) and isinstance(response, Mapping | str):
            return True
    if _is_response(fields):  # a stored completion
        return "messages" in fields or _is_body(fields)
    return isinstance(fields.get("messages"), list) and _is_response(decoded(fields.get("response")))


def _is_response(value: Any) -> bool:
    """Whether a value is a response of an API; a question's ``choices`` are texts, and those of a response objects."""
    value = _body_of(value)
    if not isinstance(value, Mapping):
        return False
    choice = next(iter(value.get("choices") or value.get("candidates") or ()), None)
    is_reply = value.get("role") == "assistant" and value.get("content")
    return isinstance(choice, Mapping) or bool(is_reply) or isinstance(value.get("output"), list)


def _is_body(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    value = _body_of(value)
    names = ("messages", "contents") if "model" not in value else ("messages", "contents", "input", "prompt")
    return any(isinstance(decoded(value.get(name)), list | str) and value.get(name) for name in names)


def _body_of(value: Any) -> Any:
    """The body of a request or response that may be wrapped in one."""
    body = decoded(value.get("body")) if isinstance(value, Mapping) else None
    return body if isinstance(body, Mapping) else value


def exchange_of_call(fields: Mapping[str, Any]) -> Exchange:
    """A logged request with its response."""
    tree = {name: decoded(value) for name, value in fields.items()}
    sent, received = next(
        ((tree[one], tree.get(other)) for one, other in _PAIRS if isinstance(tree.get(one), Mapping)), (tree, tree)
    )
    if sent is tree and isinstance(tree.get("response"), Mapping | str):
        received = tree["response"]
    return _exchange(tree, sent, received)


def _exchange(tree: Mapping[str, Any], sent: Any, received: Any) -> Exchange:
    request, response = (_body_of(one) for one in (sent, received))
    start = first(tree, _STARTS) or first(response, ("created", "created_at"))
    end = first(tree, _ENDS)
    latency = first(tree, _LATENCIES)
    if latency is None and isinstance(seconds := first(tree, ("latency", "duration_seconds", "latency_s")), int | float):
        latency = seconds * 1_000
    error = first(tree, _ERRORS)
    status = first(tree, ("response.status_code", "status_code", "response.status"))
    if error is None and isinstance(status, int) and status >= 400:
        error = f"status {status}"
    return Exchange(
        id=text_of(first(tree, _IDS)),
        trace=text_of(first(tree, _TRACES) or first(tree, _IDS)),
        session=text_of(first(tree, _SESSIONS)),
        version=text_of(first(tree, _VERSIONS) or first(response, ("model",)) or first(request, ("model",))),
        start=time_text(start),
        latency_ms=latency if latency is not None else milliseconds_between(start, end),
        error=None
        if error is None
        else error
        if isinstance(error, str) and len(error) < 80 and " " not in error
        else "error",
        prompt=prompt_of(sent),
        reply=reply_of(received),
        tools=tools_of(sent),
        feedback={name: tree[name] for name in _FEEDBACK if not isinstance(tree.get(name), Mapping | list | None)},
    )


# --------------------------------------------------------------------------------------------------------------- Langfuse


def is_langfuse(fields: Mapping[str, Any]) -> bool:
    """Whether a record is an observation of Langfuse, or a trace with its observations or scores."""
    if _of(fields, "traceId", "trace_id") and fields.get("type") in _OBSERVED and ("input" in fields or "output" in fields):
        return True
    observations, scores = decoded(fields.get("observations")), decoded(fields.get("scores"))
    named = [isinstance(score, Mapping) and "name" in score for score in scores] if isinstance(scores, list) else [False]
    is_trace = isinstance(observations, list) or (all(named) and not _TRACE_KEYS.isdisjoint(fields))
    return bool(is_trace) and ("input" in fields or "output" in fields)


def exchanges_of_langfuse(fields: Mapping[str, Any]) -> Iterator[Exchange]:
    """The generations of a trace, or the trace itself where it holds none; or one observation."""
    if fields.get("type") in _OBSERVED and _of(fields, "traceId", "trace_id"):
        yield _observation(fields)
        return
    scores = {name: value for score in decoded(fields.get("scores")) or () for name, value in _score(score)}
    observations = [one for one in decoded(fields.get("observations")) or () if isinstance(one, Mapping)]
    found = [_observation({"traceId": fields.get("id"), **one}) for one in observations]
    found = [one for one in found if one.is_call is not False and one.prompt]
    for one in found or [_exchange(fields, fields.get("input"), fields.get("output"))]:
        one.trace = text_of(fields.get("id")) or one.trace
        one.session = one.session or text_of(first(fields, _SESSIONS))
        one.feedback |= scores
        yield one


def _observation(fields: Mapping[str, Any]) -> Exchange:
    made = _exchange({**fields, "error": None}, decoded(fields.get("input")), decoded(fields.get("output")))
    made.trace = text_of(_of(fields, "traceId", "trace_id"))
    made.is_call = fields.get("type") == "GENERATION"
    made.error = "error" if fields.get("level") == "ERROR" else None
    return made


def _of(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _score(score: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(score, Mapping) and score.get("name"):
        value = _of(score, "stringValue", "string_value", "value")
        is_boolean = _of(score, "dataType", "data_type") == "BOOLEAN"
        yield str(score["name"]), bool(value) if is_boolean and isinstance(value, int | float) else value


# ----------------------------------------------------------------------------------------------------------------- MLflow


def is_mlflow_trace(fields: Mapping[str, Any]) -> bool:
    """Whether a record is a trace of MLflow: as its ``to_json``, or a row of ``search_traces``."""
    whole = _whole_trace(fields)
    info, data = decoded(whole.get("info")), decoded(whole.get("data"))
    if isinstance(info, Mapping) and isinstance(data, Mapping) and "spans" in data:
        return True
    return "spans" in fields and "request" in fields and ("trace_id" in fields or "request_id" in fields)


def _whole_trace(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The trace itself, of a row that has it in a column."""
    whole = decoded(fields.get("trace"))
    return whole if isinstance(whole, Mapping) and "info" in whole and "data" in whole else fields


def exchanges_of_mlflow(fields: Mapping[str, Any]) -> Iterator[Exchange]:
    """The calls of a model in a trace, or what it was given and gave where it records none."""
    fields = _whole_trace(fields)
    info = decoded(fields.get("info")) or fields
    data = decoded(fields.get("data")) or fields
    spans = [span for span in decoded(data.get("spans")) or () if isinstance(decoded(span), Mapping)]
    found = [exchange_of_span(decoded(span)) for span in spans]
    found = [one for one in found if one.is_call is not False and one.prompt]
    tree = {**nested(info), **nested({"metadata": decoded(info.get("trace_metadata")) or {}})}
    assessed = {name: value for one in decoded(info.get("assessments")) or () for name, value in assessment(one)}
    version = text_of(first(tree, ("metadata.mlflow.modelId", "metadata.mlflow.model.version")))
    whole = _exchange(tree, decoded(data.get("request")), decoded(data.get("response")))
    for one in found or [whole]:
        one.trace = text_of(first(tree, ("trace_id", "request_id"))) or one.trace
        one.session = one.session or text_of(first(tree, ("metadata.mlflow.trace.session", *_SESSIONS)))
        one.version = one.version or version
        one.start = one.start or whole.start
        one.feedback |= assessed
        if text_of(first(tree, ("state", "status"))) == "ERROR":
            one.error = one.error or "error"
        yield one


def assessment(given: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of an assessment of MLflow."""
    given = decoded(given)
    if isinstance(given, Mapping):
        name = _of(given, "assessment_name", "name")
        value = first(given, ("feedback.value", "value"))
        if name and value is not None:
            yield str(name), value


# --------------------------------------------------------------------------------------------------------- feedback apart


def is_verdict(fields: Mapping[str, Any]) -> bool:
    """Whether a record is a score about a trace or a span and no exchange: of Langfuse, Phoenix, MLflow, or plain."""
    has_target = _of(fields, "traceId", "trace_id", "span_id", "spanId", "observationId", "request_id") is not None
    has_score = any(name in fields for name in ("value", "score", "label", "result", *_FEEDBACK, "stringValue"))
    is_exchange = any(
        name in fields for name in ("input", "messages", "request", "attributes", "spans", "prompt", "choices")
    )
    return has_target and has_score and not is_exchange


def is_plain_verdict(fields: Mapping[str, Any]) -> bool:
    """Whether a record of a flat log is a verdict and nothing else."""
    return {"trace_id", "feedback"} <= fields.keys() <= {"trace_id", "feedback", "created_at", "comment"}


def verdict_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of a score: the trace or span that it is about, its name, and its value."""
    tree = nested({name: decoded(value) for name, value in fields.items()})
    name = first(tree, ("name", "annotation_name", "assessment_name"))
    value = first(tree, ("result.label", "label", "stringValue", "string_value"))
    if value is None:
        value = next(
            (
                found
                for path in ("value", "result.score", "score", *_FEEDBACK)
                if (found := first(tree, (path,))) is not None
            ),
            None,
        )
    if _of(fields, "dataType", "data_type") == "BOOLEAN" and isinstance(value, int | float):
        value = bool(value)
    name = name or next((each for each in _FEEDBACK if each in fields), "feedback")
    for target in ("traceId", "trace_id", "request_id", "observationId", "observation_id", "span_id", "spanId"):
        if fields.get(target):
            yield str(fields[target]), str(name), value
