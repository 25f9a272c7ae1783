"""Whatever reads a record, works on it and writes it keeps what another run wrote meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import ReviewQueue, Snapshot, SnapshotHistory
from tasks.contracts.training import BudgetRequest
from tasks.core.cache_key import cached_measurements
from tasks.core.errors import BudgetError
from tasks.core.storage import Store, open_store
from tasks.core.storage.backends import FolderBackend
from tasks.ingest.task import remember_snapshot
from tasks.labels.policy import Decision
from tasks.labels.review import keep_decisions, publish_queue, read_decisions
from tasks.splitting import SplitConfig, freeze_test_set
from tasks.training.plan.budget import answer, request_approval
from tests.tasks.splitting.test_splitting import varied, write
from tests.tasks.training.plans import hour_long

Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets another run act in the moment between the next reading and its writing."""
    waiting: list[Callable[[], object]] = []

    def first_the_other(kind: str) -> None:
        original = getattr(FolderBackend, kind)

        def wrapped(self: FolderBackend, name: str, *rest: object) -> object:
            # What is named by its hash is written beside a record, not in its place.
            while waiting and not name.startswith(("objects/", "files/")):
                waiting.pop()()
            return original(self, name, *rest)

        monkeypatch.setattr(FolderBackend, kind, wrapped)

    for kind in ("put", "create", "swap"):
        first_the_other(kind)
    return waiting.append


def test_two_first_runs_go_on_with_one_frozen_set(store: Store, meanwhile: Meanwhile) -> None:
    one, other = write(store, varied(60)), write(store, varied(100))
    chosen = []
    meanwhile(lambda: chosen.append(freeze_test_set.fn(other, SplitConfig(), "desk")))
    chosen.append(freeze_test_set.fn(one, SplitConfig(), "desk"))
    assert chosen[0] == chosen[1] == store.read_pointer("benchmarks/desk")


def test_two_imports_of_a_review_keep_both_reviewers_answers(store: Store, meanwhile: Meanwhile) -> None:
    keep_decisions(store, "desk", {"0" * 64: Decision("keep", None)})
    meanwhile(lambda: keep_decisions(store, "desk", {"1" * 64: Decision("drop", None)}))
    keep_decisions(store, "desk", {"2" * 64: Decision("fix", "refund")})
    assert set(read_decisions(store, "desk")) == {"0" * 64, "1" * 64, "2" * 64}


def test_a_queue_that_is_published_twice_was_asked_when_it_was_asked_first(store: Store, meanwhile: Meanwhile) -> None:
    queue = store.write_bytes(b"{}\n", ".jsonl")
    asked: list[ReviewQueue | None] = []
    meanwhile(lambda: asked.append(publish_queue(store, "desk", "messages", queue)))
    asked.append(publish_queue(store, "desk", "messages", queue))
    assert asked[0] == asked[1]


def _snapshot(store: Store, count: int) -> Snapshot:
    rows = write(store, varied(count))
    return Snapshot(
        stage="ingest",
        dataset=rows,
        num_rows_in=count,
        source_uri="rows.jsonl",
        source_sha256="f" * 64,
        input_format="messages",
    )


def test_two_snapshots_that_are_remembered_at_once_follow_one_another(store: Store, meanwhile: Meanwhile) -> None:
    first, second, third = (_snapshot(store, count) for count in (20, 30, 40))
    remember_snapshot.fn(first, first.dataset, "desk")
    meanwhile(lambda: remember_snapshot.fn(second, second.dataset, "desk"))
    remember_snapshot.fn(third, third.dataset, "desk")
    history = store.read_record("snapshots/desk/messages", SnapshotHistory)
    assert history is not None
    assert (history.passed, history.before) == (third.dataset, second.dataset)


def test_an_answer_is_not_erased_by_a_run_that_asks_the_same_again(store: Store, meanwhile: Meanwhile) -> None:
    refused = BudgetError("training.budget", "2 hours", "1.5 hours", "Plan less.")
    request_approval(store, "desk", "sft-1", hour_long(), refused)
    meanwhile(lambda: answer(store, "desk", "sft-1", "allow", "Ada", "quarter end"))
    measured_again = hour_long().model_copy(update={"estimated_seconds": 3610.0})
    request_approval(store, "desk", "sft-1", measured_again, refused)
    kept = store.read_record("budgets/desk/sft-1", BudgetRequest)
    assert kept is not None
    assert (kept.verdict, kept.by) == ("allow", "Ada")
    # A training that takes more than was allowed is another question.
    request_approval(store, "desk", "sft-1", hour_long().model_copy(update={"estimated_seconds": 36_000.0}), refused)
    kept = store.read_record("budgets/desk/sft-1", BudgetRequest)
    assert kept is not None
    assert kept.verdict is None


def test_two_runs_that_measure_at_once_go_by_one_figure(store: Store, meanwhile: Meanwhile) -> None:
    def measured(value: float) -> tuple[Measurement, ...]:
        return cached_measurements(store, "lm-eval", {"model": "a"}, lambda: (Measurement(name="acc", value=value),))

    other: list[tuple[Measurement, ...]] = []
    meanwhile(lambda: other.append(measured(0.1)))
    assert measured(0.2) == other[0] == measured(0.3)
