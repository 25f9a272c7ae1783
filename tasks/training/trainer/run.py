"""One training in this process, from rows to adapter: prepare, plan, time a step, train, measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import BudgetError
from tasks.core.storage import run_store, write_file_atomically
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.profile import BaseProfile, make_profile
from tasks.modeling.resolution import count_parameters
from tasks.training.launch.protocol import (
    REFUSED_PLAN,
    GrpoMethod,
    KtoMethod,
    SftMethod,
    TrainerReport,
    TrainerSpec,
)
from tasks.training.plan.adapters import count_trainable
from tasks.training.plan.budget import check_budget, with_price
from tasks.training.plan.hardware import available_cores, find_hardware, peak_memory_bytes
from tasks.training.plan.planning import Workload, make_plan
from tasks.training.plan.preflight import check_device, check_disk, check_fits_model, check_rewards, check_truncation
from tasks.training.trainer import trainers, weights
from tasks.training.trainer.adapter import write_adapter
from tasks.training.trainer.callbacks import BestKeeper, ProgressFile, StepCallback
from tasks.training.trainer.checkpoints import last_complete_checkpoint
from tasks.training.trainer.failures import refusing
from tasks.training.trainer.ledger import Ledger, RowLedger, check_ledger, num_rows_in, read_ledger
from tasks.training.trainer.measuring import measure, measure_before, measurements_of, reward_rules
from tasks.training.trainer.ranks import is_first, rank
from tasks.training.trainer.rows import Rows, read_rows, rows_seen_by
from tasks.training.trainer.sharding import held_share
from tasks.training.trainer.timing import with_measured_time


@dataclass(frozen=True)
class _Training:
    """A training that is set up: its specification, folder, progress, rows, plan and TRL's trainer."""

    spec: TrainerSpec
    work: Path
    progress: ProgressFile
    rows: Rows
    plan: TrainingPlan
    trainer: Any


def run(spec: TrainerSpec, work: Path) -> TrainerReport:
    """Carries out a specification in its work folder.

    Raises:
        PerennialError: The rows, the settings, the budget or the machine do not allow the training.
    """
    config = spec.method.config
    if config.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(config.num_threads or available_cores())
    progress = ProgressFile(work / "progress.jsonl", silent=not is_first())
    progress.phase("read rows")
    base = run_store().fetch_folder(spec.base.folder)
    tokenizer = load_tokenizer(base)
    profile = make_profile(base)
    rows = read_rows(spec, base, tokenizer, spec.plan.max_length_tokens if spec.plan else config.max_length)
    check_fits_model(profile.shape, [*rows.train, *rows.validation])
    if isinstance(spec.method, GrpoMethod):
        check_rewards(spec.method.config, rows.train)
    plan = spec.plan or _make_plan(spec, base, profile, rows)
    check_truncation(plan, config.max_truncated_share, rows.num_read)
    check_disk(plan, work)
    check_device(plan, find_hardware(config.device))
    progress.phase("load model")
    if not isinstance(spec.method, GrpoMethod):  # TRL draws GRPO's prompts itself
        rows = rows_seen_by(plan, rows, config.seed)
    with refusing("setting up the trainer"):
        trainer = _set_up_trainer(spec, work, base, tokenizer, plan, rows, progress)
    if trainer.args.world_size != plan.num_processes and (plan.sharding != "none" or not spec.plan_only):
        raise AssertionError(f"{trainer.args.world_size} processes run, {plan.num_processes} were planned")
    if not plan.estimated_seconds:
        # Written before the longest rows are tried, so that running out of memory has a plan to fall back from.
        _write_plan(plan, work)
        progress.phase("time a step")
        with refusing("timing a step"):
            plan = with_measured_time(plan, trainer, rows)
        plan = with_price(plan, spec.budget)
        # Several processes measure several speeds; that of the first counts.
        if is_first():
            _check_budget(plan, spec, work)
    if spec.plan_only:
        return TrainerReport(outcome="planned", plan=plan)
    _write_plan(plan, work)
    return _train(_Training(spec, work, progress, rows, plan, trainer))


# --------------------------------------------------------------------------------------------------------------- planning


def _make_plan(spec: TrainerSpec, base: Path, profile: BaseProfile, rows: Rows) -> TrainingPlan:
    """The plan for these rows on this machine, without its time."""
    config = spec.method.config
    return make_plan(
        profile,
        Workload.of_rows(rows.train, config, rows.num_dropped),
        find_hardware(config.device),
        config,
        method=spec.method.kind,
        num_trainable=_num_trainable(spec, base),
    )


def _num_trainable(spec: TrainerSpec, base: Path) -> int:
    """The parameters of the adapter that is trained, or of the one that is continued."""
    if isinstance(spec.method, SftMethod) and spec.method.start is None:
        return count_trainable(base, spec.method.config.lora)
    assert spec.method.adapter is not None
    return count_parameters(run_store().fetch_folder(spec.method.adapter))


def _check_budget(plan: TrainingPlan, spec: TrainerSpec, work: Path) -> None:
    try:
        check_budget(plan, spec.budget, spec.budget_used)
    except BudgetError:
        # A later attempt plans anew.
        (work / "plan.json").unlink(missing_ok=True)
        write_file_atomically(work / REFUSED_PLAN, plan.model_dump_json(indent=2).encode())
        raise


def _write_plan(plan: TrainingPlan, work: Path) -> None:
    if is_first():
        write_file_atomically(work / "plan.json", plan.model_dump_json(indent=2).encode())


# --------------------------------------------------------------------------------------------------------------- training


def _set_up_trainer(
    spec: TrainerSpec, work: Path, base: Path, tokenizer: Any, plan: TrainingPlan, rows: Rows, progress: ProgressFile
) -> Any:
    method, checkpoints = spec.method, work / "checkpoints"
    adapter = run_store().fetch_folder(method.adapter) if method.adapter else None
    if isinstance(method, SftMethod):
        return trainers.sft_trainer(base, adapter, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints)
    assert adapter is not None
    if isinstance(method, KtoMethod):
        return trainers.kto_trainer(base, adapter, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints)
    if isinstance(method, GrpoMethod):
        from tasks.training.trainer.grpo import grpo_trainer

        rewards = reward_rules(method, rows)
        return grpo_trainer(base, adapter, tokenizer, plan, method.config, rows.train, rewards, checkpoints)
    progress.phase("compute the reference")
    return trainers.dpo_trainer(
        base, adapter, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints, progress.alive
    )


def _train(training: _Training) -> TrainerReport:
    spec, work, rows, plan, trainer = training.spec, training.work, training.rows, training.plan, training.trainer
    best = BestKeeper(work / "best", lambda folder: weights.save_weights(trainer, folder))
    trainer.ledger = RowLedger(_ledger_file(work, rank()))
    # Rewards are measured before and after alone: a pass over the held-out prompts takes as long as many steps.
    evaluates = bool(rows.validation) and not isinstance(spec.method, GrpoMethod)
    callback = StepCallback(plan, spec.method.config, training.progress, best, trainer.ledger, evaluates=evaluates)
    trainer.add_callback(callback)
    before = measure_before(trainer, spec.method, work, rows, training.progress)

    checkpoint = last_complete_checkpoint(work / "checkpoints")
    training.progress.phase("train")
    # Training begins with the same random state, whatever this process did before; a checkpoint brings its own.
    set_seed(spec.method.config.seed)
    trainers.enable_ddp_wrapping(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopped_on_request:
        return TrainerReport(outcome="stopped", plan=plan, num_steps=trainer.state.global_step)

    trainer.accelerator.wait_for_everyone()
    ledgers = None if isinstance(spec.method, GrpoMethod) else _read_ledgers(training)
    num_trained_rows = None if ledgers is None else num_rows_in(ledgers)
    notes = [*rows.notes, *(_check_rows_seen(training, ledgers) if ledgers is not None else [])]
    if plan.sharding != "none":
        notes.append(f"each of {plan.num_processes} processes held {held_share(trainer.model):.1%} of the base model")
    training.progress.phase("measure after")
    best_loss = _restore_best(training, best)
    if best_loss is not None:
        notes.append(f"kept the adapter of step {best_loss[0]}")
    loss = None if best_loss is None else best_loss[1]
    after = measure(trainer, spec.method, rows, training.progress, with_base=False, known_loss=loss)
    if is_first():
        write_adapter(best.folder, work / "adapter", spec, plan)
    return TrainerReport(
        outcome="done",
        plan=plan,
        num_steps=trainer.state.global_step,
        num_tokens=trainer.state.num_input_tokens_seen,
        num_trained_rows=num_trained_rows,
        train_seconds=round(callback.train_seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        measurements=measurements_of(before, after, rows, spec.method),
        notes=tuple(notes),
    )


def _restore_best(training: _Training, best: BestKeeper) -> tuple[int, float] | None:
    """Puts the best adapter into the model; its step and loss, None where the last one is kept for want of a loss."""
    trainer = training.trainer
    trainer.accelerator.wait_for_everyone()  # the first process may still be writing its best adapter
    kept = best.best()
    if kept is None:
        weights.save_weights(trainer, best.folder)
    elif kept[0] != trainer.state.global_step:
        weights.load_weights(trainer, best.folder)
    return kept


def _read_ledgers(training: _Training) -> list[Ledger]:
    """What every process drew, of GRPO nothing: TRL draws its prompts itself. A step that was repeated counts once."""
    num_steps = training.trainer.state.global_step
    ledgers = (read_ledger(_ledger_file(training.work, number)) for number in range(training.plan.num_processes))
    return [{step: rows for step, rows in ledger.items() if step <= num_steps} for ledger in ledgers]


def _check_rows_seen(training: _Training, ledgers: list[Ledger]) -> list[str]:
    """What the ledger proves, as notes: nothing where a shorter length changed the sequences half-way.

    Every process reads the files of all of them, so that all end with the same error.
    """
    plan, trainer, config = training.plan, training.trainer, training.spec.method.config
    if plan.max_length_tokens != config.max_length and (plan.packing or training.rows.num_dropped):
        return ["the ledger proves no row order: a shorter length changed the sequences half-way"]
    proof = check_ledger(
        ledgers,
        [row.row_id for row in training.rows.train],
        num_sequences=len(trainer.train_dataset),
        micro_batch_size=plan.micro_batch_size,
        accumulation_steps=plan.accumulation_steps,
        num_steps=trainer.state.global_step,
    )
    return [proof]


def _ledger_file(work: Path, number: int) -> Path:
    return work / f"rows-{number}.jsonl"
