"""The rows of each optimizer step: the proof that no row is skipped or repeated in an epoch, across kills too.

Each process writes one file, with a JSON line for every finished step; a packed sequence lists its rows. A trainer that
resumes from a checkpoint repeats some steps. Of a step written twice the last line counts, because the weights are those of
the last time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from tasks.core.errors import TrainingError


class RowLedger:
    """Writes the ledger of one process.

    Args:
        path: Its file; a line that a kill left incomplete is removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drawn: list[list[str]] = []
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def draw(self, sequences: Iterable[Sequence[str]]) -> None:
        """Records a micro-batch: the ids of the rows of each sequence, which is one row unless rows are packed."""
        self._drawn.extend(list(rows) for rows in sequences)

    def close_step(self, step: int) -> None:
        """Writes the rows drawn since the last step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "rows": self._drawn}) + "\n")
        self._drawn = []


Ledger = Mapping[int, Sequence[Sequence[str]]]
"""The rows that one process drew: for each step those of every sequence, in order."""


def read_ledger(path: Path) -> Ledger:
    """The ledger of one process, without an incomplete last line."""
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].decode().splitlines()
    return {entry["step"]: entry["rows"] for entry in map(json.loads, lines)}


def num_rows_in(ledgers: Iterable[Ledger]) -> int:
    """The number of different rows that all processes drew together."""
    return len({row for ledger in ledgers for sequences in ledger.values() for rows in sequences for row in rows})


def check_ledger(
    ledgers: Sequence[Ledger],
    row_ids: Sequence[str],
    *,
    num_sequences: int,
    micro_batch_size: int,
    accumulation_steps: int,
    num_steps: int,
) -> str:
    """A sentence that says what the ledger proves.

    Several processes run the same number of micro-batches each. Accelerate pads the last ones of an epoch with the first
    sequences of that epoch. The ledger accepts exactly these duplicates, at that position, and no others.

    Args:
        ledgers: The ledger of every process by rank; see :func:`read_ledger`.
        row_ids: The rows to train on.
        num_sequences: The sequences that they are packed into; without packing, the number of rows.
        micro_batch_size: Sequences of one micro-batch of one process.
        accumulation_steps: Micro-batches of one step; the last step of an epoch may have fewer.
        num_steps: Finished steps.

    Raises:
        TrainingError: A step is missing, or in some epoch a row is repeated or skipped.
    """
    sequences_at_once = micro_batch_size * len(ledgers)
    steps_per_epoch = -(-num_sequences // (sequences_at_once * accumulation_steps))
    num_padding = -num_sequences % sequences_at_once if len(ledgers) > 1 else 0
    faults = [f"step {step} is missing" for step in range(1, num_steps + 1) if any(step not in ledger for ledger in ledgers)]
    for first in range(1, num_steps + 1, steps_per_epoch):
        last = min(first + steps_per_epoch - 1, num_steps)
        is_whole = last - first + 1 == steps_per_epoch
        drawn = [rows for step in range(first, last + 1) for rows in _drawn_in(ledgers, step, micro_batch_size)]
        padding = drawn[len(drawn) - num_padding :] if is_whole else []
        if padding != list(islice(cycle(drawn[:num_sequences]), len(padding))):
            faults.append(f"in steps {first} to {last}: the last batch is padded with other sequences than the first ones")
        expected, seen = Counter(row_ids), Counter(row for rows in drawn[: len(drawn) - len(padding)] for row in rows)
        repeated = sum(count > expected[row] > 0 for row, count in seen.items())
        skipped = (expected - seen).total() if is_whole else 0
        unknown = sum(row not in expected for row in seen)
        if repeated or skipped or unknown:
            faults.append(f"in steps {first} to {last}: {repeated} rows repeated, {skipped} skipped, {unknown} unknown")
    if faults:
        raise TrainingError(
            "training's ledger of rows",
            "; ".join(faults[:5]),
            "every row once in every epoch",
            "This is a defect of the program; do not use the adapter, and please report it.",
        )
    packed = f" in {num_sequences} sequences" if num_sequences != len(row_ids) else ""
    proof = (
        f"{len(row_ids)} rows{packed}, {num_steps / steps_per_epoch:g} epochs: no row was skipped or repeated in an epoch"
    )
    if not num_padding:
        return proof
    return f"{proof}, except the first {num_padding} sequences, which pad the last batch of {len(ledgers)} processes"


def _drawn_in(ledgers: Sequence[Ledger], step: int, micro_batch_size: int) -> list[Sequence[str]]:
    """The sequences of a step in the order of drawing: a micro-batch for each process in turn."""
    drawn = [ledger.get(step, ()) for ledger in ledgers]
    starts = range(0, max(map(len, drawn)), micro_batch_size)
    return [rows for start in starts for of_process in drawn for rows in of_process[start : start + micro_batch_size]]
