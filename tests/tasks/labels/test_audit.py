"""The whole stage: issues found, acted upon, accounted for, and independent of order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from tasks.contracts.references import DatasetRef
from tasks.core.storage import open_store
from tasks.labels.audit import AuditOutcome, apply_actions, audit_rows
from tasks.labels.config import IssuePolicy, LabelAuditConfig
from tasks.labels.policy import Decision
from tasks.labels.review import keep_decisions, row_hash
from tasks.labels.task import audit_labels
from tasks.labels.vectors import TfidfVectorizer


def cache_key(ref: DatasetRef, config: LabelAuditConfig) -> str | None:
    """The key under which Prefect keeps the audit's result."""
    nothing_kept = SimpleNamespace(result_store=SimpleNamespace(exists=lambda key: False))
    return audit_labels.cache_policy.compute_key(nothing_kept, {"dataset": ref, "config": config}, {})


def with_reply(row: dict[str, Any], text: str) -> dict[str, Any]:
    return {**row, "messages": [row["messages"][0], {"role": "assistant", "content": text}]}


QUICK = {"embedding_model": "tfidf"}


def audit(rows: list[dict], kind: str = "messages", decisions: dict | None = None, **settings: Any) -> AuditOutcome:
    return audit_rows(rows, kind, LabelAuditConfig(**QUICK, **settings), TfidfVectorizer(), decisions or {})


@pytest.fixture(scope="module")
def outcome(faulty_rows: list[dict]) -> AuditOutcome:
    return audit(faulty_rows)


def test_every_row_is_kept_or_refused_once(faulty_rows: list[dict], outcome: AuditOutcome) -> None:
    assert sorted(row["id"] for row in [*outcome.kept, *outcome.quarantined_rows]) == sorted(
        row["id"] for row in faulty_rows
    )
    assert len(outcome.quarantined_rows) <= 0.05 * 240
    for quarantined in outcome.quarantined_rows:
        original = next(row for row in faulty_rows if row["id"] == quarantined["id"])
        assert json.loads(quarantined["content"]) == original


def test_planted_faults_are_among_the_issues(faulty_rows: list[dict], outcome: AuditOutcome) -> None:
    found = {(issue.row_id, issue.kind) for issue in outcome.issues}
    wrong = {(faulty_rows[index]["id"], "wrong_label") for index in range(0, 240, 24)}
    cut = {faulty_rows[index]["id"] for index in range(5, 240, 60)}
    assert len(wrong & found) >= 9
    assert cut <= {name for name, kind in found if kind.endswith("_response")}
    assert sum((name, "truncated_response") in found for name in cut) >= 3
    assert "TF-IDF" in outcome.method


def test_the_order_of_the_rows_changes_nothing(faulty_rows: list[dict], outcome: AuditOutcome) -> None:
    shuffled = random.Random(1).sample(faulty_rows, len(faulty_rows))
    again = audit(shuffled)
    assert again.issues == outcome.issues
    assert again.measurements == outcome.measurements
    assert sorted(again.kept, key=lambda row: row["id"]) == sorted(outcome.kept, key=lambda row: row["id"])


def test_planted_controls_measure_both_audits(outcome: AuditOutcome) -> None:
    values = {item.name: item for item in outcome.measurements}
    for name in ("control.labels.recall", "control.replies.recall", "control.labels.precision", "control.replies.precision"):
        assert values[name].low < values[name].value <= values[name].high + 1e-9
        assert values[name].value > 0.6  # ten controls: one more or less is a tenth
    assert values["control.labels.recall"].num_samples >= 10


def test_controls_can_be_turned_off(faulty_rows: list[dict], outcome: AuditOutcome) -> None:
    off = audit(faulty_rows, control_share=0.0)
    assert not any(item.name.startswith("control") for item in off.measurements)
    assert off.issues == outcome.issues


def test_nobody_is_asked_twice(faulty_rows: list[dict], outcome: AuditOutcome) -> None:
    asked = [issue for issue in outcome.issues if issue.action == "review"]
    by_id = {row["id"]: row for row in faulty_rows}
    decisions = {row_hash(by_id[issue.row_id]): Decision("keep") for issue in asked}
    again = audit(faulty_rows, decisions=decisions, control_share=0.0)
    assert not {issue.row_id for issue in asked} & {i.row_id for i in again.issues if i.action == "review"}


def test_decisions_hold_for_rows_that_are_not_flagged(clean_rows: list[dict]) -> None:
    decisions = {row_hash(clean_rows[3]): Decision("drop"), row_hash(clean_rows[4]): Decision("fix", "device")}
    result = audit(clean_rows, decisions=decisions, control_share=0.0)
    assert [(row["id"], row["reason"], row["disposition"]) for row in result.quarantined_rows] == [
        (clean_rows[3]["id"], "reviewed", "dropped")
    ]
    assert next(row for row in result.kept if row["id"] == clean_rows[4]["id"])["label"] == "device"


def test_a_persons_fix_that_the_reply_contradicts_is_quarantined_and_not_forgotten() -> None:
    row = {"id": "a", "label": "refund", "messages": []}
    relabel = Mock(apply=Mock(return_value=None))
    kept, refused = apply_actions([row], [], {"a": Decision("fix", "shipping")}, relabel, {}, LabelAuditConfig())
    assert (kept, [one["reason"] for one in refused]) == ([], ["fix_needs_new_reply"])


def test_what_waits_for_a_person_can_be_held_back(faulty_rows: list[dict]) -> None:
    result = audit(faulty_rows, unanswered="hold", max_removed_share=0.0, control_share=0.0)
    waiting = {issue.row_id for issue in result.issues if issue.action == "review"}
    assert {row["id"] for row in result.quarantined_rows} == waiting
    assert {row["reason"] for row in result.quarantined_rows} == {"awaiting_review"}


def test_a_fixed_label_takes_the_reply_along_where_the_reply_is_the_label(faulty_rows: list[dict]) -> None:
    rows = [
        {**row, "messages": [row["messages"][0], {"role": "assistant", "content": f"Intent: {row['label']}"}]}
        for row in faulty_rows
    ]
    result = audit(rows, policies={"wrong_label": IssuePolicy(automatic="fix", review="fix")})
    fixed = {issue.row_id: issue.suggested for issue in result.issues if issue.action == "fix"}
    assert len(fixed) >= 9
    for row in result.kept:
        if row["id"] in fixed:
            assert row["label"] == fixed[row["id"]]
            assert row["messages"][1]["content"] == f"Intent: {row['label']}"


def test_a_reply_that_names_its_label_is_not_relabelled_alone(faulty_rows: list[dict]) -> None:
    rows = [with_reply(row, f"[{row['label'].upper()}] {row['messages'][1]['content']}") for row in faulty_rows]
    result = audit(rows, policies={"wrong_label": IssuePolicy(automatic="fix")}, control_share=0.0)
    sure = [issue for issue in result.issues if issue.kind == "wrong_label" and issue.tier == "automatic"]
    assert sure
    assert {issue.action for issue in sure} == {"review"}


def test_annotators_give_labels_to_rows_without_one(clean_rows: list[dict]) -> None:
    rng = random.Random(0)
    rows = []
    for row in clean_rows:
        votes = [row["label"] if rng.random() < 0.9 else "device" for _ in range(3)]
        annotations = [{"annotator": who, "label": vote} for who, vote in zip("xyz", votes, strict=True)]
        rows.append({**row, "label": None, "annotations": annotations})
    result = audit(rows, control_share=0.0, audit_responses=False, max_removed_share=0.0)
    truth = {row["id"]: row["label"] for row in clean_rows}
    labels = [(row["label"], truth[row["id"]]) for row in result.kept if row["label"]]
    assert len(labels) > 200
    assert sum(given == right for given, right in labels) > 0.95 * len(labels)
    names = {item.name for item in result.measurements}
    assert "annotators.agreement" in names
    assert len([name for name in names if name.startswith("annotators.quality.")]) == 3


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    message = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    return {
        "id": f"p{number}",
        "prompt": message("user", f"Question number {number}?"),
        "chosen": message("assistant", chosen),
        "rejected": message("assistant", rejected),
    }


def test_pairs_are_checked_and_what_cannot_be_checked_is_said() -> None:
    rows = [pair(n, f"A helpful answer to {n}.", f"A curt reply to {n}.") for n in range(40)]
    rows += [pair(40, "same", "same"), pair(41, "", "x")]
    result = audit(rows, "preferences")
    assert {row["id"]: row["reason"] for row in result.quarantined_rows} == {"p40": "identical_sides", "p41": "empty_side"}
    assert any("Flipped" in note for note in result.notes)


@pytest.mark.parametrize("num_rows", [0, 1, 7])
def test_hardly_any_rows_are_passed_on(clean_rows: list[dict], num_rows: int) -> None:
    rows = clean_rows[:num_rows]
    result = audit(rows)
    assert result.kept == rows
    assert result.issues == []


def test_the_task_writes_its_report_and_reads_decisions(faulty_rows: list[dict], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ref = store.write_rows(faulty_rows, kind="messages", passed=["scrubbed"])
    config = LabelAuditConfig(**QUICK, review_name="desk", control_share=0.0)
    report = audit_labels.fn(ref, config)
    assert report.dataset.passed == ("scrubbed", "label_audited")
    assert report.dataset.parents == (ref.sha256,)
    issues = store.read_table(report.issues).to_pylist()
    assert set(issues[0]) == {"id", "kind", "score", "given", "suggested", "action", "tier"}
    assert sum(report.num_issues.values()) == len(issues)
    assert report.review_queue
    asked = [json.loads(line) for line in store.read_bytes(report.review_queue).splitlines()]
    before = cache_key(ref, config)
    keep_decisions(store, "desk", {line["row_sha256"]: Decision("keep") for line in asked})
    assert cache_key(ref, config) != before
    again = audit_labels.fn(ref, config)
    assert again.review_queue is None
    assert any("decisions stand" in note for note in again.notes)


def test_no_record_text_reaches_the_report(faulty_rows: list[dict], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ref = store.write_rows(faulty_rows, kind="messages")
    report = audit_labels.fn(ref, LabelAuditConfig(**QUICK, control_share=0.0))
    told = report.model_dump_json() + json.dumps(store.read_table(report.issues).to_pylist())
    for row in faulty_rows:
        for message in row["messages"]:
            assert message["content"] not in told
