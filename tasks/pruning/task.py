"""Pruning as Prefect tasks. Both read the state of the store and of Prefect, so neither is cached across runs."""

from __future__ import annotations

import datetime as dt

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from tasks.contracts.pruning import OldVersions, PruneReport
from tasks.core.errors import PerennialError
from tasks.core.paging import every
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import open_store
from tasks.pruning.config import PruningConfig
from tasks.pruning.listing import list_items, read_items, totals_of, totals_table

_LONGEST_RUN_DAYS = 30
"""An open run that began earlier is dead: its process ended and nothing marked it."""
_TITLE = "What no version in use and no recent run needs"


@stage(cached=False, unit="items", page=totals_table, title=_TITLE, key="prune")
def find_prunable(store_uri: str, versions: OldVersions | None, config: PruningConfig, note: str = "") -> PruneReport:
    """What can be removed from the store, beside the model versions found before; nothing is removed.

    Args:
        store_uri: The store.
        versions: The removable versions, and what the others need; None where that is not known, which leaves out
            everything that a version might need.
        config: What is kept.
        note: Why it is not known.
    """
    from tasks.pruning.sweep import leftovers, reachable, roots, sweep

    store, now = open_store(store_uri), dt.datetime.now(dt.UTC)
    if versions is None:
        items = tuple(leftovers(store, config, now))
    else:
        kept = reachable(store, roots(store, versions.needed, versions.runs, config, now))
        items = (*versions.removable, *sweep(store, kept, config, now))
    report = PruneReport(totals=totals_of(items), listing=store.write_bytes(list_items(items), ".json"), note=note)
    stage_progress().summarize(f"{report.num_items} removable, {report.size_bytes / 1e9:.2f} GB")
    return report


@stage(cached=False, unit="items", page=totals_table, title=_TITLE, key="prune")
def remove_prunable(store_uri: str, report: PruneReport) -> PruneReport:
    """Removes from the store what a report lists; the next run completes a removal that was interrupted.

    Raises:
        PerennialError: A run is open: it may be about to use what looks unused.
    """
    _check_no_run_is_open()
    store, progress = open_store(store_uri), stage_progress()
    items = [item for item in read_items(store, report) if item.kind != "model version"]
    for number, item in enumerate(items, start=1):
        store.remove(item.name)
        progress(number, len(items))
    progress.summarize(f"{len(items)} removed")
    return report.model_copy(update={"removed": True})


def _check_no_run_is_open() -> None:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=_LONGEST_RUN_DAYS)
    open_states = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states)),
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
            "no open run, which might be about to use what looks unused",
            "Prune when they have ended; cancel in Prefect those that are dead.",
        )
