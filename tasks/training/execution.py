"""One training from references to a stored adapter: preflight, supervised trainer, tracking, result. No torch here."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel, MergedModel, TrainingPlan, TrainingResult
from tasks.core.errors import BudgetError, InputError
from tasks.core.rows import prompt_messages
from tasks.core.scratch import own_folder
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, run_store, sha256_of_json, write_file_atomically
from tasks.tracking import TrackingRun, open_run
from tasks.training import allowance, supervisor
from tasks.training.config import BudgetConfig
from tasks.training.planning import NO_PRICE, Spent
from tasks.training.specification import REFUSED_PLAN, ContinuingMethod, Method, TrainerEvent, TrainerSpec

logger = logging.getLogger(__name__)

REQUIRED_GATES = ("validated", "scrubbed", "label_audited", "decontaminated")
"""What rows must have gone through to be trained on."""

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

_NUM_MERGE_PROMPTS = 4

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
    spent: Spent | None = None,
    on_evaluation: OnEvaluation | None = None,
    tags: Mapping[str, str] | None = None,
) -> TrainingResult:
    """The trained adapter, stored beside the rows; the same call again resumes what an earlier one left unfinished.

    Args:
        base: The resolved base model.
        rows: Training rows, or pairs.
        validation: Held-out rows for the loss during training; may be empty.
        method: What to do, with its settings.
        snapshots: The snapshots that the rows must descend from, all of them.
        experiment: MLflow experiment.
        on_progress: Told steps done, steps in all, and a short note.
        budget: Prices, and ceilings that the trainer's own plan must keep before it takes a step. None: neither.
        spent: What earlier steps took of the budget.
        on_evaluation: Told each evaluation; :class:`~tasks.tracking.RunStopped` raised in it ends the trainer.
        tags: More tags of the MLflow run.

    Raises:
        BudgetError: The plan goes over a ceiling and nobody has allowed it; says how to, where the budget asks.
        LineageError: The rows do not descend from the snapshot or missed a gate.
        InputError: There are no rows, or of the wrong kind.
        TrainingError: The trainer failed after all its attempts.
    """
    store = run_store()
    check_rows(rows, validation, method, snapshots)
    work, spent = own_folder(work_folder(store, base, rows, validation, method)), spent or Spent()
    budget, allowed = allowance.with_allowance(store, experiment, work.name, budget or BudgetConfig(), spent)
    spec = TrainerSpec(
        base=base,
        train=rows,
        validation=validation if validation.num_rows else None,
        method=method,
        work_dir=str(work),
        store_uri=store.uri,
        budget=budget,
        spent=spent,
    )
    began = time.monotonic()
    logger.info("%s: training on %d rows, work folder %s", method.kind, rows.num_rows, work)
    named = {"stage": method.kind, "train_sha256": rows.sha256, "base_model": base.name, "base_sha256": base.folder.sha256}
    tags = {**named, **(tags or {})}
    with open_run(experiment, method.kind, tags, run_id=_known_run(work), watch_machine=True) as run:
        _remember_run(work, run)
        _log_inputs(run, spec)
        try:
            outcome = supervisor.supervise(spec, lambda event: _relay(event, run, on_progress, on_evaluation))
        except BudgetError as error:
            if budget.on_exceeded == "stop" or error.where == NO_PRICE:
                raise
            plan = TrainingPlan.model_validate_json((work / REFUSED_PLAN).read_bytes())
            raise allowance.ask(store, experiment, work.name, plan, error) from error
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
            seconds=round(time.monotonic() - began, 1),
            curves=store.write_table(pa.Table.from_pylist(curve, CURVES_SCHEMA), kind="table", parents=[rows]),
            measurements=report.measurements,
            num_attempts=outcome.num_attempts,
            events=(*([allowed] if allowed else []), *outcome.history, *report.notes),
            mlflow_run_id=run.run_id,
            peak_memory_bytes=report.peak_memory_bytes,
        )
        run.log_metrics(_account(result))
    supervisor.discard(work)
    logger.info("%s: %d steps, adapter %s", method.kind, result.num_steps, result.adapter.sha256[:12])
    return result


def merge(trained: TrainingResult, rows: DatasetRef) -> MergedModel:
    """The adapter merged into its base, stored beside it; see :mod:`tasks.training.merging`.

    Args:
        trained: The last training step.
        rows: Where the prompts come from that both must answer alike: the first few.
    """
    from tasks.training import merging

    store = run_store()
    prompts = [prompt_messages(row) for row in store.read_rows(rows)[:_NUM_MERGE_PROMPTS]]
    base, adapter = store.fetch_folder(trained.base.folder), store.fetch_folder(trained.adapter)
    place = _place(store)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="merge-") as name:
        folder = Path(name)
        merging.check_room(folder, trained.base.num_parameters)
        num_compared_tokens = merging.merge(base, adapter, folder, prompts)
        merging.write_manifest(folder, adapter, trained)
        merged = store.add_folder(folder)
    logger.info("merged %s into %s: %s", trained.adapter.sha256[:12], trained.base.name, merged.sha256[:12])
    return MergedModel(
        folder=merged,
        base_sha256=trained.base.folder.sha256,
        adapter_sha256=trained.adapter.sha256,
        num_compared_tokens=num_compared_tokens,
    )


def check_rows(rows: DatasetRef, validation: DatasetRef, method: Method, snapshots: tuple[str, ...]) -> None:
    """Refuses rows that must not be trained on, before anything is spent."""
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
    """Where checkpoints lie: the same folder for the same training, whichever process asks for it.

    Another trainer, or one on other libraries, begins anew: a checkpoint is half of a result, and the other half would be
    made by other code.
    """
    settings = method.config.model_dump(mode="json", exclude={"scratch_dir"})
    continued = method.adapter.sha256 if isinstance(method, ContinuingMethod) else None
    code = code_sha256(file_of("tasks.training.worker"))
    content = [base.folder.sha256, rows.sha256, validation.sha256, continued, settings, code]
    name = f"{method.kind}-{sha256_of_json(content)[:16]}"
    if method.config.scratch_dir is not None:
        return Path(method.config.scratch_dir).expanduser().resolve() / name
    return _place(store) / name


def _place(store: Store) -> Path:
    """Where work folders lie: in a local store, else in the embedded folder, which in a container is on a volume."""
    return (store.local_path or Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute()) / "work"


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


def _account(result: TrainingResult) -> dict[str, float]:
    """What was planned and what it took."""
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


def _known_run(work: Path) -> str | None:
    path = work / "mlflow_run_id"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _remember_run(work: Path, run: TrackingRun) -> None:
    write_file_atomically(work / "mlflow_run_id", run.run_id.encode())
