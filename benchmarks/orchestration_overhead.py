"""What Prefect costs: a retrain's wall time minus the time in which one of its stages worked.

    make demo && python benchmarks/orchestration_overhead.py          # reads the finished runs of .perennial/

A stage works from its task's start to its end, loading of libraries, models and data included; what is left is what
happens between stages: states, results, subflows, the hand-over from one to the next. Wanted: 5 % of the run, and 20 s.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from perennial.operations import embedded

MAX_SHARE, MAX_SECONDS = 0.05, 20.0

Span = tuple[datetime, datetime]


def covered_seconds(spans: Iterable[Span]) -> float:
    """Length of the union of the spans."""
    total, end = 0.0, None
    for start, stop in sorted(spans):
        begin = start if end is None or start > end else end
        if end is None or stop > end:
            total += (stop - begin).total_seconds()
            end = stop
    return total


def stage_spans(client: object, run: UUID) -> list[Span]:
    """When each stage of a run worked, those of its subflows included; the tasks that stand for subflows left out."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId

    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))  # type: ignore[attr-defined]
    spans = [
        (task.start_time, task.end_time)
        for task in tasks
        if task.start_time and task.end_time and not (task.state and task.state.state_details.child_flow_run_id)
    ]
    parent = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    for child in client.read_flow_runs(flow_run_filter=parent):  # type: ignore[attr-defined]
        spans += stage_spans(client, child.id)
    return spans


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    embedded.prepare_environment()
    with embedded.prefect_api(print):
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName

        print("| run | wall, s | in stages, s | between them, s | share | limit |")
        print("|---|---|---|---|---|---|")
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"]))):
                if run.start_time is None or run.end_time is None or not (run.state and run.state.is_completed()):
                    continue
                wall = (run.end_time - run.start_time).total_seconds()
                stages = covered_seconds(stage_spans(client, run.id))
                rest = wall - stages
                limit = min(MAX_SHARE * wall, MAX_SECONDS)
                print(f"| {run.name} | {wall:.1f} | {stages:.1f} | {rest:.1f} | {rest / wall:.1%} | {limit:.1f} s |")


if __name__ == "__main__":
    main()
