"""Which rows each optimizer step was trained on: the proof that none was skipped and none came twice, over kills too.

One file of each process, a JSON line a step, written when the step is done. A trainer that resumes from a checkpoint does
some steps again; of a step written twice the last line counts, because the weights are those of the last time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.errors import TrainingError


class RowLedger:
    """Writes the ledger of one process.

    Args:
        path: Its file; a line that a kill tore is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drawn: list[str] = []
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def draw(self, row_ids: Iterable[str]) -> None:
        """Notes the rows of a micro-batch."""
        self._drawn.extend(row_ids)

    def close_step(self, step: int) -> None:
        """Writes the rows drawn since the last step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "rows": self._drawn}) + "\n")
        self._drawn = []


def read_ledger(paths: Iterable[Path]) -> dict[int, list[str]]:
    """The rows of each step, of all processes; a torn last line is left out."""
    steps: dict[int, list[str]] = {}
    for path in paths:
        lines = path.read_bytes()
        whole = lines[: lines.rfind(b"\n") + 1].decode().splitlines()
        of_process = {line["step"]: line["rows"] for line in map(json.loads, whole)}
        for step, rows in of_process.items():
            steps.setdefault(step, []).extend(rows)
    return steps


def check_ledger(ledger: Mapping[int, Sequence[str]], row_ids: Sequence[str], *, batch_size: int, num_steps: int) -> str:
    """What the ledger proves, in words.

    Args:
        ledger: As :func:`read_ledger` returns it.
        row_ids: The rows to train on.
        batch_size: Rows of one optimizer step; the last step of an epoch may have fewer.
        num_steps: Steps that were done.

    Raises:
        TrainingError: A step is missing, or in some epoch a row came twice or not at all.
    """
    steps_per_epoch = -(-len(row_ids) // batch_size)
    due = Counter(row_ids)
    faults = [f"step {step} is missing" for step in range(1, num_steps + 1) if step not in ledger]
    for first in range(1, num_steps + 1, steps_per_epoch):
        last = min(first + steps_per_epoch - 1, num_steps)
        seen = Counter(row for step in range(first, last + 1) for row in ledger.get(step, ()))
        twice = sum(count > due[row] > 0 for row, count in seen.items())
        missing = (due - seen).total() if last - first + 1 == steps_per_epoch else 0
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
    epochs = num_steps / steps_per_epoch
    return f"{len(row_ids)} rows, {epochs:g} epochs: none came twice in an epoch, none was skipped"
