"""MLflow: the connection, and the tracking of runs. The import is cheap; MLflow itself is imported on first use."""

from tasks.tracking.client import (
    already_there,
    connect,
    ensure_experiment,
    experiment_id,
    is_outage,
    is_served,
    registry_errors,
    tracking_uri,
)
from tasks.tracking.database import reach_database
from tasks.tracking.runs import RunStopped, TrackingRun, open_run, run_page, send_kept, unsent_folder

__all__ = [
    "RunStopped",
    "TrackingRun",
    "already_there",
    "connect",
    "ensure_experiment",
    "experiment_id",
    "is_outage",
    "is_served",
    "open_run",
    "reach_database",
    "registry_errors",
    "run_page",
    "send_kept",
    "tracking_uri",
    "unsent_folder",
]
