"""What is measured before the first step and after the last: validation loss, preference rates, rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.contracts.measurement import Measurement
from tasks.core.storage import write_file_atomically
from tasks.training.launch.protocol import GrpoMethod, Method
from tasks.training.trainer.callbacks import ProgressFile
from tasks.training.trainer.preference import preference_rates
from tasks.training.trainer.ranks import is_first
from tasks.training.trainer.rewards import Reward, rewards_of
from tasks.training.trainer.rows import Rows


def reward_rules(method: GrpoMethod, rows: Rows) -> tuple[Reward, ...]:
    """The rules that reward a reply, given the labels of all rows."""
    labels = {row.label for row in (*rows.train, *rows.validation) if row.label is not None}
    return rewards_of(method.config, labels)


def measure_before(trainer: Any, method: Method, work: Path, rows: Rows, progress: ProgressFile) -> dict[str, float]:
    """The figures before the first step; the first attempt measures them, later ones read them from the work folder."""
    path = work / "before.json"
    is_measured = path.exists()
    # No process may write before all have looked: a late one would skip a measurement in which the others wait for it.
    trainer.accelerator.wait_for_everyone()
    if not is_measured:
        progress.phase("measure before")
        before = measure(trainer, method, rows, progress, with_base=True)
        if is_first():
            write_file_atomically(path, json.dumps(before).encode())
        trainer.accelerator.wait_for_everyone()
    figures: dict[str, float] = json.loads(path.read_bytes())
    return figures


def measure(
    trainer: Any,
    method: Method,
    rows: Rows,
    progress: ProgressFile,
    *,
    with_base: bool,
    known_loss: float | None = None,
) -> dict[str, float]:
    """Validation loss of the present weights, with preference rates where there are pairs; of GRPO, mean rewards."""
    if not rows.validation:
        return {}
    if isinstance(method, GrpoMethod):
        from tasks.training.trainer.grpo import held_out_rewards

        rewards = held_out_rewards(trainer, reward_rules(method, rows), rows.validation, progress.alive)
        return {f"reward_{name}": reward for name, reward in rewards.items()}
    figures = {"eval_loss": known_loss if known_loss is not None else float(trainer.evaluate()["eval_loss"])}
    if rows.pairs:
        rates = preference_rates(trainer, rows.pairs, with_base=with_base, alive=progress.alive)
        figures.update({f"preference_rate_{name}": rate for name, rate in rates.items()})
    return figures


def measurements_of(before: dict[str, float], after: dict[str, float], rows: Rows) -> tuple[Measurement, ...]:
    """The figures before and after training in the report's form."""
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
