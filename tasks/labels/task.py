"""The label audit as a Prefect task."""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.preparation import LabelAuditReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ReviewPendingError
from tasks.core.progress import report_progress
from tasks.core.quarantine import count_reasons
from tasks.core.stage import stage_task
from tasks.core.storage import run_store
from tasks.labels.config import LabelAuditConfig

logger = logging.getLogger(__name__)

_POLL_SECONDS = 5.0

ISSUES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("given", pa.string()),
        pa.field("suggested", pa.string()),
        pa.field("action", pa.string()),
        pa.field("tier", pa.string()),
    ]
)


@stage_task("audit_labels")
def audit_labels(dataset: DatasetRef, config: LabelAuditConfig) -> LabelAuditReport:
    """The rows whose labels, replies or pairs hold up; the issues found, and a queue of those a person should judge."""
    return _audit(dataset, config)


@stage_task("await_review", cached=False)
def await_review(dataset: DatasetRef, audited: LabelAuditReport, config: LabelAuditConfig) -> LabelAuditReport:
    """The audit with people's answers in it: asks, waits as long as the configuration says, and audits again.

    The queue is published under the review's name, where ``perennial review`` finds it. With no wait configured it only
    asks; answers that come later count in the next run. A run that is killed while it waits goes on waiting when it is
    started again, until the same hour.

    Args:
        dataset: The rows that were audited.
        audited: What the audit said.
        config: How long to wait, and what becomes of unanswered rows.

    Raises:
        ReviewPendingError: Rows are unanswered after the wait and ``unanswered`` is ``stop``.
    """
    from tasks.labels.review import publish_queue, unanswered_lines

    if config.review_name is None:
        return audited
    store = run_store()
    queue = publish_queue(store, config.review_name, dataset.kind, audited.review_queue)
    if queue is None or (config.review_wait_hours == 0 and config.unanswered != "stop"):
        return audited
    until = queue.asked_at + timedelta(hours=config.review_wait_hours)
    with report_progress("await_review", queue.num_rows) as progress:
        while waiting := len(unanswered_lines(store, config.review_name, queue).splitlines()):
            if datetime.now(UTC) >= until:
                break
            progress(queue.num_rows - waiting, queue.num_rows, f"until {until:%Y-%m-%d %H:%M} UTC: perennial review export")
            time.sleep(_POLL_SECONDS)
        progress.finish(f"{queue.num_rows - waiting} of {queue.num_rows} rows answered")
    logger.info("await_review: %d of %d rows answered", queue.num_rows - waiting, queue.num_rows)
    if waiting and config.unanswered == "stop":
        raise ReviewPendingError(
            f"review {config.review_name}",
            f"{waiting} of {queue.num_rows} rows without an answer",
            "an answer for each (labels.unanswered is `stop`)",
            "Run `perennial review export`, answer, `perennial review import`, then the same command or Retry: the run goes "
            "on from here.",
        )
    return _audit(dataset, config) if waiting < queue.num_rows else audited


def _audit(dataset: DatasetRef, config: LabelAuditConfig) -> LabelAuditReport:
    from tasks.labels.audit import STAGE, audit_rows
    from tasks.labels.review import export_jsonl, read_decisions
    from tasks.labels.vectors import choose_vectorizer

    started = time.monotonic()
    store = run_store()
    rows = store.read_rows(dataset)
    logger.info("audit_labels: auditing %d rows of %s", len(rows), dataset.sha256[:12])
    with report_progress("audit_labels", len(rows)) as progress:
        outcome = audit_rows(
            rows,
            dataset.kind,
            config,
            choose_vectorizer(config, lambda done, total: progress(done, total, "embedding texts")),
            read_decisions(store, config.review_name),
            lambda share, phase: progress(round(share * len(rows)), len(rows), phase),
        )
        progress.finish(f"{len(outcome.kept)} rows kept, {len(outcome.refused)} removed, {len(outcome.issues)} issues")
    queue = export_jsonl(rows, outcome.issues)
    table = pa.Table.from_pylist(
        [
            {"id": issue.row_id, **{name: getattr(issue, name) for name in ISSUES_SCHEMA.names[1:]}}
            for issue in outcome.issues
        ],
        schema=ISSUES_SCHEMA,
    )
    report = LabelAuditReport(
        stage=STAGE,
        dataset=store.write_rows(
            outcome.kept, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "label_audited")
        ),
        num_rows_in=len(rows),
        quarantine=store.write_refused(outcome.refused, parents=[dataset], passed=dataset.passed),
        quarantined=count_reasons(outcome.refused, "quarantined"),
        dropped=count_reasons(outcome.refused, "dropped"),
        measurements=outcome.measurements,
        notes=outcome.notes,
        method=outcome.method,
        informative=outcome.informative,
        issues=store.write_table(table, kind="table", parents=[dataset]),
        num_issues=dict(sorted(Counter(issue.kind for issue in outcome.issues).items())),
        review_queue=store.write_bytes(queue, ".jsonl") if queue else None,
        seconds=time.monotonic() - started,
    )
    logger.info(
        "audit_labels: %d rows kept, %d removed, %d issues",
        report.dataset.num_rows,
        len(outcome.refused),
        len(outcome.issues),
    )
    if TaskRunContext.get() is not None:
        create_markdown_artifact(_page(report), key="label-audit", description="Label and reply issues")
    return report


def _page(report: LabelAuditReport) -> str:
    lines = [
        f"{report.num_rows_in} rows in, {report.dataset.num_rows} out, {report.num_quarantined} quarantined, "
        f"{report.num_dropped} dropped. Method: {report.method}.",
        "",
        "| issue | rows |",
        "|---|---|",
        *(f"| {kind} | {count} |" for kind, count in report.num_issues.items()),
        "",
        "| measured on planted faults | value | 95 % |",
        "|---|---|---|",
        *(
            f"| {item.name} | {item.value:.2f} | {item.low:.2f} to {item.high:.2f} |"
            for item in report.measurements
            if item.value is not None and item.low is not None and item.high is not None
        ),
        "",
        *(f"- {note}" for note in report.notes),
    ]
    return "\n".join(lines)
