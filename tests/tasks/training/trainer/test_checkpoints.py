"""Training resumes from the newest checkpoint that was written to its end."""

from __future__ import annotations

from pathlib import Path

from tasks.training.trainer.checkpoints import is_complete, last_complete_checkpoint, mark_complete


def checkpoint(folder: Path, step: int, *, marked: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"x" * 100)
    (path / "trainer_state.json").write_text("{}")
    if marked:
        mark_complete(path)
    return path


def test_the_newest_step_counts_not_the_newest_name(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 100)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path) == newest


def test_unmarked_shortened_and_gutted_checkpoints_are_skipped(tmp_path: Path) -> None:
    good = checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2, marked=False)
    (checkpoint(tmp_path, 3) / "optimizer.pt").write_bytes(b"x" * 99)
    (checkpoint(tmp_path, 4) / "trainer_state.json").unlink()
    (checkpoint(tmp_path, 5) / "COMPLETE.json").write_text('{"optim')
    assert last_complete_checkpoint(tmp_path) == good
    assert is_complete(good)
