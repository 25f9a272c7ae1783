"""The rows that a training learns when it continues a version: all that is new, and what it knows spread evenly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts.preparation import Split
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import Start, StartingPoint
from tasks.core.storage import Store, open_store
from tasks.refresh import choose_training_rows
from tasks.refresh.replay import choose_rows, content_of
from tasks.training import TrainingConfig

POINT = StartingPoint(version="3", adapter=FolderRef(sha256="a" * 64, num_files=1, size_bytes=1), ancestors=("1",))


def talk(number: int, *, reply: str | None = None, **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"Wie lautet die Regel {number}?"},
        {"role": "assistant", "content": reply or f"Die Regel {number} gilt."},
    ]
    return {"id": f"row-{number}", "messages": messages, **more}


def test_every_new_row_is_learned_and_what_is_known_is_spread_over_labels() -> None:
    known = [talk(number, label="frequent" if number < 90 else f"rare-{number % 3}") for number in range(96)]
    new = [talk(number, label="new") for number in range(100, 104)]
    refresh = choose_rows([*known, *new], map(content_of, known), replay=1.5, seed=0)
    assert (refresh.num_new, refresh.num_replayed) == (4, 6)
    assert new == refresh.rows[6:], "in the order of the data set"
    labels = [row["label"] for row in refresh.rows[:6]]
    assert set(labels) == {"frequent", "rare-0", "rare-1", "rare-2"}
    assert max(labels.count(label) for label in labels) == 2


def test_without_labels_no_group_of_near_duplicates_is_replayed_twice_before_all_were_once() -> None:
    known = [talk(number, split_group="near" if number < 50 else f"own-{number}") for number in range(60)]
    refresh = choose_rows([*known, talk(99)], map(content_of, known), replay=11, seed=3)
    assert sorted({row["split_group"] for row in refresh.rows[:-1]}) == sorted({row["split_group"] for row in known})


def test_of_a_label_the_newest_rows_are_replayed_first() -> None:
    times = ["2026-03-01T00:00:00+00:00", "2026-03-01T09:00:00+14:00", None, "2025-12-31T00:00:00Z"]
    known = [talk(number, label="fees", created_at=time) for number, time in enumerate(times)]
    order = [choose_rows([*known, talk(9)], map(content_of, known), replay=n, seed=0).rows[:-1] for n in (1, 2, 3)]
    assert [sorted(row["id"] for row in rows) for rows in order] == [
        ["row-0"],
        ["row-0", "row-1"],
        ["row-0", "row-1", "row-3"],
    ]


def test_another_order_chooses_the_same_rows_and_another_seed_others() -> None:
    rows = [talk(number, label=f"topic-{number % 4}") for number in range(60)]
    learned = [content_of(row) for row in rows[:50]]

    def ids(rows: list[dict[str, Any]], seed: int) -> list[str]:
        return sorted(row["id"] for row in choose_rows(rows, learned, replay=1, seed=seed).rows)

    assert ids(random.Random(1).sample(rows, len(rows)), 0) == ids(rows, 0) != ids(rows, 1)


def test_a_row_whose_reply_changed_by_a_word_is_new_and_its_old_form_is_not_replayed() -> None:
    before = [talk(number) for number in range(20)]
    after = [talk(0, reply="Die Regel 0 gilt nicht."), *before[1:]]
    refresh = choose_rows(after, map(content_of, before), replay=100, seed=0)
    assert refresh.num_new == 1
    assert refresh.rows == after


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.fixture
def rows(store: Store) -> Split:
    def stored(numbers: range) -> DatasetRef:
        return store.write_rows([talk(number) for number in numbers], kind="messages", passed=["ingested"])

    return Split(train=stored(range(20)), validation=stored(range(20, 24)), num_groups=24)


def learned(store: Store, *ranges: range) -> tuple[DatasetRef, ...]:
    return tuple(store.write_rows([talk(n) for n in numbers], kind="messages", passed=["old"]) for numbers in ranges)


def test_what_any_ancestor_learned_is_known_and_the_rows_descend_from_those_of_today(store: Store, rows: Split) -> None:
    start = Start(point=POINT, reason="version 3", learned=learned(store, range(8), range(6, 16)))
    chosen = choose_training_rows.fn(rows, start, replay=0.5, seed=0)
    assert chosen.reason == "version 3, over 4 rows new to it and 2 of the 16 that it knows"
    assert chosen.start == POINT
    assert (chosen.rows.validation, chosen.rows.train.num_rows) == (rows.validation, 6)
    assert (chosen.rows.train.parents, chosen.rows.train.passed) == ((rows.train.sha256,), rows.train.passed)


def test_all_rows_are_learned_where_nothing_is_continued_or_replayed_and_from_the_base_where_nothing_is_new(
    store: Store, rows: Split
) -> None:
    start = Start(point=POINT, reason="version 3", learned=learned(store, range(30)))
    every = choose_training_rows.fn(rows, start, replay=None, seed=0)
    assert (every.rows, every.start, every.reason) == (rows, POINT, "version 3")
    base = choose_training_rows.fn(rows, Start(reason="the base model: there is no champion yet"), replay=1, seed=0)
    assert (base.rows, base.start, base.reason) == (rows, None, "the base model: there is no champion yet")
    nothing_new = choose_training_rows.fn(rows, start, replay=1, seed=0)
    assert (nothing_new.rows, nothing_new.start) == (rows, None)
    assert nothing_new.reason == "the base model: version 3 has learned all of the 20 rows"


def test_replay_from_the_base_model_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="set start_from: champion, or leave replay out"):
        TrainingConfig(replay=1.0)
