"""Alerts: taken in by the bridge, kept until they are runs, and weighed by a policy before a retrain starts."""

from tasks.alerts.config import AlertPolicy, BridgeConfig
from tasks.alerts.task import decide_retrain, read_history

__all__ = ["AlertPolicy", "BridgeConfig", "decide_retrain", "read_history"]
