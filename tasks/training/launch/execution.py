"""One training, from references to a stored adapter: lineage, supervised trainer, tracking, result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel, TrainingPlan, TrainingResult
from tasks.core.errors import BudgetError, InputError
from tasks.core.scratch import own_folder
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, run_store, sha256_of_json, write_file_atomically
from tasks.tracking import TrackingRun, open_run
from tasks.training.config import BudgetConfig
from tasks.training.launch import supervisor
from tasks.training.launch.protocol import REFUSED_PLAN, Method, SftMethod, TrainerEvent, TrainerSpec
from tasks.training.launch.work_folder import discard, work_root
from tasks.training.plan.budget import NO_PRICE, BudgetUsed, apply_approved_ceiling, request_approval

logger = logging.getLogger(__name__)

REQUIRED_GATES = ("validated", "scrubbed", "label_audited", "decontaminated")
"""The gates that rows must have passed to be trained on."""

CURVES_SCHEMA = pa.schema(
    [
        pa.field("phase", pa.string()),
        pa.field("step", pa.int64()),
        pa.field("epoch", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("eval_loss", pa.float64()),
        pa.field("reward", pa.float64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("grad_norm", pa.float64()),
        pa.field("tokens_per_second", pa.float64()),
        pa.field("memory_bytes", pa.int64()),
    ]
)

OnProgress = Callable[[int, int, str], None]
OnEvaluation = Callable[[TrainerEvent], None]


def train(
    base: BaseLanguageModel,
    rows: DatasetRef,
    validation: DatasetRef,
    method: Method,
    *,
    snapshots: tuple[str, ...],
    experiment: str,
    on_progress: OnProgress,
    budget: BudgetConfig | None = None,
    budget_used: BudgetUsed | None = None,
    on_evaluation: OnEvaluation | None = None,
    tags: Mapping[str, str] | None = None,
) -> TrainingResult:
    """The trained adapter, stored beside the rows; the same call resumes what an earlier one left unfinished.

    Args:
        base: The resolved base model.
        rows: Training rows, or pairs.
        validation: Held-out rows for the loss during training; may be empty.
        method: The method with its settings.
        snapshots: The snapshots that the rows must descend from, all of them.
        experiment: MLflow experiment.
        on_progress: Called with steps done, steps in all, and a short note.
        budget: Prices, and ceilings that the trainer's own plan must keep before its first step. None: neither.
        budget_used: What earlier training steps took of the budget.
        on_evaluation: Called with each evaluation; it ends the trainer by raising :class:`~tasks.tracking.RunStopped`.
        tags: More tags of the MLflow run.

    Raises:
        BudgetError: The plan exceeds a ceiling without approval; the message says how to approve it, where that is possible.
        LineageError: The rows do not descend from the snapshot or missed a gate.
        InputError: There are no rows, or of the wrong kind.
        TrainingError: The trainer failed after all its attempts.
    """
    store = run_store()
    check_rows(rows, validation, method, snapshots)
    work = own_folder(work_folder(store, base, rows, validation, method))
    budget_used = budget_used or BudgetUsed()
    budget, approval = apply_approved_ceiling(store, experiment, work.name, budget or BudgetConfig(), budget_used)
    spec = TrainerSpec(
        base=base,
        train=rows,
        validation=validation if validation.num_rows else None,
        method=method,
        work_dir=str(work),
        store_uri=store.uri,
        budget=budget,
        budget_used=budget_used,
    )
    began = time.monotonic()
    logger.info("%s: training on %d rows, work folder %s", method.kind, rows.num_rows, work)
    own_tags = {
        "stage": method.kind,
        "train_sha256": rows.sha256,
        "base_model": base.name,
        "base_sha256": base.folder.sha256,
    }
    tags = {**own_tags, **(tags or {})}
    with open_run(experiment, method.kind, tags, run_id=_earlier_run(work), watch_machine=True) as run:
        _remember_run(work, run)
        _log_inputs(run, spec)
        try:
            outcome = supervisor.supervise(spec, lambda event: _relay(event, run, on_progress, on_evaluation))
        except BudgetError as error:
            if budget.on_exceeded == "stop" or error.where == NO_PRICE:
                raise
            plan = TrainingPlan.model_validate_json((work / REFUSED_PLAN).read_bytes())
            raise request_approval(store, experiment, work.name, plan, error) from error
        report = outcome.report
        assert report.plan is not None
        run.log_params({f"plan.{name}": value for name, value in report.plan.model_dump(exclude={"notes"}).items()})
        run.log_metrics({item.name: item.value for item in report.measurements if item.value is not None})
        curve = [event.model_dump(include=set(CURVES_SCHEMA.names)) for event in outcome.curve]
        result = TrainingResult(
            method=method.kind,
            base=base,
            adapter=store.add_folder(work / "adapter"),
            dataset=rows,
            plan=report.plan,
            num_steps=report.num_steps,
            num_tokens=report.num_tokens,
            num_trained_rows=report.num_trained_rows,
            seconds=round(time.monotonic() - began, 1),
            curves=store.write_table(pa.Table.from_pylist(curve, CURVES_SCHEMA), kind="table", parents=[rows]),
            measurements=report.measurements,
            num_attempts=outcome.num_attempts,
            events=(*([approval] if approval else []), *outcome.history, *report.notes),
            mlflow_run_id=run.run_id,
            peak_memory_bytes=report.peak_memory_bytes,
            started_from=method.start if isinstance(method, SftMethod) else None,
        )
        run.log_metrics(_planned_and_actual(result))
    discard(work)
    logger.info("%s: %d steps, adapter %s", method.kind, result.num_steps, result.adapter.sha256[:12])
    return result


def check_rows(rows: DatasetRef, validation: DatasetRef, method: Method, snapshots: tuple[str, ...]) -> None:
    """Refuses rows that must not be trained on."""
    kind = "messages" if method.kind in ("sft", "grpo") else "preferences"
    if rows.kind != kind or rows.num_rows == 0:
        raise InputError(
            f"data set {rows.sha256[:12]}",
            f"{rows.num_rows} rows of kind {rows.kind}",
            f"at least one row of kind {kind}",
            "Look at the earlier stages' reports: they say which rows they removed and why.",
        )
    store = run_store()
    for ref in (rows, validation) if validation.num_rows else (rows,):
        store.verify_lineage(ref, descends_from=snapshots, passed=REQUIRED_GATES)


def work_folder(store: Store, base: BaseLanguageModel, rows: DatasetRef, validation: DatasetRef, method: Method) -> Path:
    """Where checkpoints lie: the same folder for the same training in every process.

    Another version of the trainer or of its libraries gets another folder: a result must come from one code alone.
    """
    settings = method.config.model_dump(mode="json", exclude={"scratch_dir"})
    continued = method.adapter.sha256 if method.adapter else None
    code = code_sha256(file_of(supervisor.WORKER))
    content = [base.folder.sha256, rows.sha256, validation.sha256, continued, settings, code]
    name = f"{method.kind}-{sha256_of_json(content)[:16]}"
    if method.config.scratch_dir is not None:
        return Path(method.config.scratch_dir).expanduser().resolve() / name
    return work_root(store) / name


# -------------------------------------------------------------------------------------------------------------- tracking


def _relay(
    event: TrainerEvent, run: TrackingRun, on_progress: OnProgress, on_evaluation: OnEvaluation | None = None
) -> None:
    if event.kind == "phase":
        on_progress(event.step, event.num_steps, event.phase)
        return
    names = ("loss", "eval_loss", "reward", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes", "epoch")
    figures = {name: getattr(event, name) for name in names}
    run.log_metrics({name: value for name, value in figures.items() if value is not None}, step=event.step)
    if event.kind == "step":
        speed = f", {event.tokens_per_second:.0f} tokens/s" if event.tokens_per_second else ""
        figure = f"loss {event.loss:.3f}" if event.reward is None else f"reward {event.reward:.3f}"
        on_progress(event.step, event.num_steps, f"{figure}{speed}")
    else:
        on_progress(event.step, event.num_steps, f"validation loss {event.eval_loss:.3f}")
        if on_evaluation is not None:
            on_evaluation(event)


def _planned_and_actual(result: TrainingResult) -> dict[str, float]:
    """The planned figures beside the actual ones."""
    plan = result.plan
    figures = {
        "planned_seconds": plan.estimated_seconds,
        "seconds": result.seconds,
        "planned_memory_bytes": sum(plan.memory_bytes.values()),
        "peak_memory_bytes": result.peak_memory_bytes,
        "device_hours": result.device_hours,
        "planned_cost": plan.cost,
        "cost": result.cost,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _log_inputs(run: TrackingRun, spec: TrainerSpec) -> None:
    run.log_params(_flat(spec.method.config.model_dump(mode="json")))
    run.log_dataset(spec.train, "training")
    if spec.validation is not None:
        run.log_dataset(spec.validation, "validation")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _earlier_run(work: Path) -> str | None:
    path = work / "mlflow_run_id"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _remember_run(work: Path, run: TrackingRun) -> None:
    write_file_atomically(work / "mlflow_run_id", run.run_id.encode())
