"""Names of runs on Prefect's page: of which model, what it does, when it was due, and which of several it is."""

from __future__ import annotations

from collections.abc import Callable

from prefect import runtime


def scheduled_run_name(kind: str = "") -> Callable[[], str]:
    """A flow's ``flow_run_name``: ``<model>-<kind>-<date and time the run was scheduled for>-<part of its id>``.

    Args:
        kind: What the run does; nothing for a retrain, whose name its dossier and its MLflow runs bear too.
    """

    def name() -> str:
        given = runtime.flow_run.parameters
        model = given["config"].name if "config" in given else given["registration"].model_name
        return unique("-".join(filter(None, (model, kind, f"{runtime.flow_run.scheduled_start_time:%Y%m%d-%H%M%S}"))))

    return name


def name_of(template: str) -> Callable[[], str]:
    """A flow's ``flow_run_name``: its parameters laid into the template, and part of the run's id.

    Args:
        template: As for :meth:`str.format`, such as ``train-{experiment}``.
    """
    return lambda: unique(template.format(**runtime.flow_run.parameters))


def unique(name: str) -> str:
    """The name with the end of the run's id: two runs that are due in one second do not share it, a Retry keeps it.

    The end, because the begin of a version 7 UUID is a time.
    """
    return f"{name}-{str(runtime.flow_run.id)[-8:]}"
