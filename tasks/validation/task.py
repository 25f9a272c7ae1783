"""Validation as a Prefect task."""

from __future__ import annotations

import json
import logging
import time

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.preparation import ValidationReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import QualityLimitError
from tasks.core.progress import report_progress
from tasks.core.quarantine import count_reasons, report_table
from tasks.core.rows import TableRows
from tasks.core.stage import stage_task
from tasks.core.storage import run_store
from tasks.validation.config import ValidationConfig

logger = logging.getLogger(__name__)


@stage_task("validate")
def validate(dataset: DatasetRef, config: ValidationConfig, previous: DatasetRef | None = None) -> ValidationReport:
    """The rows that meet the expectation suite of their kind; the others are quarantined, each with its reason.

    Args:
        dataset: Rows to judge.
        config: What rows must look like.
        previous: The previous snapshot, whose lengths and labels these should resemble.

    Raises:
        QualityLimitError: An expectation about the whole table failed, too large a share of the rows failed, or too few
            are left.
    """
    from tasks.validation.checking import STAGE, check_rows, results_document

    started = time.monotonic()
    store = run_store()
    logger.info("validate: %d rows of %s", dataset.num_rows, dataset.sha256[:12])
    with report_progress(STAGE, dataset.num_rows) as progress:
        table = store.read_table(dataset)
        before = TableRows(store.read_table(previous)) if previous else None
        checked = check_rows(TableRows(table), dataset.kind, config, before)
        progress.finish(f"{len(checked.kept)} rows pass, {len(checked.refused)} quarantined")
    results = results_document(checked, dataset.kind)
    reasons = count_reasons(checked.refused, "quarantined")
    quarantine = store.write_refused(checked.refused, parents=[dataset], passed=dataset.passed)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "none"
    failed = [f"{o.rule.reason} (observed {o.observed})" for o in checked.failed_tables]
    if len(checked.kept) < config.min_rows and not failed:
        failed = [f"{len(checked.kept)} rows left"]
    if failed or len(checked.refused) > config.max_quarantine_share * dataset.num_rows:
        raise QualityLimitError(
            f"validation of data set {dataset.sha256[:12]}",
            f"{len(checked.refused)} of {dataset.num_rows} rows failing ({counts})"
            + (f", and failed expectations: {', '.join(failed)}" if failed else ""),
            f"at most {config.max_quarantine_share:.0%} failing, at least {config.min_rows} rows, and no failed expectation",
            f"Look at the rows in {store.uri_of(quarantine or dataset)}; then mend the source, or relax "
            "the setting under `validation` that the reason names.",
        )
    report = ValidationReport(
        stage=STAGE,
        dataset=store.write_table(
            TableRows(table).take(checked.kept).table,
            kind=dataset.kind,
            parents=[dataset],
            passed=(*dataset.passed, "validated"),
        ),
        num_rows_in=dataset.num_rows,
        quarantine=quarantine,
        quarantined=reasons,
        notes=tuple(f"{o.rule.reason}: observed {o.observed}, a warning" for o in checked.warnings),
        num_expectations=len(checked.outcomes),
        num_failed_expectations=results["num_failed_expectations"],
        results=store.write_bytes(json.dumps(results, indent=2).encode(), ".json"),
        seconds=time.monotonic() - started,
    )
    logger.info("validate: %d rows pass, %d quarantined (%s)", len(checked.kept), len(checked.refused), counts)
    if TaskRunContext.get() is not None:
        create_markdown_artifact(report_table(report), key="validate", description="Expectations and quarantined rows")
    return report
