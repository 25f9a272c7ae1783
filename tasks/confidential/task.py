"""The confidential-content filter as a Prefect task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from tasks.confidential.config import ConfidentialConfig
from tasks.contracts.preparation import ConfidentialReport
from tasks.contracts.references import DatasetRef
from tasks.core.documents import read_text
from tasks.core.errors import InputError, QualityLimitError
from tasks.core.quarantine import count_reasons
from tasks.core.rows import RowTable, TableRows
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.core.term_lists import in_full


def _page(report: ConfidentialReport) -> str:
    lines = [
        f"{report.num_rows_in} rows in, {report.dataset.num_rows} out, {report.num_quarantined} quarantined, "
        f"{report.num_dropped} dropped.",
        "",
        "| pattern | hits |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(report.hits.items())),
    ]
    return "\n".join(lines)


@stage(page=_page, title="Secrets and denied terms")
def filter_confidential(dataset: DatasetRef, config: ConfidentialConfig) -> ConfidentialReport:
    """The rows that hold no secret and no denied term; the others are quarantined or dropped, by policy.

    Raises:
        InputError: The file of denied terms cannot be read.
        QualityLimitError: More than ``max_removed_share`` of the rows were removed.
    """
    from tasks.confidential.filtering import FINDINGS_SCHEMA, STAGE, ConfidentialMatcher, Filtered, filter_rows

    config, store, progress, num_done = in_full(config), run_store(), stage_progress(), 0
    matcher = ConfidentialMatcher(config, _file_terms(config.denied_terms_file))
    result, kept = Filtered(), RowTable(dataset.kind)
    for batch in TableRows(store.read_table(dataset)).batches():
        part = filter_rows(batch, matcher, action=config.action, max_text_chars=config.max_text_chars)
        kept.extend(part.kept)
        result.removed += part.removed
        result.findings += part.findings
        result.hits += part.hits
        num_done += len(batch)
        progress(num_done)
    num_removed = len(result.removed)
    progress.summarize(f"{num_done - num_removed} rows kept, {num_removed} removed")
    if dataset.num_rows and num_removed / dataset.num_rows > config.max_removed_share:
        raise QualityLimitError(
            f"confidential filter on data set {dataset.sha256[:12]}",
            f"{num_removed} of {dataset.num_rows} rows with confidential content ({_counts(result.hits)})",
            f"at most {config.max_removed_share:.0%}",
            "Disable the pattern or term that is too broad, or raise confidential.max_removed_share.",
        )
    findings = store.write_table(
        pa.Table.from_pylist(result.findings, schema=FINDINGS_SCHEMA), kind="table", parents=[dataset]
    )
    clean = store.write_table(
        kept.table(), kind=dataset.kind, parents=[dataset], passed=(*dataset.passed, "confidential_filtered")
    )
    return ConfidentialReport(
        stage=STAGE,
        dataset=clean,
        num_rows_in=dataset.num_rows,
        quarantine=store.write_quarantine(result.removed, parents=[dataset], passed=dataset.passed),
        quarantined=count_reasons(result.removed, "quarantined"),
        dropped=count_reasons(result.removed, "dropped"),
        findings=findings,
        hits=dict(sorted(result.hits.items())),
    )


def _file_terms(path: str | None) -> tuple[str, ...]:
    from tasks.confidential.terms import read_terms

    if path is None:
        return ()
    try:
        return read_terms(read_text(Path(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"confidential.denied_terms_file {path}",
            type(error).__name__,
            "a readable UTF-8 file with one term a line",
            "Correct the path or the encoding.",
        ) from error


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
