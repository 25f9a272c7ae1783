"""Finds exact and near duplicates, and clusters of related rows.

Exact duplicates (same prompt, reply, context, label and annotations up to case and spacing) are dropped but for the one
with the smallest id. Rows with nearly equal prompts form a cluster, named in ``split_group``. Within a cluster a row is a
near duplicate of a kept one when its reply is nearly equal as well and its label and its quantities are the same. Rows
with equal prompts but other labels or replies are kept: which of them is right is for the label audit to decide.

What looks like an id is masked in prompts. Where rows whose masked prompts are equal have several replies (``is 12347
prime?``), the masked part decides the reply: there it is content, and so is any id of a reply that its prompt lacks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, Literal

import pyarrow as pa

from tasks.core.quarantine import quarantine_row
from tasks.core.rows import Row, TableRows, iter_texts, reply
from tasks.core.tool_calls import calls_text
from tasks.deduplication.equivalence import is_same_content, words_of
from tasks.text.near_duplicates import near_clusters, near_pairs
from tasks.text.normalization import answer_view, exact_key, normalize, prompt_text, prompt_views

STAGE = "deduplicate"
_VOCABULARY_ROWS = 20_000
"""A known word is looked for in at most so many prompts, and in those of the clusters."""
MAX_COMPARED = 200
"""A row is compared with at most so many kept rows of its cluster, which bounds the work in clusters of thousands."""


@dataclass(frozen=True)
class Deduplicated:
    """``kept`` rows with their ``split_group``, in the order of the input; ``dropped`` rows as quarantine rows."""

    kept: pa.Table
    dropped: list[dict[str, Any]]
    num_exact: int
    num_near: int
    num_clusters: int
    num_contradicting: int


@dataclass(frozen=True)
class _Member:
    """What is compared of a row that has near neighbours."""

    view: str
    question: str
    """The prompt and the context without masks, normalized."""
    answers: tuple[str, ...]
    label: str | None
    is_annotated: bool
    prompt_key: str
    """Equal for rows whose prompts and contexts are exact duplicates."""


def deduplicate_table(
    table: pa.Table,
    *,
    threshold: float,
    exact: bool = True,
    near: Literal["drop", "group"] = "drop",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deduplicated:
    """The rows without repetitions; which rows stay and how they are grouped does not depend on their order.

    Held for each row are its id, two keys and its placeholder view, and more only for rows with near neighbours.

    Args:
        table: Canonical rows of either kind.
        threshold: Jaccard similarity of character 5-grams from which two texts are near duplicates.
        exact: Whether exact duplicates are dropped.
        near: Whether near duplicates are dropped or only grouped.
        on_progress: Called with the number of rows done.
    """
    rows = TableRows(table)
    ids = [str(value) for value in table.column("id").to_pylist()]
    by_id = sorted(range(len(rows)), key=ids.__getitem__)
    repeated = find_exact([content_key(row) for row in rows], by_id) if exact else set()
    on_progress(len(repeated), len(rows))
    places = [place for place in by_id if place not in repeated]
    unique = rows.take(places)
    views = prompt_views(unique)
    roots = near_clusters(views, threshold)
    sizes = Counter(roots)
    clusters: dict[int, list[int]] = defaultdict(list)
    for index, root in enumerate(roots):
        if sizes[root] > 1:
            clusters[root].append(index)
    together = sorted(index for members in clusters.values() for index in members)
    several = {index: _member(row, views[index]) for index, row in zip(together, unique.take(together), strict=True)}
    names = [_cluster_name(view) for view in views]
    for members in clusters.values():
        for index in members:
            names[index] = _cluster_name(min(views[member] for member in members))
    words = _count_words([*views[:: len(views) // _VOCABULARY_ROWS + 1], *(m.view for m in several.values())])
    near_repeated = find_near(several, list(clusters.values()), threshold, words) if near == "drop" else {}
    on_progress(len(rows), len(rows))
    reasons = dict.fromkeys(repeated, "exact_duplicate") | {places[index]: "near_duplicate" for index in near_repeated}
    group_of = dict(zip(places, names, strict=True))
    kept = [place for place in range(len(rows)) if place not in reasons]
    dropped = sorted(reasons)
    groups = pa.array([group_of[place] for place in kept], pa.string())
    survivors = [[index for index in members if index not in near_repeated] for members in clusters.values()]
    survivors = [members for members in survivors if len(members) > 1]
    return Deduplicated(
        kept=_with_column(rows.take(kept).table, "split_group", groups),
        dropped=[
            quarantine_row(STAGE, ids[place], reasons[place], row, disposition="dropped")
            for place, row in zip(dropped, rows.take(dropped), strict=True)
        ],
        num_exact=len(repeated),
        num_near=len(near_repeated),
        num_clusters=len(survivors),
        num_contradicting=sum(_count_contradicting([several[index] for index in members]) for members in survivors),
    )


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)


def _member(row: Row, view: str) -> _Member:
    question = f"{prompt_text(row)}\n{row.get('context') or ''}"
    return _Member(
        view=view,
        question=normalize(question),
        answers=_answers(row, question),
        label=row.get("label"),
        is_annotated=bool(row.get("annotations")),
        prompt_key=exact_key(prompt_text(row), row.get("context") or ""),
    )


def find_exact(keys: Sequence[str], order: Iterable[int]) -> set[int]:
    """The rows that repeat one before them in ``order`` exactly, by their :func:`content_key`."""
    seen: set[str] = set()
    repeated = set()
    for place in order:
        if keys[place] in seen:
            repeated.add(place)
        seen.add(keys[place])
    return repeated


def content_key(row: Row) -> str:
    """A key equal for rows that are exact duplicates: roles, texts, calls, tools, label and annotations."""
    messages = [message for name in ("messages", "prompt", "chosen", "rejected") for message in row.get(name) or ()]
    called = [calls_text(message["tool_calls"]) for message in messages if message.get("tool_calls")]
    roles = "\n".join([",".join(message["role"] for message in messages), *called, *(row.get("tools") or ())])
    votes = sorted((vote["annotator"], vote["label"]) for vote in row.get("annotations") or ())
    texts = [text for _, text in iter_texts(row)]
    return exact_key(roles, row.get("label") or "", json.dumps(votes) if votes else "", *texts)


def find_near(
    rows: Mapping[int, _Member], clusters: Sequence[Sequence[int]], threshold: float, counts: Mapping[str, int]
) -> dict[int, int]:
    """For each row that nearly repeats a row before it in its cluster, the index of that row, which is kept."""
    same = partial(is_same_content, threshold=threshold, counts=counts)
    contested = _contested(rows.values())
    distinct = sorted({row.answers[0] for row in rows.values()})
    near_answers: dict[str, list[str]] = {answer: [answer] for answer in distinct}
    for one, other in near_pairs(distinct, threshold):
        near_answers[distinct[one]].append(distinct[other])
        near_answers[distinct[other]].append(distinct[one])
    repeated: dict[int, int] = {}
    for members in clusters:
        kept: dict[str, list[int]] = defaultdict(list)  # by answer, since only rows with near answers can be the same
        for index in members:
            row = rows[index]
            before = sorted(other for answer in near_answers[row.answers[0]] for other in kept[answer][-MAX_COMPARED:])
            original = next(
                (
                    other
                    for other in before[-MAX_COMPARED:]
                    if _has_same_label(row, rows[other])
                    and same(row.view, rows[other].view)
                    and (not contested & {row.view, rows[other].view} or same(row.question, rows[other].question))
                    and all(starmap(same, zip(row.answers, rows[other].answers, strict=True)))
                ),
                None,
            )
            if original is None:
                kept[row.answers[0]].append(index)
            else:
                repeated[index] = original
    return repeated


def _has_same_label(one: _Member, other: _Member) -> bool:
    return one.label == other.label and not one.is_annotated and not other.is_annotated


def _count_words(texts: Iterable[str]) -> Counter[str]:
    """The texts with each word."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(words_of(text)))
    return counts


def _contested(rows: Iterable[_Member]) -> set[str]:
    """The masked prompts under which several prompts have several replies, so that what was masked decides the reply."""
    replies: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    question: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        replies[row.view].add(row.answers)
        question[row.view].add(row.question)
    return {view for view in replies if len(replies[view]) > 1 and len(question[view]) > 1}


def _answers(row: Row, question: str) -> tuple[str, ...]:
    known = row.get("known_values") or ()
    if "rejected" not in row:
        return (answer_view(reply(row), question, known) if row.get("messages") else "",)
    return tuple(answer_view(reply({"chosen": row[side]}), question, known) for side in ("chosen", "rejected"))


def _cluster_name(view: str) -> str:
    """The cluster's name depends on the first of its texts alone: it is the same next quarter, and in any order of rows."""
    return "g-" + hashlib.blake2b(view.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _count_contradicting(rows: Iterable[_Member]) -> int:
    """Rows of one cluster with the same prompt as another row and another label."""
    labels: dict[str, list[str | None]] = defaultdict(list)
    for row in rows:
        labels[row.prompt_key].append(row.label)
    return sum(len(given) for given in labels.values() if len(set(given)) > 1)
