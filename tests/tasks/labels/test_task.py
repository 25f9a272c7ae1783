"""A run asks a person, waits as long as it was told to, and goes on with the answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.contracts.preparation import LabelAuditReport, ReviewQueue
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ReviewPendingError
from tasks.core.progress import Progress, listening
from tasks.core.storage import open_store, run_store
from tasks.labels import LabelAuditConfig
from tasks.labels import task as labels_task
from tasks.labels.policy import Decision
from tasks.labels.review import import_decisions, keep_decisions, open_questions

QUICK = {"embedding_model": "tfidf", "control_share": 0.0, "max_removed_share": 0.0, "review_name": "desk", "num_folds": 3}


@pytest.fixture
def dataset(tmp_path: Path, faulty_rows: list[dict]) -> DatasetRef:
    return open_store(tmp_path / "store").write_rows(faulty_rows, kind="messages", passed=["ingested"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_task, "_POLL_SECONDS", 0.01)


def ask(dataset: DatasetRef, **settings: object) -> tuple[LabelAuditReport, LabelAuditReport]:
    config = LabelAuditConfig(**{**QUICK, **settings})
    audited = labels_task.audit_labels.fn(dataset, config)
    return audited, labels_task.await_review.fn(dataset, audited, config)


def questions(dataset: DatasetRef) -> list[dict]:
    return [json.loads(line) for line in open_questions(run_store(), "desk").splitlines()]


def test_without_a_wait_the_run_only_asks(dataset: DatasetRef) -> None:
    audited, reviewed = ask(dataset)
    assert reviewed == audited
    assert audited.review_queue is not None
    assert len(questions(dataset)) >= 9


def test_a_waiting_run_goes_on_with_the_answers(dataset: DatasetRef) -> None:
    seen: list[Progress] = []

    def answer_when_asked(state: Progress) -> None:
        if state.stage == "await_review" and state.detail and not seen:
            seen.append(state)
            answers = "".join(json.dumps({**line, "decision": "drop"}) + "\n" for line in questions(dataset))
            keep_decisions(run_store(), "desk", import_decisions(answers.encode(), "answers"))

    with listening(answer_when_asked):
        audited, reviewed = ask(dataset, review_wait_hours=1)
    assert seen[0].total == len(questions(dataset)) or not questions(dataset)
    assert reviewed.dropped == {"reviewed": seen[0].total}
    assert reviewed.dataset.num_rows == audited.dataset.num_rows - seen[0].total
    assert questions(dataset) == []


def test_a_run_told_to_stop_names_the_next_step_and_then_goes_on(dataset: DatasetRef) -> None:
    with pytest.raises(ReviewPendingError, match="perennial review export"):
        ask(dataset, unanswered="stop")
    decisions = {line["row_sha256"]: Decision("keep") for line in questions(dataset)}
    keep_decisions(run_store(), "desk", decisions)
    audited, reviewed = ask(dataset, unanswered="stop")
    assert reviewed == audited
    assert audited.dataset.num_rows == dataset.num_rows


def test_the_wait_is_counted_from_the_first_asking(dataset: DatasetRef) -> None:
    ask(dataset)
    store = run_store()
    queue = store.read_record("reviews/desk/messages", ReviewQueue)
    assert queue is not None
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    store.write_record("reviews/desk/messages", queue.model_copy(update={"requested_at": long_ago}))
    audited, reviewed = ask(dataset, review_wait_hours=2, unanswered="hold")
    assert reviewed == audited
    assert reviewed.quarantined == {"awaiting_review": queue.num_rows}


def test_a_queue_that_no_longer_holds_is_withdrawn(dataset: DatasetRef, clean_rows: list[dict]) -> None:
    ask(dataset)
    clean = run_store().write_rows(clean_rows, kind="messages")
    config = LabelAuditConfig(**QUICK)
    audited = labels_task.audit_labels.fn(clean, config).model_copy(update={"review_queue": None})
    labels_task.await_review.fn(clean, audited, config)
    assert questions(dataset) == []
