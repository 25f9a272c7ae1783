"""Ingestion as Prefect tasks."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.contracts.alerts import NewRows
from tasks.contracts.base import DatasetKind
from tasks.contracts.forgetting import ForgottenRows
from tasks.contracts.monitoring import LogWindow
from tasks.contracts.preparation import Snapshot, SnapshotHistory
from tasks.contracts.references import DatasetRef
from tasks.core.pages import report_table
from tasks.core.quarantine import count_reasons
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, open_store, run_store
from tasks.ingest.config import LogConfig, SourceConfig

if TYPE_CHECKING:
    from tasks.ingest.records import Source
    from tasks.ingest.snapshot import Ingested

logger = logging.getLogger(__name__)


@stage(cached=False, page=report_table, title="Rows read, quarantined and dropped")
def take_snapshot(source: SourceConfig, store_uri: str, kind: DatasetKind | None = None) -> Snapshot:
    """The source's rows in canonical form, frozen in the store.

    It is never cached, because the source's content is not in its parameters; the same content gives the same snapshot.

    Raises:
        InputError: The source is missing, empty, in another encoding or format, holds no usable row, or rows of another
            kind than ``kind``.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot, require_kind

    progress = stage_progress()
    raw = read_configured(source)
    ingested = make_snapshot(raw, source, on_progress=progress)
    if kind is not None:
        require_kind(ingested.input_format, kind, source.path)
    for note in ingested.notes:
        logger.warning("take_snapshot: %s", note)
    num_unsampled = count_reasons(ingested.quarantined_rows, "dropped").get("not_sampled", 0)
    progress.summarize(
        f"{len(ingested.rows)} rows read, {len(ingested.quarantined_rows) - num_unsampled} quarantined or dropped"
        + (f", {num_unsampled} beyond examples.max_rows left out" if num_unsampled else "")
    )
    return Snapshot(source_uri=source.path, **_write(open_store(store_uri), raw, ingested))


@stage(cached=False)
def take_log(log: LogConfig, window_start: datetime, window_end: datetime, store_uri: str) -> LogWindow:
    """The requests of a production log made at ``window_start`` or later and before ``window_end``; there may be none.

    Raises:
        InputError: The log is missing, empty or in another encoding or format.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    import pyarrow as pa

    from tasks.ingest.log import LINES_SCHEMA, read_log
    from tasks.ingest.reading import read_configured
    from tasks.ingest.window import Window

    store = open_store(store_uri)
    raw = read_configured(log)
    requests = read_log(raw, log, Window(window_start, window_end))
    stage_progress().summarize(f"{len(requests.lines)} requests in the window, {requests.num_outside} outside")
    fields = _write(store, raw, requests.ingested)
    if requests.num_outside:
        fields["dropped"] |= {"outside_window": requests.num_outside}
    return LogWindow(
        lines=store.write_table(
            pa.Table.from_pylist(requests.lines, schema=LINES_SCHEMA), kind="table", parents=[raw.sha256]
        ),
        window_start=window_start,
        window_end=window_end,
        source_uri=log.path,
        **fields,
    )


@stage(cached=False)
def find_previous_snapshot(snapshot: Snapshot, name: str) -> DatasetRef | None:
    """The rows that passed validation the last time the source held something else; None the first time.

    The same snapshot again, after a crash or in another run, is compared with the same predecessor.
    """
    history = run_store().read_record(f"snapshots/{name}/{snapshot.dataset.kind}", SnapshotHistory)
    if history is None:
        return None
    return history.before if history.snapshot_sha256 == snapshot.dataset.sha256 else history.passed


@stage(cached=False)
def remember_snapshot(snapshot: Snapshot, passed: DatasetRef, name: str) -> None:
    """Keeps the rows that passed validation as what the next snapshot under ``name`` is compared with."""
    newest = snapshot.dataset.sha256

    def with_newest(history: SnapshotHistory | None) -> SnapshotHistory:
        if history is not None and history.snapshot_sha256 == newest:
            return history
        return SnapshotHistory(snapshot_sha256=newest, passed=passed, before=history.passed if history else None)

    run_store().update_record(f"snapshots/{name}/{passed.kind}", SnapshotHistory, with_newest)


@stage(cached=False)
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

    progress = stage_progress()
    everything = source.model_copy(update={"max_rows": None, "created_after": None, "created_before": None})
    rows = make_snapshot(read_configured(source), everything, on_progress=progress).rows
    num_rows = count_rows(rows, Window(since, until))
    progress.summarize(f"{num_rows} new rows of {len(rows)}")
    return NewRows(num_rows=num_rows, since=since, until=until)


def _write(store: Store, raw: Source, ingested: Ingested) -> dict[str, Any]:
    """Writes what a source gave; the fields that the reports of a snapshot and of a log share."""
    from tasks.core.forgetting import RECORD, SuppressedRows
    from tasks.ingest.forgotten import without_forgotten
    from tasks.ingest.formats import kind_of
    from tasks.ingest.snapshot import STAGE

    if (forgotten := store.read_record(RECORD, ForgottenRows)) is not None:
        ingested = without_forgotten(ingested, SuppressedRows(forgotten))
    rows, left_out = ingested.rows, ingested.quarantined_rows
    parents, kind = [raw.sha256], kind_of(ingested.input_format)
    return {
        "stage": STAGE,
        "dataset": store.write_table(rows.table, kind=kind, parents=parents, passed=("ingested",)),
        "num_rows_in": len(raw.records),
        "quarantine": store.write_table(left_out.table(), kind="quarantine", parents=parents) if len(left_out) else None,
        "quarantined": count_reasons(left_out, "quarantined"),
        "dropped": count_reasons(left_out, "dropped"),
        "notes": tuple(ingested.notes),
        "source_sha256": raw.sha256,
        "input_format": ingested.input_format,
    }
