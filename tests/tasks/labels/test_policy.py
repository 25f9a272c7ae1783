"""Policies, the cap on removal, and people's decisions over both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.labels.config import IssuePolicy, LabelAuditConfig
from tasks.labels.policy import Decision, Issue, assign_actions


def issue(name: str, tier: str = "automatic", score: float = 0.9, **more: str) -> Issue:
    return Issue(name, more.pop("kind", "wrong_label"), score, tier, **more)  # type: ignore[arg-type]


def actions(issues: list[Issue], **settings: Any) -> list[str]:
    acted, _ = assign_actions(issues, {}, LabelAuditConfig(**settings), 100)
    return [one.action for one in acted]


def test_by_default_the_sure_ones_go_and_the_doubtful_ones_are_asked() -> None:
    assert actions([issue("a"), issue("b", "review")]) == ["drop", "review"]


@pytest.mark.parametrize("action", ["keep", "drop", "review"])
def test_a_policy_rules_its_kind_alone(action: str) -> None:
    policies = {"wrong_label": IssuePolicy(automatic=action)}
    assert actions([issue("a"), issue("b", kind="empty_side")], policies=policies) == [action, "drop"]


def test_a_label_that_cannot_be_changed_alone_is_asked_about() -> None:
    config = LabelAuditConfig(policies={"wrong_label": IssuePolicy(automatic="fix")})
    issues = [issue("a", suggested="x"), issue("b", suggested="x"), issue("c")]
    acted, _ = assign_actions(issues, {}, config, 100, frozenset({"a", "c"}))
    assert [one.action for one in acted] == ["fix", "review", "review"]


def test_above_the_cap_the_least_sure_are_asked_about() -> None:
    issues = [issue(f"r{n}", score=n / 10) for n in range(10)]
    acted, num_capped = assign_actions(issues, {}, LabelAuditConfig(max_removed_share=0.04), 100)
    assert num_capped == 6
    assert {one.row_id for one in acted if one.action == "drop"} == {"r6", "r7", "r8", "r9"}


def test_a_persons_decision_stands_over_policy_and_cap() -> None:
    decisions = {"a": Decision("keep"), "b": Decision("drop"), "c": Decision("fix", "x")}
    acted, capped = assign_actions(
        [issue("a"), issue("b", "review"), issue("c"), issue("d")], decisions, LabelAuditConfig(max_removed_share=0.0), 100
    )
    assert [(one.action, one.tier) for one in acted] == [
        ("keep", "decided"), ("drop", "decided"), ("fix", "decided"), ("review", "automatic"),
    ]  # fmt: skip
    assert acted[2].suggested == "x"
    assert capped == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), max_size=40), st.floats(0, 1), st.randoms())
def test_the_cap_holds_whatever_comes_and_in_whatever_order(found: list, cap: float, random) -> None:
    issues = [issue(f"r{number}", score=score) for number, score in found]
    config = LabelAuditConfig(max_removed_share=cap)
    acted, _ = assign_actions(issues, {}, config, 50)
    removed = {one.row_id for one in acted if one.action == "drop"}
    assert len(removed) <= cap * 50
    random.shuffle(issues)
    again, _ = assign_actions(issues, {}, config, 50)
    assert {one.row_id for one in again if one.action == "drop"} == removed
