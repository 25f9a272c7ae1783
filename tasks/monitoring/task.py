"""Monitoring as Prefect tasks. What looks at the history or changes it is never kept across runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from prefect.events import emit_event

from tasks.contracts.monitoring import CheckHistory, CheckOutcome, DriftReport, LogWindow, SignalMeasurement, WindowCheck
from tasks.contracts.references import DatasetRef, FileRef
from tasks.core.progress import report_progress
from tasks.core.quarantine import artifact_key
from tasks.core.stage import stage_task
from tasks.core.storage import Store, run_store
from tasks.monitoring.config import AlertRuleConfig, DriftConfig, SignalConfig
from tasks.tracking import open_run

logger = logging.getLogger(__name__)


@stage_task("measure_drift")
def measure_drift(requests: DatasetRef | None, reference: DatasetRef | None, config: DriftConfig) -> DriftReport:
    """How a window's requests differ from the rows that the champion learned from.

    Args:
        requests: Scrubbed conversations of the window; None when there is none.
        reference: The champion's training rows; None while none reigns.
        config: Tests and their limits.
    """
    from tasks.monitoring.comparing import TERMS_SCHEMA, compare_requests, not_judged

    if requests is None or reference is None:
        why = "no champion reigns: nothing to compare with" if reference is None else "no request can be read"
        return DriftReport(readings=not_judged(why, 0), reference=reference)
    store = run_store()
    with report_progress("measure_drift", requests.num_rows) as progress:
        found = compare_requests(store.read_rows(reference), store.read_rows(requests), config, on_progress=progress)
        progress.finish(found.readings[0].note or f"{found.num_requests} different requests compared")
    terms = [{"term": term, "num_requests": count} for term, count in found.terms]
    return DriftReport(
        readings=found.readings,
        vectors=found.vectors,
        reference=reference,
        terms=store.write_table(pa.Table.from_pylist(terms, schema=TERMS_SCHEMA), kind="table", parents=[requests]),
    )


@stage_task("judge_window", cached=False)
def judge_window(
    model: str, window: LogWindow, drift: DriftReport, signals: SignalConfig, rule: AlertRuleConfig
) -> WindowCheck:
    """The window's verdict: its figures against their limits, and the stated rule over the windows before it."""
    from tasks.monitoring.rule import check_window
    from tasks.monitoring.signals import read_signals

    store = run_store()
    with report_progress("judge_window", window.lines.num_rows, "requests") as progress:
        readings: Sequence[SignalMeasurement] = [*read_signals(store.read_table(window.lines), signals), *drift.readings]
        times = (window.window_start, window.window_end)
        check = check_window(model, times, window.lines.num_rows, readings, _history(store, model), rule)
        progress.finish(f"{check.status}{': ' + ', '.join(check.violated) if check.violated else ''}")
    logger.info("monitoring: window to %s is %s", check.window_end.isoformat(), check.status)
    return check


@stage_task("collect_pairs")
def collect_pairs(requests: DatasetRef, threshold: float) -> tuple[FileRef, int] | None:
    """Preference-pair candidates of the window as a review queue, and their number; None when there are none."""
    from tasks.monitoring.pairs import as_queue, pair_candidates

    store = run_store()
    with report_progress("collect_pairs", requests.num_rows) as progress:
        candidates = pair_candidates(store.read_rows(requests), threshold)
        progress.finish(f"{len(candidates)} candidates")
    return (store.write_bytes(as_queue(candidates), ".jsonl"), len(candidates)) if candidates else None


@stage_task("remember_check", cached=False, patient=True)
def remember_check(outcome: CheckOutcome, rule: AlertRuleConfig) -> None:
    """Keeps the verdict: in the store's history, in MLflow, for Prometheus, on the run's page and in Prefect's event feed.

    It comes last: a check that broke off before is judged again as if it had not been.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from tasks.monitoring.rule import add_to_history
    from tasks.monitoring.telling import check_table, latest_json, metrics_of, prometheus_lines

    check = outcome.check
    store = run_store()
    with report_progress("remember_check", 1, "windows") as progress:
        hours = int(check.window_end.timestamp() // 3600)
        with open_run(check.model, f"check-{check.window_end:%Y%m%d-%H%M}", {"perennial.stage": "check"}) as run:
            run.log_metrics(metrics_of(check), step=hours)
            run.log_artifact_bytes("check.html", store.read_bytes(outcome.page))
            run.log_artifact_bytes("check.json", store.read_bytes(outcome.record))
        before = _history(store, check.model)
        # An old window that is judged anew is not the latest.
        if all(past.window_end <= check.window_end for past in before.windows):
            store.write_named(f"monitoring/{check.model}/metrics.prom", prometheus_lines(check))
            store.write_named(f"monitoring/{check.model}/latest.json", latest_json(outcome))
            store.write_named(f"monitoring/{check.model}/latest.html", store.read_bytes(outcome.page))
        history = store.update_record(
            f"monitoring/{check.model}",
            CheckHistory,
            lambda known: add_to_history(known or CheckHistory(), check, rule),
        )
        progress.finish(f"{len(history.windows)} windows remembered")
    if TaskRunContext.get() is not None:
        key = artifact_key("check", check.model)
        create_markdown_artifact(check_table(check, outcome.runs), key=key, description=f"Production is {check.status}")
        emit_event(
            event="perennial.check.finished",
            resource={"prefect.resource.id": f"perennial.model.{check.model}", "prefect.resource.name": check.model},
            payload={
                "status": check.status,
                "violated": list(check.violated),
                "alerted": list(check.alerted),
                "hours_unwatched": check.hours_unwatched,
            },
        )


def _history(store: Store, model: str) -> CheckHistory:
    return store.read_record(f"monitoring/{model}", CheckHistory) or CheckHistory()
