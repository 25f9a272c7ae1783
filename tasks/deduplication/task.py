"""Deduplication as a Prefect task."""

from __future__ import annotations

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import DeduplicationReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import QualityLimitError
from tasks.core.pages import report_table
from tasks.core.quarantine import count_reasons
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.deduplication.config import DeduplicationConfig


@stage(page=report_table, title="Exact and near duplicates")
def deduplicate(dataset: DatasetRef, config: DeduplicationConfig) -> DeduplicationReport:
    """The rows without exact and near duplicates; each surviving row carries its cluster in ``split_group``.

    Raises:
        QualityLimitError: More than ``max_dropped_share`` of the rows are duplicates.
    """
    from tasks.deduplication.duplicates import STAGE, deduplicate_table

    store, progress = run_store(), stage_progress()
    result = deduplicate_table(
        store.read_table(dataset),
        threshold=config.near_duplicate_threshold,
        exact=config.exact,
        near=config.near,
        on_progress=progress,
    )
    duplicates = f"{result.num_exact} exact and {result.num_near} near duplicates"
    if len(result.dropped) > config.max_dropped_share * dataset.num_rows:
        raise QualityLimitError(
            f"deduplication of data set {dataset.sha256[:12]}",
            f"{duplicates} in {dataset.num_rows} rows",
            f"at most {config.max_dropped_share:.0%} of the rows",
            "Check the export for repeated pages, or set deduplication.near to `group`, or raise "
            "deduplication.max_dropped_share.",
        )
    progress.summarize(f"{result.kept.num_rows} rows kept, {duplicates} dropped, {result.num_clusters} clusters")
    return DeduplicationReport(
        stage=STAGE,
        dataset=store.write_table(
            result.kept, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "deduplicated")
        ),
        num_rows_in=dataset.num_rows,
        quarantine=store.write_quarantine(result.dropped, parents=[dataset], passed=dataset.passed),
        dropped=count_reasons(result.dropped, "dropped"),
        measurements=(Measurement(name="rows_with_contradicting_labels", value=result.num_contradicting),),
        num_exact=result.num_exact,
        num_near=result.num_near,
        num_clusters=result.num_clusters,
    )
