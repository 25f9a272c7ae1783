"""The automation that restarts a crashed run once: the cause of a crash is seldom the run itself."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

RESTARTED = ("retrain", "retrain-on-alert", "promote", "check-production")
"""Flows that can be repeated. A rollback cannot: a second one would undo the first. The child runs on the GPU pool are
restarted by the retrain that waits for them."""


def restart_automation() -> AutomationCore:
    """Restarts a crashed run once, keeping its finished stages; a second crash needs a person.

    The event contains the run's count of starts, and only the first start matches. Only runs of the flows above that are
    deployed with the tag ``perennial`` match.
    """
    return AutomationCore(
        name="perennial: crashed runs",
        description="Restarts a run after its first crash; finished stages are kept.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*", "prefect.run-count": "1"},
            match_related=[
                {"prefect.resource.role": "flow", "prefect.resource.name": list(RESTARTED)},
                {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.perennial"},
            ],
            for_each={"prefect.resource.id"},
            expect={"prefect.flow-run.Crashed"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="It crashed, and is restarted once.")
        ],
    )
