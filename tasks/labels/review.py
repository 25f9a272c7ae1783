"""The review queue: a file a person can work in, and the decisions that come back.

A row is known by the hash of its content, not by its id, so that a decision made this quarter holds next quarter, when
the same row may come with another id, and nobody is asked twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.labels.policy import Issue
from tasks.rows import Row, iter_texts
from tasks.storage import sha256_of_json


def row_hash(row: Row) -> str:
    """The hash of what a person judges: the row's texts and its label."""
    return sha256_of_json([list(iter_texts(row)), row.get("label")])


def export_jsonl(rows: Sequence[Row], issues: Sequence[Issue]) -> bytes:
    """The queue as JSON lines, one row to review a line, worst first; ``decision`` and ``label`` are for the person."""
    by_id = {str(row["id"]): row for row in rows}
    tasks: dict[str, dict[str, object]] = {}
    for issue in sorted((i for i in issues if i.action == "review"), key=lambda i: (-i.score, i.row_id, i.kind)):
        row = by_id[issue.row_id]
        task = tasks.setdefault(
            issue.row_id,
            {
                "id": issue.row_id,
                "row_sha256": row_hash(row),
                "kinds": [],
                "given": row.get("label"),
                "suggested": None,
                "texts": dict(iter_texts(row)),
                "decision": None,
                "label": None,
            },
        )
        task["kinds"] = [*task["kinds"], issue.kind]  # type: ignore[misc]
        task["suggested"] = task["suggested"] or issue.suggested
    return "".join(json.dumps(task, ensure_ascii=False) + "\n" for task in tasks.values()).encode()
