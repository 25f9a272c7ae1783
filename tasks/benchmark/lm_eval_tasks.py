"""Tasks of EleutherAI's lm-evaluation-harness, run on the loaded model; the extra ``lm-eval`` has the package.

Only definitions in the configured folder are available (``include_defaults=False``), because the package's own download
their data. See https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/new_task_guide.md for their format; data
is given as ``dataset_path: json`` with ``data_files``, relative to the folder in which the run was started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.benchmark.config import LmEvalConfig
from tasks.contracts.measurement import Measurement
from tasks.core.errors import InputError, MissingDependencyError
from tasks.modeling.generation import LoadedModel
from tasks.stats.intervals import Z_95

LIBRARIES_BY_SETTING = ("lm_eval",)


def measure_tasks(loaded: LoadedModel, config: LmEvalConfig, *, batch_size: int) -> tuple[Measurement, ...]:
    """Every metric of every task as ``lm_eval.<task>.<metric>``, with the harness's standard error as a 95 % interval.

    Raises:
        MissingDependencyError: The harness is not installed.
        InputError: The folder does not define a configured task.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "benchmark.lm_eval", f"no package `{error.name}`", "lm-eval installed", "pip install 'perennial-llm[lm-eval]'"
        ) from error
    manager = TaskManager(include_path=str(Path(config.folder)), include_defaults=False)
    if unknown := sorted(set(config.tasks) - set(manager.all_tasks)):
        raise InputError(
            f"benchmark.lm_eval.tasks: {', '.join(unknown)}",
            f"{len(manager.all_tasks)} definitions in {config.folder}, none of that name",
            "a YAML file with `task:` of each name",
            f"Name one of {', '.join(sorted(manager.all_tasks)) or 'what you add there'}.",
        )
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, max_length=loaded.max_tokens)
    results = simple_evaluate(
        model=model,
        tasks=list(config.tasks),
        task_manager=manager,
        limit=config.max_examples,
        apply_chat_template=config.apply_chat_template,
        log_samples=False,
        bootstrap_iters=1_000,
    )
    return measurements_of(results)


def measurements_of(results: Mapping[str, Any]) -> tuple[Measurement, ...]:
    """The harness's results in the benchmark's form; a figure without a standard error has no interval."""
    measured = []
    for task, figures in sorted(results["results"].items()):
        size = results.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in figures.items():
            metric, comma, kind = key.partition(",")  # `acc,none`, `acc_stderr,none`, and `alias`
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{metric}_stderr,{kind}")
            half = Z_95 * error if isinstance(error, int | float) else None
            name = f"lm_eval.{task}.{metric}" + (f".{kind}" if kind != "none" else "")
            measured.append(
                Measurement(
                    name=name,
                    value=float(value),
                    low=None if half is None else value - half,
                    high=None if half is None else value + half,
                    num_samples=size,
                    note="lm-eval; the interval is 1.96 standard errors." if half is not None else "lm-eval.",
                )
            )
    return tuple(measured)
