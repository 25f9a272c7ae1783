"""The ledger proves what each step was trained on, over kills, and names every row that was skipped or repeated."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from tasks.core.errors import TrainingError
from tasks.training.trainer.ledger import Ledger, RowLedger, check_ledger, read_ledger

ROWS = ["a", "b", "c", "d", "e"]


def write(path: Path, steps: list[list[str]], first: int = 1) -> None:
    ledger = RowLedger(path)
    for number, rows in enumerate(steps, start=first):
        for row in rows:
            ledger.draw([[row]])
        ledger.close_step(number)


def one_by_one(*steps: str) -> Ledger:
    """A ledger of single rows, each named by a letter."""
    return {number: [[row] for row in rows] for number, rows in enumerate(steps, start=1)}


def check(*ledgers: Ledger, num_steps: int = 3, rows: list[str] = ROWS, micro: int = 2) -> str:
    sizes = {"num_sequences": len(rows), "micro_batch_size": micro, "accumulation_steps": 1, "num_steps": num_steps}
    return check_ledger(ledgers, rows, **sizes)


def test_steps_done_again_count_as_they_were_done_last(tmp_path: Path) -> None:
    path = tmp_path / "rows-0.jsonl"
    write(path, [["a", "b"], ["c", "x"], ["y"]])
    with path.open("a") as file:
        file.write('{"step": 4, "ro')  # torn by a kill
    assert sorted(read_ledger(path)) == [1, 2, 3]
    write(path, [["c", "d"], ["e"]], first=2)
    assert read_ledger(path) == one_by_one("ab", "cd", "e")
    assert check(read_ledger(path)) == "5 rows, 1 epochs: no row was skipped or repeated in an epoch"


@pytest.mark.parametrize(
    ("ledger", "fault"),
    [
        (one_by_one("ab", "cd"), "step 3 is missing"),
        (one_by_one("ab", "ca", "e"), "1 rows repeated, 1 skipped"),
        (one_by_one("ab", "cd", "z"), "1 skipped, 1 unknown"),
        (one_by_one("ab", "cd", "e", "bb"), "steps 4 to 4: 1 rows repeated, 0 skipped"),
        (one_by_one("ab", "cd", "ea"), "1 rows repeated, 0 skipped"),
    ],
)
def test_skipped_and_repeated_rows_are_counted(ledger: Ledger, fault: str) -> None:
    with pytest.raises(TrainingError, match=fault):
        check(ledger, num_steps=max(3, *ledger))


def test_an_epoch_that_was_cut_short_may_lack_rows() -> None:
    assert "1.33333 epochs" in check(one_by_one("ab", "cd", "e", "bc"), num_steps=4)


def test_rows_of_packed_sequences_count_one_by_one() -> None:
    packed = {1: [["a", "b", "c"]], 2: [["d"]], 3: [["e", "f"]]}
    sizes = {"num_sequences": 3, "micro_batch_size": 1, "accumulation_steps": 1, "num_steps": 3}
    assert check_ledger([packed], [*"abcdef"], **sizes).startswith("6 rows in 3 sequences, 1 epochs:")
    with pytest.raises(TrainingError, match="1 rows repeated, 1 skipped"):
        check_ledger([{**packed, 3: [["e", "a"]]}], [*"abcdef"], **sizes)


def deal(rows: list[int], micro: int, accumulation: int, world: int, epochs: int) -> list[dict[int, list[list[str]]]]:
    """The rows that accelerate gives each process, in a new order in every epoch, as ledgers."""
    ledgers: list[dict[int, list[list[str]]]] = [{} for _ in range(world)]
    for epoch in range(epochs):
        random.Random(epoch).shuffle(rows)
        batches = BatchSampler(rows, micro, drop_last=False)
        first = len(ledgers[0])
        for rank, ledger in enumerate(ledgers):
            shard = BatchSamplerShard(batches, world, rank) if world > 1 else batches
            for number, batch in enumerate(shard):
                ledger.setdefault(first + 1 + number // accumulation, []).extend([str(row)] for row in batch)
    return ledgers


@given(
    num_rows=st.integers(1, 40),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    world=st.integers(1, 4),
    draw=st.randoms(use_true_random=False),
)
def test_the_padding_of_accelerate_is_accepted_exactly_and_nothing_else(
    num_rows: int, micro: int, accumulation: int, world: int, draw: random.Random
) -> None:
    rows = list(range(num_rows))
    ledgers = deal(rows, micro, accumulation, world, epochs=2)
    row_ids = [str(row) for row in rows]
    num_steps = len(ledgers[0])
    sizes = {"num_sequences": num_rows, "micro_batch_size": micro, "accumulation_steps": accumulation}
    proof = check_ledger(ledgers, row_ids, **sizes, num_steps=num_steps)
    assert ("pad the last batch" in proof) == (world > 1 and num_rows % (micro * world) > 0)

    # Any row in place of another one, anywhere, is a fault.
    ledger = draw.choice(ledgers)
    step = draw.choice(sorted(ledger))
    place = draw.randrange(len(ledger[step]))
    (before,) = ledger[step][place]
    ledger[step][place] = [draw.choice([row for row in [*row_ids, "unknown"] if row != before])]
    with pytest.raises(TrainingError, match=r"rows repeated|is padded"):
        check_ledger(ledgers, row_ids, **sizes, num_steps=num_steps)
