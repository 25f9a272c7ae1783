"""Rollback: the previous champion becomes champion again in one step, after a person has confirmed which one that is."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import State, flow, get_run_logger
from prefect.input import RunInput
from prefect.states import Cancelled
from pydantic import Field

from flows.support import approvals
from flows.support.run_names import scheduled_run_name
from tasks import registry
from tasks.contracts.registry import PromotionRecord, RollbackPlan
from tasks.core.results import CONTRACTS
from tasks.core.typed_text import PRINTABLE, REASON_CHARACTERS, Name


class RollbackForm(RunInput):
    """The form that confirms a rollback before any alias moves."""

    answer: Literal["roll back", "leave it as it is"] = Field(
        description="Whether the version named above becomes champion again."
    )


@flow(name="rollback", flow_run_name=scheduled_run_name("rollback"), persist_result=True, result_serializer=CONTRACTS)
def rollback(
    registration: registry.RegistryConfig,
    reason: Annotated[
        str,
        Field(min_length=3, max_length=REASON_CHARACTERS, pattern=PRINTABLE, description="Why; recorded with the version."),
    ],
    name: Annotated[Name, Field(description="Who does it; recorded with the version.")],
    shown: RollbackPlan | None = None,
    to: Annotated[
        str | None, Field(pattern=r"^[1-9][0-9]*$", description="The version that comes back. Empty: the previous champion.")
    ] = None,
) -> PromotionRecord | State[PromotionRecord]:
    """The record of a rollback; without a previous champion the run ends as cancelled and says why.

    Args:
        registration: Which registered model.
        reason: Why; kept in the version's tags.
        name: Who does it, by their own statement.
        shown: The plan that the person has already seen; None shows it in a form if the run can be suspended.
        to: The version that comes back; None goes to the one that the champion replaced, and after a rollback nowhere.
    """
    plan = shown or registry.find_way_back(registration, to)
    if isinstance(plan, str):
        return Cancelled(message=f"Nothing was changed. {plan}")
    if plan.already:
        return Cancelled(message=describe_plan(plan))
    get_run_logger().info(describe_plan(plan))
    if shown is None and approvals.can_suspend():
        lines = [f"## Roll {plan.name} back?", describe_plan(plan), f"{name}: {reason}"]
        if approvals.wait(RollbackForm, lines, "rollback").answer != "roll back":
            return Cancelled(message="Nothing was changed: it was left as it is.")
    return registry.rollback_champion(registration, reason, name, plan)


def describe_plan(plan: RollbackPlan) -> str:
    """One sentence that describes a rollback."""
    facts = [f"found by {plan.returns_run}"] if plan.returns_run else []
    facts += [f"champion since {plan.returns_since}" if plan.rollout else f"last made champion {plan.returns_since}"] * bool(
        plan.returns_since
    )
    details = f" ({', '.join(facts)})" if facts else ""
    if plan.already:
        instead = f" in place of version {plan.leaves}" if plan.leaves != plan.returns else ""
        return (
            f"Nothing was changed: version {plan.returns} of {plan.name}{details} is champion already{instead}. To go to "
            "another version, name it with `--to VERSION`."
        )
    if plan.rollout:
        return (
            f"The rollout of version {plan.leaves} of {plan.name} is aborted; version {plan.returns}{details}, "
            "which is champion, gets all the traffic."
        )
    return f"Version {plan.returns} of {plan.name}{details} comes back in place of version {plan.leaves}."
