"""When violated signals become an alert: in k of the last n windows, and in the latest. Pure; no clock.

Windows that overlap share requests and are not independent, so only windows that do not overlap count: of hourly checks of
a whole day, those a day apart. A window without enough data counts as one of the n and violates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.contracts.monitoring import CheckHistory, SignalMeasurement, WindowCheck
from tasks.monitoring.config import AlertRuleConfig


def check_window(
    model: str,
    window: tuple[datetime, datetime],
    num_requests: int,
    measurements: Sequence[SignalMeasurement],
    history: CheckHistory,
    rule: AlertRuleConfig,
) -> WindowCheck:
    """The window's verdict. It depends on earlier windows alone, so that a repeated check gives the same verdict."""
    start, end = window
    violated = tuple(sorted({measurement.signal for measurement in measurements if measurement.violated}))
    evaluated = any(measurement.violated is not None for measurement in measurements)
    before = [past for past in history.windows if past.window_end < end]
    alerted = [
        signal
        for signal in violated
        if _num_violated(signal, start, before, rule) + 1 >= rule.violated_windows
        and not _was_alerted(signal, end, before, rule)
    ]
    last = max((past.window_end for past in before), default=start)
    return WindowCheck(
        model=model,
        window_start=start,
        window_end=end,
        num_requests=num_requests,
        status="violated" if violated else "healthy" if evaluated else "insufficient",
        violated=violated,
        alerted=tuple(alerted),
        readings=tuple(measurements),
        hours_unwatched=max(0.0, (start - last) / timedelta(hours=1)),
    )


def add_to_history(history: CheckHistory, check: WindowCheck, rule: AlertRuleConfig) -> CheckHistory:
    """The history with a window added, without the windows that no later verdict depends on."""
    length = check.window_end - check.window_start
    oldest = check.window_end - max(2 * rule.last_windows * length, 2 * timedelta(hours=rule.repeat_hours))
    others = [past for past in history.windows if past.window_end != check.window_end and past.window_end >= oldest]
    return CheckHistory(windows=tuple(sorted([*others, check], key=lambda past: past.window_end)))


def _num_violated(signal: str, start: datetime, before: Sequence[WindowCheck], rule: AlertRuleConfig) -> int:
    """In how many of the last windows before the latest, none overlapping the next, the signal was violated."""
    chosen: list[WindowCheck] = []
    for past in sorted(before, key=lambda past: past.window_end, reverse=True):
        if len(chosen) < rule.last_windows - 1 and past.window_end <= start:
            chosen.append(past)
            start = past.window_start
    return sum(signal in past.violated for past in chosen)


def _was_alerted(signal: str, end: datetime, before: Sequence[WindowCheck], rule: AlertRuleConfig) -> bool:
    since = end - timedelta(hours=rule.repeat_hours)
    return any(signal in past.alerted and past.window_end > since for past in before)
