"""Mixing takes rows by weight, the same every time, and its lineage is a tree whose every branch is walked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.support.config import RetrainConfig
from tasks.contracts.preparation import MixturePart
from tasks.contracts.references import DatasetRef
from tasks.core.errors import InputError, LineageError
from tasks.core.storage import Store, open_store
from tasks.mixing import mix
from tasks.mixing.weighting import mix_rows

GATES = ("ingested", "validated", "scrubbed", "label_audited", "decontaminated")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def numbered(numbers: range) -> list[dict[str, Any]]:
    """Rows that all differ."""
    return [
        {
            "id": f"row-{number}",
            "messages": [
                {"role": "user", "content": f"What is {number} and one?"},
                {"role": "assistant", "content": f"{number + 1}."},
            ],
        }
        for number in numbers
    ]


def part(store: Store, name: str, numbers: range, *, weight: float = 1.0, passed: tuple[str, ...] = GATES) -> MixturePart:
    """A prepared data set of its own snapshot."""
    rows = numbered(numbers)
    snapshot = store.write_rows(rows, kind="messages", parents=[name * 8], passed=["ingested"])
    dataset = store.write_rows(rows, kind="messages", parents=[snapshot], passed=passed)
    return MixturePart(name=name, dataset=dataset, snapshot_sha256=snapshot.sha256, weight=weight)


def row_of(item: str) -> str:
    return item.split("#", maxsplit=1)[0]


def test_a_weight_says_how_often_each_row_is_taken() -> None:
    rows, other, third = (numbered(range(start, start + 40)) for start in (0, 100, 200))
    mixed, counts = mix_rows([("a", 1, rows), ("b", 0.25, other), ("c", 2.5, third)], seed=1)
    assert counts == [(40, 0), (10, 0), (100, 0)]
    assert len({row["id"] for row in mixed}) == len(mixed) == 150
    times = Counter(row_of(row["id"]) for row in mixed)
    assert Counter(times[f"c/{row['id']}"] for row in third) == {2: 20, 3: 20}
    assert mix_rows([("a", 1, rows), ("b", 0.25, other), ("c", 2.5, third)], seed=1)[0] == mixed
    again, _ = mix_rows([("a", 1, rows), ("b", 0.25, other), ("c", 2.5, third)], seed=2)
    assert {row["id"] for row in again} != {row["id"] for row in mixed}
    alone, _ = mix_rows([("b", 0.25, other)], seed=1)
    assert [row for row in mixed if row["id"].startswith("b/")] == alone, "another source changes no choice"


def test_a_row_of_two_sources_counts_once() -> None:
    first, second = numbered(range(10)), numbered(range(5, 15))
    mixed, counts = mix_rows([("a", 1, first), ("b", 1, second)], seed=1)
    assert counts == [(10, 0), (5, 5)]
    assert len(mixed) == 15


def test_the_lineage_of_a_mixture_is_a_tree(store: Store) -> None:
    parts = (part(store, "examples", range(10)), part(store, "faq", range(100, 110), weight=2.0))
    mixture = mix.fn(parts, 17)
    assert [one.num_rows for one in mixture.parts] == [10, 20]
    assert mixture.dataset.passed == (*GATES, "mixed")
    train = store.write_rows(
        store.read_rows(mixture.dataset)[:15], kind="messages", parents=[mixture.dataset], passed=mixture.dataset.passed
    )
    store.verify_lineage(train, descends_from=mixture.snapshots, passed=GATES)
    with pytest.raises(LineageError, match=f"descendant of snapshot {parts[0].snapshot_sha256[:12]}"):
        store.verify_lineage(train, descends_from=parts[0].snapshot_sha256, passed=GATES)  # one branch leads elsewhere
    with pytest.raises(LineageError, match="descendant of snapshot 000000000000"):
        store.verify_lineage(train, descends_from=(*mixture.snapshots, "0" * 64), passed=GATES)  # a branch is missing


def test_a_part_that_missed_a_gate_spoils_the_mixture(store: Store) -> None:
    leaky = part(store, "faq", range(100, 110), passed=("ingested", "validated"))
    mixture = mix.fn((part(store, "examples", range(10)), leaky), 17)
    with pytest.raises(LineageError, match="scrubbed"):
        store.verify_lineage(mixture.dataset, descends_from=mixture.snapshots, passed=GATES)
    lying: DatasetRef = store.write_rows(
        store.read_rows(mixture.dataset), kind="messages", parents=[leaky.dataset], passed=(*GATES, "mixed")
    )
    with pytest.raises(LineageError, match=f"{leaky.dataset.sha256[:12]}.*scrubbed|scrubbed.*"):
        store.verify_lineage(lying, descends_from=leaky.snapshot_sha256, passed=GATES)


def test_a_source_that_gives_nothing_or_another_kind_is_refused(store: Store) -> None:
    examples = part(store, "examples", range(10))
    with pytest.raises(InputError, match=r"mixture\.faq.*10 of them duplicates"):
        mix.fn((examples, part(store, "faq", range(10))), 17)
    pairs = store.write_rows([], kind="preferences", parents=["a" * 64], passed=GATES)
    with pytest.raises(InputError, match="rows of kind preferences"):
        mix.fn((examples, MixturePart(name="pairs", dataset=pairs, snapshot_sha256="a" * 64)), 17)


@pytest.mark.parametrize("names", [("examples",), ("faq", "faq")])
def test_two_sources_of_one_name_are_refused(names: tuple[str, ...]) -> None:
    settings: dict[str, Any] = {"name": "desk", "examples": {"path": "a.jsonl"}}
    settings["mixture"] = [{"name": name, "source": {"path": "b.jsonl"}} for name in names]
    with pytest.raises(ValidationError, match="must all differ"):
        RetrainConfig.model_validate(settings)
