"""Scrubs canonical rows: all free text of a row together, its own structured values as a deny-list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.progress import OnProgress
from tasks.rows import Row, iter_texts, replace_texts

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("field", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("output_start", pa.int64()),
        pa.field("output_end", pa.int64()),
        pa.field("entity", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("detector", pa.string()),
        pa.field("operator", pa.string()),
        pa.field("fingerprint", pa.string()),
    ]
)
"""Offsets in the original text (``start``, ``end``) and in the scrubbed one (``output_*``); never a value."""


@dataclass
class ScrubbedRows:
    """What :func:`scrub_rows` made of its input; ``findings`` and ``refused`` are rows of their schemas."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    entities: Counter[str] = field(default_factory=Counter)
    num_characters: int = 0
    num_masked_characters: int = 0


def scrub_rows(rows: Sequence[Row], policy: Policy, *, on_progress: OnProgress | None = None) -> ScrubbedRows:
    """The rows with personal data replaced, in order; a row with any text that cannot be scrubbed is refused whole.

    Args:
        rows: Canonical rows; ``known_values`` is used and emptied.
        policy: The frozen rules.
        on_progress: Told after each batch.
    """
    result = ScrubbedRows()
    for first in range(0, len(rows), policy.config.batch_size):
        _scrub_batch_of_rows(rows[first : first + policy.config.batch_size], policy, result)
        if on_progress is not None:
            on_progress(min(first + policy.config.batch_size, len(rows)), len(rows))
    return result


def _scrub_batch_of_rows(rows: Sequence[Row], policy: Policy, result: ScrubbedRows) -> None:
    fields = [(number, name, text) for number, row in enumerate(rows) for name, text in iter_texts(row)]
    scrubbed = scrub_batch(
        [text for _, _, text in fields],
        policy,
        [rows[number].get("known_values") or () for number, _, _ in fields],
        records=[number for number, _, _ in fields],
    )
    reasons: dict[int, tuple[str, str]] = {}
    for refusal in scrubbed.quarantine:
        number, name, _ = fields[refusal.text_index]
        reasons.setdefault(number, (name, refusal.reason))
    for finding in scrubbed.findings:
        number, name, _ = fields[finding.text_index]
        if number not in reasons:
            entry = {key: value for key, value in vars(finding).items() if key != "text_index"}
            result.findings.append({"id": rows[number]["id"], "field": name, **entry})
            result.entities[finding.entity] += 1
    texts = {(number, name): text for (number, name, _), text in zip(fields, scrubbed.texts, strict=True)}
    for number, row in enumerate(rows):
        if number in reasons:
            name, reason = reasons[number]
            result.refused.append(
                {
                    "id": row["id"],
                    "stage": "scrub",
                    "reason": reason,
                    "field": name,
                    "disposition": "quarantined",
                    "content": json.dumps(row, sort_keys=True, default=str),
                }
            )
        else:
            result.kept.append(
                {**replace_texts(row, lambda name, _, number=number: texts[number, name] or ""), "known_values": None}
            )
    result.num_characters += scrubbed.stats.num_characters
    result.num_masked_characters += scrubbed.stats.num_masked_characters
