"""Rows that break a rule are quarantined by id and reason; a broken table stops the run; no text reaches the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.core.errors import PerennialError, QualityLimitError
from tasks.core.storage import Store, open_store
from tasks.validation import ValidationConfig, validate
from tasks.validation.checking import Checked, check_rows, results_document
from tasks.validation.features import latin_share, row_features
from tasks.validation.rendering import render_results
from tasks.validation.rules import Rule
from tasks.validation.suite import run_rules


def row(name: str, ask: str = "Where is my card?", reply: str = "In the post.", label: str | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}],
        "label": label,
    }


def conversation(name: str, *turns: tuple[str, str]) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": role, "content": content} for role, content in turns]}


def pair(name: str, ask: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))}
    return {"id": name, "prompt": [{"role": "user", "content": ask}], **sides}


def reasons(checked: Checked) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in checked.quarantined_rows}


GOOD = [row(f"good-{n}", f"Question number {n}?", f"Answer number {n}.", "card") for n in range(5)]


def test_good_rows_pass_unchanged() -> None:
    checked = check_rows(GOOD, "messages", ValidationConfig())
    assert checked.kept == list(range(len(GOOD)))
    assert not checked.quarantined_rows
    assert all(outcome.success for outcome in checked.outcomes)


@pytest.mark.parametrize(
    ("bad", "reason", "settings"),
    [
        (row("bad", reply=""), "empty_reply", {}),
        (row("bad", reply=" \n\t "), "empty_reply", {}),
        (row("bad", ask="  "), "empty_prompt", {}),
        (row("bad", reply="No."), "empty_reply", {"min_reply_chars": 4}),
        (row("bad", reply="x" * 101), "reply_too_long", {"max_reply_chars": 100}),
        (row("bad", ask="x" * 101), "prompt_too_long", {"max_prompt_chars": 100}),
        (row("bad", reply="bell \x07\x07\x07 rings"), "control_characters", {}),
        (row("bad", reply="caf\ufffd\ufffd"), "control_characters", {}),
        (row("bad", reply="Ваша карта в почтовом отправлении, ждите."), "other_script", {"min_latin_share": 0.8}),
        (row("bad", label="tigers"), "unknown_label", {"allowed_labels": ("card", "cash")}),
        (row("bad", label=None), "missing_label", {"require_label": True}),
        (conversation("bad", ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")), "no_reply_at_end", {}),
        (conversation("bad", ("user", "Hi"), ("critic", "{}"), ("assistant", "Hello")), "foreign_role", {}),
        (conversation("bad", ("user", "Hi"), ("assistant", ""), ("user", "Hm"), ("assistant", "Yes")), "empty_message", {}),
        (conversation("bad", ("assistant", "Hello")), "empty_prompt", {}),
        (conversation("bad", ("system", "Be kind."), ("assistant", "Hello")), "empty_prompt", {}),
        (conversation("bad"), "empty_prompt", {}),
    ],
)
def test_a_bad_row_is_refused_for_its_reason(bad: dict[str, Any], reason: str, settings: dict[str, Any]) -> None:
    checked = check_rows([*GOOD, bad], "messages", ValidationConfig(**settings))
    assert reasons(checked) == {"bad": reason}
    assert checked.kept == list(range(len(GOOD)))


@pytest.mark.parametrize(
    "fine",
    [
        conversation(
            "fine", ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "So?"), ("assistant", "So.")
        ),
        row("fine", reply="Line one\nline\ttwo\r\n"),
        row("fine", reply="x" * 20_000),
        row("fine", reply="日本語の返事"),
        row("fine", label="anything"),
    ],
)
def test_what_is_fine_by_default(fine: dict[str, Any]) -> None:
    assert not check_rows([fine], "messages", ValidationConfig()).quarantined_rows


def test_rows_with_one_id_are_all_refused() -> None:
    checked = check_rows([*GOOD, row("twin", "One"), row("twin", "Two")], "messages", ValidationConfig())
    assert [row["reason"] for row in checked.quarantined_rows] == ["duplicate_id", "duplicate_id"]
    assert checked.kept == list(range(len(GOOD)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("bad", "Hi", "", "No"), "empty_reply"),
        (pair("bad", "Hi", "Yes", " "), "empty_reply"),
        (pair("bad", "", "Yes", "No"), "empty_prompt"),
        ({**pair("bad", "Hi", "Yes", "No"), "rejected": [{"role": "user", "content": "No"}]}, "no_reply_at_end"),
        ({**pair("bad", "Hi", "Yes", "No"), "chosen": []}, "empty_reply"),
    ],
)
def test_preference_pairs_are_judged_on_both_sides(bad: dict[str, Any], reason: str) -> None:
    good = [pair("good", "Hi", "Yes", "No")]
    checked = check_rows([*good, bad], "preferences", ValidationConfig())
    assert reasons(checked) == {"bad": reason}
    assert checked.kept == [0]


def test_a_row_that_breaks_several_rules_counts_once() -> None:
    checked = check_rows(
        [*GOOD, row("bad", ask="", reply="", label="x")], "messages", ValidationConfig(allowed_labels=("card",))
    )
    assert reasons(checked) == {"bad": "empty_prompt"}
    failed = {outcome.rule.reason for outcome in checked.outcomes if not outcome.success}
    assert failed == {"empty_prompt", "empty_reply", "empty_message", "unknown_label"}


@pytest.mark.parametrize(
    ("text", "share"), [("", 1.0), ("123 !?", 1.0), ("naïve œuvre", 1.0), ("абв", 0.0), ("abc абв", 0.5), ("日本", 0.0)]
)
def test_latin_share(text: str, share: float) -> None:
    assert latin_share(text) == share


GERMAN = row("de", "Wo ist meine neue Karte, sie ist noch nicht angekommen?", "Sie kommt in fünf Tagen mit der Post.")
ENGLISH = [row(f"en-{n}", "Where is my new card, it has not come yet?", "It comes by post in five days.") for n in range(9)]


def test_the_share_of_a_language_is_an_expectation_about_the_table() -> None:
    rows = [*ENGLISH, GERMAN, row("short", "Hi", "¡Sí!")]
    lenient = check_rows(rows, "messages", ValidationConfig(languages=("en",), min_language_share=0.9))
    assert not lenient.failed_tables
    assert not lenient.quarantined_rows
    strict = check_rows(rows, "messages", ValidationConfig(languages=("en",), min_language_share=0.95))
    assert [outcome.rule.reason for outcome in strict.failed_tables] == ["language_share"]
    assert not check_rows(rows, "messages", ValidationConfig(languages=("en", "de"), min_language_share=1.0)).failed_tables


def test_rows_in_other_languages_can_be_quarantined() -> None:
    config = ValidationConfig(languages=("en",), quarantine_other_languages=True)
    assert reasons(check_rows([*ENGLISH, GERMAN, row("short", "Hi", "¡Sí!")], "messages", config)) == {
        "de": "other_language"
    }


# -------------------------------------------------------------------------------------------------- against the last one


def labelled(count: int, label: str, ask: str) -> list[dict[str, Any]]:
    return [row(f"{label}-{ask[:3]}-{n}", ask, "Yes.", label) for n in range(count)]


@pytest.mark.parametrize(
    ("now", "diverging"),
    [
        (labelled(50, "card", "Where is it?") + labelled(50, "cash", "Where is it?"), set()),
        (
            labelled(45, "card", "Where is it?") + labelled(50, "cash", "Where is it?") + labelled(5, "new", "Where is it?"),
            set(),
        ),
        (labelled(98, "card", "Where is it?") + labelled(2, "cash", "Where is it?"), {"label_divergence"}),
        (labelled(50, "card", "Where? " * 90) + labelled(50, "cash", "Where? " * 90), {"length_band_divergence"}),
    ],
)
def test_a_shift_from_the_previous_snapshot_is_noted(now: Sequence[dict[str, Any]], diverging: set[str]) -> None:
    before = labelled(500, "card", "Where is it?") + labelled(500, "cash", "Where is it?")
    checked = check_rows(now, "messages", ValidationConfig(), before)
    assert {outcome.rule.reason for outcome in checked.warnings} == diverging
    assert not checked.quarantined_rows
    assert not checked.failed_tables
    strict = check_rows(now, "messages", ValidationConfig(fail_on_divergence=True), before)
    assert {outcome.rule.reason for outcome in strict.failed_tables} == diverging


# -------------------------------------------------------------------------------------------------------------- the suite


def test_positions_are_those_of_the_frame_even_when_ids_repeat() -> None:
    frame = pd.DataFrame({"id": ["a", "a", "b"], "size": [1, 9, 9]})
    rule = Rule("size", "ExpectColumnValuesToBeBetween", {"column": "size", "min_value": 0, "max_value": 5})
    (outcome,) = run_rules(frame, [rule])
    assert outcome.positions == (1, 2)


def test_an_expectation_that_raises_is_no_verdict_on_the_data() -> None:
    rule = Rule("oops", "ExpectColumnValuesToNotBeNull", {"column": "no such column"})
    with pytest.raises(PerennialError, match="defect of the suite"):
        run_rules(pd.DataFrame({"id": ["a"]}), [rule])


def test_features_hold_no_text() -> None:
    secret = "Mi6 Vauxhall"
    frame = row_features([row("a", secret, secret)], ["user", "assistant"])
    assert secret not in frame.to_string()


# --------------------------------------------------------------------------------------------------------------- the task


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_the_task_accounts_for_every_row_and_keeps_values_out_of_the_results(store: Store) -> None:
    secret = "Vauxhall Cross 85"
    rows = [*GOOD, row("bad", secret, ""), row("odd-label", secret, secret, secret)]
    dataset = store.write_rows(rows, kind="messages", parents=["f" * 64], passed=["ingested"])
    report = validate.fn(dataset, ValidationConfig(max_quarantine_share=0.5, allowed_labels=("card",)))
    assert report.dataset.passed == ("ingested", "validated")
    assert (report.num_rows_in, report.dataset.num_rows, dict(report.quarantined)) == (
        7,
        5,
        {"empty_reply": 1, "unknown_label": 1},
    )
    assert report.num_failed_expectations == 3
    assert report.quarantine is not None
    assert [json.loads(row["content"])["id"] for row in store.read_rows(report.quarantine)] == ["bad", "odd-label"]
    results = store.read_bytes(report.results).decode()
    assert secret not in results
    assert len(json.loads(results)["expectations"]) == report.num_expectations


def test_too_large_a_share_stops_the_run_and_says_why(store: Store) -> None:
    rows = [*GOOD, *(row(f"bad-{n}", reply="") for n in range(3)), row("long", reply="x" * 30_000)]
    with pytest.raises(QualityLimitError) as raised:
        validate.fn(store.write_rows(rows, kind="messages"), ValidationConfig())
    message = str(raised.value)
    assert "4 of 9 rows failing (empty_reply 3, reply_too_long 1)" in message
    assert ".parquet" in message


@pytest.mark.parametrize("rows", [[], GOOD[:2]])
def test_too_few_rows_stop_the_run(store: Store, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(QualityLimitError, match="row_count"):
        validate.fn(store.write_rows(rows, kind="messages"), ValidationConfig(min_rows=3))


def test_too_few_rows_left_stop_the_run(store: Store) -> None:
    rows = [*GOOD, row("bad", reply="")]
    with pytest.raises(QualityLimitError, match="5 rows left"):
        validate.fn(store.write_rows(rows, kind="messages"), ValidationConfig(min_rows=6, max_quarantine_share=1.0))


def test_the_page_shows_every_rule_and_needs_nothing_else() -> None:
    checked = check_rows([*GOOD, row("bad", reply="")], "messages", ValidationConfig(allowed_labels=("<b>card</b>", "card")))
    page = render_results(results_document(checked, "messages"))
    assert all(outcome.rule.reason in page for outcome in checked.outcomes)
    assert "http" not in page
    assert "<b>" not in page
