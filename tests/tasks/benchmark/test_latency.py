"""Two models in turns: who answers when, what the clock sees, and that nothing of it is ever kept."""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tasks.benchmark import BenchmarkConfig, LatencyConfig, time_in_turns
from tasks.benchmark import latency as module
from tasks.contracts.training import BaseLanguageModel
from tasks.core.stage import once_a_run
from tasks.core.storage import open_store


class Machine:
    """A clock that answers move: a candidate ``ratio`` times as slow, on a machine that gets slower all the time."""

    def __init__(self, ratio: float, drift: float) -> None:
        self.now, self._ratio, self._drift, self.calls = 0.0, ratio, drift, []

    def candidate(self, batch: int) -> None:
        self.calls.append(("candidate", batch))
        self.now += self._ratio * (1 + self._drift * self.now)

    def opponent(self, batch: int) -> None:
        self.calls.append(("opponent", batch))
        self.now += 1 + self._drift * self.now


def test_the_models_take_turns_batch_by_batch_in_every_order() -> None:
    machine = Machine(1.5, 0.0)
    rounds = module.time_in_turns(
        {"candidate": machine.candidate, "opponent": machine.opponent}, [0, 1, 2], 6, clock=lambda: machine.now
    )
    assert [(lap.candidate, lap.opponent, lap.opponent_again) for lap in rounds] == [(4.5, 3.0, 3.0)] * 6
    timed = machine.calls[2:]  # the first call of each model is not timed
    groups = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert all(len({batch for _, batch in group}) == 1 for group in groups)
    assert all(Counter(name for name, _ in group) == {"candidate": 1, "opponent": 2} for group in groups)
    assert Counter(next(place for place, (name, _) in enumerate(group) if name == "candidate") for group in groups) == {
        0: 6,
        1: 6,
        2: 6,
    }


def test_a_machine_that_gets_slower_and_slower_favours_nobody() -> None:
    machine = Machine(1.0, 0.001)
    rounds = module.time_in_turns(
        {"candidate": machine.candidate, "opponent": machine.opponent}, range(6), 9, clock=lambda: machine.now
    )
    for lap in rounds:
        assert lap.candidate / lap.opponent == pytest.approx(1.0, abs=0.01)
        assert lap.opponent_again / lap.opponent == pytest.approx(1.0, abs=0.01)


CONFIG = BenchmarkConfig(
    max_new_tokens=4, retention=False, latency=LatencyConfig(num_rounds=5, max_examples=3, batch_size=2)
)


def test_two_real_models_are_timed_and_nothing_is_kept(tmp_path: Path, tiny_model_dir: Path, adapter_dir: Path) -> None:
    store = open_store(tmp_path / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    adapter = store.add_folder(adapter_dir)
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A lamp."}]
    frozen = store.write_rows([{"id": f"r{number}", "messages": turns} for number in range(5)], kind="messages")
    before = sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file())
    arms = (("base", base, None), ("candidate", base, adapter), ("champion", base, None))
    first, again = (time_in_turns.fn(arms, frozen, CONFIG) for _ in range(2))
    assert first is not None
    assert (first.opponent, first.num_examples, len(first.rounds)) == ("champion", 3, 5)
    assert all(min(lap.candidate, lap.opponent, lap.opponent_again) > 0 for lap in first.rounds)
    assert first != again, "measured anew"
    assert sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file()) == before
    assert time_in_turns.cache_policy == once_a_run("time_in_turns"), "never from another run"


def test_without_an_opponent_nothing_is_timed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    frozen = store.write_rows([], kind="messages")
    assert time_in_turns.fn((), frozen, CONFIG) is None
    assert time_in_turns.fn((), frozen, BenchmarkConfig()) is None


def test_the_warm_up_is_not_timed() -> None:
    ticks = count()
    answered: list[str] = []
    rounds = module.time_in_turns(
        {"candidate": lambda batch: answered.append("c"), "opponent": lambda batch: answered.append("o")},
        [0],
        5,
        clock=lambda: float(next(ticks)),
    )
    assert len(answered) == 2 + 5 * 3
    assert all((lap.candidate, lap.opponent, lap.opponent_again) == (1.0, 1.0, 1.0) for lap in rounds)
