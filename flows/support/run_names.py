"""Names of runs in Prefect's UI: model, purpose, scheduled time and part of the run's id."""

from __future__ import annotations

from collections.abc import Callable

from prefect import runtime


def scheduled_run_name(kind: str = "") -> Callable[[], str]:
    """A flow's ``flow_run_name``: ``<model>-<kind>-<date and time the run was scheduled for>-<part of its id>``.

    Args:
        kind: What the run does; empty for a retrain, whose name its dossier and its MLflow runs share.
    """

    def name() -> str:
        parameters = runtime.flow_run.parameters
        model = parameters["config"].name if "config" in parameters else parameters["registration"].model_name
        return unique("-".join(filter(None, (model, kind, f"{runtime.flow_run.scheduled_start_time:%Y%m%d-%H%M%S}"))))

    return name


def name_of(template: str) -> Callable[[], str]:
    """A flow's ``flow_run_name``: the template with the flow's parameters, and part of the run's id.

    Args:
        template: As for :meth:`str.format`, such as ``train-{experiment}``.
    """
    return lambda: unique(template.format(**runtime.flow_run.parameters))


def unique(name: str) -> str:
    """The name with the end of the run's id: runs scheduled for the same second differ, and a retry keeps its name.

    The end, because a version 7 UUID begins with a time.
    """
    return f"{name}-{str(runtime.flow_run.id)[-8:]}"
