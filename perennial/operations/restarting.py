"""The automation that starts a crashed run once more: what killed its process was seldom its own doing."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

RESTARTED = ("retrain", "retrain-on-alert", "promote", "check-production")
"""Flows whose acts may be repeated. A rollback is none: another one would undo it. What a retrain hands over to the GPU pool
is started again by the retrain that waits for it."""


def restart_automation() -> AutomationCore:
    """Starts a crashed run once more, with what it finished kept; a run that crashes again is left to a person.

    The run's own count of its starts is part of the event, and only the first one matches. Of the runs that bear a name
    above, only those that are deployed with the tag ``perennial`` are meant.
    """
    return AutomationCore(
        name="perennial: crashed runs",
        description="A run that crashed for the first time is started once more; finished stages are kept.",
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
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="It crashed, and is started once more."
            )
        ],
    )
