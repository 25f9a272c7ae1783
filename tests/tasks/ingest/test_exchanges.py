"""Exports of telemetry and logged calls, after public formats: each convention gives the same conversation and figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.ingest.config import LogConfig, SourceConfig
from tasks.ingest.log import LogRows, read_log
from tasks.ingest.reading import read_configured
from tasks.ingest.snapshot import make_snapshot
from tasks.ingest.window import Window

DAY = Window(datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))
START, END = 1_772_445_600_000_000_000, 1_772_445_601_250_000_000  # 2026-03-02 10:00:00 and 1.25 s later
ISO = ("2026-03-02T10:00:00+00:00", "2026-03-02T10:00:01.250000+00:00")
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
SYSTEM, QUESTION, REPLY = "Hilf kurz.", "Wo ist mein Paket?", "Es ist unterwegs."
PROMPT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
CHAT = [*PROMPT, {"role": "assistant", "content": REPLY}]
MODEL = "desk-v7"
REQUEST = {"model": MODEL, "messages": PROMPT}
RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}],
}
PARTS_IN = [{"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]} for one in PROMPT]
PARTS_OUT = [{"role": "assistant", "parts": [{"type": "text", "content": REPLY}], "finish_reason": "stop"}]
NUMBERED = {f"{n}.{key}": value for n, one in enumerate(PROMPT) for key, value in one.items()}


def otlp(attributes: Mapping[str, Any], events: list[dict[str, Any]] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """One span as OpenTelemetry's JSON has it, beside one of the web server around it."""
    span = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": f"chat {MODEL}",
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(END),
        "attributes": typed({"gen_ai.operation.name": "chat", "gen_ai.response.model": MODEL, **attributes}),
        "events": events or [],
        "status": {},
        **changes,
    }
    web = {**span, "spanId": "aaaa9b7ec3c1b174", "name": "POST", "events": [], "attributes": typed({"http.route": "/chat"})}
    return [{"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": [web, span]}]}]}]


def typed(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": typed(value)}}
    return {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}


def genai_json() -> list[dict[str, Any]]:
    return otlp({"gen_ai.input.messages": json.dumps(PARTS_IN), "gen_ai.output.messages": json.dumps(PARTS_OUT)})


def genai_structured_with_system_apart() -> list[dict[str, Any]]:
    system = [{"type": "text", "content": SYSTEM}]
    messages = {"gen_ai.input.messages": PARTS_IN[1:], "gen_ai.output.messages": PARTS_OUT}
    return otlp({"gen_ai.system_instructions": system, **messages})


def genai_numbered() -> list[dict[str, Any]]:
    """OpenLLMetry's, as its SDK's console writes spans."""
    attributes = {f"gen_ai.prompt.{name}": value for name, value in NUMBERED.items()}
    attributes |= {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": REPLY}
    attributes |= {"gen_ai.response.model": MODEL, "llm.request.type": "chat"}
    context = {"trace_id": f"0x{TRACE}", "span_id": f"0x{SPAN}", "trace_state": "[]"}
    times = {"start_time": "2026-03-02T10:00:00.000000Z", "end_time": "2026-03-02T10:00:01.250000Z"}
    status = {"status_code": "UNSET"}
    return [{"name": "openai.chat", "context": context, **times, "status": status, "attributes": attributes, "events": []}]


def genai_events() -> list[dict[str, Any]]:
    prompt = {"name": "gen_ai.content.prompt", "attributes": typed({"gen_ai.prompt": json.dumps(PROMPT)})}
    reply = json.dumps([{"role": "assistant", "content": REPLY}])
    return otlp({}, [prompt, {"name": "gen_ai.content.completion", "attributes": typed({"gen_ai.completion": reply})}])


def genai_log_records() -> list[dict[str, Any]]:
    """An event for each message, as log records beside the span."""
    events = [(f"gen_ai.{one['role']}.message", {"content": one["content"]}) for one in PROMPT]
    events.append(("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": REPLY}}))
    records = [
        {"timeUnixNano": str(START), "traceId": TRACE, "spanId": SPAN, "eventName": name, "body": any_value(body)}
        for name, body in events
    ]
    (document,) = otlp({})
    return [{**document, "resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}]


def openinference_flat() -> list[dict[str, Any]]:
    attributes = {f"llm.input_messages.{n}.message.{key}": v for n, one in enumerate(PROMPT) for key, v in one.items()}
    attributes |= {"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": REPLY}
    return otlp({"openinference.span.kind": "LLM", **attributes})


def phoenix_columns() -> list[dict[str, Any]]:
    """A row of Phoenix's table of spans, and the row of the chain around it."""
    row = {
        "name": "ChatCompletion",
        "span_kind": "LLM",
        "parent_id": "aaaa9b7ec3c1b174",
        "start_time": ISO[0],
        "end_time": ISO[1],
        "status_code": "OK",
        "status_message": "",
        "events": [],
        "context.trace_id": TRACE,
        "context.span_id": SPAN,
        "attributes.llm.model_name": MODEL,
        "attributes.llm.input_messages": [{"message.role": m["role"], "message.content": m["content"]} for m in PROMPT],
        "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": REPLY}],
    }
    chain = {"name": "query", "span_kind": "CHAIN", "parent_id": None, "context.span_id": "aaaa9b7ec3c1b174"}
    chain |= {"attributes.input.value": QUESTION, "attributes.output.value": REPLY}
    return [{**row, **chain, **dict.fromkeys(name for name in row if name.startswith("attributes.llm"))}, row]


def mlflow_trace() -> list[dict[str, Any]]:
    span = {
        "trace_id": "W479/35gOBA9Jptjg/xgDA==",
        "span_id": "7uGbfsPBsXQ=",
        "parent_span_id": "",
        "name": "Completions",
        "start_time_unix_nano": START,
        "end_time_unix_nano": END,
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {
            "mlflow.spanType": json.dumps("CHAT_MODEL"),
            "mlflow.spanInputs": json.dumps(REQUEST),
            "mlflow.spanOutputs": json.dumps(RESPONSE),
            "mlflow.llm.model": json.dumps(MODEL),
        },
    }
    info = {"trace_id": f"tr-{TRACE}", "request_time": "2026-03-02T10:00:00Z", "execution_duration": "1.250s", "state": "OK"}
    return [{"info": {**info, "trace_metadata": {}, "tags": {}}, "data": {"spans": [span]}}]


def openai_bodies() -> list[dict[str, Any]]:
    return [{"id": "r1", "timestamp": START // 10**9, "latency_ms": 1250, "request": REQUEST, "response": RESPONSE}]


def openai_bodies_as_text() -> list[dict[str, Any]]:
    bodies = {"request_body": json.dumps(REQUEST), "response_body": json.dumps(RESPONSE)}
    return [{"id": "r1", "start_time": ISO[0], "end_time": ISO[1], **bodies}]


def responses_api() -> list[dict[str, Any]]:
    request = {"model": MODEL, "instructions": SYSTEM, "input": QUESTION}
    content = [{"type": "output_text", "text": REPLY, "annotations": []}]
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "role": "assistant", "content": content}]
    response = {"id": "resp_1", "object": "response", "model": MODEL, "output": output}
    return [{"created_at": ISO[0], "duration_ms": 1250.0, "request": request, "response": response}]


def anthropic_bodies() -> list[dict[str, Any]]:
    request = {
        "model": MODEL,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
    }
    response = {"type": "message", "role": "assistant", "model": MODEL, "content": [{"type": "text", "text": REPLY}]}
    return [
        {
            "time": ISO[0],
            "latency_ms": 1250,
            "request": {"body": request},
            "response": {"status_code": 200, "body": response},
        }
    ]


def stored_completion() -> list[dict[str, Any]]:
    return [{**RESPONSE, "created": START // 10**9, "latency_ms": 1250, "messages": PROMPT, "metadata": {}}]


def langfuse_trace() -> list[dict[str, Any]]:
    generation = {
        "id": SPAN,
        "traceId": TRACE,
        "type": "GENERATION",
        "startTime": ISO[0],
        "endTime": ISO[1],
        "model": MODEL,
        "input": {"messages": PROMPT},
        "output": {"role": "assistant", "content": REPLY},
        "level": "DEFAULT",
    }
    retrieval = {**generation, "id": "r", "type": "SPAN", "input": {"query": QUESTION}, "output": ["a passage"]}
    return [
        {
            "id": TRACE,
            "timestamp": ISO[0],
            "input": QUESTION,
            "output": REPLY,
            "scores": [],
            "observations": [retrieval, generation],
        }
    ]


def langfuse_rows() -> list[dict[str, Any]]:
    """As exported to a bucket: snake case, texts that hold JSON, times without a zone."""
    row = {"id": SPAN, "trace_id": TRACE, "type": "GENERATION", "provided_model_name": MODEL, "level": "DEFAULT"}
    times = {"start_time": "2026-03-02 10:00:00.000000", "end_time": "2026-03-02 10:00:01.250000"}
    return [{**row, **times, "input": json.dumps(PROMPT), "output": json.dumps({"role": "assistant", "content": REPLY})}]


def vercel_spans() -> list[dict[str, Any]]:
    messages = json.dumps(
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    )
    return otlp({"ai.prompt.messages": messages, "ai.response.text": REPLY})


CONVENTIONS: list[Callable[[], list[dict[str, Any]]]] = [
    genai_json, genai_structured_with_system_apart, genai_numbered, genai_events, genai_log_records, openinference_flat,
    phoenix_columns, mlflow_trace, openai_bodies, openai_bodies_as_text, responses_api, anthropic_bodies, stored_completion,
    langfuse_trace, langfuse_rows, vercel_spans,
]  # fmt: skip


def read(folder: Path, records: list[dict[str, Any]], **settings: Any) -> LogRows:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = LogConfig(path=str(path), **settings)
    return read_log(read_configured(config), config, DAY)


def talks(requests: LogRows) -> list[list[dict[str, Any]]]:
    return [[{k: m[k] for k in ("role", "content")} for m in row["messages"]] for row in requests.ingested.rows]


@pytest.mark.parametrize("made", CONVENTIONS, ids=lambda made: made.__name__)
def test_every_convention_gives_the_same_conversation_and_figures(tmp_path: Path, made: Callable[[], Any]) -> None:
    requests = read(tmp_path, made())
    assert talks(requests) == [CHAT], requests.ingested.notes
    (line,) = requests.lines
    assert (line["latency_ms"], line["failed"], line["refused"], line["feedback"]) == (1250.0, False, False, None)
    assert line["model_version"] == MODEL
    assert datetime.fromisoformat(line["created_at"]).replace(tzinfo=UTC).timestamp() == START / 10**9
    source = SourceConfig(path=str(tmp_path / "log.jsonl"))
    records = list(read_configured(source).records)
    assert [record.fields["model_version"] for record in records] == [MODEL]
    assert [m["content"] for m in make_snapshot(read_configured(source), source).rows[0]["messages"]] == [
        SYSTEM,
        QUESTION,
        REPLY,
    ]


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (langfuse_rows, {"id": "s1", "trace_id": TRACE, "name": "user-feedback", "value": 0, "data_type": "NUMERIC"}),
        (langfuse_rows, {"id": "s1", "traceId": TRACE, "name": "user_feedback", "value": 0, "dataType": "BOOLEAN"}),
        (genai_json, {"trace_id": TRACE, "feedback": "down"}),
        (phoenix_columns, {"span_id": SPAN, "annotation_name": "feedback", "result": {"label": "thumbs_down", "score": 0}}),
        (openai_bodies, {"request_id": "r1", "feedback": False}),
    ],
)
def test_a_verdict_in_a_record_of_its_own_is_joined_wherever_it_stands(
    tmp_path: Path, made: Callable[[], list[dict[str, Any]]], verdict: dict[str, Any]
) -> None:
    for records in ([verdict, *made()], [*made(), verdict]):
        requests = read(tmp_path, records)
        assert [line["feedback"] for line in requests.lines] == ["down"], requests.ingested.notes


def test_a_verdict_in_the_trace_counts_and_other_scores_are_named(tmp_path: Path) -> None:
    (trace,) = mlflow_trace()
    assessments = [
        {"assessment_name": "user_feedback", "source": {"source_type": "HUMAN"}, "feedback": {"value": True}},
        {"assessment_name": "fluency", "source": {"source_type": "LLM_JUDGE"}, "feedback": {"value": 3}},
    ]
    trace["info"]["assessments"] = assessments
    requests = read(tmp_path, [trace])
    assert [line["feedback"] for line in requests.lines] == ["up"]
    assert any("1 scores named 'fluency'" in note for note in requests.ingested.notes)


def test_the_steps_of_an_agent_are_one_conversation_with_its_calls(tmp_path: Path) -> None:
    call = {"type": "tool_call", "id": "c1", "name": "find_parcel", "arguments": {"number": "7"}}
    asked = {"role": "assistant", "parts": [call]}
    found = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "on its way"}]}
    tool = {
        "type": "function",
        "name": "find_parcel",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
    }
    tools = {"gen_ai.tool.definitions": json.dumps([tool])}
    first = otlp({**tools, "gen_ai.input.messages": json.dumps(PARTS_IN), "gen_ai.output.messages": json.dumps([asked])})
    whole = json.dumps([*PARTS_IN, asked, found])
    second = otlp(
        {**tools, "gen_ai.input.messages": whole, "gen_ai.output.messages": json.dumps(PARTS_OUT)}, spanId="2" * 16
    )
    requests = read(tmp_path, [*first, *second])
    (row,) = requests.ingested.rows
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["messages"][2]["tool_calls"][0]["name"] == "find_parcel"
    assert "find_parcel" in row["tools"][0]
    assert any(note.startswith("1 calls are steps") for note in requests.ingested.notes)


def test_a_failed_call_counts_and_its_message_is_not_kept(tmp_path: Path) -> None:
    failed = otlp(
        {"gen_ai.input.messages": json.dumps(PARTS_IN), "error.type": "timeout"},
        status={"code": 2, "message": f"no reply to {QUESTION}"},
        spanId="3" * 16,
    )
    requests = read(tmp_path, [*genai_json(), *failed])
    assert [(line["failed"], line["refused"]) for line in requests.lines] == [(False, False), (True, None)]
    kept = {record.fields["error"] for record in read_configured(SourceConfig(path=str(tmp_path / "log.jsonl"))).records}
    assert kept == {None, "timeout"}


def test_spans_without_contents_are_refused_with_what_records_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 exports of OpenTelemetry, none of which .*CAPTURE_MESSAGE_CONTENT"):
        read(tmp_path, otlp({}))
    requests = read(tmp_path, [*otlp({}, spanId="4" * 16), *genai_json()])
    assert len(requests.lines) == 2
    assert any(note.startswith("1 calls have no messages") for note in requests.ingested.notes)


def test_ordinary_rows_are_left_alone(tmp_path: Path) -> None:
    rows = [{"trace_id": f"t{n}", "messages": CHAT, "feedback": "up", "created_at": ISO[0]} for n in range(3)]
    requests = read(tmp_path, rows)
    assert [line["feedback"] for line in requests.lines] == ["up"] * 3
    assert not any("telemetry" in note for note in requests.ingested.notes)


@pytest.mark.parametrize("text", ["[1, 2] is a list?", '[{"a": 1}]', "[1, 2]", "{'a': 'b'}"])
def test_a_question_that_looks_like_data_stays_a_question(tmp_path: Path, text: str) -> None:
    request = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    traced = {"id": "t", "input": text, "output": REPLY, "scores": [], "timestamp": ISO[0], "sessionId": None}
    for record in ({**openai_bodies()[0], "request": request}, traced):
        assert talks(read(tmp_path, [record]))[0][0]["content"] == text


def test_a_table_of_objects_written_as_csv_is_read_as_the_objects(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "created_at", "request", "response"])
        writer.writeheader()
        writer.writerow({"id": "r1", "created_at": ISO[0], "request": str(REQUEST), "response": str(RESPONSE)})
    config = LogConfig(path=str(path))
    assert talks(read_log(read_configured(config), config, DAY)) == [CHAT]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Sort.", "input": "b, a", "output": "a, b", "scores": [4, 5]},
        {"question": "Which?", "answer": "B", "choices": ["A", "B"], "request_id": "r1", "label": "x"},
        {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "B"}], "choices": ["A", "B"]},
        {"text": "Where is it?", "label": "parcel", "trace_id": "t1", "attributes": {"tone": "calm"}},
        {"prompt": "Hi", "completion": "Hello", "model": "a", "score": 1, "trace_id": "t"},
        {"request": "Where is it?", "response": "On its way."},
    ],
)
def test_data_sets_with_similar_columns_are_no_telemetry(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (record,) = read_configured(SourceConfig(path=str(path))).records
    assert record.fields == row


def test_the_other_fields_of_a_record_stay_for_groups_and_known_values(tmp_path: Path) -> None:
    (record,) = openai_bodies()
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({**record, "region": "north", "metadata": {"customer": "Ann Bell"}}) + "\n")
    source = SourceConfig(path=str(path), group_columns=("region",), known_value_columns=("metadata.customer",))
    (row,) = make_snapshot(read_configured(source), source).rows
    assert row["groups"] == [{"name": "region", "value": "north"}]
    assert row["known_values"] == ["Ann Bell"]
