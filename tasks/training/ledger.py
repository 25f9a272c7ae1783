"""Which rows each optimizer step was trained on: the proof that none was skipped and none came twice, over kills too.

One file of each process, a JSON line a step, written when the step is done; a packed sequence knows its rows. A trainer
that resumes from a checkpoint does some steps again; of a step written twice the last line counts, because the weights
are those of the last time.
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
        path: Its file; a line that a kill tore is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drawn: list[list[str]] = []
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def draw(self, sequences: Iterable[Sequence[str]]) -> None:
        """Notes a micro-batch: the ids of the rows of each sequence, which is one row unless rows are packed."""
        self._drawn.extend(list(rows) for rows in sequences)

    def close_step(self, step: int) -> None:
        """Writes the rows drawn since the last step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "rows": self._drawn}) + "\n")
        self._drawn = []


Ledger = Mapping[int, Sequence[Sequence[str]]]
"""What one process drew: for each step the rows of every sequence, in order."""


def read_ledger(path: Path) -> Ledger:
    """What one process wrote; a torn last line is left out."""
    lines = path.read_bytes()
    whole = lines[: lines.rfind(b"\n") + 1].decode().splitlines()
    return {line["step"]: line["rows"] for line in map(json.loads, whole)}


def check_ledger(
    ledgers: Sequence[Ledger],
    row_ids: Sequence[str],
    *,
    num_sequences: int,
    micro_batch_size: int,
    accumulation_steps: int,
    num_steps: int,
) -> str:
    """What the ledger proves, in words.

    Several processes do as many micro-batches each. To fill the last ones of an epoch, accelerate deals the epoch's first
    sequences once more: as many as are wanting, from the first on. That and nothing else may come twice.

    Args:
        ledgers: As :func:`read_ledger` returns it, of every process by rank.
        row_ids: The rows to train on.
        num_sequences: What they make when packed; else as many.
        micro_batch_size: Sequences of one micro-batch of one process.
        accumulation_steps: Micro-batches of one step; the last step of an epoch may have fewer.
        num_steps: Steps that were done.

    Raises:
        TrainingError: A step is missing, or in some epoch a row came twice or not at all.
    """
    dealt_at_once = micro_batch_size * len(ledgers)
    steps_per_epoch = -(-num_sequences // (dealt_at_once * accumulation_steps))
    num_dealt_again = -num_sequences % dealt_at_once if len(ledgers) > 1 else 0
    faults = [f"step {step} is missing" for step in range(1, num_steps + 1) if any(step not in ledger for ledger in ledgers)]
    for first in range(1, num_steps + 1, steps_per_epoch):
        last = min(first + steps_per_epoch - 1, num_steps)
        whole = last - first + 1 == steps_per_epoch
        dealt = [rows for step in range(first, last + 1) for rows in _dealt(ledgers, step, micro_batch_size)]
        again = dealt[len(dealt) - num_dealt_again :] if whole else []
        if again != list(islice(cycle(dealt[:num_sequences]), len(again))):
            faults.append(f"in steps {first} to {last}: other sequences than the first ones were dealt again")
        due, seen = Counter(row_ids), Counter(row for rows in dealt[: len(dealt) - len(again)] for row in rows)
        twice = sum(count > due[row] > 0 for row, count in seen.items())
        missing = (due - seen).total() if whole else 0
        unknown = sum(row not in due for row in seen)
        if twice or missing or unknown:
            faults.append(f"in steps {first} to {last}: {twice} rows twice, {missing} skipped, {unknown} unknown")
    if faults:
        raise TrainingError(
            "training's ledger of rows",
            "; ".join(faults[:5]),
            "every row once in every epoch",
            "This is a fault of the program; the adapter is not to be used. Please report it.",
        )
    packed = f" in {num_sequences} sequences" if num_sequences != len(row_ids) else ""
    epochs = f"{len(row_ids)} rows{packed}, {num_steps / steps_per_epoch:g} epochs"
    if not num_dealt_again:
        return f"{epochs}: none came twice in an epoch, none was skipped"
    return (
        f"{epochs}: none was skipped in an epoch, none came twice but the first {num_dealt_again} sequences, dealt again to "
        f"fill the last batch of {len(ledgers)} processes"
    )


def _dealt(ledgers: Sequence[Ledger], step: int, micro_batch_size: int) -> list[Sequence[str]]:
    """The sequences of a step in the order of dealing: a micro-batch to each process in turn."""
    drawn = [ledger.get(step, ()) for ledger in ledgers]
    starts = range(0, max(map(len, drawn)), micro_batch_size)
    return [rows for start in starts for of_process in drawn for rows in of_process[start : start + micro_batch_size]]
