"""Deduplication as a Prefect task."""

from __future__ import annotations

import logging
import time

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import DeduplicationReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import QualityLimitError
from tasks.core.progress import report_progress
from tasks.core.quarantine import count_reasons, report_table
from tasks.core.stage import stage_task
from tasks.core.storage import run_store
from tasks.deduplication.config import DeduplicationConfig

logger = logging.getLogger(__name__)


@stage_task("deduplicate")
def deduplicate(dataset: DatasetRef, config: DeduplicationConfig) -> DeduplicationReport:
    """The rows without exact and near duplicates; each surviving row carries its cluster in ``split_group``.

    Raises:
        QualityLimitError: More than ``max_dropped_share`` of the rows are duplicates.
    """
    from tasks.deduplication.duplicates import STAGE, deduplicate_table

    started = time.monotonic()
    store = run_store()
    logger.info("deduplicate: %d rows of %s", dataset.num_rows, dataset.sha256[:12])
    with report_progress(STAGE, dataset.num_rows) as progress:
        result = deduplicate_table(
            store.read_table(dataset),
            threshold=config.near_duplicate_threshold,
            exact=config.exact,
            near=config.near,
            on_progress=progress,
        )
        progress.finish(
            f"{result.kept.num_rows} rows kept, {result.num_exact} exact and {result.num_near} near duplicates dropped"
        )
    if len(result.dropped) > config.max_dropped_share * dataset.num_rows:
        raise QualityLimitError(
            f"deduplication of data set {dataset.sha256[:12]}",
            f"{result.num_exact} exact and {result.num_near} near duplicates in {dataset.num_rows} rows",
            f"at most {config.max_dropped_share:.0%} of the rows",
            "Check the export for repeated pages, or set deduplication.near to `group`, or raise "
            "deduplication.max_dropped_share.",
        )
    report = DeduplicationReport(
        stage=STAGE,
        dataset=store.write_table(
            result.kept, kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "deduplicated")
        ),
        num_rows_in=dataset.num_rows,
        quarantine=store.write_refused(result.dropped, parents=[dataset], passed=dataset.passed),
        dropped=count_reasons(result.dropped, "dropped"),
        measurements=(Measurement(name="rows_with_contradicting_labels", value=result.num_contradicting),),
        num_exact=result.num_exact,
        num_near=result.num_near,
        num_clusters=result.num_clusters,
        seconds=time.monotonic() - started,
    )
    logger.info(
        "deduplicate: %d rows kept, %d exact and %d near duplicates dropped, %d clusters",
        report.dataset.num_rows,
        result.num_exact,
        result.num_near,
        result.num_clusters,
    )
    if TaskRunContext.get() is not None:
        create_markdown_artifact(report_table(report), key="deduplicate", description="Exact and near duplicates")
    return report
