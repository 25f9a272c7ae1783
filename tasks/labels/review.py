"""The review queue: a file for a person to work in, and the decisions that come back and are kept.

A row is identified by the hash of its content, not by its id. A decision of this quarter therefore holds next quarter, when
the same row has another id, and no person reviews it twice. Decisions accumulate in the store under ``reviews/<name>``;
reading the same answers again changes nothing, and answers may come in parts. A person may keep a row, drop it or correct
its label. Texts are not edited here: an edit would bypass the scrubbing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from tasks.contracts.preparation import ReviewQueue
from tasks.contracts.references import DatasetRef, FileRef
from tasks.core.documents import parse_json
from tasks.core.errors import InputError
from tasks.core.rows import Row, iter_texts
from tasks.core.storage import Store, sha256_of_json
from tasks.labels.policy import Decision, Issue

DECISIONS_SCHEMA = pa.schema(
    [pa.field("row_sha256", pa.string()), pa.field("action", pa.string()), pa.field("label", pa.string())]
)
ACTIONS = ("keep", "drop", "fix")
KINDS = ("messages", "preferences")
"""The kinds of rows that queues are kept for, one each under a review's name."""


def row_hash(row: Row) -> str:
    """The hash of what a person reviews: the row's texts with their roles, and its label."""
    roles = [[message["role"] for message in row.get(name) or ()] for name in ("messages", "prompt", "chosen", "rejected")]
    return sha256_of_json([roles, list(iter_texts(row)), row.get("label")])


# -------------------------------------------------------------------------------------------------------------- questions


def export_jsonl(rows: Sequence[Row], issues: Sequence[Issue]) -> bytes:
    """The queue as JSON lines, one row a line, surest issues first; empty when nothing awaits a person.

    The person fills ``decision`` with ``keep``, ``drop`` or ``fix``, and for ``fix`` the right ``label``; lines left empty
    are exported again.
    """
    by_id = {str(row["id"]): row for row in rows}
    waiting: dict[str, list[Issue]] = {}
    for issue in sorted(issues, key=lambda issue: (-issue.score, issue.row_id, issue.kind)):
        if issue.action == "review":
            waiting.setdefault(issue.row_id, []).append(issue)
    lines = [
        {
            "id": row_id,
            "row_sha256": row_hash(by_id[row_id]),
            "kinds": [issue.kind for issue in found],
            "score": round(found[0].score, 4),
            "given": next((issue.given for issue in found if issue.given), by_id[row_id].get("label")),
            "suggested": next((issue.suggested for issue in found if issue.suggested), None),
            "texts": dict(iter_texts(by_id[row_id])),
            "decision": None,
            "label": None,
        }
        for row_id, found in waiting.items()
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def export_label_studio(queue: bytes) -> bytes:
    """The queue as Label Studio tasks (import them into a project with :func:`label_studio_config`)."""
    tasks = []
    for line in _json_lines(queue, "review queue"):
        data = {
            "row_sha256": line["row_sha256"],
            "row_id": line["id"],
            "issues": ", ".join(line["kinds"]),
            "given": line["given"] or "",
            "suggested": line["suggested"] or "",
            "text": "\n\n".join(f"[{path}]\n{text}" for path, text in line["texts"].items()),
        }
        tasks.append({"data": data})
    return json.dumps(tasks, ensure_ascii=False, indent=1).encode()


def label_studio_config(labels: Iterable[str]) -> str:
    """The labelling interface for the tasks: the row, what was found, the decision, and the label when it is corrected."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in sorted(set(labels)))
    picker = (
        f'<Choices name="label" toName="text" choice="single" visibleWhen="choice-selected" whenTagName="decision" '
        f'whenChoiceValue="fix">{choices}</Choices>'
        if choices
        else ""
    )
    return (
        '<View><Header value="$issues"/><Text name="text" value="$text"/>'
        '<Header value="Given: $given   Suggested: $suggested"/>'
        '<Choices name="decision" toName="text" choice="single" required="true">'
        '<Choice value="keep"/><Choice value="drop"/><Choice value="fix"/></Choices>'
        f"{picker}</View>"
    )


# ---------------------------------------------------------------------------------------------------------------- answers


def import_decisions(answers: bytes, where: str) -> dict[str, Decision]:
    """The decisions in an answered queue, by row hash: our JSON lines, or Label Studio's JSON export.

    Unanswered rows are passed over; of two answers on one row the later one counts.

    Args:
        answers: The file's bytes.
        where: How to name the file in an error.

    Raises:
        InputError: The file is neither format, or holds answers that mean nothing; all of them are named.
    """
    text = answers.lstrip()
    lines = _from_label_studio(_json(answers, where), where) if text.startswith(b"[") else _json_lines(answers, where)
    decisions, faults = {}, []
    for number, line in enumerate(lines, start=1):
        action, label = line.get("decision"), line.get("label")
        if action in (None, ""):
            continue
        if action not in ACTIONS:
            faults.append(f"entry {number}: a decision that is none of {', '.join(ACTIONS)}")
        elif action == "fix" and not (isinstance(label, str) and label.strip()):
            faults.append(f"entry {number}: `fix` without a label")
        elif not isinstance(line.get("row_sha256"), str) or len(line["row_sha256"]) != 64:
            faults.append(f"entry {number}: no row_sha256")
        else:
            decisions[line["row_sha256"]] = Decision(action, str(label).strip() if action == "fix" else None)
    if faults:
        raise InputError(
            where,
            f"{len(faults)} answers that cannot be read: {'; '.join(faults[:5])}",
            "lines of the exported queue with `decision` (and `label`) filled in",
            "Correct them and import the file again; nothing was taken over.",
        )
    return decisions


def _from_label_studio(tasks: Any, where: str) -> list[dict[str, Any]]:
    lines = []
    for task in tasks:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(
                where, "a JSON list of something else", "a Label Studio JSON export", "Export the project as JSON."
            )
        answered = [item for item in task.get("annotations") or () if not item.get("was_cancelled")]
        results = answered[-1].get("result", []) if answered else []
        chosen = {item.get("from_name"): (item.get("value", {}).get("choices") or [None])[0] for item in results}
        lines.append({"row_sha256": task["data"].get("row_sha256"), **chosen})
    return lines


def _json(data: bytes, where: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise InputError(
            where, "text that is not JSON", "an answered review queue", "Export the queue again and fill that file in."
        ) from error


def _json_lines(data: bytes, where: str) -> list[dict[str, Any]]:
    lines = []
    for line in data.splitlines():
        if line.strip():
            value = _json(line, where)
            lines.append(value if isinstance(value, dict) else {"decision": "?"})
    return lines


# ------------------------------------------------------------------------------------------------------ kept in the store


def read_decisions(store: Store, name: str | None) -> dict[str, Decision]:
    """Every decision kept under ``reviews/<name>``, by row hash; none without a name."""
    return _decisions_in(store, store.read_pointer(f"reviews/{name}") if name else None)


def _decisions_in(store: Store, kept: DatasetRef | None) -> dict[str, Decision]:
    rows = store.read_rows(kept) if kept is not None else []
    return {row["row_sha256"]: Decision(row["action"], row["label"]) for row in rows}


def keep_decisions(store: Store, name: str, decisions: Mapping[str, Decision]) -> DatasetRef:
    """Adds decisions to those kept under ``reviews/<name>``; a newer one replaces an older one on the same row.

    Decisions that somebody else adds at the same time are kept too.
    """

    def with_these(kept: DatasetRef | None) -> DatasetRef:
        known = {**_decisions_in(store, kept), **decisions}
        rows = [{"row_sha256": key, "action": known[key].action, "label": known[key].label} for key in sorted(known)]
        return store.write_table(pa.Table.from_pylist(rows, schema=DECISIONS_SCHEMA), kind="table")

    return store.update_record(f"reviews/{name}", DatasetRef, with_these)


def publish_queue(store: Store, name: str, kind: str, queue: FileRef | None) -> ReviewQueue | None:
    """Makes ``queue`` the open questions of ``reviews/<name>/<kind>``; the time of the first publication stays.

    Args:
        store: The store.
        name: The review's name.
        kind: Kind of the rows, one of :data:`KINDS`.
        queue: What :func:`export_jsonl` made; None when nothing awaits a person.
    """
    pointer = f"reviews/{name}/{kind}"
    if queue is None:
        if store.read_record(pointer, ReviewQueue) is not None:
            empty = store.write_bytes(b"", ".jsonl")
            now = datetime.now(UTC)
            store.update_record(
                pointer,
                ReviewQueue,
                lambda known: ReviewQueue(queue=empty, num_rows=0, requested_at=known.requested_at if known else now),
            )
        return None
    published = ReviewQueue(queue=queue, num_rows=len(store.read_bytes(queue).splitlines()), requested_at=datetime.now(UTC))
    return store.update_record(
        pointer, ReviewQueue, lambda known: known if known is not None and known.queue.sha256 == queue.sha256 else published
    )


def unanswered_lines(store: Store, name: str, queue: ReviewQueue) -> bytes:
    """The lines of a queue whose rows have no decision yet."""
    decided = read_decisions(store, name)
    lines = store.read_bytes(queue.queue).splitlines(keepends=True)
    return b"".join(line for line in lines if json.loads(line)["row_sha256"] not in decided)


def open_questions(store: Store, name: str) -> bytes:
    """Every question under a review's name that still awaits an answer, of all kinds of rows, as JSON lines."""
    queues = (store.read_record(f"reviews/{name}/{kind}", ReviewQueue) for kind in KINDS)
    return b"".join(unanswered_lines(store, name, queue) for queue in queues if queue is not None)


def known_questions(store: Store, name: str) -> set[str]:
    """The hashes of all rows in the questions under a review's name, answered or not."""
    queues = (store.read_record(f"reviews/{name}/{kind}", ReviewQueue) for kind in KINDS)
    lines = (line for queue in queues if queue is not None for line in store.read_bytes(queue.queue).splitlines())
    return {json.loads(line)["row_sha256"] for line in lines} | set(read_decisions(store, name))
