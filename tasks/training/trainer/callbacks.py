"""What happens between steps: progress is reported, the best adapter kept, checkpoints marked, a stop request obeyed."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import TrainingError
from tasks.core.storage import write_file_atomically
from tasks.training.config import TrainerConfig
from tasks.training.launch.protocol import TrainerEvent
from tasks.training.plan.hardware import peak_memory_bytes
from tasks.training.trainer.checkpoints import mark_complete
from tasks.training.trainer.ledger import RowLedger

ALIVE_INTERVAL_SECONDS = 5.0
_BEST_FILE = "best.json"


class ProgressFile:
    """Appends events to a file that the parent follows; of several processes only the first writes."""

    def __init__(self, path: Path, *, silent: bool = False) -> None:
        self._path = path
        self._silent = silent
        self._written_at = 0.0

    def phase(self, name: str) -> None:
        """Reports what the trainer does now."""
        self.write(TrainerEvent(kind="phase", phase=name))

    def write(self, event: TrainerEvent) -> None:
        """Writes one event as one line."""
        self._written_at = time.monotonic()
        if self._silent:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(event.model_dump_json(exclude_defaults=True) + "\n")

    def alive(self) -> None:
        """Reports that the process works, at most every few seconds."""
        if time.monotonic() - self._written_at >= ALIVE_INTERVAL_SECONDS:
            self.write(TrainerEvent(kind="alive"))


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Reports progress, and decides when to evaluate, to save and to stop.

    Args:
        plan: The plan that is carried out.
        config: Its settings.
        progress: Where events go.
        best: Keeps the best adapter.
        ledger: Records the rows of each step.
        evaluates: Whether there are validation rows.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        config: TrainerConfig,
        progress: ProgressFile,
        best: BestKeeper,
        ledger: RowLedger,
        *,
        evaluates: bool,
    ) -> None:
        self._plan = plan
        self._config = config
        self._progress = progress
        self._best = best
        self._ledger = ledger
        self._evaluates = evaluates
        self._stop_requested = False
        self._saved_at = time.monotonic()
        self._step_began = 0.0
        self._seconds_since_log = 0.0
        self._tokens_at_log: int | None = None
        self.train_seconds = 0.0
        self.stopped_on_request = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self._stop_requested = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clocks."""
        self._saved_at = time.monotonic()
        self._tokens_at_log = state.num_input_tokens_seen

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the step's clock."""
        self._step_began = time.monotonic()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports progress after a micro-batch."""
        self._progress.alive()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports progress after an evaluation batch."""
        self._progress.alive()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Decides whether to evaluate, to save and to stop after this step."""
        self._ledger.close_step(state.global_step)
        elapsed = time.monotonic() - self._step_began
        self._seconds_since_log += elapsed
        self.train_seconds += elapsed
        last = state.global_step >= state.max_steps
        control.should_evaluate = self._evaluates and (state.global_step % self._plan.eval_steps == 0 or last)
        due = time.monotonic() - self._saved_at >= self._config.save_interval_seconds
        control.should_save = control.should_evaluate or due or last
        if self._stop_requested:
            control.should_save = control.should_training_stop = self.stopped_on_request = True
            control.should_evaluate = False
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Reports a training step's figures."""
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"training.{self._plan.method}.learning_rate",
                f"a loss of {logs['loss']} at step {state.global_step}",
                "a finite one",
                "Lower the learning rate or raise warmup_steps.",
            )
        seen = state.num_input_tokens_seen
        speed = (seen - (self._tokens_at_log or 0)) / self._seconds_since_log if self._seconds_since_log else None
        self._tokens_at_log, self._seconds_since_log = seen, 0.0
        self._progress.write(
            TrainerEvent(
                kind="step",
                phase=self._plan.method,
                step=state.global_step,
                num_steps=state.max_steps,
                epoch=state.epoch,
                loss=logs["loss"],
                reward=logs.get("reward"),
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                tokens_per_second=speed,
                memory_bytes=peak_memory_bytes(),
                num_tokens=seen,
            )
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> Any:
        """Keeps the best adapter; stops training after too many evaluations without a better one."""
        loss = metrics["eval_loss"]
        self._progress.write(
            TrainerEvent(
                kind="evaluation",
                phase=self._plan.method,
                step=state.global_step,
                num_steps=state.max_steps,
                epoch=state.epoch,
                eval_loss=loss,
            )
        )
        if state.global_step > 0:
            self._best.consider(state.global_step, loss)
            patience = self._config.early_stopping_patience
            if patience and self._best.evaluations_since_best(state.log_history) >= patience:
                control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the checkpoint as complete."""
        self._saved_at = time.monotonic()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class BestKeeper:
    """Keeps the adapter of the step with the lowest validation loss, across restarts too.

    Args:
        folder: Holds the adapter and its record.
        save: Writes the present weights into a folder. Every process calls it; it returns True in the one that wrote.
    """

    def __init__(self, folder: Path, save: Callable[[Path], bool]) -> None:
        self.folder = folder
        self._save = save

    def consider(self, step: int, loss: float) -> None:
        """Keeps the present adapter when its loss is the lowest so far, or when its step is the best one, run again."""
        best = self.best()
        if (best is None or loss < best[1] or step == best[0]) and self._save(self.folder):
            write_file_atomically(self.folder / _BEST_FILE, json.dumps({"step": step, "loss": loss}).encode())

    def best(self) -> tuple[int, float] | None:
        """Step and loss of the best adapter, or None when none is kept."""
        try:
            record = json.loads((self.folder / _BEST_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return int(record["step"]), float(record["loss"])

    def evaluations_since_best(self, history: list[dict[str, Any]]) -> int:
        """The number of evaluations since the lowest loss in the trainer's own history."""
        losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0
