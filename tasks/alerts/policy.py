"""Whether an alert becomes a retrain: each rule answers in a sentence. Pure; no clock, no Prefect.

An alert says that something may have changed; whether a retrain would help is a separate question. A model stays as it is
where it was just retrained, where there are no new rows, or where only one unusual signal fired.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.alerts.config import AlertPolicy
from tasks.contracts.alerts import Alert, AlertDecision, NewRows, RetrainHistory


@dataclass(frozen=True)
class _Rule:
    """The answer of one rule: whether it allows the retrain, and why."""

    passed: bool
    reason: str


def evaluate_alert(
    alert: Alert, model: str, history: RetrainHistory, new_rows: NewRows, policy: AlertPolicy, now: datetime
) -> AlertDecision:
    """The decision on an alert: a retrain when no rule objects. The reasons are the objections, else every rule's answer.

    Args:
        alert: What fired.
        model: The model that the deployment serves.
        history: Its past retrains.
        new_rows: Rows that it was not trained on.
        policy: The rules' limits.
        now: With a zone.
    """
    rules = [
        _right_model(alert, model),
        _signal_calls_for_a_retrain(alert, policy),
        _no_open_run(history),
        _cooled_down(history, policy, now),
        _enough_rows(new_rows, policy),
        _enough_signals(alert, history, policy),
    ]
    objections = [rule.reason for rule in rules if not rule.passed]
    days = policy.history_days
    return AlertDecision(
        retrain=not objections,
        reasons=tuple(objections or [rule.reason for rule in rules]),
        created_after=None if days is None else alert.window_start - timedelta(days=days),
        created_before=alert.window_end,
    )


def _right_model(alert: Alert, model: str) -> _Rule:
    same = alert.model == model
    return _Rule(same, f"The alert is about {alert.model}{'.' if same else f', and this deployment retrains {model}.'}")


def _signal_calls_for_a_retrain(alert: Alert, policy: AlertPolicy) -> _Rule:
    if alert.signal in policy.ignored_signals:
        return _Rule(False, f"The signal is {alert.signal}, which no retrain changes (alert policy, ignored_signals).")
    return _Rule(True, f"The signal {alert.signal} is one that a retrain may improve.")


def _no_open_run(history: RetrainHistory) -> _Rule:
    if history.open_runs:
        return _Rule(
            False, f"A retrain of this model is open: {', '.join(history.open_runs)}. If it is dead, cancel it in Prefect."
        )
    return _Rule(True, "No retrain of this model is open.")


def _cooled_down(history: RetrainHistory, policy: AlertPolicy, now: datetime) -> _Rule:
    if history.last_ended is None:
        return _Rule(True, "No retrain of this model has ended yet, so there is no cool-down.")
    until = history.last_ended + timedelta(days=policy.cooldown_days)
    if now < until:
        return _Rule(
            False,
            f"The last retrain ended at {_format_time(history.last_ended)}; "
            f"alerts start none before {_format_time(until)} (a cool-down of {policy.cooldown_days:g} days).",
        )
    return _Rule(True, f"The last retrain ended at {_format_time(history.last_ended)}; its cool-down is over.")


def _enough_rows(new_rows: NewRows, policy: AlertPolicy) -> _Rule:
    since = f"since {_format_time(new_rows.since)}" if new_rows.since else "and no retrain has trained on any"
    found = f"{new_rows.num_rows:,} rows are new {since}, up to the end of the alerted window"
    if new_rows.num_rows < policy.min_new_rows:
        return _Rule(False, f"Only {found}; at least {policy.min_new_rows:,} are needed.")
    return _Rule(True, f"{found}.")


def _enough_signals(alert: Alert, history: RetrainHistory, policy: AlertPolicy) -> _Rule:
    signals = sorted({alert.signal, *history.signals} - set(policy.ignored_signals))
    found = f"{len(signals)} of {policy.min_signals} signals fired within {policy.signal_window_hours:g} hours"
    return _Rule(len(signals) >= policy.min_signals, f"{found}: {', '.join(signals) or 'none that counts'}.")


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()


def decision_page(decision: AlertDecision) -> str:
    """The decision and its reasons as Markdown."""
    reasons = (f"- {reason}" for reason in decision.reasons)
    return "\n".join([f"**{'Retrain' if decision.retrain else 'No retrain'}.**", "", *reasons])
