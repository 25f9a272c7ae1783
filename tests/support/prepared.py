"""Prepared data sets made by hand: every stage's report and tables, with the outcomes that a test wants to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import (
    BiasReport,
    ConfidentialReport,
    DeduplicationReport,
    LabelAuditReport,
    PreparedDataset,
    ScrubReport,
    ScrubVerification,
    Snapshot,
    StageReport,
    ValidationReport,
)
from tasks.contracts.references import DatasetRef
from tasks.core.quarantine import quarantine_row
from tasks.core.rows import replace_texts
from tasks.core.storage import Store

Refusals = Mapping[str, str]
"""Reason by row id."""
NONE: Refusals = MappingProxyType({})


class Masked(NamedTuple):
    """One value that the scrubber replaced."""

    id: str
    field: str
    start: int
    end: int
    entity: str


class Flagged(NamedTuple):
    """One issue that the label audit found."""

    id: str
    kind: str
    action: str = "review"
    suggested: str | None = None


def ticket(row_id: str, question: str, answer: str, label: str | None = "BILLING", **more: Any) -> dict[str, Any]:
    """A canonical row."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": row_id, "messages": messages, "label": label, **more}


def prepare_by_hand(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    *,
    kind: Any = "messages",
    source_uri: str = "data/tickets.jsonl",
    unread: Refusals = NONE,
    invalid: Refusals = NONE,
    repeated: Refusals = NONE,
    confidential: Refusals = NONE,
    masked: Sequence[Masked] = (),
    flagged: Sequence[Flagged] = (),
    frozen: DatasetRef | None = None,
    num_frozen: int = 2,
) -> PreparedDataset:
    """Carries rows through all stages; each stage refuses the rows it is told to.

    Args:
        store: Where everything is written.
        rows: Canonical rows as ingest read them; refused ids that are among them leave at their stage.
        kind: Kind of the rows.
        source_uri: Name of the raw file.
        unread: What ingest could not read, by reason.
        invalid: What validation refused.
        repeated: What deduplication dropped.
        confidential: What the confidential filter refused.
        masked: What the scrubber replaced, by ``<ENTITY>``.
        flagged: What the label audit found; issues with action ``drop`` remove their row.
        frozen: The frozen set; the last ``num_frozen`` audited rows when None.
        num_frozen: See ``frozen``.
    """
    rows = [dict(row) for row in rows]
    current = store.write_rows(rows, kind=kind, parents=["e" * 64], passed=["ingested"])
    snapshot = Snapshot(
        **_report(store, "ingest", current, len(rows) + len(unread), unread),
        source_uri=source_uri,
        source_sha256="e" * 64,
        input_format="jsonl",
    )

    def leave(
        stage: str, gate: str, refused: Refusals, parent: DatasetRef, disposition: Any = "quarantined"
    ) -> dict[str, Any]:
        before = len(rows)
        rows[:] = [row for row in rows if row["id"] not in refused]
        ref = store.write_rows(rows, kind=kind, parents=[parent], passed=[*parent.passed, gate])
        return _report(store, stage, ref, before, refused, disposition)

    results = store.write_bytes(b"{}", ".json")
    validation = ValidationReport(
        **leave("validation", "validated", invalid, current), num_expectations=7, num_failed_expectations=0, results=results
    )
    reasons = Counter(repeated.values())
    deduplication = DeduplicationReport(
        **leave("deduplicate", "deduplicated", repeated, validation.dataset, "dropped"),
        num_exact=reasons["exact_duplicate"],
        num_near=reasons["near_duplicate"],
        num_clusters=1,
    )
    nothing = store.write_table(pa.table({"id": pa.array([], pa.string())}), kind="table")
    filtered = ConfidentialReport(
        **leave("confidential", "confidential_filtered", confidential, deduplication.dataset),
        findings=nothing,
        hits=dict(Counter(confidential.values())),
    )
    findings = store.write_table(
        pa.Table.from_pylist([finding._asdict() for finding in masked], schema=_FINDINGS),
        kind="table",
        parents=[filtered.dataset],
    )
    rows[:] = [_mask(row, masked) for row in rows]
    scrub = ScrubReport(
        **leave("scrub", "scrubbed", {}, filtered.dataset),
        findings=findings,
        entities=dict(Counter(finding.entity for finding in masked)),
        policy_sha256="f" * 64,
    )
    verification = ScrubVerification(
        dataset=scrub.dataset,
        num_canaries=240,
        num_canaries_leaked=3,
        canary_recall=Measurement(name="canary_recall", value=0.9875, low=0.9639, high=0.9957, num_samples=240),
        min_canary_recall=0.9,
        num_leaks=0,
        max_leaks=0,
        num_rows_caught=2,
    )
    issues = store.write_table(_issues(rows, flagged), kind="table", parents=[scrub.dataset])
    removed = {issue.id: issue.kind for issue in flagged if issue.action == "drop"}
    labels = LabelAuditReport(
        **leave("labels", "label_audited", removed, scrub.dataset),
        method="cleanlab on cross-validated logistic regression over MiniLM; instruction and reply likeness over MiniLM",
        informative=True,
        issues=issues,
        num_issues=dict(Counter(issue.kind for issue in flagged)),
        review_queue=store.write_bytes(b"{}\n", ".jsonl") if flagged else None,
    )
    bias = BiasReport(
        dataset=labels.dataset,
        table=nothing,
        verdict="no_difference_found",
        notes=("region=apac: 3 rows, not assessable.",),
    )
    frozen = frozen or store.write_rows(
        rows[-num_frozen:], kind=kind, parents=[labels.dataset], passed=[*labels.dataset.passed, "frozen"]
    )
    frozen_ids = {row["id"]: "in_frozen_set" for row in store.read_rows(frozen)}
    present = {row["id"] for row in rows}
    decontamination = leave(
        "decontaminate",
        "decontaminated",
        {name: reason for name, reason in frozen_ids.items() if name in present},
        labels.dataset,
        "dropped",
    )
    return PreparedDataset(
        snapshot=snapshot,
        validation=validation,
        deduplication=deduplication,
        confidential=filtered,
        scrub=scrub,
        verification=verification,
        labels=labels,
        bias=bias,
        frozen=frozen,
        decontamination=StageReport(**decontamination),
    )


_FINDINGS = pa.schema(
    [("id", pa.string()), ("field", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("entity", pa.string())]
)


def _report(
    store: Store, stage: str, dataset: DatasetRef, num_rows_in: int, refused: Refusals, disposition: Any = "quarantined"
) -> dict[str, Any]:
    quarantine = [quarantine_row(stage, name, reason, "{}", disposition=disposition) for name, reason in refused.items()]
    return {
        "stage": stage,
        "dataset": dataset,
        "num_rows_in": num_rows_in,
        "quarantine": store.write_rows(quarantine, kind="quarantine", parents=[dataset]) if refused else None,
        disposition: dict(Counter(refused.values())),
        "seconds": 1.5,
    }


def _mask(row: Mapping[str, Any], masked: Sequence[Masked]) -> dict[str, Any]:
    def replace(name: str, text: str) -> str:
        for finding in sorted(masked, key=lambda finding: -finding.start):
            if (finding.id, finding.field) == (row["id"], name):
                text = f"{text[: finding.start]}<{finding.entity}>{text[finding.end :]}"
        return text

    return {**replace_texts(row, replace), "known_values": None}


def _issues(rows: Sequence[Mapping[str, Any]], flagged: Sequence[Flagged]) -> pa.Table:
    labels = {row["id"]: row.get("label") for row in rows}
    return pa.Table.from_pylist(
        [
            {
                "id": issue.id,
                "kind": issue.kind,
                "score": 0.9,
                "given": labels.get(issue.id),
                "suggested": issue.suggested,
                "action": issue.action,
                "tier": "review" if issue.action == "review" else "automatic",
            }
            for issue in flagged
        ],
        schema=pa.schema(
            [
                ("id", pa.string()),
                ("kind", pa.string()),
                ("score", pa.float64()),
                ("given", pa.string()),
                ("suggested", pa.string()),
                ("action", pa.string()),
                ("tier", pa.string()),
            ]
        ),
    )
