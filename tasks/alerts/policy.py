"""Whether an alert becomes a retrain: every rule speaks, each in a sentence. Pure; no clock, no Prefect.

An alert says that something may have changed; that a retrain would help is another matter. A model that was just
retrained, that nothing new could be taught, or that one odd signal complains about, stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.alerts.config import AlertPolicy
from tasks.contracts.alerts import Alert, AlertDecision, NewRows, RetrainHistory


@dataclass(frozen=True)
class _Rule:
    """What one rule says, and whether it lets the retrain happen."""

    passed: bool
    reason: str


def judge_alert(
    alert: Alert, model: str, history: RetrainHistory, new_rows: NewRows, policy: AlertPolicy, now: datetime
) -> AlertDecision:
    """The decision on an alert: yes when no rule objects; the reasons are the objections, or else what spoke for it.

    Args:
        alert: What fired.
        model: The model that the deployment serves.
        history: What Prefect remembers of its retrains.
        new_rows: Rows that it has not learned from.
        policy: The rules' limits.
        now: With a zone.
    """
    rules = [
        _right_model(alert, model),
        _mendable_signal(alert, policy),
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


def _mendable_signal(alert: Alert, policy: AlertPolicy) -> _Rule:
    if alert.signal in policy.ignored_signals:
        return _Rule(False, f"The signal is {alert.signal}, which no retrain mends (alert policy, ignored_signals).")
    return _Rule(True, f"The signal {alert.signal} is one that a retrain may mend.")


def _no_open_run(history: RetrainHistory) -> _Rule:
    if history.open_runs:
        return _Rule(
            False, f"A retrain of this model is open: {', '.join(history.open_runs)}. If it is dead, cancel it in Prefect."
        )
    return _Rule(True, "No retrain of this model is open.")


def _cooled_down(history: RetrainHistory, policy: AlertPolicy, now: datetime) -> _Rule:
    if history.last_ended is None:
        return _Rule(True, "No retrain of this model has ended yet, so none has to cool down.")
    until = history.last_ended + timedelta(days=policy.cooldown_days)
    if now < until:
        return _Rule(
            False,
            f"The last retrain ended at {_told(history.last_ended)}; "
            f"alerts start none before {_told(until)} (a cool-down of {policy.cooldown_days:g} days).",
        )
    return _Rule(True, f"The last retrain ended at {_told(history.last_ended)}; its cool-down is over.")


def _enough_rows(new_rows: NewRows, policy: AlertPolicy) -> _Rule:
    since = f"since {_told(new_rows.since)}" if new_rows.since else "and no retrain has learned from any"
    found = f"{new_rows.num_rows:,} rows are new {since}, up to the end of the alerted window"
    if new_rows.num_rows < policy.min_new_rows:
        return _Rule(False, f"Only {found}; at least {policy.min_new_rows:,} are needed.")
    return _Rule(True, f"{found}.")


def _enough_signals(alert: Alert, history: RetrainHistory, policy: AlertPolicy) -> _Rule:
    signals = sorted({alert.signal, *history.signals} - set(policy.ignored_signals))
    found = f"{len(signals)} of {policy.min_signals} signals fired within {policy.signal_window_hours:g} hours"
    return _Rule(len(signals) >= policy.min_signals, f"{found}: {', '.join(signals) or 'none that counts'}.")


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()
