"""The ledger proves what each step was trained on, over kills, and says so when a row was skipped or came twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import TrainingError
from tasks.training.ledger import RowLedger, check_ledger, read_ledger

ROWS = ["a", "b", "c", "d", "e"]


def write(path: Path, steps: list[list[str]], first: int = 1) -> None:
    ledger = RowLedger(path)
    for number, rows in enumerate(steps, start=first):
        for row in rows:
            ledger.draw([row])
        ledger.close_step(number)


def test_steps_done_again_count_as_they_were_done_last(tmp_path: Path) -> None:
    path = tmp_path / "rows-0.jsonl"
    write(path, [["a", "b"], ["c", "x"], ["y"]])
    with path.open("a") as file:
        file.write('{"step": 4, "ro')  # torn by a kill
    assert sorted(read_ledger([path])) == [1, 2, 3]
    write(path, [["c", "d"], ["e"]], first=2)
    assert read_ledger([path]) == {1: ["a", "b"], 2: ["c", "d"], 3: ["e"]}
    assert "5 rows, 1 epochs" in check_ledger(read_ledger([path]), ROWS, batch_size=2, num_steps=3)


def test_processes_are_read_together(tmp_path: Path) -> None:
    for number, rows in enumerate(("ab", "cd")):
        write(tmp_path / f"rows-{number}.jsonl", [[row] for row in rows])
    assert read_ledger(sorted(tmp_path.iterdir())) == {1: ["a", "c"], 2: ["b", "d"]}


@pytest.mark.parametrize(
    ("ledger", "fault"),
    [
        ({1: ["a", "b"], 2: ["c", "d"]}, "step 3 is missing"),
        ({1: ["a", "b"], 2: ["c", "a"], 3: ["e"]}, "1 rows twice, 1 skipped"),
        ({1: ["a", "b"], 2: ["c", "d"], 3: ["z"]}, "1 skipped, 1 unknown"),
        ({1: ["a", "b"], 2: ["c", "d"], 3: ["e"], 4: ["b", "b"]}, "steps 4 to 4: 1 rows twice, 0 skipped"),
    ],
)
def test_what_was_skipped_or_came_twice_is_told(ledger: dict[int, list[str]], fault: str) -> None:
    with pytest.raises(TrainingError, match=fault):
        check_ledger(ledger, ROWS, batch_size=2, num_steps=max(3, *ledger))


def test_an_epoch_that_was_cut_short_may_lack_rows() -> None:
    ledger = {1: ["a", "b"], 2: ["c", "d"], 3: ["e"], 4: ["b", "c"]}
    assert "1.33333 epochs" in check_ledger(ledger, ROWS, batch_size=2, num_steps=4)
