"""The trainer process: ``python -m tasks.training.worker spec.json``. Plans, trains, leaves a report; may die at any time.

Everything it leaves lies in the work folder: ``plan.json``, ``progress.jsonl``, ``checkpoints/``, ``best/``, ``adapter/``
and at last ``report.json``. Started again with the same specification it resumes from the newest complete checkpoint.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
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
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from tasks.contracts import Measurement, TrainingPlan
from tasks.errors import InputError, PerennialError, QualityLimitError
from tasks.modeling.loading import load_tokenizer
from tasks.storage import Store, write_file_atomically
from tasks.training import planning, trainers
from tasks.training.adapter import write_adapter
from tasks.training.callbacks import BestKeeper, ProgressFile, StepCallback
from tasks.training.checkpoints import last_complete_checkpoint
from tasks.training.config import LoraSettings
from tasks.training.hardware import available_cores, find_hardware
from tasks.training.rendering import Example, Pair, render_example, render_pair, stop_token_ids
from tasks.training.specification import (
    EXIT_STOPPED,
    DpoMethod,
    Fault,
    SftMethod,
    TrainerEvent,
    TrainerReport,
    TrainerSpec,
)


def main(arguments: Sequence[str]) -> int:
    """Carries out the specification at the given path; returns the exit code.

    0: done or planned; 75: stopped on request with a checkpoint; 1: failed (the report says why).
    """
    spec = TrainerSpec.model_validate_json(Path(arguments[0]).read_bytes())
    work = Path(spec.work_dir)
    transformers_logging.disable_progress_bar()
    try:
        report = _run(spec, work)
    except PerennialError as error:
        fault = Fault(
            type=type(error).__name__, where=error.where, found=error.found, expected=error.expected, todo=error.todo
        )
        report = TrainerReport(outcome="failed", fault=fault)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        report = TrainerReport(outcome="out_of_memory", peak_memory_bytes=_peak_memory())
    if _is_main():
        write_file_atomically(work / "report.json", report.model_dump_json(indent=2).encode())
    return {"done": 0, "planned": 0, "stopped": EXIT_STOPPED}.get(report.outcome, 1)


def _run(spec: TrainerSpec, work: Path) -> TrainerReport:
    config = spec.method.config
    if config.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(config.num_threads or available_cores())
    progress = ProgressFile(work / "progress.jsonl")
    progress.tell(TrainerEvent(kind="phase", phase="read rows"))
    base = Store.holding(spec.base.folder).fetch_folder(spec.base.folder)
    tokenizer = load_tokenizer(base)
    train, validation = _render(spec, base, tokenizer)
    plan = spec.plan or _plan(spec, base, train, validation)
    if spec.plan is not None and plan.max_length_tokens < config.max_length:
        train, validation = _render(spec, base, tokenizer, plan.max_length_tokens)
    _check_truncation(plan, config.max_truncated_share)
    if spec.plan_only:
        return TrainerReport(outcome="planned", plan=plan)
    if _is_main():
        write_file_atomically(work / "plan.json", plan.model_dump_json(indent=2).encode())
    return _train(spec, work, base, tokenizer, plan, train, validation, progress)


def _train(
    spec: TrainerSpec,
    work: Path,
    base: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    train: list[Any],
    validation: list[Any],
    progress: ProgressFile,
) -> TrainerReport:
    method, checkpoints = spec.method, work / "checkpoints"
    progress.tell(TrainerEvent(kind="phase", phase="load model"))
    if isinstance(method, SftMethod):
        trainer = trainers.sft_trainer(base, tokenizer, plan, method.config, train, validation, checkpoints)
    else:
        adapter = Store.holding(method.adapter).fetch_folder(method.adapter)
        trainer = trainers.dpo_trainer(base, adapter, tokenizer, plan, method.config, train, validation, checkpoints)
    if trainer.args.world_size != plan.num_processes:
        raise AssertionError(f"{trainer.args.world_size} processes run, {plan.num_processes} were planned")
    best = BestKeeper(work / "best", lambda folder: _save(trainer, folder), is_main=_is_main())
    callback = StepCallback(plan, method.config, progress, best, evaluates=bool(validation), is_main=_is_main())
    trainer.add_callback(callback)

    before_file = work / "before.json"
    if not before_file.exists():
        progress.tell(TrainerEvent(kind="phase", phase="measure before"))
        before = _measure(trainer, spec, validation, with_base=True)
        if _is_main():
            write_file_atomically(before_file, json.dumps(before).encode())
    before = json.loads(before_file.read_bytes())

    checkpoint = last_complete_checkpoint(checkpoints)
    progress.tell(TrainerEvent(kind="phase", phase="train"))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopped_on_request:
        return TrainerReport(outcome="stopped", plan=plan, num_steps=trainer.state.global_step)

    progress.tell(TrainerEvent(kind="phase", phase="measure after"))
    kept = best.best()
    if kept is not None and kept[0] != trainer.state.global_step and method_has_adapter(spec):
        trainers.load_adapter_weights(trainer.model, best.folder)
    source = best.folder if kept is not None else work / "last"
    if kept is None:
        _save(trainer, source)
    after = _measure(trainer, spec, validation, with_base=False, known_loss=kept[1] if kept else None)
    if _is_main():
        write_adapter(source, work / "adapter", spec, plan)
    return TrainerReport(
        outcome="done",
        plan=plan,
        num_steps=trainer.state.global_step,
        num_tokens=trainer.state.num_input_tokens_seen,
        train_seconds=callback.train_seconds,
        peak_memory_bytes=_peak_memory(),
        measurements=_measurements(before, after, len(validation)),
        notes=() if kept is None else (f"kept the adapter of step {kept[0]}",),
    )


def method_has_adapter(spec: TrainerSpec) -> bool:
    """Whether an adapter is trained, rather than all weights."""
    return not (isinstance(spec.method, SftMethod) and spec.method.config.lora is None)


# ------------------------------------------------------------------------------------------------------------- preparation


def _render(spec: TrainerSpec, base: Path, tokenizer: Any, max_length: int | None = None) -> tuple[list[Any], list[Any]]:
    """Training rows, and the validation rows that are used during training, as tokens."""
    config = spec.method.config
    length = max_length or config.max_length
    stops = stop_token_ids(tokenizer, _generation_config(base))
    render = render_example if isinstance(spec.method, SftMethod) else render_pair
    store = Store.holding(spec.train)
    train = [render(tokenizer, row, stops=stops, max_length=length) for row in store.read_rows(spec.train)]
    held_out = [] if spec.validation is None else store.read_rows(spec.validation)
    if len(held_out) > config.max_eval_rows:
        held_out = random.Random(config.seed).sample(held_out, config.max_eval_rows)
    validation = [render(tokenizer, row, stops=stops, max_length=length) for row in held_out]
    # A row whose prompt alone fills the length teaches nothing.
    return [row for row in train if _num_learned(row)], [row for row in validation if _num_learned(row)]


def _generation_config(base: Path) -> Any:
    return GenerationConfig.from_pretrained(base) if (base / "generation_config.json").is_file() else None


def _num_learned(row: Example | Pair) -> int:
    if isinstance(row, Example):
        return len(row.reply_ids)
    return len(row.chosen_ids) + len(row.rejected_ids) if row.chosen_ids and row.rejected_ids else 0


def _plan(spec: TrainerSpec, base: Path, train: list[Any], validation: list[Any]) -> TrainingPlan:
    if not train:
        raise InputError(
            f"data set {spec.train.sha256[:12]}",
            "no row with room for a reply",
            "training rows",
            "Raise `max_length`, or look at what the earlier stages removed.",
        )
    config = spec.method.config
    shape = planning.ModelShape.from_config(
        json.loads((base / "config.json").read_text(encoding="utf-8")), spec.base.num_parameters
    )
    workload = planning.Workload(
        lengths=[len(row) for row in train],
        num_trained_tokens=sum(_num_learned(row) for row in train),
        num_truncated_rows=sum(row.truncated for row in train) + spec.train.num_rows - len(train),
        num_eval_tokens=sum(len(row) for row in validation),
    )
    return planning.make_plan(
        shape, workload, find_hardware(config.device), config, method=spec.method.kind, lora=_lora_of(spec)
    )


def _lora_of(spec: TrainerSpec) -> LoraSettings | None:
    if isinstance(spec.method, SftMethod):
        return spec.method.config.lora
    folder = Store.holding(spec.method.adapter).fetch_folder(spec.method.adapter)
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    modules = settings["target_modules"]
    if not isinstance(modules, str):
        modules = tuple(sorted({name.rsplit(".", 1)[-1] for name in modules}))
    return LoraSettings(r=settings["r"], target_modules=modules, layers_to_transform=settings["layers_to_transform"])


def _check_truncation(plan: TrainingPlan, limit: float) -> None:
    share = plan.num_truncated_rows / max(1, plan.num_rows)
    if share > limit:
        raise QualityLimitError(
            "training.max_length",
            f"{plan.num_truncated_rows} of {plan.num_rows} rows ({share:.1%}) longer than {plan.max_length_tokens} tokens",
            f"at most {limit:.1%}",
            "Raise `max_length`, shorten the rows, or raise `max_truncated_share`.",
        )


# -------------------------------------------------------------------------------------------------------------- measurement


def _measure(
    trainer: Any, spec: TrainerSpec, validation: list[Any], *, with_base: bool, known_loss: float | None = None
) -> dict[str, float]:
    """Validation loss and, for pairs, preference rates of the present weights."""
    if not validation:
        return {}
    figures = {"eval_loss": known_loss if known_loss is not None else float(trainer.evaluate()["eval_loss"])}
    if isinstance(spec.method, DpoMethod):
        rates = trainers.preference_rates(trainer, validation, with_base=with_base)
        figures.update({f"preference_rate_{name}": rate for name, rate in rates.items()})
    return figures


def _measurements(before: dict[str, float], after: dict[str, float], num_samples: int) -> tuple[Measurement, ...]:
    note = "share of held-out pairs whose chosen reply is likelier than the rejected one"
    named = {
        "eval_loss_before": (before.get("eval_loss"), ""),
        "eval_loss_after": (after.get("eval_loss"), ""),
        "preference_rate_base": (before.get("preference_rate_base"), note),
        "preference_rate_before": (before.get("preference_rate_model"), note),
        "preference_rate_after": (after.get("preference_rate_model"), note),
    }
    return tuple(
        Measurement(name=name, value=value, num_samples=num_samples, note=text)
        for name, (value, text) in named.items()
        if value is not None
    )


def _save(trainer: Any, folder: Path) -> None:
    """The present adapter (not the frozen reference beside it), or all weights after full fine-tuning."""
    if not _is_main():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    options = {"selected_adapters": ["default"]} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), **options)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "CUDA out of memory" in str(error)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
