"""The way back: the previous champion reigns again, in one step, with a reason on record."""

from __future__ import annotations

from prefect import flow

from tasks import registry
from tasks.contracts import PromotionRecord


@flow(name="rollback", persist_result=True, result_serializer="json")
def rollback(registration: registry.RegistryConfig, reason: str) -> PromotionRecord:
    """The record of a rollback.

    Args:
        registration: Which registered model.
        reason: Why; kept in the version's tags.
    """
    return registry.rollback_champion(registration, reason)
