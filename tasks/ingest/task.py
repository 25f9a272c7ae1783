"""Ingestion as a Prefect task."""

from __future__ import annotations

import logging
import time
from datetime import datetime

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.alerts import NewRows
from tasks.contracts.monitoring import LogWindow
from tasks.contracts.preparation import Snapshot, SnapshotHistory
from tasks.contracts.references import DatasetRef
from tasks.core.progress import report_progress
from tasks.core.quarantine import count_reasons, report_table
from tasks.core.rows import Rows
from tasks.core.stage import stage_task
from tasks.core.storage import Store, open_store, run_store
from tasks.ingest.config import LogConfig, SourceConfig

logger = logging.getLogger(__name__)


@stage_task("take_snapshot", cached=False)
def take_snapshot(source: SourceConfig, store_uri: str) -> Snapshot:
    """The source's rows in canonical form, frozen in the store.

    It is never cached, because the source's content is not in its parameters; the same content gives the same snapshot.

    Raises:
        InputError: The source is missing, empty, in another encoding or format, or holds no usable row.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    from tasks.ingest.formats import kind_of
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import STAGE, make_snapshot

    started = time.monotonic()
    store = open_store(store_uri)
    logger.info("ingest: reading %s", source.path)
    with report_progress("take_snapshot") as progress:
        raw = read_configured(source)
        result = make_snapshot(raw, source, on_progress=progress)
        left_out = count_reasons(result.refused, "dropped").get("not_sampled", 0)
        progress.finish(
            f"{len(result.rows)} rows read, {len(result.refused) - left_out} refused"
            + (f", {left_out} beyond examples.max_rows left out" if left_out else "")
        )
    kind = kind_of(result.input_format)
    report = Snapshot(
        stage=STAGE,
        dataset=store.write_table(result.rows.table, kind=kind, parents=[raw.sha256], passed=("ingested",)),
        num_rows_in=len(raw.records),
        quarantine=_write_refused(store, result.refused, raw.sha256),
        quarantined=count_reasons(result.refused, "quarantined"),
        dropped=count_reasons(result.refused, "dropped"),
        notes=tuple(result.notes),
        seconds=time.monotonic() - started,
        source_uri=source.path,
        source_sha256=raw.sha256,
        input_format=result.input_format,
    )
    for note in result.notes:
        logger.warning("ingest: %s", note)
    logger.info(
        "ingest: %d rows of format %s, %d quarantined, %d dropped",
        len(result.rows),
        result.input_format,
        report.num_quarantined,
        report.num_dropped,
    )
    if TaskRunContext.get() is not None:
        create_markdown_artifact(report_table(report), key="snapshot", description="Rows read and refused")
    return report


@stage_task("take_log", cached=False)
def take_log(log: LogConfig, window_start: datetime, window_end: datetime, store_uri: str) -> LogWindow:
    """The requests of a production log made at ``window_start`` or later and before ``window_end``; there may be none.

    Raises:
        InputError: The log is missing, empty or in another encoding or format.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    import pyarrow as pa

    from tasks.ingest.formats import kind_of
    from tasks.ingest.log import LINES_SCHEMA, read_log
    from tasks.ingest.reading import read_source
    from tasks.ingest.snapshot import STAGE
    from tasks.ingest.window import Window

    started = time.monotonic()
    store = open_store(store_uri)
    with report_progress("take_log") as progress:
        raw = read_source(
            log.path, encoding=log.encoding, hub_split=log.hub_split, hub_revision=log.hub_revision, ceilings=log.ceilings
        )
        found = read_log(raw, log, Window(window_start, window_end))
        progress.finish(f"{len(found.lines)} requests in the window, {found.num_outside} outside")
    rows, refused = found.ingested.rows, found.ingested.refused
    lines = pa.Table.from_pylist(found.lines, schema=LINES_SCHEMA)
    outside = {"outside_window": found.num_outside} if found.num_outside else {}
    logger.info("ingest: %d requests in the window, %d of them readable", len(found.lines), len(rows))
    return LogWindow(
        stage=STAGE,
        dataset=store.write_table(
            rows.table, kind=kind_of(found.ingested.input_format), parents=[raw.sha256], passed=("ingested",)
        ),
        lines=store.write_table(lines, kind="table", parents=[raw.sha256]),
        window_start=window_start,
        window_end=window_end,
        num_rows_in=len(raw.records),
        quarantine=_write_refused(store, refused, raw.sha256),
        quarantined=count_reasons(refused, "quarantined"),
        dropped=count_reasons(refused, "dropped") | outside,
        notes=tuple(found.ingested.notes),
        seconds=time.monotonic() - started,
        source_uri=log.path,
        source_sha256=raw.sha256,
        input_format=found.ingested.input_format,
    )


def _write_refused(store: Store, refused: Rows, source_sha256: str) -> DatasetRef | None:
    return store.write_table(refused.table(), kind="quarantine", parents=[source_sha256]) if len(refused) else None


@stage_task("find_previous_snapshot", cached=False)
def find_previous_snapshot(snapshot: Snapshot, name: str) -> DatasetRef | None:
    """The rows that passed validation the last time the source held something else; None the first time.

    The same snapshot again, after a crash or in another run, is compared with the same predecessor.
    """
    history = _history(snapshot.dataset, name)
    if history is None:
        return None
    return history.before if history.snapshot_sha256 == snapshot.dataset.sha256 else history.passed


@stage_task("remember_snapshot", cached=False)
def remember_snapshot(snapshot: Snapshot, passed: DatasetRef, name: str) -> None:
    """Keeps the rows that passed validation as what the next snapshot under ``name`` is compared with."""
    newest = snapshot.dataset.sha256

    def with_this(history: SnapshotHistory | None) -> SnapshotHistory:
        if history is not None and history.snapshot_sha256 == newest:
            return history
        return SnapshotHistory(snapshot_sha256=newest, passed=passed, before=history.passed if history else None)

    run_store().update_record(f"snapshots/{name}/{passed.kind}", SnapshotHistory, with_this)


def _history(dataset: DatasetRef, name: str) -> SnapshotHistory | None:
    return run_store().read_record(f"snapshots/{name}/{dataset.kind}", SnapshotHistory)


@stage_task("count_new_rows", cached=False)
def count_new_rows(source: SourceConfig, since: datetime | None, until: datetime) -> NewRows:
    """How many usable rows of the source were made at ``since`` or later (None: ever) and before ``until``.

    Rows without a readable time count as old: nothing says that they are new.

    Raises:
        InputError: As for :func:`take_snapshot`.
        MissingDependencyError: As for :func:`take_snapshot`.
    """
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot
    from tasks.ingest.window import Window, count_rows

    everything = source.model_copy(update={"max_rows": None, "created_after": None, "created_before": None})
    with report_progress("count_new_rows") as progress:
        raw = read_configured(source)
        result = make_snapshot(raw, everything, on_progress=progress)
        num_rows = count_rows(result.rows, Window(since, until))
        progress.finish(f"{num_rows} new rows of {len(result.rows)}")
    return NewRows(num_rows=num_rows, since=since, until=until)
