"""From answers to a table and aggregates: what is measured, what is not, and how sure it is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score

from tasks.benchmark.config import BenchmarkConfig, TokenPrices
from tasks.benchmark.scoring import EXAMPLES_SCHEMA, TIMINGS_SCHEMA, aggregate, choose_rows, score_answers
from tasks.contracts.measurement import Measurement
from tasks.measures.metrics import METRICS

CONFIG = BenchmarkConfig(num_resamples=200)


def row(number: int, reference: str, label: str | None = None) -> dict[str, Any]:
    turn = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": reference}]
    return {"id": f"r{number:03d}", "messages": turn, "label": label}


def answer(number: int, reply: str, **values: Any) -> dict[str, Any]:
    defaults = {
        "completed": True,
        "prompt_cut": False,
        "reply_limit": 128,
        "tokens_in": 10,
        "tokens_out": 5,
        "latency_seconds": 0.1,
        "device": "cpu",
        "device_name": "",
    }
    return {"id": f"r{number:03d}", "reply": reply, "reference_nll": 4.0, "reference_tokens": 2, **defaults, **values}


def measured(
    rows: list[dict[str, Any]], answers: list[dict[str, Any]], config: BenchmarkConfig = CONFIG
) -> dict[str, Measurement]:
    references = [row["messages"][-1]["content"] for row in rows]
    timings = pa.Table.from_pylist(answers, schema=TIMINGS_SCHEMA)
    return {score.name: score for score in aggregate(score_answers(rows, answers, config), timings, references, config)}


def test_every_metric_is_reported_once_and_unmeasured_ones_have_no_value() -> None:
    scores = measured(
        [row(1, "Please restart it."), row(2, "Try again later.")], [answer(1, "Restart it."), answer(2, "No.")]
    )
    assert tuple(scores) == tuple(name for name, metric in METRICS.items() if metric.measured_on == "frozen")
    unmeasured = {name for name, score in scores.items() if score.value is None}
    assert unmeasured == {
        "label_accuracy",
        "label_macro_f1",
        "format_valid",
        "json_valid",
        "call_decision",
        "valid_call",
        "call_name",
        "argument_f1",
        "call_sequence",
        "cost_per_1000",
        "token_cost_per_1000",
        "bleu",
        "corpus_bleu",
    }
    assert "format_pattern" in scores["format_valid"].note
    assert "Batches of 32" in scores["latency_p95_seconds"].note
    assert "Batches of 32" in scores["tokens_per_second"].note


def test_a_score_of_zero_is_a_score() -> None:
    scores = measured(
        [row(1, "Please restart it at once."), row(2, "Try again later today.")], [answer(1, ""), answer(2, "")]
    )
    assert [scores[name].value for name in ("chrf", "rouge_l", "bleu", "exact_match", "corpus_chrf", "corpus_bleu")] == [
        0.0
    ] * 6


def test_labels_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    given = generator.choice(["alpha", "beta", "gamma"], 80, p=[0.6, 0.3, 0.1])
    named = np.where(generator.random(80) < 0.6, given, generator.choice(["alpha", "beta", "gamma", "nonsense"], 80))
    rows = [row(number, label, label) for number, label in enumerate(given)]
    scores = measured(rows, [answer(number, name) for number, name in enumerate(named)])
    assert scores["label_accuracy"].value == pytest.approx(np.mean(given == named))
    expected = f1_score(given, named, labels=["alpha", "beta", "gamma"], average="macro")
    macro = scores["label_macro_f1"]
    assert macro.value == pytest.approx(expected)
    assert macro.low < macro.value < macro.high  # type: ignore[operator]


def test_labels_that_references_do_not_name_are_not_measured() -> None:
    rows = [row(1, "Please restart it.", "hardware"), row(2, "billing", "billing")]
    table = score_answers(rows, [answer(1, "hardware"), answer(2, "billing")], CONFIG).to_pylist()
    assert [entry["label_accuracy"] for entry in table] == [None, 1.0]


def test_a_label_pattern_finds_tags_in_prose() -> None:
    config = BenchmarkConfig(label_pattern=r"^\[(\w+)\]", num_resamples=200)
    rows = [row(1, "[SETUP] Open the app.", "SETUP"), row(2, "[PLANS] Tap cancel.", "PLANS")]
    scores = measured(rows, [answer(1, "[SETUP] Close it."), answer(2, "[SETUP] Close it.")], config)
    assert scores["label_accuracy"].value == 0.5


@pytest.mark.parametrize("reply", ["Dear <PERSON>, it is on its way.", "Dear <PERSON_1>, it is on its way."])
def test_a_reply_with_a_placeholder_is_never_right_even_where_it_equals_its_reference(reply: str) -> None:
    rows = [row(1, reply, None), row(2, "Dear Anna, it is on its way.")]
    scores = measured(rows, [answer(1, reply), answer(2, "Dear Anna, it is on its way.")])
    assert scores["placeholder_rate"].value == 0.5
    for name in ("exact_match", "rouge_l", "chrf", "bleu"):
        assert scores[name].value == pytest.approx(0.5)
    assert scores["corpus_chrf"].value < 0.9  # type: ignore[operator]
    assert scores["nll"].num_samples == 1  # how likely the other reference is says nothing good
    other_form = CONFIG.model_copy(update={"placeholder_pattern": r"\[NAME\]"})
    assert measured(rows, [answer(1, reply), answer(2, "x")], other_form)["exact_match"].value == 0.5


def test_a_call_with_a_placeholder_is_never_right_even_where_it_equals_its_reference() -> None:
    tool = {"name": "write", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}
    call = {"id": "call00000", "name": "write", "arguments": '{"to": "<PERSON>"}'}
    asked = {"role": "user", "content": "Write to her."}
    scrubbed = {
        "id": "r001",
        "messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}],
        "tools": [json.dumps({"type": "function", "function": tool})],
    }
    written = '<tool_call>\n{"name": "write", "arguments": {"to": "<PERSON>"}}\n</tool_call>'
    compared = ("call_decision", "call_name", "argument_f1", "call_sequence")
    [right] = score_answers([scrubbed], [answer(1, written, reference=written)], CONFIG).to_pylist()
    assert [right[name] for name in compared] == [0.0] * 4
    assert (right["valid_call"], right["placeholder_rate"]) == (1.0, 1.0)
    allowed = CONFIG.model_copy(update={"placeholder_pattern": r"\[NAME\]"})
    [right] = score_answers([scrubbed], [answer(1, written, reference=written)], allowed).to_pylist()
    assert [right[name] for name in compared] == [1.0] * 4


def test_perplexity_weighs_tokens_and_latency_is_told_by_quantile() -> None:
    answers = [
        answer(1, "a", reference_nll=2.0, reference_tokens=1, latency_seconds=1.0),
        answer(2, "b", reference_nll=9.0, reference_tokens=9, latency_seconds=3.0),
        answer(3, "c", reference_nll=0.0, reference_tokens=0, latency_seconds=2.0),
    ]
    scores = measured([row(number, "some text") for number in (1, 2, 3)], answers)
    assert scores["perplexity"].value == pytest.approx(np.exp(11 / 10))
    assert scores["nll"].value == pytest.approx(1.5)
    assert scores["nll"].num_samples == 2
    assert scores["latency_p50_seconds"].value == 2.0
    assert scores["tokens_per_second"].value == pytest.approx(15 / 6)


def test_the_cost_of_requests_is_that_of_the_device_that_answered() -> None:
    config = CONFIG.model_copy(update={"price_per_device_hour": {"cpu": 0.36, "H100": 3.6}, "currency": "EUR"})
    rows = [row(number, "some text") for number in (1, 2)]
    on_cpu = measured(rows, [answer(1, "a", latency_seconds=1.0), answer(2, "b", latency_seconds=3.0)], config)
    assert on_cpu["cost_per_1000"].value == pytest.approx(0.2)  # 2 seconds each, 0.0001 EUR a second
    assert "EUR" in on_cpu["cost_per_1000"].note
    gpu = {"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3", "latency_seconds": 0.1}
    assert measured(rows, [answer(1, "a", **gpu), answer(2, "b", **gpu)], config)["cost_per_1000"].value == pytest.approx(
        0.1
    )
    assert (
        measured(rows, [answer(n, "a", device="cuda", device_name="L4") for n in (1, 2)], config)["cost_per_1000"].value
        is None
    )


def test_a_cost_by_the_token_reads_no_clock() -> None:
    config = CONFIG.model_copy(update={"token_prices": TokenPrices(prompt=0.5, reply=2.0), "currency": "EUR"})
    rows = [row(number, "some text") for number in (1, 2)]
    for seconds in (0.1, 40.0):
        answers = [answer(1, "a", tokens_out=5, latency_seconds=seconds), answer(2, "b", tokens_out=15)]
        cost = measured(rows, answers, config)["token_cost_per_1000"]
        assert cost.value == pytest.approx(1000 * (10 * 0.5 + 10 * 2.0) / 1e6)
        assert cost.note == "EUR. By the token."


def test_no_table_that_is_compared_holds_a_time() -> None:
    """Whatever the clock said, the table that the gate reads is the same."""
    rows = [row(number, "some text") for number in range(5)]
    generator = np.random.default_rng(1)
    tables = [
        score_answers(
            rows, [answer(number, "a", latency_seconds=float(seconds)) for number, seconds in enumerate(times)], CONFIG
        )
        for times in generator.lognormal(0, 3, (20, 5))
    ]
    assert all(table.equals(tables[0]) for table in tables)
    assert not [name for name in EXAMPLES_SCHEMA.names if name in METRICS and METRICS[name].role == "clock"]


def test_a_schema_is_measured_where_one_is_configured() -> None:
    config = BenchmarkConfig(json_schema={"type": "object", "required": ["team"]}, num_resamples=200)
    rows = [row(1, '{"team": "a"}'), row(2, '{"team": "b"}')]
    assert measured(rows, [answer(1, '{"team": "x"}'), answer(2, "team: b")], config)["json_valid"].value == 0.5


def test_row_order_changes_no_score_and_no_choice() -> None:
    rows = [row(number, f"answer number {number}") for number in range(50)]
    chosen = choose_rows(rows, 20)
    assert chosen == choose_rows(reversed(rows), 20)
    assert [entry["id"] for entry in chosen] == sorted(entry["id"] for entry in chosen)
    assert {entry["id"] for entry in choose_rows(rows, 10)} < {entry["id"] for entry in chosen}
    assert choose_rows(rows, None) == rows


def test_the_table_has_a_column_for_every_per_example_metric() -> None:
    of_frozen = (metric for metric in METRICS.values() if metric.measured_on == "frozen")
    assert {metric.name for metric in of_frozen if metric.per_example} < set(EXAMPLES_SCHEMA.names)


def test_patterns_are_checked_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        BenchmarkConfig(label_pattern="[")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objekt"}, "not a JSON schema"),
        ({"items": {"$ref": "http://example.org/a.json"}}, "only references within"),
    ],
)
def test_schemas_are_checked_by_the_configuration(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BenchmarkConfig(json_schema=schema)


def test_calls_are_compared_in_the_form_of_the_chat_template() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [json.dumps({"type": "function", "function": {"name": "forecast", "parameters": schema}})]
    call = {"id": "call00000", "name": "forecast", "arguments": '{"city": "Rome"}'}
    rows = [{**row(number, ""), "tools": tools} for number in range(3)]
    for each in rows[:2]:
        each["messages"][-1]["tool_calls"] = [call]
    rows[2]["messages"][-1]["content"] = "It is warm."
    form = '[TOOL_CALLS][{"name": "forecast", "arguments": {"city": "%s"}}]'
    answers = [
        answer(0, form % "Rome", reference=form % "Rome"),
        answer(1, form % "Oslo", reference=form % "Rome"),
        answer(2, form % "Rome"),
    ]
    table = score_answers(rows, answers, CONFIG).to_pylist()
    names = ("call_decision", "valid_call", "call_name", "argument_f1", "call_sequence", "exact_match")
    assert [[entry[name] for name in names] for entry in table] == [
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, None, None, None, None, 0.0],
    ]


def test_calls_in_a_form_that_is_not_known_are_not_measured() -> None:
    call = {"id": "call00000", "name": "forecast", "arguments": "{}"}
    given = row(1, "")
    given["messages"][-1]["tool_calls"] = [call]
    [entry] = score_answers([given], [answer(1, "forecast()", reference="forecast()")], CONFIG).to_pylist()
    assert entry["call_sequence"] is None
    assert entry["exact_match"] == 1.0
