"""Monitoring of a served model: quality signals and drift of its requests, and the rule that raises an alert."""

from tasks.monitoring.config import AlertRuleConfig, DriftConfig, SignalConfig
from tasks.monitoring.task import collect_pairs, judge_window, measure_drift, remember_check

__all__ = [
    "AlertRuleConfig",
    "DriftConfig",
    "SignalConfig",
    "collect_pairs",
    "judge_window",
    "measure_drift",
    "remember_check",
]
