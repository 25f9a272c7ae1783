"""Looks at what a served model is asked and how it does, and says when that is worth an alert."""

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
