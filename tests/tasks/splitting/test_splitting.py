"""A frozen set stays frozen, nothing near it is trained on, and no group stands on both sides of a split."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.references import DatasetRef
from tasks.core.errors import InputError, IntegrityError
from tasks.core.storage import Store, open_store
from tasks.splitting import SplitConfig, decontaminate, freeze_test_set, split
from tasks.splitting.groups import MIN_ROWS, choose_groups, decontaminate_rows, groups_of

_SUBJECTS = ("invoice", "password", "delivery", "heating", "router", "contract", "warranty", "booking", "refund", "passport")
_VERBS = ("change", "cancel", "find", "print", "extend", "dispute", "forward", "translate", "archive", "approve")


def row(name: str, ask: str, group: str | None = None, reply: str = "Yes.") -> dict[str, Any]:
    messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return {"id": name, "messages": messages, "split_group": group}


def varied(count: int) -> list[dict[str, Any]]:
    """Rows that are no near duplicates of each other."""
    asks = [f"Whom do I ask to {verb} the {noun} of last {verb}ed {noun}?" for noun in _SUBJECTS for verb in _VERBS]
    return [row(f"r{number:03}", ask, f"g-{number:03}") for number, ask in enumerate(asks[:count])]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def write(store: Store, rows: list[dict[str, Any]], kind: Any = "messages") -> DatasetRef:
    return store.write_rows(rows, kind=kind, parents=["f" * 64], passed=["ingested", "label_audited"])


# ---------------------------------------------------------------------------------------------------------------- freezing


def test_a_set_is_frozen_once_and_never_again(store: Store) -> None:
    first = freeze_test_set.fn(write(store, varied(60)), SplitConfig(), "desk")
    again = freeze_test_set.fn(write(store, varied(100)), SplitConfig(test_share=0.5, seed=9), "desk")
    other = freeze_test_set.fn(write(store, varied(60)), SplitConfig(), "other-desk")
    assert again == first
    assert other == first  # the same rows under the same settings
    assert first.num_rows == 9
    assert first.passed == ("ingested", "label_audited")
    assert store.read_pointer("benchmarks/desk") == first


def test_a_frozen_set_that_was_lost_is_an_error_not_a_new_set(store: Store) -> None:
    frozen = freeze_test_set.fn(write(store, varied(60)), SplitConfig(), "desk")
    Path(store.uri_of(frozen).removeprefix("file://")).unlink()
    with pytest.raises(IntegrityError):
        freeze_test_set.fn(write(store, varied(60)), SplitConfig(), "desk")


def test_the_choice_depends_on_the_seed_and_not_on_the_order(store: Store) -> None:
    rows = varied(80)
    shuffled = random.Random(1).sample(rows, len(rows))
    ids = [
        {item["id"] for item in store.read_rows(freeze_test_set.fn(write(store, rows), SplitConfig(seed=seed), name))}
        for rows, seed, name in ((rows, 0, "a"), (shuffled, 0, "b"), (rows, 1, "c"))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_group_is_frozen_whole_or_not_at_all(store: Store) -> None:
    rows = [{**item, "split_group": f"g-{number // 3}"} for number, item in enumerate(varied(60))]
    frozen = store.read_rows(freeze_test_set.fn(write(store, rows), SplitConfig(), "desk"))
    assert len(frozen) == 9
    assert len({item["split_group"] for item in frozen}) == 3


def test_rows_that_scrubbing_made_equal_form_one_group() -> None:
    rows = [
        row("a", "I am <PERSON>, where is my parcel?", "g-1"),
        row("b", "I am <PERSON>, where is my parcel?", "g-2"),
        *varied(3),
    ]
    groups = groups_of(rows, 0.7)
    assert groups[0] == groups[1] == "g-1"
    assert len(set(groups)) == 4


@pytest.mark.parametrize("rows", [varied(MIN_ROWS - 1), [row(f"r{n}", "The same question", "g-1") for n in range(20)]])
def test_too_little_to_share_out_is_a_clear_error(store: Store, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="near-duplicate groups"):
        freeze_test_set.fn(write(store, rows), SplitConfig(), "desk")
    with pytest.raises(InputError, match="validation"):
        split.fn(write(store, rows), SplitConfig())


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=40),
    share=st.floats(0.01, 0.5),
    max_rows=st.one_of(st.none(), st.integers(1, 30)),
)
def test_sizes_are_honoured(sizes: list[int], share: float, max_rows: int | None) -> None:
    groups = [f"g-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    if len(groups) < MIN_ROWS:
        return
    chosen = choose_groups(groups, share=share, max_rows=max_rows, purpose="test", seed=0, where="here")
    count = sum(group in chosen for group in groups)
    assert 1 <= count < len(groups)
    limit = min(max(1, round(share * len(groups))), max_rows or len(groups))
    assert count <= limit or chosen == {next(g for g in chosen)}, "more than the limit only when no group fits"
    if all(size == 1 for size in sizes):
        assert count == min(limit, len(groups) - 1)


# --------------------------------------------------------------------------------------------------------- decontamination


def test_held_out_rows_and_near_ones_are_dropped_with_their_reason() -> None:
    frozen = [
        row("f1", "Where can I see the exchange rate of today?", "g-1"),
        row("f2", "How do I close my account for good?", "g-2"),
    ]
    rows = [
        frozen[0],
        row("same-group", "Rates?", "g-1"),
        row("same-text", "WHERE can I see the  exchange rate of today?", "g-7"),
        row("near", "Where can I see the exchange rates of today?", "g-8"),
        row("f2", "Something else under an old id, which is no reason.", "g-9"),
        row("free", "My card was swallowed by the machine.", "g-10"),
    ]
    result = decontaminate_rows(rows, frozen, threshold=0.7)
    assert {rows[place]["id"]: reason for place, reason in result.reasons.items()} == {
        "f1": "held_out",
        "same-group": "near_frozen",
        "same-text": "near_frozen",
        "near": "near_frozen",
    }
    assert result.num_twinned == 1


def test_preference_pairs_are_held_against_test_examples(store: Store) -> None:
    """A pair whose prompt is a test question would teach DPO the test."""
    examples = varied(60)
    frozen = freeze_test_set.fn(write(store, examples), SplitConfig(), "desk")
    asked = {item["id"]: item["messages"] for item in examples}
    pairs = [
        {
            "id": f"p-{name}",
            "prompt": messages[:1],
            "chosen": messages[1:],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
        for name, messages in asked.items()
    ]
    report = decontaminate.fn(write(store, pairs, "preferences"), frozen, SplitConfig())
    assert dict(report.dropped) == {"near_frozen": frozen.num_rows}
    held_out = {f"p-{item['id']}" for item in store.read_rows(frozen)}
    assert not held_out & {item["id"] for item in store.read_rows(report.dataset)}


def test_the_next_quarter_never_trains_on_the_frozen_set(store: Store) -> None:
    frozen = freeze_test_set.fn(write(store, varied(60)), SplitConfig(), "desk")
    # The next export has other ids, other groups and a courtesy at the end of every question.
    later = [row(f"q2-{n}", item["messages"][0]["content"] + " Thanks!", f"h-{n}") for n, item in enumerate(varied(100))]
    report = decontaminate.fn(write(store, later), frozen, SplitConfig())
    assert dict(report.dropped) == {"near_frozen": frozen.num_rows}
    assert report.measurements[0].value == 1.0
    assert report.dataset.passed[-1] == "decontaminated"
    assert report.dataset.parents[0] == write(store, later).sha256


def test_decontaminating_twice_equals_once(store: Store) -> None:
    dataset = write(store, varied(60))
    frozen = freeze_test_set.fn(dataset, SplitConfig(), "desk")
    once = decontaminate.fn(dataset, frozen, SplitConfig())
    twice = decontaminate.fn(once.dataset, frozen, SplitConfig())
    assert once.num_dropped == frozen.num_rows
    assert dict(twice.dropped) == {}
    assert twice.quarantine is None


# ------------------------------------------------------------------------------------------------------------------- split


def test_a_split_is_complete_and_no_group_straddles_it(store: Store) -> None:
    rows = [{**item, "split_group": f"g-{number // 4}"} for number, item in enumerate(varied(100))]
    result = split.fn(write(store, rows), SplitConfig(max_validation_rows=7))
    train, validation = store.read_rows(result.train), store.read_rows(result.validation)
    assert sorted(item["id"] for item in train + validation) == sorted(item["id"] for item in rows)
    assert not {item["split_group"] for item in train} & {item["split_group"] for item in validation}
    assert len(validation) == 4
    assert result.num_groups == 25
    assert result.train.passed == result.validation.passed == ("ingested", "label_audited")


def test_eight_rows_are_enough(store: Store) -> None:
    result = split.fn(write(store, varied(8)), SplitConfig())
    assert (result.train.num_rows, result.validation.num_rows) == (7, 1)


def test_rows_without_a_group_are_split_by_their_text(store: Store) -> None:
    rows = [{**item, "split_group": None} for item in varied(40)]
    copies = [{**item, "id": f"copy-{item['id']}"} for item in rows]
    result = split.fn(write(store, rows + copies), SplitConfig(validation_share=0.4))
    train, validation = (
        {item["id"].removeprefix("copy-") for item in store.read_rows(side)} for side in (result.train, result.validation)
    )
    assert not train & validation
    assert len(validation) == 16
