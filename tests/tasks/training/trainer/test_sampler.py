"""Each epoch sees every row once, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.trainer.batches import mismatched_pairs
from tasks.training.trainer.sampler import EpochSampler, epoch_order


@given(lengths=st.lists(st.integers(1, 500), max_size=400), batch_size=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_row_comes_once(lengths: list[int], batch_size: int, seed: int) -> None:
    order = epoch_order(lengths, batch_size, seed=seed, epoch=0)
    assert sorted(order) == list(range(len(lengths)))
    assert order == epoch_order(lengths, batch_size, seed=seed, epoch=0)


@given(prompts=st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=12))
def test_every_prompt_gets_the_reply_of_another_prompt_where_there_is_one(prompts: list[list[int]]) -> None:
    others = mismatched_pairs(prompts)
    assert len(others) == len(prompts)
    several = len({tuple(prompt) for prompt in prompts}) > 1
    for row, other in enumerate(others):
        assert (prompts[other] != prompts[row]) if several else other == row


def test_where_all_prompts_differ_every_reply_is_used_once() -> None:
    assert mismatched_pairs([[1], [2], [3]]) == [1, 2, 0]
    assert mismatched_pairs([[1], [1], [2]]) == [2, 2, 0], "both replies of a pair pass over each other"


def test_another_seed_or_epoch_is_another_order() -> None:
    lengths = list(range(200))
    orders = [epoch_order(lengths, 8, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_rows_of_a_batch_are_of_like_length() -> None:
    generator = random.Random(1)
    lengths = [int(generator.lognormvariate(4.5, 0.6)) for _ in range(1000)]

    def padding(order: list[int]) -> float:
        batches = [order[start : start + 16] for start in range(0, len(order), 16)]
        padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)
        return padded / sum(lengths) - 1

    assert padding(epoch_order(lengths, 16, seed=1, epoch=0)) < 0.2
    assert padding(list(range(1000))) > 0.5


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (1, 0), (6, 0), (7, 1), (13, 1), (14, 2)])
def test_the_sampler_knows_its_epoch_from_the_steps_done_also_exactly_at_an_end(step: int, epoch: int) -> None:
    from datasets import Dataset

    lengths = list(range(100, 200))  # 7 steps of 16 rows, the last of 4
    arguments = SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=4, world_size=1, seed=3)
    # What the trainer calls its epoch is a fraction, which rounding may leave short of a whole number.
    trainer: Any = SimpleNamespace(args=arguments, state=SimpleNamespace(global_step=step, epoch=step / 7 - 1e-9))
    sampler = EpochSampler(trainer, Dataset.from_dict({"length": lengths}))
    assert list(sampler) == epoch_order(lengths, 16, seed=3, epoch=epoch)
