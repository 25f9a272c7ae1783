"""The rollout's state machine: in whatever order it is called, traffic never skips a step or a limit."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from tasks.contracts.registry import RegisteredVersion
from tasks.core.errors import ClosedQuestionError, InputError, RegistryError, RolloutError
from tasks.registry.aliases import plan_rollback, promote, record_answer, roll_back
from tasks.registry.approval import Answer, ApprovalTerms, approval_in
from tasks.registry.config import AbortCondition, RolloutConfig, RolloutStep
from tasks.registry.journal import champion_events, complete_pending_change, read_events
from tasks.registry.live import abort_rollout, advance_rollout, read_traffic, start_rollout
from tasks.registry.rollout import Rollout, abort, advance, rollout_in, start
from tests.support.candidates import decide
from tests.tasks.registry.test_aliases import Mortal, _KilledError

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
    """Any order of waiting, advancing, aborting and starting again, with any live metrics."""

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
def test_a_metric_that_is_not_finite_never_advances(value: float) -> None:
    limits = {"error_rate": value, "csat": 4.4}
    if value == float("inf"):
        assert advance(start(PLAN, "1", NOW), limits, NOW).state == "aborted"
    else:
        with pytest.raises(InputError, match="error_rate"):
            advance(start(PLAN, "1", NOW), limits, NOW)


def test_a_first_champion_shares_no_traffic() -> None:
    with pytest.raises(RolloutError, match="It has all the traffic already"):
        start(PLAN, None, NOW)


@pytest.mark.parametrize("shares", [(5, 5, 100), (25, 5, 100), (0, 50), (100, 101)])
def test_the_shares_of_a_plan_rise_to_100(shares: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        RolloutConfig(steps=tuple({"share": share} for share in shares))  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------------- registry

GRADUAL = PLAN.model_copy(update={"at_promotion": True, "abort_when": ()})
YES = Answer(verdict="approve", name="Ann Lee", reason="Read twenty replies.")


@pytest.fixture
def versions(client: Any, name: str) -> list[RegisteredVersion]:
    """Version 1 is champion, 2 to 4 are candidates; a version's number is its place, from 1."""
    client.create_registered_model(name)
    for _ in range(4):
        client.create_model_version(name, "somewhere")
    found = [RegisteredVersion(name=name, version=str(number), run_id="", source_uri="x") for number in (1, 2, 3, 4)]
    with pytest.raises(InputError, match="no champion"):
        read_traffic(client, name)
    promote(client, name, found[0], decide(), NOW, plan=GRADUAL)
    client.set_registered_model_alias(name, "challenger", "2")
    return found


def aliases(client: Any, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def served(client: Any, name: str) -> dict[str, int]:
    """Each version's share of the traffic, by the router's rule."""
    found = aliases(client, name)
    under_way = found.get("rollout")
    rollout = rollout_in(client.get_model_version(name, under_way).tags) if under_way else None
    share = rollout.share if rollout else 0
    return {f"champion {found['champion']}": 100 - share} | ({f"rollout {under_way}": share} if under_way else {})


def test_champion_serves_the_former_version_until_the_rollout_is_complete(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    record = promote(client, name, versions[1], decide(champion="1"), NOW, plan=GRADUAL)
    assert (record.promoted, record.champion_version, record.rollout_share) == (False, "1", 0)
    assert aliases(client, name) == {"champion": "1", "rollout": "2"}
    now, seen = NOW, [served(client, name)]
    again = promote(client, name, versions[1], decide(champion="1"), NOW, plan=GRADUAL)  # the same run once more
    assert (again.rollout_share, again.promoted) == (0, False)
    while (rollout := read_traffic(client, name).rollout) is not None and rollout.state == "baking":
        now = rollout.may_advance_at.isoformat()
        advance_rollout(client, name, {}, now)
        seen.append(served(client, name))
    assert seen == [
        {"champion 1": 100, "rollout 2": 0},
        {"champion 1": 95, "rollout 2": 5},
        {"champion 1": 75, "rollout 2": 25},
        {"champion 2": 100},
    ]
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    assert [(event.action, event.version) for event in read_events(client, name)] == [
        ("promote", "1"),
        ("rollout", "2"),
        ("promote", "2"),
    ]
    assert [event.version for event in champion_events(client, name)] == ["1", "2"]
    assert champion_events(client, name)[-1].reason == "Its rollout is complete. Better than the base model."


@pytest.mark.parametrize("how", ["abort", "a live metric", "rollback", "rollback as shown"])
@pytest.mark.parametrize("share", [0, 25])
def test_a_rollout_that_ends_early_moves_no_champion(
    client: Any, name: str, versions: list[RegisteredVersion], how: str, share: int
) -> None:
    plan = GRADUAL.model_copy(update={"abort_when": (AbortCondition(metric="error_rate", above=0.02),)})
    promote(client, name, versions[1], decide(champion="1"), NOW, plan=plan)
    now = NOW
    while (rollout := read_traffic(client, name).rollout) is not None and rollout.share < share:
        now = rollout.may_advance_at.isoformat()
        advance_rollout(client, name, {"error_rate": 0.0}, now)
    if how == "abort":
        abort_rollout(client, name, "rude replies", now)
    elif how == "a live metric":
        advance_rollout(client, name, {"error_rate": 0.5}, now)
    else:
        shown = plan_rollback(client, name)
        assert (shown.returns, shown.leaves, shown.rollout) == ("1", "2", True)
        for _ in range(2 if how == "rollback as shown" else 1):  # the same rollback, repeated after a kill
            done = roll_back(client, name, "rude replies", now, "Ann", shown if how == "rollback as shown" else None)
            assert done.champion_version == "1"
            assert "version 1 has all the traffic" in done.reason
    again = roll_back(client, name, "another reason", now)  # an aborted version does not come back
    assert (again.champion_version, again.reason[:20]) == ("1", "Nothing was changed:")
    assert served(client, name) == {"champion 1": 100}
    assert aliases(client, name) == {"champion": "1", "challenger": "2"}
    assert [event.action for event in read_events(client, name)] == ["promote", "rollout", "abort"]
    held = promote(client, name, versions[1], decide(champion="1"), now, plan=plan)  # the same run again, all of it cached
    assert (held.promoted, held.rollout_share) == (False, None)
    assert held.reason.startswith("HOLD")
    traffic = start_rollout(client, name, plan, now)  # a person may
    assert (traffic.version, traffic.champion) == ("2", "1")
    assert served(client, name) == {"champion 1": 100, "rollout 2": 0}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_promotion_during_a_rollout_takes_its_place(
    client: Any, name: str, versions: list[RegisteredVersion], at_once: bool
) -> None:
    promote(client, name, versions[1], decide(champion="1"), NOW, plan=GRADUAL)
    advance_rollout(client, name, {}, NOW)
    promote(client, name, versions[2], decide(champion="1"), NOW, plan=None if at_once else GRADUAL)
    ended = rollout_in(client.get_model_version(name, "2").tags)
    assert ended is not None
    assert (ended.state, ended.changes[-1].note) == ("aborted", "aborted: version 3 takes its place")
    if at_once:
        assert aliases(client, name) == {"champion": "3", "previous": "1"}
        with pytest.raises(RegistryError, match="with which version 4 was compared"):
            promote(client, name, versions[3], decide(champion="2"), NOW)
    else:
        assert served(client, name) == {"champion 1": 100, "rollout 3": 0}
    held = promote(client, name, versions[1], decide(champion="1"), NOW, plan=GRADUAL)
    assert held.reason.startswith("HOLD")


def test_an_approved_version_rolls_out_and_keeps_its_approver(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    terms = ApprovalTerms(when="always", timeout_hours=24, flow_run_id=None)
    for number in (1, 2):
        promote(client, name, versions[number], decide(champion="1"), NOW, terms, GRADUAL)
    record = record_answer(client, name, versions[1], "1", YES, NOW, GRADUAL)
    assert (record.promoted, record.champion_version, record.rollout_share) == (False, "1", 0)
    with pytest.raises(ClosedQuestionError, match="version 2 began its rollout"):
        record_answer(client, name, versions[2], "1", YES, NOW, GRADUAL)
    now = NOW
    while (rollout := read_traffic(client, name).rollout) is not None and rollout.state == "baking":
        now = rollout.may_advance_at.isoformat()
        advance_rollout(client, name, {}, now)
    last = champion_events(client, name)[-1]
    assert (last.version, last.by) == ("2", "Ann Lee")
    approval = approval_in(client.get_model_version(name, "2").tags)
    assert approval is not None
    assert approval.answered_at == NOW, "the first answer's date stays"


def test_a_rollout_started_by_hand_first_restores_the_previous_champion(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    with pytest.raises(RolloutError, match="It has all the traffic already"):
        start_rollout(client, name, PLAN, NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    start_rollout(client, name, GRADUAL, NOW)
    assert aliases(client, name) == {"champion": "1", "rollout": "2"}
    with pytest.raises(RolloutError, match="at 0 %"):
        start_rollout(client, name, GRADUAL, NOW)
    client.set_registered_model_alias(name, "champion", "3")  # by hand, in MLflow
    days = [later(NOW, 24.0 * 30 * month) for month in range(3)]
    for now in days[:2]:
        advance_rollout(client, name, {}, now)
    with pytest.raises(RegistryError, match="beside which version 2 was rolled out"):
        advance_rollout(client, name, {}, days[2])
    assert aliases(client, name)["champion"] == "3"


def test_a_rollback_after_a_complete_rollout_goes_back_and_forth(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[1], decide(champion="1"), NOW)
    start_rollout(client, name, RolloutConfig(steps=(RolloutStep(share=50), RolloutStep(share=100))), NOW)
    advance_rollout(client, name, {}, NOW)
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    roll_back(client, name, "rude replies", NOW)
    assert (read_traffic(client, name).champion, read_traffic(client, name).rollout) == ("1", None)
    roll_back(client, name, "rude replies", NOW)
    assert read_traffic(client, name).champion == "1"
    roll_back(client, name, "was a false alarm", NOW, to="2")
    assert (read_traffic(client, name).champion, read_traffic(client, name).rollout) == ("2", None)
    assert served(client, name) == {"champion 2": 100}


@pytest.mark.parametrize("action", ["begin", "abort", "complete"])
def test_a_kill_between_any_two_steps_of_a_rollout_is_completed_by_the_next_caller(
    client: Any, name: str, action: str
) -> None:
    survived, death = False, 0
    two_steps = RolloutConfig(at_promotion=True, steps=(RolloutStep(share=0), RolloutStep(share=100)))
    while not survived:
        death += 1
        model = f"{name}-{death}"
        client.create_registered_model(model)
        for alias in ("champion", "challenger"):
            client.set_registered_model_alias(model, alias, client.create_model_version(model, "somewhere").version)
        candidate = RegisteredVersion(name=model, version="2", run_id="", source_uri="somewhere")
        mortal = Mortal(client, death)
        if action != "begin":
            promote(client, model, candidate, decide(champion="1"), NOW, plan=two_steps)
        before = len(read_events(client, model))
        try:
            if action == "begin":
                promote(mortal, model, candidate, decide(champion="1"), NOW, plan=two_steps)
            elif action == "abort":
                abort_rollout(mortal, model, "rude replies", NOW)
            else:
                advance_rollout(mortal, model, {}, NOW)
            survived = True
        except _KilledError:
            assert aliases(client, model)["champion"] in ("1", "2")
            if action != "complete":
                assert aliases(client, model)["champion"] == "1", "at no moment does champion serve the new version"
        complete_pending_change(client, model)
        done = {
            "begin": {"champion": "1", "rollout": "2"},
            "abort": {"champion": "1", "challenger": "2"},
            "complete": {"champion": "2", "previous": "1"},
        }
        untouched = {"champion": "1", "challenger": "2"} if action == "begin" else {"champion": "1", "rollout": "2"}
        assert aliases(client, model) == (done[action] if len(read_events(client, model)) > before else untouched)
        assert "perennial.intent" not in client.get_registered_model(model).tags
    assert death > 5
