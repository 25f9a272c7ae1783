"""The trainer process: ``python -m tasks.training.worker spec.json``. Plans, trains, leaves a report; may die at any time.

Everything it leaves lies in the work folder: ``plan.json``, ``progress.jsonl``, ``rows-*.jsonl``, ``checkpoints/``,
``best/``, ``adapter/`` and at last ``report.json``. Started again with the same specification it resumes from the newest
complete checkpoint.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before any of these libraries is imported: no hub, no telemetry, no progress bars in the log.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TQDM_DISABLE="1",
    TOKENIZERS_PARALLELISM="false",
)

import torch
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from tasks.contracts.measurement import Measurement
from tasks.contracts.training import TrainingPlan
from tasks.core.errors import BudgetError, PerennialError, StoreError
from tasks.core.processes import die_with_parent
from tasks.core.storage import open_store, run_store, write_file_atomically
from tasks.modeling.loading import load_tokenizer
from tasks.training import trainers
from tasks.training.adapter import write_adapter
from tasks.training.callbacks import BestKeeper, ProgressFile, StepCallback
from tasks.training.checkpoints import last_complete_checkpoint
from tasks.training.hardware import available_cores, find_hardware, peak_memory_bytes
from tasks.training.ledger import RowLedger, check_ledger, read_ledger
from tasks.training.planning import check_budget, with_price
from tasks.training.preference import preference_rates
from tasks.training.preflight import (
    Rows,
    check_device,
    check_disk,
    check_fits_model,
    check_rewards,
    check_truncation,
    plan_training,
    render_rows,
)
from tasks.training.rewards import Reward, rewards_of
from tasks.training.sharding import held_share
from tasks.training.specification import (
    EXIT_STOPPED,
    REFUSED_PLAN,
    Fault,
    GrpoMethod,
    KtoMethod,
    SftMethod,
    TrainerReport,
    TrainerSpec,
)
from tasks.training.timing import with_measured_time

logger = logging.getLogger(__name__)

_LEDGER = "rows"


def main(arguments: Sequence[str]) -> int:
    """Carries out the specification at the given path; returns the exit code.

    0: done or planned; 75: stopped on request with a checkpoint; 1: failed (the report says why).
    """
    spec = TrainerSpec.model_validate_json(Path(arguments[0]).read_bytes())
    work = Path(spec.work_dir)
    open_store(spec.store_uri)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        report = _run(spec, work)
    except PerennialError as error:
        report = _refused(error)
    except Exception as error:
        traceback.print_exc()
        report = _unexpected(error, work)
    _leave(report, work)
    return {"done": 0, "planned": 0, "stopped": EXIT_STOPPED}.get(report.outcome, 1)


def _leave(report: TrainerReport, work: Path) -> None:
    """Writes the report. The first process does, unless another one has said why it ended: the first only sees it gone."""
    path = work / "report.json"
    if not _is_main() and report.outcome not in ("out_of_memory", "refused"):
        return
    if _is_main() and int(os.environ.get("WORLD_SIZE", "1")) > 1 and path.exists():
        return
    write_file_atomically(path, report.model_dump_json(indent=2).encode())


def _run(spec: TrainerSpec, work: Path) -> TrainerReport:
    config = spec.method.config
    if config.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(config.num_threads or available_cores())
    progress = ProgressFile(work / "progress.jsonl", silent=not _is_main())
    progress.phase("read rows")
    base = run_store().fetch_folder(spec.base.folder)
    tokenizer = load_tokenizer(base)
    length = spec.plan.max_length_tokens if spec.plan else config.max_length
    rows = render_rows(spec, base, tokenizer, length)
    check_fits_model(base, rows)
    if isinstance(spec.method, GrpoMethod):
        check_rewards(spec.method.config, rows)
    plan = spec.plan or plan_training(spec, base, rows)
    check_truncation(plan, config.max_truncated_share, rows.num_read)
    check_disk(plan, work)
    check_device(plan, find_hardware(config.device))
    progress.phase("load model")
    if not isinstance(spec.method, GrpoMethod):  # TRL draws its prompts itself
        rows = rows.reached_by(plan, config.seed)
    trainer = _trainer(spec, work, base, tokenizer, plan, rows, progress)
    if trainer.args.world_size != plan.num_processes and (plan.sharding != "none" or not spec.plan_only):
        raise AssertionError(f"{trainer.args.world_size} processes run, {plan.num_processes} were planned")
    if not plan.estimated_seconds:
        # Written before the longest rows are tried, so that there is something to step down from.
        _write_plan(plan, work)
        progress.phase("time a step")
        plan = with_price(with_measured_time(plan, trainer, rows), spec.budget)
        # Several processes measure several speeds, and one of them counts.
        if _is_main():
            _check_budget(plan, spec, work)
    if spec.plan_only:
        return TrainerReport(outcome="planned", plan=plan)
    _write_plan(plan, work)
    return _train(spec, work, trainer, plan, rows, progress)


def _check_budget(plan: TrainingPlan, spec: TrainerSpec, work: Path) -> None:
    try:
        check_budget(plan, spec.budget, spec.spent)
    except BudgetError:
        # A later attempt plans anew.
        (work / "plan.json").unlink(missing_ok=True)
        write_file_atomically(work / REFUSED_PLAN, plan.model_dump_json(indent=2).encode())
        raise


def _write_plan(plan: TrainingPlan, work: Path) -> None:
    if _is_main():
        write_file_atomically(work / "plan.json", plan.model_dump_json(indent=2).encode())


def _trainer(
    spec: TrainerSpec, work: Path, base: Path, tokenizer: Any, plan: TrainingPlan, rows: Rows, progress: ProgressFile
) -> Any:
    method, checkpoints = spec.method, work / "checkpoints"
    if isinstance(method, SftMethod):
        return trainers.sft_trainer(base, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints)
    adapter = run_store().fetch_folder(method.adapter)
    if isinstance(method, KtoMethod):
        return trainers.kto_trainer(base, adapter, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints)
    if isinstance(method, GrpoMethod):
        from tasks.training.grpo import grpo_trainer

        rewards = _rewards(method, rows)
        return grpo_trainer(base, adapter, tokenizer, plan, method.config, rows.train, rewards, checkpoints)
    progress.phase("compute the reference")
    return trainers.dpo_trainer(
        base, adapter, tokenizer, plan, method.config, rows.train, rows.validation, checkpoints, progress.alive
    )


def _rewards(method: GrpoMethod, rows: Rows) -> tuple[Reward, ...]:
    labels = {row.label for row in (*rows.train, *rows.validation) if row.label is not None}
    return rewards_of(method.config, labels)


def _train(
    spec: TrainerSpec, work: Path, trainer: Any, plan: TrainingPlan, rows: Rows, progress: ProgressFile
) -> TrainerReport:
    best = BestKeeper(work / "best", lambda folder: trainers.save_weights(trainer, folder))
    trainer.ledger = RowLedger(work / f"{_LEDGER}-{os.environ.get('RANK', '0')}.jsonl")
    # Rewards are measured before and after alone: a pass over the held-out prompts takes as long as many steps.
    evaluates = bool(rows.validation) and not isinstance(spec.method, GrpoMethod)
    callback = StepCallback(plan, spec.method.config, progress, best, trainer.ledger, evaluates=evaluates)
    trainer.add_callback(callback)
    before = _measure_before(trainer, spec, work, rows, progress)

    checkpoint = last_complete_checkpoint(work / "checkpoints")
    progress.phase("train")
    # Wherever this process comes from, training begins with the same random state; a checkpoint brings its own.
    set_seed(spec.method.config.seed)
    trainers.let_wrap(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopped_on_request:
        return TrainerReport(outcome="stopped", plan=plan, num_steps=trainer.state.global_step)

    proof = _check_rows_seen(spec, work, trainer, plan, rows)
    if plan.sharding != "none":
        proof = (*proof, f"each of {plan.num_processes} processes held {held_share(trainer.model):.1%} of the base model")
    progress.phase("measure after")
    trainer.accelerator.wait_for_everyone()  # the first process may still be writing its best adapter
    kept = best.best()
    if kept is None:
        trainers.save_weights(trainer, best.folder)
    elif kept[0] != trainer.state.global_step:
        trainers.load_weights(trainer, best.folder)
    after = _measure(trainer, spec, rows, progress, with_base=False, known_loss=kept[1] if kept else None)
    if _is_main():
        write_adapter(best.folder, work / "adapter", spec, plan)
    return TrainerReport(
        outcome="done",
        plan=plan,
        num_steps=trainer.state.global_step,
        num_tokens=trainer.state.num_input_tokens_seen,
        train_seconds=round(callback.train_seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        measurements=_measurements(before, after, rows),
        notes=(*proof, *(() if kept is None else (f"kept the adapter of step {kept[0]}",))),
    )


def _check_rows_seen(spec: TrainerSpec, work: Path, trainer: Any, plan: TrainingPlan, rows: Rows) -> tuple[str, ...]:
    """What the ledger proves; nothing where a shorter length made other sequences of the rows half-way, nor of GRPO.

    TRL draws the prompts of GRPO itself. Every process reads the files of all of them, so that all end with the same error.
    """
    if isinstance(spec.method, GrpoMethod):
        return ()
    shortened = plan.max_length_tokens != spec.method.config.max_length
    if shortened and (plan.packing or rows.num_dropped):
        return ("which rows came in which step is not proven: a shorter length made other sequences of them half-way",)
    trainer.accelerator.wait_for_everyone()
    proof = check_ledger(
        [read_ledger(work / f"{_LEDGER}-{rank}.jsonl") for rank in range(plan.num_processes)],
        [row.row_id for row in rows.train],
        num_sequences=len(trainer.train_dataset),
        micro_batch_size=plan.micro_batch_size,
        accumulation_steps=plan.accumulation_steps,
        num_steps=trainer.state.global_step,
    )
    return (proof,)


# -------------------------------------------------------------------------------------------------------------- measurement


def _measure_before(trainer: Any, spec: TrainerSpec, work: Path, rows: Rows, progress: ProgressFile) -> dict[str, float]:
    """The figures before the first step, measured by the first attempt alone."""
    path = work / "before.json"
    known = path.exists()
    # None may write before all have looked: those that come later would skip what the others wait for them in.
    trainer.accelerator.wait_for_everyone()
    if not known:
        progress.phase("measure before")
        before = _measure(trainer, spec, rows, progress, with_base=True)
        if _is_main():
            write_file_atomically(path, json.dumps(before).encode())
        trainer.accelerator.wait_for_everyone()
    found: dict[str, float] = json.loads(path.read_bytes())
    return found


def _measure(
    trainer: Any,
    spec: TrainerSpec,
    rows: Rows,
    progress: ProgressFile,
    *,
    with_base: bool,
    known_loss: float | None = None,
) -> dict[str, float]:
    """Validation loss and, where there are pairs, preference rates of the present weights; of GRPO, rewards."""
    if not rows.validation:
        return {}
    if isinstance(spec.method, GrpoMethod):
        from tasks.training.grpo import held_out_rewards

        rewards = held_out_rewards(trainer, _rewards(spec.method, rows), rows.validation, progress.alive)
        return {f"reward_{name}": reward for name, reward in rewards.items()}
    figures = {"eval_loss": known_loss if known_loss is not None else float(trainer.evaluate()["eval_loss"])}
    if rows.pairs:
        rates = preference_rates(trainer, rows.pairs, with_base=with_base, alive=progress.alive)
        figures.update({f"preference_rate_{name}": rate for name, rate in rates.items()})
    return figures


def _measurements(before: dict[str, float], after: dict[str, float], rows: Rows) -> tuple[Measurement, ...]:
    losses = (len(rows.validation), "")
    rewards = (len(rows.validation), "mean over greedy replies to held-out prompts")
    rates = (len(rows.pairs), "share of held-out pairs whose chosen reply is likelier than the rejected one")
    named = {
        "eval_loss_before": (before.get("eval_loss"), *losses),
        "eval_loss_after": (after.get("eval_loss"), *losses),
        "preference_rate_base": (before.get("preference_rate_base"), *rates),
        "preference_rate_before": (before.get("preference_rate_model"), *rates),
        "preference_rate_after": (after.get("preference_rate_model"), *rates),
        **{
            f"{name}_{when}": (figures[name], *rewards)
            for name in before
            if name.startswith("reward_")
            for when, figures in (("before", before), ("after", after))
        },
    }
    return tuple(
        Measurement(name=name, value=value, num_samples=num_samples, note=note)
        for name, (value, num_samples, note) in named.items()
        if value is not None
    )


# ------------------------------------------------------------------------------------------------------------------ endings


def _refused(error: PerennialError) -> TrainerReport:
    fault = Fault(type=type(error).__name__, where=error.where, found=error.found, expected=error.expected, todo=error.todo)
    return TrainerReport(outcome="refused", fault=fault)


def _unexpected(error: Exception, work: Path) -> TrainerReport:
    """What to report of an exception that nobody raised on purpose; its message may quote a record and stays in the log."""
    if _is_out_of_memory(error):
        return TrainerReport(outcome="out_of_memory", detail="ran out of memory", peak_memory_bytes=peak_memory_bytes())
    if _is_disk_full(error, work):
        return _refused(
            StoreError(
                str(work),
                f"no space left while writing ({shutil.disk_usage(work).free} bytes free)",
                "room for checkpoints",
                "Free disk space or set `scratch_dir`; the last good checkpoint is kept and training resumes from it.",
            )
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = "/".join(Path(frame.filename).parts[-3:])
    return TrainerReport(outcome="crashed", detail=f"failed with {type(error).__name__} in {place}:{frame.lineno}")


def _is_out_of_memory(error: Exception) -> bool:
    signs = ("can't allocate memory", "CUDA out of memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _is_disk_full(error: Exception, work: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and torch.save wrap the system's error in their own.
    return "No space left" in str(error) or ("PytorchStreamWriter" in str(error) and shutil.disk_usage(work).free < 2**20)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


if __name__ == "__main__":
    if "RANK" in os.environ:
        # A launcher that is killed leaves its workers behind; they follow it by themselves.
        die_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
