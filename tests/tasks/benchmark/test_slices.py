"""Slices: every example stands where it belongs, and small slices get no interval."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.scoring import score_answers
from tasks.benchmark.slices import script_of, slice_scores, slices_of
from tasks.core.rare_values import WITHHELD

CONFIG = BenchmarkConfig(num_resamples=100, min_slice_examples=10)


def row(number: int, question: str, label: str | None = None, region: str | None = None) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "Please wait a moment."}]
    groups = [{"name": "region", "value": region}] if region else None
    return {"id": f"r{number:02d}", "messages": turns, "label": label, "groups": groups}


def answer(number: int, reply: str) -> dict[str, Any]:
    figures = {
        "completed": True,
        "prompt_cut": False,
        "reply_limit": 128,
        "tokens_in": 9,
        "tokens_out": 3,
        "latency_seconds": 0.1,
        "device": "cpu",
        "device_name": "",
    }
    return {"id": f"r{number:02d}", "reply": reply, "reference_nll": 1.0, "reference_tokens": 2, **figures}


def test_a_row_belongs_to_its_label_group_length_and_script() -> None:
    rows = [row(1, "a", "X", "emea"), row(2, "Где мой заказ?", "Y", "apac"), row(3, "Where is my order, please?", "Y")]
    first, second, third = ({(item["dimension"], item["value"]) for item in scores} for scores in slices_of(rows))
    assert first == {("label", "X"), ("group", "region: emea"), ("length", "short third"), ("script", "Latin")}
    assert second == {("label", "Y"), ("group", "region: apac"), ("length", "middle third"), ("script", "Cyrillic")}
    assert third == {("label", "Y"), ("length", "long third"), ("script", "Latin")}


def test_the_result_of_a_tool_is_no_question() -> None:
    asked = row(1, "Где мой заказ?")
    call = {"id": "call00000", "name": "find_order", "arguments": "{}"}
    steps = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"place": "in the red van behind the harbour"}', "tool_call_id": "call00000"},
    ]
    called = {**asked, "messages": [asked["messages"][0], *steps, asked["messages"][1]], "tools": ["{}"]}
    others = [row(number, "Where is my order, please?") for number in (2, 3)]
    assert slices_of([called, *others]) == slices_of([asked, *others])


def test_what_all_rows_share_is_no_slice() -> None:
    assert slices_of([row(1, "same", "X"), row(2, "same", "X")]) == [[], []]
    assert slices_of([]) == []


def test_scripts_are_those_of_most_letters() -> None:
    assert [script_of(text) for text in ("Grüße, 東", "東京 a", "مرحبا", "12!", "")] == [
        "Latin",
        "Han",
        "Arabic",
        "none",
        "none",
    ]


def test_means_are_those_of_the_slice_and_intervals_need_examples() -> None:
    labels = ["X"] * 40 + ["Y"] * 3 + ["Z"] * 2
    rows = [row(number, "Where is it?" * (1 + number % 2), label) for number, label in enumerate(labels)]
    replies = ["Please wait a moment." if number < 20 else "No." for number in range(45)]
    table = score_answers(rows, [answer(number, reply) for number, reply in enumerate(replies)], CONFIG)
    scores = {(item["dimension"], item["value"], item["metric"]): item for item in slice_scores(table, CONFIG).to_pylist()}
    large, small = scores["label", "X", "exact_match"], scores["label", WITHHELD, "exact_match"]
    assert (large["num_examples"], large["mean"]) == (40, pytest.approx(0.5))
    assert large["low"] < 0.5 < large["high"]
    assert (small["num_examples"], small["mean"], small["low"]) == (5, 0.0, None)
    assert not any(value in ("Y", "Z") for _, value, _ in scores), "rare labels may point to a person"
    assert ("label", "X", "label_accuracy") not in scores, "a metric that was not measured has no row"
    assert sum(item["num_examples"] for key, item in scores.items() if key[0] == "length" and key[2] == "chrf") == 45


def test_examples_without_slices_give_an_empty_table() -> None:
    rows = [row(number, "same") for number in range(3)]
    table = score_answers(rows, [answer(number, "No.") for number in range(3)], CONFIG)
    assert slice_scores(table, CONFIG).num_rows == 0
