"""Names of runs on Prefect's page: of which model, what it does, and when it was due."""

from __future__ import annotations

from collections.abc import Callable

from prefect import runtime


def name_when_due(kind: str = "") -> Callable[[], str]:
    """A flow's ``flow_run_name``: ``<model>-<kind>-<date and time the run was scheduled for>``.

    Args:
        kind: What the run does; nothing for a retrain, whose name its dossier and its MLflow runs bear too.
    """

    def name() -> str:
        given = runtime.flow_run.parameters
        model = given["config"].name if "config" in given else given["registration"].model_name
        return "-".join(filter(None, (model, kind, f"{runtime.flow_run.scheduled_start_time:%Y%m%d-%H%M%S}")))

    return name
