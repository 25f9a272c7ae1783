"""Validation as a Prefect task."""

from __future__ import annotations

import json

from tasks.contracts.preparation import ValidationReport
from tasks.contracts.references import DatasetRef
from tasks.core.pages import report_table
from tasks.core.quarantine import count_reasons
from tasks.core.rows import TableRows
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.validation.config import ValidationConfig


@stage(page=report_table, title="Expectations and quarantined rows")
def validate(dataset: DatasetRef, config: ValidationConfig, previous: DatasetRef | None = None) -> ValidationReport:
    """The rows that meet the expectation suite of their kind; the others are quarantined, each with its reason.

    Args:
        dataset: Rows to validate.
        config: What rows must look like.
        previous: The previous snapshot, whose lengths and labels these should resemble.

    Raises:
        QualityLimitError: An expectation about the whole table failed, too large a share of the rows failed, or too few
            are left.
    """
    from tasks.validation.checking import STAGE, check_limits, check_rows, results_document

    store = run_store()
    rows = TableRows(store.read_table(dataset))
    checked = check_rows(rows, dataset.kind, config, TableRows(store.read_table(previous)) if previous else None)
    results = results_document(checked, dataset.kind)
    quarantine = store.write_quarantine(checked.quarantined_rows, parents=[dataset], passed=dataset.passed)
    check_limits(checked, config, f"validation of data set {dataset.sha256[:12]}", store.uri_of(quarantine or dataset))
    stage_progress().summarize(f"{len(checked.kept)} rows pass, {len(checked.quarantined_rows)} quarantined")
    return ValidationReport(
        stage=STAGE,
        dataset=store.write_table(
            rows.take(checked.kept).table, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "validated")
        ),
        num_rows_in=dataset.num_rows,
        quarantine=quarantine,
        quarantined=count_reasons(checked.quarantined_rows, "quarantined"),
        notes=tuple(f"{o.rule.reason}: observed {o.observed}, a warning" for o in checked.warnings),
        num_expectations=len(checked.outcomes),
        num_failed_expectations=results["num_failed_expectations"],
        results=store.write_bytes(json.dumps(results, indent=2).encode(), ".json"),
    )
