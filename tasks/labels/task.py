"""The label audit as a Prefect task."""

from __future__ import annotations

import logging
import time
from collections import Counter

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
    from tasks.labels.audit import audit_rows, count_by_reason
    from tasks.labels.review import export_jsonl, read_decisions
    from tasks.labels.vectors import choose_vectorizer

    started = time.monotonic()
    store = Store.holding(dataset)
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
