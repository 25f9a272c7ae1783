"""Monitoring as Prefect tasks. What reads the history or changes it is never cached across runs."""

from __future__ import annotations

import pyarrow as pa
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from prefect.events import emit_event

from tasks.contracts.monitoring import CheckHistory, CheckOutcome, DriftReport, LogWindow, WindowCheck
from tasks.contracts.references import DatasetRef, FileRef
from tasks.core.pages import artifact_key
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, run_store
from tasks.monitoring.config import AlertRuleConfig, DriftConfig, SignalConfig
from tasks.tracking import open_run


@stage()
def measure_drift(requests: DatasetRef | None, reference: DatasetRef | None, config: DriftConfig) -> DriftReport:
    """How a window's requests differ from the rows that the champion was trained on.

    Args:
        requests: Scrubbed conversations of the window; None when there is none.
        reference: The champion's training rows; None while there is no champion.
        config: Tests and their limits.
    """
    from tasks.monitoring.comparing import TERMS_SCHEMA, compare_requests, not_evaluated

    if requests is None or reference is None:
        why = "there is no champion to compare with" if reference is None else "no request can be read"
        return DriftReport(readings=not_evaluated(why, 0), reference=reference)
    store, progress = run_store(), stage_progress()
    comparison = compare_requests(store.read_rows(reference), store.read_rows(requests), config, on_progress=progress)
    progress.summarize(comparison.measurements[0].note or f"{comparison.num_requests} different requests compared")
    terms = [{"term": term, "num_requests": count} for term, count in comparison.terms]
    return DriftReport(
        readings=comparison.measurements,
        vectors=comparison.vectors,
        reference=reference,
        terms=store.write_table(pa.Table.from_pylist(terms, schema=TERMS_SCHEMA), kind="table", parents=[requests]),
    )


@stage(cached=False, unit="requests")
def judge_window(
    model: str, window: LogWindow, drift: DriftReport, signals: SignalConfig, rule: AlertRuleConfig
) -> WindowCheck:
    """The window's verdict: its figures against their limits, and the alert rule over the windows before it."""
    from tasks.monitoring.rule import check_window
    from tasks.monitoring.signals import measure_signals

    store = run_store()
    measurements = [*measure_signals(store.read_table(window.lines), signals), *drift.readings]
    times = (window.window_start, window.window_end)
    check = check_window(model, times, window.lines.num_rows, measurements, _read_history(store, model), rule)
    violated = f": {', '.join(check.violated)}" if check.violated else ""
    stage_progress().summarize(f"window to {check.window_end.isoformat()} is {check.status}{violated}")
    return check


@stage()
def collect_pairs(requests: DatasetRef, threshold: float) -> tuple[FileRef, int] | None:
    """Preference-pair candidates of the window as a review queue, and their number; None when there are none."""
    from tasks.monitoring.pairs import as_queue, pair_candidates

    store = run_store()
    candidates = pair_candidates(store.read_rows(requests), threshold)
    stage_progress().summarize(f"{len(candidates)} candidates")
    return (store.write_bytes(as_queue(candidates), ".jsonl"), len(candidates)) if candidates else None


@stage(cached=False, patient=True, unit="windows")
def remember_check(outcome: CheckOutcome, rule: AlertRuleConfig) -> None:
    """Keeps the verdict: in the store's history, in MLflow, for Prometheus, on the run's page and in Prefect's event feed.

    It comes last: a check that was interrupted earlier is repeated as if it had not been made.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from tasks.monitoring.rule import add_to_history

    check, store = outcome.check, run_store()
    _log_to_mlflow(outcome, store)
    if all(past.window_end <= check.window_end for past in _read_history(store, check.model).windows):
        _write_latest(outcome, store)
    history = store.update_record(
        f"monitoring/{check.model}", CheckHistory, lambda past: add_to_history(past or CheckHistory(), check, rule)
    )
    if TaskRunContext.get() is not None:
        _publish(outcome)
    stage_progress().summarize(f"{len(history.windows)} windows in the history")


def _log_to_mlflow(outcome: CheckOutcome, store: Store) -> None:
    from tasks.monitoring.exporters import metrics_of

    check = outcome.check
    with open_run(check.model, f"check-{check.window_end:%Y%m%d-%H%M}", {"perennial.stage": "check"}) as run:
        run.log_metrics(metrics_of(check), step=int(check.window_end.timestamp() // 3600))
        run.log_artifact_bytes("check.html", store.read_bytes(outcome.page))
        run.log_artifact_bytes("check.json", store.read_bytes(outcome.record))


def _write_latest(outcome: CheckOutcome, store: Store) -> None:
    """Writes the files of the model's newest window; an older window that is checked again does not replace them."""
    from tasks.monitoring.exporters import latest_json, prometheus_lines

    folder = f"monitoring/{outcome.check.model}"
    store.write_named(f"{folder}/metrics.prom", prometheus_lines(outcome.check))
    store.write_named(f"{folder}/latest.json", latest_json(outcome))
    store.write_named(f"{folder}/latest.html", store.read_bytes(outcome.page))


def _publish(outcome: CheckOutcome) -> None:
    from tasks.monitoring.exporters import check_table

    check = outcome.check
    create_markdown_artifact(
        check_table(check, outcome.runs),
        key=artifact_key("check", check.model),
        description=f"Production is {check.status}",
    )
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


def _read_history(store: Store, model: str) -> CheckHistory:
    return store.read_record(f"monitoring/{model}", CheckHistory) or CheckHistory()
