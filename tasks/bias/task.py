"""The bias audit as a Prefect task."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from tasks.bias.config import BiasConfig
from tasks.contracts.preparation import BiasReport
from tasks.contracts.references import DatasetRef
from tasks.core.pages import markdown_text
from tasks.core.rows import TableRows
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store

TABLE_SCHEMA = pa.schema(
    [
        ("dimension", pa.string()),
        ("group", pa.string()),
        ("num_rows", pa.int64()),
        ("measure", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "difference", "difference_low", "difference_high")),
        ("finding", pa.string()),
    ]
)
WEIGHTS_SCHEMA = pa.schema([("id", pa.string()), ("weight", pa.float64())])


def _page(report: BiasReport) -> str:
    return "\n".join(
        [f"Verdict: {report.verdict.replace('_', ' ')}.", "", *(f"- {markdown_text(note)}" for note in report.notes)]
    )


@stage(page=_page, title="Groups and outcomes")
def audit_bias(dataset: DatasetRef, config: BiasConfig) -> BiasReport:
    """How groups are represented and whether outcomes differ between them; the rows are passed on unchanged."""
    from tasks.bias.comparison import compare_groups
    from tasks.bias.reweighting import row_weights

    store = run_store()
    rows = TableRows(store.read_table(dataset))
    measures, verdict, notes = compare_groups(rows, config)
    weights = row_weights(rows, config.reweight_by) if config.reweight_by else {}
    if config.reweight_by and not weights:
        notes.append("No row declares the group of bias.reweight_by: no weights were written.")
    stage_progress().summarize(f"{len(measures)} measures, {verdict.replace('_', ' ')}")

    def write(lines: list[dict[str, object]], schema: pa.Schema) -> DatasetRef:
        return store.write_table(pa.Table.from_pylist(lines, schema=schema), kind="table", parents=[dataset])

    weight_lines = [{"id": name, "weight": weight} for name, weight in weights.items()]
    return BiasReport(
        dataset=dataset,
        table=write([asdict(measure) for measure in measures], TABLE_SCHEMA),
        weights=write(weight_lines, WEIGHTS_SCHEMA) if weights else None,
        verdict=verdict,
        notes=tuple(notes),
    )
