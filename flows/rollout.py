"""Rollout: one look, on a schedule, at the version that takes over the traffic."""

from __future__ import annotations

from prefect import flow

from flows.support.outcomes import tick_as_state
from flows.support.run_names import scheduled_run_name
from tasks import registry
from tasks.contracts.registry import RolloutTick
from tasks.core.results import CONTRACTS


@flow(name="watch-rollout", flow_run_name=scheduled_run_name("rollout"), persist_result=True, result_serializer=CONTRACTS)
def watch_rollout(registration: registry.RegistryConfig, signals: str) -> RolloutTick:
    """Advances the rollout, waits, or aborts it, by the live signals of both versions; its state and event say so.

    Args:
        registration: Which registered model; the limits are those that its rollout started with.
        signals: The file of live signals, see docs/operating.md.
    """
    return tick_as_state(registry.tick_rollout(registration, signals))
