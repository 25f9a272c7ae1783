"""The order in which rows are trained on: random, rows of like length together, and the same for the same seed and epoch.

The Trainer's own samplers draw from the process's random state, so that a training resumed in its second epoch sees some
rows twice and others never. This order depends on nothing but its arguments, and not on how a batch is split into
micro-batches either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

# How far, as a share, a row's length is taken for another before sorting: rows of a batch change from epoch to epoch, and
# padding stays about this small (transformers' way, sorting within pools of batches, left 25 % on log-normal lengths).
_LENGTH_NOISE = 0.1


def other_rows(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each row of a batch, the next one around it that has another prompt; itself where all have the same.

    KTO estimates how far the model has left its reference from replies put to prompts that they do not belong to.

    Args:
        prompts: The prompt of each row, as tokens.
    """
    size = len(prompts)
    return [
        next(
            (other % size for other in range(row + 1, row + size) if list(prompts[other % size]) != list(prompts[row])), row
        )
        for row in range(size)
    ]


def order_rows(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
    """Every row's index once, in the order of training.

    Args:
        lengths: Tokens of each row; all equal for a plain shuffle.
        batch_size: Rows of one optimizer step.
        seed: Changes the order.
        epoch: Changes the order.
    """
    chance = random.Random(f"{seed}-{epoch}")
    taken_for = [length * (1 + chance.uniform(-_LENGTH_NOISE, _LENGTH_NOISE)) for length in lengths]
    alike = sorted(range(len(lengths)), key=taken_for.__getitem__, reverse=True)
    batches = [alike[start : start + batch_size] for start in range(0, len(alike), batch_size)]
    # The incomplete batch stays last, where the trainer expects it.
    last = [batches.pop()] if batches and len(batches[-1]) < batch_size else []
    chance.shuffle(batches)
    return [index for batch in batches + last for index in batch]
