"""A search finds better settings, resumes after an interruption, prunes trials and keeps its budget."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts.references import FolderRef
from tasks.contracts.training import SearchReport
from tasks.core.errors import BudgetError, InputError, TrainingError
from tasks.core.storage import run_store
from tasks.tracking import RunStopped
from tasks.training import search
from tasks.training.config import SearchConfig, SftConfig, TrainingConfig
from tasks.training.launch.execution import OnEvaluation
from tasks.training.launch.protocol import TrainerEvent
from tasks.training.plan.budget import BudgetUsed
from tasks.training.search import Outcome, open_study, run_trials
from tests.tasks.training.conftest import Desk, quick_sft

START = SftConfig(learning_rate=2e-4, num_train_epochs=3)


def loss_of(settings: SftConfig) -> float:
    """A bowl with its lowest point at a learning rate of 1e-3; more ranks are a little worse."""
    rank = settings.lora.r if settings.lora else 0
    return 1 + abs(math.log10(settings.learning_rate) + 3) + rank / 1000


class Trainer:
    """Stands in for the trainer: records the settings of every trial, and may fail at some of them."""

    def __init__(self, behave: Callable[[int, SftConfig, OnEvaluation], Outcome | None] = lambda *_: None) -> None:
        self.trials: list[SftConfig] = []
        self.used: list[BudgetUsed] = []
        self._behave = behave

    def __call__(self, settings: SftConfig, number: int, used: BudgetUsed, on_evaluation: OnEvaluation) -> Outcome:
        self.trials.append(settings)
        self.used.append(used)
        return self._behave(len(self.trials), settings, on_evaluation) or Outcome(loss_of(settings), 0.5, 2.0)


def run(folder: Path, trainer: Trainer, num_trials: int, config: SftConfig = START, **space: Any) -> SearchReport:
    study = open_study(f"sqlite:///{folder / 'search.db'}", "desk", seed=1)
    return run_trials(study, config, SearchConfig(**space), num_trials, trainer, lambda done, total, note: None)


def test_it_starts_with_the_configured_settings_and_finds_better_ones(tmp_path: Path) -> None:
    trainer = Trainer()
    report = run(tmp_path, trainer, 12)
    assert trainer.trials[0] == START
    assert len(report.trials) == len(trainer.trials) == 12
    assert report.winner.eval_loss == min(loss_of(settings) for settings in trainer.trials) < loss_of(START)
    assert all(5e-5 <= settings.learning_rate <= 2e-3 for settings in trainer.trials)
    assert {settings.num_train_epochs for settings in trainer.trials} <= {1.0, 2.0, 3.0}
    assert len({settings.learning_rate for settings in trainer.trials}) > 6
    assert trainer.used[-1] == BudgetUsed(device_hours=11 * 0.5, cost=11 * 2.0)


def test_the_same_command_tries_nothing_twice_and_more_trials_go_on(tmp_path: Path) -> None:
    first, again, more = Trainer(), Trainer(), Trainer()
    report = run(tmp_path, first, 3)
    assert run(tmp_path, again, 3) == report
    assert not again.trials
    assert run(tmp_path, more, 5).trials[:3] == report.trials
    assert len(more.trials) == 2
    assert not {settings.learning_rate for settings in more.trials} & {settings.learning_rate for settings in first.trials}


def test_an_interrupted_trial_is_repeated(tmp_path: Path) -> None:
    def kill(count: int, settings: SftConfig, on_evaluation: OnEvaluation) -> None:
        if count == 2:
            raise KeyboardInterrupt

    first, second = Trainer(kill), Trainer()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, 3)
    report = run(tmp_path, second, 3)
    assert second.trials[0] == first.trials[1]
    assert len(report.trials) == 3
    assert len(second.trials) == 2


def test_a_trial_worse_than_the_median_is_pruned(tmp_path: Path) -> None:
    def evaluate(count: int, settings: SftConfig, on_evaluation: OnEvaluation) -> Outcome | None:
        try:
            on_evaluation(TrainerEvent(kind="evaluation", step=5, num_steps=10, eval_loss=9.0 if count == 6 else 1.0))
        except RunStopped:
            return Outcome(None, 0.1)
        return None

    trainer = Trainer(evaluate)
    report = run(tmp_path, trainer, 6)
    assert [trial.outcome for trial in report.trials] == ["complete"] * 5 + ["pruned"]
    assert report.trials[5].eval_loss is None
    assert report.trials[5].device_hours == 0.1


def test_a_failed_trial_counts_and_ends_nothing(tmp_path: Path) -> None:
    def diverge(count: int, settings: SftConfig, on_evaluation: OnEvaluation) -> None:
        if count == 2:
            raise TrainingError("training.sft.learning_rate", "a loss of nan at step 3", "a finite one", "Lower it.")

    report = run(tmp_path, Trainer(diverge), 3)
    assert [trial.outcome for trial in report.trials] == ["complete", "failed", "complete"]

    def always(count: int, settings: SftConfig, on_evaluation: OnEvaluation) -> None:
        raise TrainingError("training", "a loss of nan", "a finite one", "Lower it.")

    (tmp_path / "other").mkdir()
    with pytest.raises(TrainingError, match="2 trials, none of which reached its end"):
        run(tmp_path / "other", Trainer(always), 2)


def test_the_budget_ends_the_search_with_what_was_found(tmp_path: Path) -> None:
    def refuse_from(first: int) -> Trainer:
        def refuse(count: int, settings: SftConfig, on_evaluation: OnEvaluation) -> None:
            if count >= first:
                raise BudgetError("training.budget.max_cost", "9 EUR planned", "at most 4 EUR in all", "Raise it.")

        return Trainer(refuse)

    with pytest.raises(BudgetError):
        run(tmp_path, refuse_from(1), 5)
    trainer = refuse_from(3)
    report = run(tmp_path, trainer, 5)
    assert trainer.trials[0] == START, "what was refused is tried first with a larger budget"
    assert len(report.trials) == 2
    assert "9 EUR planned" in report.notes[0]


def test_other_base_models_trials_count_towards_the_budget(tmp_path: Path) -> None:
    trainer = Trainer()
    study = open_study(f"sqlite:///{tmp_path / 'search.db'}", "desk", seed=1)
    before = BudgetUsed(device_hours=3.0, cost=7.0)
    run_trials(study, START, SearchConfig(), 2, trainer, lambda done, total, note: None, before)
    assert trainer.used == [before, BudgetUsed(device_hours=3.5, cost=9.0)]


def test_a_complete_trial_keeps_its_adapter_cost_and_memory(tmp_path: Path) -> None:
    adapter = FolderRef(sha256="b" * 64, size_bytes=3, num_files=1)
    report = run(tmp_path, Trainer(lambda *_: Outcome(1.0, 0.5, None, adapter, 5)), 1)
    assert (report.winner.adapter, report.winner.cost, report.winner.peak_memory_bytes) == (adapter, None, 5)


def test_what_is_fixed_is_not_varied(tmp_path: Path) -> None:
    config = SftConfig(max_steps=7, lora=None, learning_rate=0.5)
    trainer = Trainer()
    report = run(tmp_path, trainer, 3, config)
    assert {(settings.num_train_epochs, settings.lora) for settings in trainer.trials} == {(3.0, None)}
    assert trainer.trials[0].learning_rate == 0.5, "the configured value belongs to the space"
    assert (report.winner.num_train_epochs, report.winner.r) == (None, None)


def test_the_space_has_bounds() -> None:
    with pytest.raises(ValidationError, match="a lower and a higher value"):
        SearchConfig(learning_rate=(1e-3, 1e-4))
    with pytest.raises(ValidationError):
        SearchConfig(r=())


def find(desk: Desk, folder: Path, num_trials: int, **changes: Any) -> SearchReport:
    refs: dict[str, Any] = {"validation": desk.validation} | changes
    return search.search(
        desk.base,
        desk.train,
        refs["validation"],
        TrainingConfig(sft=quick_sft(learning_rate=1e-5), search=SearchConfig(learning_rate=(5e-3, 2e-2), r=(4,))),
        snapshots=(desk.snapshot.sha256,),
        experiment="desk",
        study_uri=f"sqlite:///{folder / 'search.db'}",
        num_trials=num_trials,
        on_progress=lambda done, total, note: None,
    )


def test_a_search_without_validation_rows_is_refused(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 validation rows"):
        find(desk, tmp_path, 2, validation=desk.rows([]))


def test_a_second_search_at_the_same_time_is_refused(desk: Desk, tmp_path: Path) -> None:
    with (tmp_path / "search.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another search"):
            find(desk, tmp_path, 2)


@pytest.mark.slow
def test_real_trainings_are_compared_pruned_and_nested(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(search, "TRIALS_BEFORE_PRUNING", 1)
    from tasks.tracking import connect, experiment_id

    report = find(desk, tmp_path, 2)
    assert report.best == 1, "a learning rate of 1e-5 teaches nothing in 12 steps"
    assert find(desk, tmp_path, 2) == report

    # With these two as the others, the configured learning rate stands no chance.
    study = search.open_study(f"sqlite:///{tmp_path / 'search.db'}", report.study, seed=1)
    study.enqueue_trial({"learning_rate": 1e-5, "num_train_epochs": 2.0, "r": 8})
    report = find(desk, tmp_path, 3)
    assert report.trials[2].outcome == "pruned"

    client = connect()
    runs = client.search_runs([experiment_id(client, "desk")])
    parent = next(item for item in runs if item.data.tags["stage"] == "search")
    nested = [item for item in runs if item.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted((item.data.tags["trial"], item.info.status) for item in nested) == [
        ("0", "FINISHED"),
        ("1", "FINISHED"),
        ("2", "KILLED"),
    ]
    assert client.get_run(parent.info.run_id).data.metrics["best_eval_loss"] == report.winner.eval_loss
    assert not list((run_store().local_path / "work").glob("sft-*"))  # type: ignore[operator]
