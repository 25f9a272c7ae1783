"""Pruning as Prefect tasks. Both look at the world, so neither is kept across runs."""

from __future__ import annotations

import datetime as dt
import logging

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import TaskRunContext

from tasks.contracts.pruning import OldVersions, PruneReport
from tasks.core.addresses import without_secrets
from tasks.core.errors import PerennialError
from tasks.core.paging import every
from tasks.core.progress import report_progress
from tasks.core.stage import stage_task
from tasks.core.storage import open_store
from tasks.pruning.config import PruningConfig

logger = logging.getLogger(__name__)

_LONGEST_RUN_DAYS = 30
"""An open run that began earlier is a dead one that nothing marked."""


@stage_task("find_prunable", cached=False)
def find_prunable(store_uri: str, versions: OldVersions | None, config: PruningConfig, note: str = "") -> PruneReport:
    """What may go from the store, beside the model versions found before; nothing is removed.

    Args:
        store_uri: The store.
        versions: The versions that may go, and what the others need; None where nobody can say, which leaves out all that
            a version might need.
        config: What is kept.
        note: Why nobody can say.
    """
    from tasks.pruning.listing import list_items, totals_of
    from tasks.pruning.sweep import leftovers, reachable, roots, sweep

    store, now = open_store(store_uri), dt.datetime.now(dt.UTC)
    with report_progress("find_prunable", unit="things") as progress:
        if versions is None:
            items = tuple(leftovers(store, config, now))
        else:
            kept = reachable(store, roots(store, versions.needed, versions.runs, config, now))
            items = (*versions.removable, *sweep(store, kept, config, now))
        listing = store.write_bytes(list_items(items), ".json")
        report = PruneReport(totals=totals_of(items), listing=listing, note=note)
        progress.finish(f"{report.num_items} may go, {report.size_bytes / 1e9:.2f} GB")
    _publish(report)
    return report


@stage_task("remove_prunable", cached=False)
def remove_prunable(store_uri: str, found: PruneReport) -> PruneReport:
    """Removes from the store what was found; a removal that broke off is gone on with by the next one.

    Raises:
        PerennialError: A run is open: it may be about to use what looks unused.
    """
    from tasks.pruning.listing import read_items

    _refuse_while_runs_are_open()
    store = open_store(store_uri)
    items = [one for one in read_items(store, found) if one.kind != "model version"]
    with report_progress("remove_prunable", len(items), "things") as progress:
        for number, one in enumerate(items):
            store.remove(one.name)
            progress(number + 1)
        progress.finish(f"{len(items)} removed")
    logger.info("pruning: removed %d things of %s", len(items), without_secrets(store.uri))
    report = found.model_copy(update={"removed": True})
    _publish(report)
    return report


def _refuse_while_runs_are_open() -> None:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=_LONGEST_RUN_DAYS)
    working = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=working)),
        start_time=FlowRunFilterStartTime(after_=since),
    )
    own = {runtime.flow_run.id, runtime.flow_run.root_flow_run_id}
    with get_client(sync_client=True) as client:
        runs = every(lambda limit, offset: client.read_flow_runs(flow_run_filter=wanted, limit=limit, offset=offset))
        open_runs = [run.name for run in runs if str(run.id) not in own]
    if open_runs:
        raise PerennialError(
            "pruning",
            f"open runs: {', '.join(sorted(open_runs)[:5])}",
            "no run at work, which might be about to use what looks unused",
            "Prune when they have ended; cancel in Prefect those that are dead.",
        )


def _publish(report: PruneReport) -> None:
    if TaskRunContext.get() is None:
        return
    lines = [
        f"**{'Removed' if report.removed else 'Would remove'}** {report.size_bytes / 1e9:.2f} GB.",
        "",
        *([f"Work folders and unfinished writes alone: {report.note}.", ""] if report.note else []),
        "| what | number | GB |",
        "|---|---|---|",
        *(f"| {kind} | {count:,} | {size / 1e9:.3f} |" for kind, count, size in report.totals),
    ]
    create_markdown_artifact("\n".join(lines), key="prune", description="What no version in use and no recent run needs")
