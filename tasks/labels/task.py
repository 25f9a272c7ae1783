"""The label audit as a Prefect task."""

from __future__ import annotations

import logging
import time

import pyarrow as pa
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts import DatasetRef, LabelAuditReport
from tasks.labels.config import LabelAuditConfig
from tasks.progress import report_progress
from tasks.stage import stage_task
from tasks.storage import Store

logger = logging.getLogger(__name__)

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


@stage_task("audit_labels", version=1)
def audit_labels(dataset: DatasetRef, config: LabelAuditConfig) -> LabelAuditReport:
    """The rows whose labels, replies or pairs hold up; the issues found, and a queue of those a person should judge."""
    from tasks.labels.audit import audit_rows, choose_vectorizer, count_by_kind, count_by_reason
    from tasks.labels.review import export_jsonl

    started = time.monotonic()
    store = Store.holding(dataset)
    rows = store.read_rows(dataset)
    logger.info("labels: auditing %d rows of %s", len(rows), dataset.sha256[:12])
    with report_progress("audit_labels", len(rows)) as progress:
        outcome = audit_rows(rows, dataset.kind, config, choose_vectorizer(config, progress), {})
        progress.finish(f"{len(outcome.kept)} rows kept, {len(outcome.refused)} removed, {len(outcome.issues)} issues")
    queue = export_jsonl(rows, outcome.issues)
    table = pa.Table.from_pylist(
        [
            {
                "id": issue.row_id,
                "kind": issue.kind,
                "score": issue.score,
                "given": issue.given,
                "suggested": issue.suggested,
                "action": issue.action,
                "tier": issue.tier,
            }
            for issue in outcome.issues
        ],
        schema=ISSUES_SCHEMA,
    )
    report = LabelAuditReport(
        stage="labels",
        dataset=store.write_rows(
            outcome.kept, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "label_audited")
        ),
        num_rows_in=len(rows),
        quarantine=store.write_rows(outcome.refused, kind="quarantine", parents=[dataset], passed=dataset.passed)
        if outcome.refused
        else None,
        quarantined=count_by_reason(outcome.refused, "quarantined"),
        dropped=count_by_reason(outcome.refused, "dropped"),
        measurements=outcome.measurements,
        notes=outcome.notes,
        method=outcome.method,
        informative=outcome.informative,
        issues=store.write_table(table, kind="table", parents=[dataset]),
        num_issues=dict(count_by_kind(outcome.issues)),
        review_queue=store.write_bytes(queue, ".jsonl") if queue else None,
        seconds=time.monotonic() - started,
    )
    logger.info(
        "labels: %d rows kept, %d removed, %d issues", report.dataset.num_rows, len(outcome.refused), len(outcome.issues)
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
        *(f"- {note}" for note in report.notes),
    ]
    return "\n".join(lines)
