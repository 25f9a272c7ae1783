"""Two models timed in turns, batch by batch in one session, and one of them against itself.

A time from another day was measured under another load. Here both models answer every batch within moments of each other, in
all permutations of the order, so that a changing load affects both alike. The opponent answers twice: the difference between
its two times is the noise of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import TypeVar

from tasks.contracts.evaluation import LatencyRound
from tasks.modeling.conversations import Messages
from tasks.modeling.generation import LoadedModel, answer_batch, prompt_batches

Batch = TypeVar("Batch")

_TURNS = tuple(permutations(("candidate", "opponent", "opponent_again")))


def time_in_turns(
    answer: Mapping[str, Callable[[Batch], object]],
    batches: Sequence[Batch],
    num_rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[LatencyRound, ...]:
    """The seconds of each model for all batches, by round.

    Args:
        answer: The functions that answer a batch, ``candidate`` and ``opponent``; each is called once before timing.
        batches: The same for both.
        num_rounds: Rounds over all batches.
        clock: In seconds.
        on_progress: Called after each batch.
    """
    for model in answer.values():
        model(batches[0])  # one-time costs, such as kernels and caches
    callables = {**answer, "opponent_again": answer["opponent"]}
    rounds = []
    for number in range(num_rounds):
        seconds = dict.fromkeys(callables, 0.0)
        for place, batch in enumerate(batches):
            done = number * len(batches) + place
            for turn in _TURNS[done % len(_TURNS)]:
                started = clock()
                callables[turn](batch)
                seconds[turn] += clock() - started
            if on_progress:
                on_progress(done + 1, num_rounds * len(batches))
        rounds.append(LatencyRound(**seconds))
    return tuple(rounds)


def time_models(
    candidate: LoadedModel,
    opponent: LoadedModel,
    prompts: Sequence[Messages],
    *,
    num_rounds: int,
    max_new_tokens: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[LatencyRound, ...]:
    """:func:`time_in_turns` for two models and the prompts that both answer, each under its own template."""
    own = {
        name: prompt_batches(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
        for name, model in (("candidate", candidate), ("opponent", opponent))
    }
    answer: dict[str, Callable[[int], object]] = {
        "candidate": lambda place: answer_batch(candidate, own["candidate"][place], max_new_tokens),
        "opponent": lambda place: answer_batch(opponent, own["opponent"][place], max_new_tokens),
    }
    return time_in_turns(answer, range(len(own["candidate"])), num_rounds, on_progress=on_progress)
