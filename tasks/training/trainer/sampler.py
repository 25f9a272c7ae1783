"""The order of training rows: random, with rows of similar length together, the same for the same seed and epoch.

The Trainer's own samplers draw from the process's random state, so that a training that resumes in its second epoch sees
some rows twice and others never. This order depends on its arguments alone, and not on how a batch is split into
micro-batches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

# The share by which a row's length is varied before sorting: the rows of a batch change from epoch to epoch, and padding
# stays about this small (transformers sorts within pools of batches, which left 25 % on log-normal lengths).
_LENGTH_NOISE = 0.1


def epoch_order(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
    """Every row's index once, in the order of training.

    Args:
        lengths: Tokens of each row; all equal for a plain shuffle.
        batch_size: Rows of one optimizer step.
        seed: Changes the order.
        epoch: Changes the order.
    """
    generator = random.Random(f"{seed}-{epoch}")
    noisy_lengths = [length * (1 + generator.uniform(-_LENGTH_NOISE, _LENGTH_NOISE)) for length in lengths]
    by_length = sorted(range(len(lengths)), key=noisy_lengths.__getitem__, reverse=True)
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    # The incomplete batch stays last, where the trainer expects it.
    last = [batches.pop()] if batches and len(batches[-1]) < batch_size else []
    generator.shuffle(batches)
    return [index for batch in batches + last for index in batch]


class EpochSampler(torch.utils.data.Sampler):  # type: ignore[misc]
    """Draws rows in :func:`epoch_order` for the epoch that the trainer is in."""

    def __init__(self, trainer: Any, dataset: Any) -> None:
        self._trainer = trainer
        self._lengths = dataset["length"] if "length" in dataset.column_names else [1] * len(dataset)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        arguments = self._trainer.args
        batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        # Counted in steps: the trainer's own epoch is a fraction, and one just below a whole number would repeat the order.
        epoch = self._trainer.state.global_step // max(1, -(-len(self) // batch_size))
        return iter(epoch_order(self._lengths, batch_size, seed=arguments.seed, epoch=epoch))
