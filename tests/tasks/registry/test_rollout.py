"""The rollout's state machine: whatever is asked of it, in whatever order, traffic never skips a step or a limit."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from tasks.contracts import RegisteredVersion
from tasks.errors import InputError, RolloutError
from tasks.registry.aliases import promote, roll_back
from tasks.registry.config import AbortCondition, RolloutConfig, RolloutStep
from tasks.registry.live import prepare, read_rollout, write_rollout
from tasks.registry.rollout import Rollout, abort, advance, start
from tests.candidates import decide

NOW = "2026-11-01T02:00:00+00:00"
PLAN = RolloutConfig(
    steps=(
        RolloutStep(share=0),
        RolloutStep(share=5, bake_hours=24),
        RolloutStep(share=25, bake_hours=72),
        RolloutStep(share=100),
    ),
    abort_when=(AbortCondition(metric="error_rate", above=0.02), AbortCondition(metric="csat", below=4.0)),
)
FINE = {"error_rate": 0.01, "csat": 4.4}


def later(moment: str, hours: float) -> str:
    return (dt.datetime.fromisoformat(moment) + dt.timedelta(hours=hours)).isoformat()


class RolloutMachine(RuleBasedStateMachine):
    """Time passes, and people and live metrics do what they like."""

    rollout: Rollout
    now: str
    began: str
    baked_at: dict[int, float]

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.rollout = start(PLAN, "1", NOW)

    @rule(hours=st.floats(0, 100))
    def wait(self, hours: float) -> None:
        self.now = later(self.now, hours)

    @rule(error_rate=st.floats(0, 0.04), csat=st.floats(3.5, 5))
    def advance(self, error_rate: float, csat: float) -> None:
        before, bad = self.rollout, error_rate > 0.02 or csat < 4.0
        try:
            self.rollout = advance(before, {"error_rate": error_rate, "csat": csat}, self.now)
        except RolloutError:
            early = dt.datetime.fromisoformat(self.now) < before.may_advance_at
            assert before.state != "baking" or (early and not bad)
            return
        assert before.state == "baking"
        if bad:
            assert (self.rollout.state, self.rollout.share) == ("aborted", 0)
        else:
            shares = [step.share for step in PLAN.steps]
            assert shares.index(self.rollout.share) == shares.index(before.share) + 1
            assert dt.datetime.fromisoformat(self.now) >= before.may_advance_at

    @rule()
    def advance_blindly(self) -> None:
        if self.rollout.state == "baking":
            with pytest.raises(InputError, match="csat, error_rate"):
                advance(self.rollout, {}, self.now)

    @rule()
    def abort(self) -> None:
        if self.rollout.state == "baking":
            self.rollout = abort(self.rollout, "rude replies", self.now)
        else:
            with pytest.raises(RolloutError):
                abort(self.rollout, "rude replies", self.now)

    @rule()
    def begin_again(self) -> None:
        if self.rollout.state == "aborted":
            self.rollout = start(PLAN, "1", self.now, self.rollout)
        else:
            with pytest.raises(RolloutError):
                start(PLAN, "1", self.now, self.rollout)

    @invariant()
    def holds_together(self) -> None:
        if not hasattr(self, "rollout"):
            return
        rollout = self.rollout
        assert (rollout.state == "complete") == (rollout.share == 100)
        assert rollout.state != "aborted" or rollout.share == 0
        assert rollout.share in {step.share for step in PLAN.steps}
        assert rollout.changes[-1].share == rollout.share
        assert Rollout.model_validate_json(rollout.model_dump_json()) == rollout
        assert len(rollout.model_dump_json()) < 20_000


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_whole_way_up() -> None:
    rollout, now, seen = start(PLAN, "1", NOW), NOW, []
    while rollout.state == "baking":
        seen.append(rollout.share)
        now = rollout.may_advance_at.isoformat()
        rollout = advance(rollout, FINE, now)
    assert [*seen, rollout.share] == [0, 5, 25, 100]
    assert rollout.state == "complete"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_lets_nothing_pass(value: float) -> None:
    limits = {"error_rate": value, "csat": 4.4}
    if value == float("inf"):
        assert advance(start(PLAN, "1", NOW), limits, NOW).state == "aborted"
    else:
        with pytest.raises(InputError, match="error_rate"):
            advance(start(PLAN, "1", NOW), limits, NOW)


def test_a_first_champion_has_nobody_to_share_with() -> None:
    with pytest.raises(RolloutError, match="It has all the traffic already"):
        start(PLAN, None, NOW)


@pytest.mark.parametrize("shares", [(5, 5, 100), (25, 5, 100), (0, 50), (100, 101)])
def test_a_plan_rises_to_all(shares: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        RolloutConfig(steps=tuple({"share": share} for share in shares))  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------------- registry


def test_a_new_champion_starts_at_its_first_step_and_a_rollback_ends_it(client: Any, name: str) -> None:
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "somewhere")
    versions = [RegisteredVersion(name=name, version=str(number), run_id="", source_uri="x") for number in (1, 2, 3)]
    plan = PLAN.model_copy(update={"at_promotion": True})
    with pytest.raises(InputError, match="no champion"):
        read_rollout(client, name)
    for number, champion in ((0, None), (1, "1")):
        prepare(client, name, versions[number].version, plan, NOW)
        promote(client, name, versions[number], decide(champion=champion), NOW)
    version, previous, rollout = read_rollout(client, name)
    assert rollout is not None
    assert (version, previous, rollout.share, rollout.replaced) == ("2", "1", 0, "1")
    write_rollout(client, name, version, advance(rollout, FINE, NOW))
    prepare(client, name, "2", plan, NOW)  # the same promotion once more leaves the rollout where it is
    moved = read_rollout(client, name)[2]
    assert moved is not None
    assert moved.share == 5
    roll_back(client, name, "rude replies", NOW)
    assert read_rollout(client, name) == ("1", "2", None)
    roll_back(client, name, "was a false alarm", NOW)
    assert read_rollout(client, name) == ("2", "1", None)  # who returns has all the traffic
