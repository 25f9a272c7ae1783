"""Model registry: candidates become MLflow model versions, and exactly one of them is champion."""

from tasks.registry.approval import Answer
from tasks.registry.config import RegistryConfig
from tasks.registry.task import (
    answer_approval,
    check_registry,
    claim_names,
    find_champion,
    find_champion_rows,
    find_old_versions,
    find_start,
    find_way_back,
    present_approval,
    promote_champion,
    recall_verdicts,
    register_candidate,
    remove_old_versions,
    rollback_champion,
    tick_rollout,
)

__all__ = [
    "Answer",
    "RegistryConfig",
    "answer_approval",
    "check_registry",
    "claim_names",
    "find_champion",
    "find_champion_rows",
    "find_old_versions",
    "find_start",
    "find_way_back",
    "present_approval",
    "promote_champion",
    "recall_verdicts",
    "register_candidate",
    "remove_old_versions",
    "rollback_champion",
    "tick_rollout",
]
