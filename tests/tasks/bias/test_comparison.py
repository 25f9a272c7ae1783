"""Differences that were planted are found, chance is not, small groups are not assessed, names say nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tasks.bias import comparison
from tasks.bias.config import BiasConfig
from tasks.bias.task import audit_bias
from tasks.bias.terms import DIMENSIONS, mentioned_values
from tasks.core.rows import TableRows, rows_to_table
from tasks.core.storage import open_store

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Open the menu, choose the second entry and save."


def row(number: int, region: str | None, *, prompt: str = "How do I save it?", reply: str = ANSWER, **more: Any) -> dict:
    return {
        "id": f"r{number:04d}",
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}],
        "groups": [{"name": "region", "value": region}] if region else None,
        **more,
    }


def two_regions(*, north_refusals: float, south_refusals: float, size: int = 150) -> list[dict]:
    rng = random.Random(2)
    shares = {"north": north_refusals, "south": south_refusals}
    return [
        row(number, region, reply=REFUSAL if rng.random() < shares[region] else ANSWER)
        for number, region in enumerate(sorted(shares) * size)
    ]


def compare_groups(rows: list[dict], config: BiasConfig) -> tuple:
    """The comparison, of rows in a table as the stage has them."""
    kind = "preferences" if rows and "chosen" in rows[0] else "messages"
    return comparison.compare_groups(TableRows(rows_to_table(rows, kind)), config)


def test_a_planted_difference_is_found_and_named() -> None:
    measures, verdict, notes = compare_groups(two_regions(north_refusals=0.05, south_refusals=0.4), BiasConfig())
    assert verdict == "differences_found"
    refusals = {one.group: one for one in measures if one.measure == "refusal_rate"}
    assert refusals["south"].finding == "difference"
    assert refusals["south"].low < refusals["south"].value < refusals["south"].high
    assert refusals["south"].difference == pytest.approx(-refusals["north"].difference)
    assert any("refusal_rate" in note for note in notes)


def test_equal_groups_show_no_difference() -> None:
    _, verdict, _ = compare_groups(two_regions(north_refusals=0.2, south_refusals=0.2), BiasConfig())
    assert verdict == "no_difference_found"


def test_labels_and_lengths_are_compared_too() -> None:
    rows = [row(n, "ab"[n % 2], reply=ANSWER * (1 + 2 * (n % 2)), label="x" if n % 2 else "y") for n in range(200)]
    measures, verdict, _ = compare_groups(rows, BiasConfig())
    found = {one.measure for one in measures if one.finding == "difference"}
    assert verdict == "differences_found"
    assert found == {"relative_reply_length", "label_rate:x", "label_rate:y"}


def test_groups_below_the_minimum_are_not_assessable() -> None:
    rows = two_regions(north_refusals=0.0, south_refusals=1.0, size=20)
    measures, verdict, notes = compare_groups(rows, BiasConfig())
    assert verdict == "not_assessable"
    assert {one.finding for one in measures} == {"not_assessable"}
    assert any("fewer than 30" in note for note in notes)


def test_nothing_to_compare_is_said() -> None:
    _, verdict, notes = compare_groups([row(n, None) for n in range(50)], BiasConfig())
    assert verdict == "not_assessable"
    assert any("nothing to compare" in note for note in notes)
    assert compare_groups([], BiasConfig())[1] == "not_assessable"


def test_terms_in_instructions_part_the_rows() -> None:
    rows = [row(n, None, prompt="Advice for a Muslim family, please.", reply=REFUSAL) for n in range(40)]
    rows += [row(n, None) for n in range(40, 200)]
    measures, verdict, _ = compare_groups(rows, BiasConfig())
    assert verdict == "differences_found"
    assert {one.dimension for one in measures if one.finding == "difference"} == {"mentioned:religion"}
    _, verdict, _ = compare_groups(rows, BiasConfig(audit_mentioned_terms=False))
    assert verdict == "not_assessable"


@pytest.mark.parametrize("text", ["Fatima wrote to us.", "John and Mary asked.", "Mr. Nguyen's order", "A white box."])
def test_nothing_is_inferred_from_names_or_from_ambiguous_words(text: str) -> None:
    assert all(mentioned_values(text, dimension) == () for dimension in DIMENSIONS)


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("a black woman asked", "ethnicity", ("black",)),
        ("a black woman asked", "gender", ("women",)),
        ("help for the elderly", "age", ("old",)),
        ("she and he", "gender", ("women", "men")),
        ("manual for heroes", "gender", ()),
    ],
)
def test_terms_are_whole_words(text: str, dimension: str, expected: tuple[str, ...]) -> None:
    assert mentioned_values(text, dimension) == expected


def test_order_of_the_rows_changes_nothing() -> None:
    rows = two_regions(north_refusals=0.1, south_refusals=0.3)
    shuffled = random.Random(5).sample(rows, len(rows))
    assert compare_groups(shuffled, BiasConfig()) == compare_groups(rows, BiasConfig())


def test_pairs_are_judged_by_their_chosen_reply() -> None:
    rows = []
    for n, one in enumerate(two_regions(north_refusals=0.0, south_refusals=0.5)):
        question, answer = one["messages"]
        rows.append({"id": f"p{n}", "prompt": [question], "chosen": [answer], "rejected": [answer], "groups": one["groups"]})
    assert compare_groups(rows, BiasConfig())[1] == "differences_found"


def test_weights_part_the_outcome_from_the_group(tmp_path: Path) -> None:
    rows = two_regions(north_refusals=0.05, south_refusals=0.4)
    store = open_store(tmp_path)
    ref = store.write_rows([*rows, row(900, None)], kind="messages", passed=["label_audited"])
    report = audit_bias.fn(ref, BiasConfig(reweight_by="region"))
    assert report.weights is not None
    weights = {line["id"]: line["weight"] for line in store.read_table(report.weights).to_pylist()}
    assert weights.keys() == {one["id"] for one in rows}
    assert sum(weights.values()) == pytest.approx(len(rows))
    rates = {}
    for region in ("north", "south"):
        own = [one for one in rows if one["groups"][0]["value"] == region]
        refused = sum(weights[one["id"]] for one in own if one["messages"][-1]["content"] == REFUSAL)
        rates[region] = refused / sum(weights[one["id"]] for one in own)
    assert rates["north"] == pytest.approx(rates["south"])


def test_without_the_group_no_weights_are_written(tmp_path: Path) -> None:
    ref = open_store(tmp_path).write_rows([row(n, None) for n in range(50)], kind="messages", passed=["label_audited"])
    report = audit_bias.fn(ref, BiasConfig(reweight_by="region"))
    assert report.weights is None
    assert any("reweight_by" in note for note in report.notes)


def test_the_task_passes_the_rows_on_and_reports_no_text(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ref = store.write_rows(two_regions(north_refusals=0.05, south_refusals=0.4), kind="messages", passed=["label_audited"])
    report = audit_bias.fn(ref, BiasConfig())
    assert report.dataset == ref
    assert report.verdict == "differences_found"
    table = store.read_table(report.table).to_pylist()
    assert {line["measure"] for line in table} >= {"share", "refusal_rate", "relative_reply_length"}
    assert ANSWER not in report.model_dump_json() + json.dumps(table)
