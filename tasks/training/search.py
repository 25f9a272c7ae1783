"""The learning rate, rank and number of epochs with the lowest validation loss: Optuna's study over supervised trainings.

A trial is an ordinary training with its own MLflow run. It is pruned when its loss is worse than the median of earlier
trials at the same part of their run. The study lies in a database, which keeps finished trials. An interrupted trial resumes
from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel, SearchReport, SearchTrial
from tasks.core.errors import BudgetError, InputError, MissingDependencyError, TrainingError
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import run_store, sha256_of_json
from tasks.tracking import RunStopped, TrackingRun, open_run
from tasks.training.config import BudgetConfig, SearchConfig, SftConfig, TrainingConfig
from tasks.training.launch import execution, supervisor
from tasks.training.launch.execution import OnEvaluation
from tasks.training.launch.protocol import SftMethod, TrainerEvent
from tasks.training.launch.work_folder import discard, read_plan
from tasks.training.plan.budget import BudgetUsed

logger = logging.getLogger(__name__)

# The median of fewer trials says little.
TRIALS_BEFORE_PRUNING = 4
_FAILURE, _HOURS, _COST, _RUN = "failure", "device_hours", "cost", "mlflow_run_id"
_ADAPTER, _MEMORY = "adapter", "peak_memory_bytes"


@dataclass(frozen=True)
class Outcome:
    """The loss of one trial, what it took and what it made; no loss when it was pruned, no cost without a price."""

    loss: float | None
    device_hours: float = 0.0
    cost: float | None = None
    adapter: FolderRef | None = None
    peak_memory_bytes: int = 0


RunTrial = Callable[[SftConfig, int, BudgetUsed, OnEvaluation], Outcome]
OnProgress = Callable[[int, int, str], None]


def search(
    base: BaseLanguageModel,
    rows: DatasetRef,
    validation: DatasetRef,
    config: TrainingConfig,
    *,
    snapshots: tuple[str, ...],
    experiment: str,
    study_uri: str,
    num_trials: int,
    on_progress: OnProgress,
    budget_used: BudgetUsed | None = None,
) -> SearchReport:
    """The trials on these rows, including those of earlier calls; each is an MLflow run nested in the search's.

    Args:
        base: The resolved base model.
        rows: Training rows.
        validation: Held-out rows, whose loss is minimised.
        config: The settings to start from, the space, and the budget of all trials together.
        snapshots: The snapshots that the rows must descend from, all of them.
        experiment: MLflow experiment.
        study_uri: Database of studies, such as ``sqlite:////srv/perennial/search.db``.
        num_trials: Trials in all, including earlier ones.
        on_progress: Called with trials done, trials in all, and a short note.
        budget_used: What the trials of other base models took of the budget.

    Raises:
        InputError: There are no validation rows.
        MissingDependencyError: Optuna is not installed.
        BudgetError: Not even the first trial is within the budget.
    """
    if not validation.num_rows:
        raise InputError(
            f"data set {validation.sha256[:12]}",
            "0 validation rows",
            "some, because a search compares their loss",
            "Raise `prepare.splitting.validation_share`.",
        )
    # A trial does not request a person's approval.
    budget = config.budget.model_copy(update={"on_exceeded": "stop"})
    fixed = config.sft.model_dump(mode="json", exclude={"learning_rate", "num_train_epochs", "scratch_dir"})
    (fixed["lora"] or {}).pop("r", None)
    code, space = code_sha256(file_of(supervisor.WORKER)), config.search.model_dump(mode="json", exclude={"base_models"})
    content = [base.folder.sha256, rows.sha256, validation.sha256, fixed, space, code]
    name = f"{experiment}-{sha256_of_json(content)[:12]}"
    tags = {"stage": "search", "train_sha256": rows.sha256, "base_model": base.name}
    with _exclusive(study_uri):
        study = open_study(study_uri, name, config.search.seed)
        with open_run(experiment, "search", tags, run_id=study.user_attrs.get(_RUN)) as parent:
            study.set_user_attr(_RUN, parent.run_id)
            trainer = _Trainer(base, rows, validation, budget, snapshots, experiment, parent.run_id, num_trials, on_progress)
            report = run_trials(study, config.sft, config.search, num_trials, trainer, on_progress, budget_used)
            _log_winner(parent, report)
    return report


@dataclass(frozen=True)
class _Trainer:
    """Carries out trials as supervised trainings."""

    base: BaseLanguageModel
    rows: DatasetRef
    validation: DatasetRef
    budget: BudgetConfig
    snapshots: tuple[str, ...]
    experiment: str
    parent_run_id: str
    num_trials: int
    on_progress: OnProgress

    def __call__(self, settings: SftConfig, number: int, budget_used: BudgetUsed, on_evaluation: OnEvaluation) -> Outcome:
        """One training, to its end or to where it is pruned."""
        method = SftMethod(config=settings)
        began = time.monotonic()
        try:
            result = execution.train(
                self.base,
                self.rows,
                self.validation,
                method,
                snapshots=self.snapshots,
                experiment=self.experiment,
                on_progress=lambda done, total, note: self.on_progress(
                    number, self.num_trials, f"trial {number + 1}, step {done} of {total}, {note}"
                ),
                budget=self.budget,
                budget_used=budget_used,
                on_evaluation=on_evaluation,
                tags={"mlflow.parentRunId": self.parent_run_id, "trial": str(number)},
            )
        except RunStopped:
            work = execution.work_folder(run_store(), self.base, self.rows, self.validation, method)
            plan, seconds = read_plan(work), time.monotonic() - began
            discard(work)
            return Outcome(None) if plan is None else Outcome(None, plan.device_hours_of(seconds), plan.cost_of(seconds))
        loss = next(item.value for item in result.measurements if item.name == "eval_loss_after")
        return Outcome(loss, result.device_hours, result.cost, result.adapter, result.peak_memory_bytes)


def open_study(uri: str, name: str, seed: int) -> Any:
    """The study of that name, new or as an earlier process left it; interrupted trials are first in its queue."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "perennial search", "no package `optuna`", "it installed", "pip install 'perennial-llm[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=uri, study_name=name, direction="minimize", load_if_exists=True)
    running = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
    for trial in running:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    # Another seed for every call, or a continued study would draw its first points again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE_PRUNING)
    return study


def run_trials(
    study: Any,
    config: SftConfig,
    space: SearchConfig,
    num_trials: int,
    run_trial: RunTrial,
    on_progress: OnProgress,
    budget_used: BudgetUsed | None = None,
) -> SearchReport:
    """Trials until ``num_trials`` are done, or until the next one would exceed the budget.

    The configured settings are the first trial, so that the best one is never worse than they are.

    Args:
        study: From :func:`open_study`.
        config: The settings to start from.
        space: What to vary.
        num_trials: Trials in all, including earlier ones.
        run_trial: Carries out one trial.
        on_progress: Called with trials done, trials in all, and a short note.
        budget_used: What others took of the budget before.
    """
    from optuna.trial import TrialState

    notes: list[str] = []
    if not _finished(study) and not study.get_trials(states=[TrialState.WAITING]):
        study.enqueue_trial(_point_of(config))
    while (done := len(_finished(study))) < num_trials:
        trial = study.ask()
        settings = _suggest(trial, config, space)
        used = _used(study, budget_used or BudgetUsed())

        def prune(event: TrainerEvent, trial: Any = trial) -> None:
            # Runs of different lengths are compared at the same tenth of their steps, where learning rates are similar.
            if event.eval_loss is not None and 0 < event.step < event.num_steps:
                trial.report(event.eval_loss, round(10 * event.step / event.num_steps))
                if trial.should_prune():
                    raise RunStopped("pruned")

        try:
            outcome = run_trial(settings, done, used, prune)
        except BudgetError as error:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
            if not done:
                raise
            notes.append(f"the budget ended the search: {error.found}; expected {error.expected}")
            break
        except TrainingError as error:
            trial.set_user_attr(_FAILURE, error.found)
            study.tell(trial, state=TrialState.FAIL)
            logger.warning("search: trial %d failed: %s", trial.number, error)
            continue
        trial.set_user_attr(_HOURS, outcome.device_hours)
        trial.set_user_attr(_COST, outcome.cost)
        trial.set_user_attr(_MEMORY, outcome.peak_memory_bytes)
        if outcome.adapter is not None:
            trial.set_user_attr(_ADAPTER, outcome.adapter.model_dump_json())
        if outcome.loss is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, outcome.loss)
        result = "pruned" if outcome.loss is None else f"validation loss {outcome.loss:.4f}"
        logger.info("search: %s: %s", _point_of(settings), result)
        on_progress(done + 1, num_trials, result)
    return _report(study, config, notes)


def _used(study: Any, before: BudgetUsed) -> BudgetUsed:
    """What the trials so far took, on top of what others did."""
    hours, cost = (sum(trial.user_attrs.get(name) or 0.0 for trial in study.trials) for name in (_HOURS, _COST))
    return BudgetUsed(before.device_hours + hours, before.cost + cost)


def _suggest(trial: Any, config: SftConfig, space: SearchConfig) -> SftConfig:
    """The next settings to try; the space includes the configured values."""
    low, high = space.learning_rate
    rate = trial.suggest_float("learning_rate", min(low, config.learning_rate), max(high, config.learning_rate), log=True)
    update: dict[str, Any] = {"learning_rate": float(f"{rate:.3g}")}
    if config.max_steps is None:
        epochs = sorted({*space.num_train_epochs, config.num_train_epochs})
        update["num_train_epochs"] = trial.suggest_categorical("num_train_epochs", epochs)
    if config.lora is not None:
        rank = trial.suggest_categorical("r", sorted({*space.r, config.lora.r}))
        update["lora"] = config.lora.model_copy(update={"r": rank})
    return config.model_copy(update=update)


def _point_of(config: SftConfig) -> dict[str, float | int]:
    """The searched settings of a configuration."""
    point: dict[str, float | int] = {"learning_rate": config.learning_rate}
    if config.max_steps is None:
        point["num_train_epochs"] = config.num_train_epochs
    if config.lora is not None:
        point["r"] = config.lora.r
    return point


def _finished(study: Any) -> list[Any]:
    """Trials that ended by themselves, without interrupted ones."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED") or _FAILURE in trial.user_attrs]


def _report(study: Any, config: SftConfig, notes: list[str]) -> SearchReport:
    trials = tuple(
        SearchTrial(
            outcome="failed" if _FAILURE in trial.user_attrs else "pruned" if trial.state.name == "PRUNED" else "complete",
            learning_rate=float(f"{trial.params['learning_rate']:.3g}"),
            num_train_epochs=trial.params.get("num_train_epochs"),
            r=trial.params.get("r"),
            eval_loss=trial.value if trial.state.name == "COMPLETE" else None,
            device_hours=trial.user_attrs.get(_HOURS, 0.0),
            adapter=FolderRef.model_validate_json(kept) if (kept := trial.user_attrs.get(_ADAPTER)) else None,
            peak_memory_bytes=trial.user_attrs.get(_MEMORY, 0),
            cost=trial.user_attrs.get(_COST),
        )
        for trial in _finished(study)
    )
    complete = [index for index, trial in enumerate(trials) if trial.eval_loss is not None]
    if not complete:
        raise TrainingError(
            f"study {study.study_name}",
            f"{len(trials)} trials, none of which reached its end",
            "one at least",
            "Read the log, which says how each failed. Narrow `training.search`, or try the training by itself first.",
        )
    best = min(complete, key=lambda index: trials[index].eval_loss or 0.0)
    return SearchReport(study=study.study_name, trials=trials, best=best, notes=tuple(notes))


@contextmanager
def _exclusive(study_uri: str) -> Iterator[None]:
    """Keeps a second search off the same SQLite file: it would take the first one's running trial for an interrupted one."""
    if not study_uri.startswith("sqlite:///"):
        yield
        return
    path = study_uri.removeprefix("sqlite:///")
    with Path(f"{path}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                path, "another search that uses it", "one at a time", "Wait for it, or set another PERENNIAL_HOME."
            ) from error
        yield


def _log_winner(run: TrackingRun, report: SearchReport) -> None:
    winner = report.winner
    figures = {"best_eval_loss": winner.eval_loss, "learning_rate": winner.learning_rate, "r": winner.r}
    figures["num_train_epochs"] = winner.num_train_epochs
    run.log_metrics({name: float(value) for name, value in figures.items() if value is not None})
    run.log_metrics({"num_trials": len(report.trials), "device_hours": sum(trial.device_hours for trial in report.trials)})
