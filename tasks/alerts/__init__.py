"""Alerts: the bridge accepts and queues them, each becomes a run, and a policy decides whether a retrain starts."""

from tasks.alerts.config import AlertPolicy, BridgeConfig
from tasks.alerts.task import decide_retrain, read_history

__all__ = ["AlertPolicy", "BridgeConfig", "decide_retrain", "read_history"]
