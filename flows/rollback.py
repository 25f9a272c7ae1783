"""The way back: the previous champion reigns again, in one step, with a reason on record."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.naming import name_when_due
from tasks import registry
from tasks.contracts import PromotionRecord
from tasks.stage import CONTRACTS
from tasks.texts import PRINTABLE, REASON_CHARACTERS


@flow(name="rollback", flow_run_name=name_when_due("rollback"), persist_result=True, result_serializer=CONTRACTS)
def rollback(
    registration: registry.RegistryConfig,
    reason: Annotated[str, Field(min_length=3, max_length=REASON_CHARACTERS, pattern=PRINTABLE)],
) -> PromotionRecord:
    """The record of a rollback.

    Args:
        registration: Which registered model.
        reason: Why; kept in the version's tags.
    """
    return registry.rollback_champion(registration, reason)
