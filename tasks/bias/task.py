"""The bias audit as a Prefect task."""

from __future__ import annotations

import logging
from dataclasses import asdict

import pyarrow as pa
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.bias.config import BiasConfig
from tasks.contracts.preparation import BiasReport
from tasks.contracts.references import DatasetRef
from tasks.core.progress import report_progress
from tasks.core.stage import stage_task
from tasks.core.storage import run_store

logger = logging.getLogger(__name__)

TABLE_SCHEMA = pa.schema(
    [
        pa.field("dimension", pa.string()),
        pa.field("group", pa.string()),
        pa.field("num_rows", pa.int64()),
        pa.field("measure", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("difference", pa.float64()),
        pa.field("difference_low", pa.float64()),
        pa.field("difference_high", pa.float64()),
        pa.field("finding", pa.string()),
    ]
)
WEIGHTS_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("weight", pa.float64())])


@stage_task("audit_bias")
def audit_bias(dataset: DatasetRef, config: BiasConfig) -> BiasReport:
    """How groups are represented and whether outcomes differ between them; the rows are passed on unchanged."""
    from tasks.bias.comparison import compare_groups
    from tasks.bias.reweighting import row_weights

    store = run_store()
    logger.info("bias: comparing groups in %d rows of %s", dataset.num_rows, dataset.sha256[:12])
    with report_progress("audit_bias", dataset.num_rows) as progress:
        rows = store.read_rows(dataset)
        measures, verdict, notes = compare_groups(rows, config)
        weights = row_weights(rows, config.reweight_by) if config.reweight_by else {}
        if config.reweight_by and not weights:
            notes.append("No row declares the group of bias.reweight_by: no weights were written.")
        progress.finish(verdict.replace("_", " "))
    table = pa.Table.from_pylist([asdict(measure) for measure in measures], schema=TABLE_SCHEMA)
    report = BiasReport(
        dataset=dataset,
        table=store.write_table(table, kind="table", parents=[dataset]),
        weights=store.write_table(
            pa.Table.from_pylist(
                [{"id": name, "weight": weight} for name, weight in weights.items()], schema=WEIGHTS_SCHEMA
            ),
            kind="table",
            parents=[dataset],
        )
        if weights
        else None,
        verdict=verdict,
        notes=tuple(notes),
    )
    logger.info("bias: %d measures, verdict %s", len(measures), verdict)
    if TaskRunContext.get() is not None:
        page = [f"Verdict: {verdict.replace('_', ' ')}.", "", *(f"- {note}" for note in notes)]
        create_markdown_artifact("\n".join(page), key="bias-audit", description="Groups and outcomes")
    return report
