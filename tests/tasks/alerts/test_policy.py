"""The retrain policy: each rule can object alone and gives its reason; more evidence never turns a yes into a no."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.config import AlertPolicy
from tasks.alerts.policy import evaluate_alert
from tasks.contracts.alerts import Alert, AlertDecision, NewRows, RetrainHistory

NOW = datetime(2026, 5, 1, 7, tzinfo=UTC)
POLICY = AlertPolicy(cooldown_days=14, min_new_rows=200)


def alert_of(signal: str = "feedback", model: str = "desk") -> Alert:
    return Alert(
        fingerprint="f", model=model, name="a", signal=signal, sender="json", starts_at=NOW,
        window_start=NOW - timedelta(hours=6), window_end=NOW,
    )  # fmt: skip


def evaluate(
    history: RetrainHistory | None = None, num_rows: int = 500, policy: AlertPolicy = POLICY, **changes: Any
) -> AlertDecision:
    rows = NewRows(num_rows=num_rows, since=None, until=NOW)
    return evaluate_alert(alert_of(**changes), "desk", history or RetrainHistory(), rows, policy, NOW)


def test_a_first_alert_with_new_rows_becomes_a_retrain_with_a_reason_per_rule() -> None:
    decision = evaluate()
    assert decision.retrain
    assert len(decision.reasons) == 6
    assert decision.created_before == NOW
    assert decision.created_after == NOW - timedelta(hours=6, days=90)


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"model": "bank"}, "bank"),
        ({"signal": "latency"}, "latency"),
        ({"history": RetrainHistory(open_runs=("desk-20260430-020000",))}, "desk-20260430-020000"),
        ({"history": RetrainHistory(last_ended=NOW - timedelta(days=13))}, "2026-05-02"),
        ({"num_rows": 199}, "199"),
        ({"policy": POLICY.model_copy(update={"min_signals": 2})}, "1 of 2 signals"),
    ],
)
def test_each_rule_alone_objects_and_names_what_it_found(changes: dict[str, Any], figure: str) -> None:
    decision = evaluate(**changes)
    assert not decision.retrain
    assert sum(figure in reason for reason in decision.reasons) == 1, decision.reasons


def test_every_objection_is_a_reason() -> None:
    history = RetrainHistory(open_runs=("desk-1",), last_ended=NOW)
    assert len(evaluate(history, num_rows=0).reasons) == 3


def test_ignored_and_repeated_signals_do_not_count_towards_min_signals() -> None:
    policy = POLICY.model_copy(update={"min_signals": 2})
    assert not evaluate(RetrainHistory(signals=("feedback",)), policy=policy).retrain
    assert not evaluate(RetrainHistory(signals=("latency",)), policy=policy).retrain
    assert evaluate(RetrainHistory(signals=("drift", "feedback")), policy=policy).retrain


def test_the_cool_down_ends_to_the_second() -> None:
    edge = NOW - timedelta(days=14)
    assert evaluate(RetrainHistory(last_ended=edge)).retrain
    assert not evaluate(RetrainHistory(last_ended=edge + timedelta(seconds=1))).retrain


def test_without_history_days_every_row_before_the_window_is_trained_on() -> None:
    assert evaluate(policy=POLICY.model_copy(update={"history_days": None})).created_after is None
    assert evaluate(policy=POLICY.model_copy(update={"history_days": 0.0})).created_after == NOW - timedelta(hours=6)


SIGNALS = st.lists(st.sampled_from(["drift", "feedback", "refusal", "latency", "error"]), max_size=4, unique=True)


@given(
    signals=SIGNALS,
    more=SIGNALS,
    num_rows=st.integers(0, 400),
    extra=st.integers(0, 400),
    days=st.none() | st.floats(0, 30),
    open_runs=st.lists(st.just("desk-1"), max_size=1),
    min_signals=st.integers(1, 3),
)
def test_more_evidence_never_turns_a_yes_into_a_no_and_an_open_run_always_does(
    signals: list[str],
    more: list[str],
    num_rows: int,
    extra: int,
    days: float | None,
    open_runs: list[str],
    min_signals: int,
) -> None:
    policy = POLICY.model_copy(update={"min_signals": min_signals})
    ended = None if days is None else NOW - timedelta(days=days)
    history = RetrainHistory(open_runs=tuple(open_runs), last_ended=ended, signals=tuple(signals))
    decision = evaluate(history, num_rows, policy)
    richer = history.model_copy(update={"signals": tuple({*signals, *more}), "open_runs": ()})
    if decision.retrain:
        assert evaluate(richer, num_rows + extra, policy).retrain
        blocked = richer.model_copy(update={"open_runs": ("desk-2",)})
        assert not evaluate(blocked, num_rows + extra, policy).retrain
        assert not open_runs
        assert days is None or days >= 14
    assert decision.reasons
