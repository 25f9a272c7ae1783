"""The label audit as Prefect tasks."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.preparation import LabelAuditReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ReviewPendingError
from tasks.core.quarantine import count_reasons
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.labels.config import LabelAuditConfig

_POLL_SECONDS = 5.0


@stage()
def audit_labels(dataset: DatasetRef, config: LabelAuditConfig) -> LabelAuditReport:
    """The rows that pass the audit of labels, replies or pairs; the issues found, and a queue of those for a person."""
    return _audit(dataset, config)


@stage(cached=False)
def await_review(dataset: DatasetRef, audited: LabelAuditReport, config: LabelAuditConfig) -> LabelAuditReport:
    """The audit with people's decisions in it: publishes the queue, waits as long as configured, and audits again.

    The queue is published under the review's name, where ``perennial review`` finds it. With no wait configured the stage
    only publishes; later decisions count in the next run. A run that is killed while it waits resumes the wait when it is
    started again, until the same hour.

    Args:
        dataset: The rows that were audited.
        audited: The report of the audit.
        config: How long to wait, and what becomes of undecided rows.

    Raises:
        ReviewPendingError: Rows are undecided after the wait and ``unanswered`` is ``stop``.
    """
    from tasks.labels.review import publish_queue, unanswered_lines

    progress = stage_progress()
    if config.review_name is None:
        return audited
    store = run_store()
    queue = publish_queue(store, config.review_name, dataset.kind, audited.review_queue)
    if queue is None or (config.review_wait_hours == 0 and config.unanswered != "stop"):
        return audited
    until = queue.requested_at + timedelta(hours=config.review_wait_hours)
    while num_waiting := len(unanswered_lines(store, config.review_name, queue).splitlines()):
        if datetime.now(UTC) >= until:
            break
        detail = f"until {until:%Y-%m-%d %H:%M} UTC: perennial review export"
        progress(queue.num_rows - num_waiting, queue.num_rows, detail)
        time.sleep(_POLL_SECONDS)
    if num_waiting and config.unanswered == "stop":
        raise ReviewPendingError(
            f"review {config.review_name}",
            f"{num_waiting} of {queue.num_rows} rows without an answer",
            "an answer for each (labels.unanswered is `stop`)",
            "Run `perennial review export`, answer, `perennial review import`, then the same command or Retry: the run "
            "continues from here.",
        )
    reviewed = _audit(dataset, config) if num_waiting < queue.num_rows else audited
    progress.summarize(f"{queue.num_rows - num_waiting} of {queue.num_rows} rows answered")
    return reviewed


def _audit(dataset: DatasetRef, config: LabelAuditConfig) -> LabelAuditReport:
    from tasks.labels.audit import STAGE, audit_rows
    from tasks.labels.policy import issues_table
    from tasks.labels.review import export_jsonl, read_decisions
    from tasks.labels.vectors import choose_vectorizer

    started = time.monotonic()
    store, progress = run_store(), stage_progress()
    rows = store.read_rows(dataset)
    outcome = audit_rows(
        rows,
        dataset.kind,
        config,
        choose_vectorizer(config, lambda done, total: progress(done, total, "embedding texts")),
        read_decisions(store, config.review_name),
        lambda share, phase: progress(round(share * len(rows)), len(rows), phase),
    )
    num_removed = len(outcome.quarantined_rows)
    progress.summarize(f"{len(outcome.kept)} rows kept, {num_removed} removed, {len(outcome.issues)} issues")
    queue = export_jsonl(rows, outcome.issues)
    report = LabelAuditReport(
        stage=STAGE,
        dataset=store.write_rows(
            outcome.kept, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "label_audited")
        ),
        num_rows_in=len(rows),
        quarantine=store.write_quarantine(outcome.quarantined_rows, parents=[dataset], passed=dataset.passed),
        quarantined=count_reasons(outcome.quarantined_rows, "quarantined"),
        dropped=count_reasons(outcome.quarantined_rows, "dropped"),
        measurements=outcome.measurements,
        notes=outcome.notes,
        method=outcome.method,
        informative=outcome.informative,
        issues=store.write_table(issues_table(outcome.issues), kind="table", parents=[dataset]),
        num_issues=dict(sorted(Counter(issue.kind for issue in outcome.issues).items())),
        review_queue=store.write_bytes(queue, ".jsonl") if queue else None,
        seconds=time.monotonic() - started,  # without the wait for a person
    )
    if TaskRunContext.get() is not None:  # not `stage(page=...)`: await_review publishes a page only when it audits again
        create_markdown_artifact(_page(report), key="audit-labels", description="Label and reply issues")
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
