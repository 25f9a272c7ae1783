"""What is measured before the first step and after the last: validation loss, preference rates, rewards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.base import FrozenModel
from tasks.contracts.measurement import Measurement
from tasks.core.storage import write_file_atomically
from tasks.training.launch.protocol import DpoMethod, GrpoMethod, KtoMethod, Method
from tasks.training.trainer.callbacks import ProgressFile
from tasks.training.trainer.preference import PairLikelihood, pair_likelihoods, preference_measurements
from tasks.training.trainer.ranks import is_first
from tasks.training.trainer.rewards import Reward, rewards_of
from tasks.training.trainer.rows import Rows


class Figures(FrozenModel):
    """What one measurement found: means by name, and the likelihoods of held-out pairs by model."""

    means: Mapping[str, float] = {}
    pairs: Mapping[str, tuple[PairLikelihood, ...]] = {}


def reward_rules(method: GrpoMethod, rows: Rows) -> tuple[Reward, ...]:
    """The rules that reward a reply, given the labels of all rows."""
    labels = {row.label for row in (*rows.train, *rows.validation) if row.label is not None}
    return rewards_of(method.config, labels)


def measure_before(trainer: Any, method: Method, work: Path, rows: Rows, progress: ProgressFile) -> Figures:
    """The figures before the first step; the first attempt measures them, later ones read them from the work folder."""
    path = work / "before.json"
    is_measured = path.exists()
    # No process may write before all have looked: a late one would skip a measurement in which the others wait for it.
    trainer.accelerator.wait_for_everyone()
    if not is_measured:
        progress.phase("measure before")
        before = measure(trainer, method, rows, progress, with_base=True)
        if is_first():
            write_file_atomically(path, before.model_dump_json().encode())
        trainer.accelerator.wait_for_everyone()
    return Figures.model_validate_json(path.read_bytes())


def measure(
    trainer: Any,
    method: Method,
    rows: Rows,
    progress: ProgressFile,
    *,
    with_base: bool,
    known_loss: float | None = None,
) -> Figures:
    """Validation loss of the present weights, with the likelihoods of pairs where there are any; of GRPO, mean rewards."""
    if not rows.validation:
        return Figures()
    if isinstance(method, GrpoMethod):
        from tasks.training.trainer.grpo import held_out_rewards

        rewards = held_out_rewards(trainer, reward_rules(method, rows), rows.validation, progress.alive)
        return Figures(means={f"reward_{name}": reward for name, reward in rewards.items()})
    loss = known_loss if known_loss is not None else float(trainer.evaluate()["eval_loss"])
    pairs = pair_likelihoods(trainer, rows.pairs, with_base=with_base, alive=progress.alive) if rows.pairs else {}
    return Figures(means={"eval_loss": loss}, pairs=pairs)


def measurements_of(before: Figures, after: Figures, rows: Rows, method: Method) -> tuple[Measurement, ...]:
    """The figures before and after training in the report's form."""
    means = tuple(
        Measurement(
            name=f"{name}_{when}",
            value=figures.means[name],
            num_samples=len(rows.validation),
            note="" if name == "eval_loss" else "mean over greedy replies to held-out prompts",
        )
        for name in before.means
        for when, figures in (("before", before), ("after", after))
    )
    if not isinstance(method, DpoMethod | KtoMethod) or not before.pairs:
        return means
    return means + preference_measurements(before.pairs, after.pairs, method.config)
