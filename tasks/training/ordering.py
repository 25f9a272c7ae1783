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
