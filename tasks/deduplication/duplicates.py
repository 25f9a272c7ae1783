"""Which rows repeat another, and which rows belong together.

Exact duplicates (same prompt, reply, context, label and annotations up to case and spacing) are dropped but for the one
with the smallest id. Rows with nearly equal prompts form a cluster, named in ``split_group``. Within a cluster a row is a
near duplicate of a kept one when its reply is nearly equal as well and its label and its quantities are the same. Rows
that ask the same but are labelled or answered otherwise are kept: which of them is right is for the label audit to judge.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, Literal

from tasks.deduplication.sameness import says_the_same
from tasks.reporting import refusal
from tasks.rows import Row, iter_texts
from tasks.similarity import near_clusters, near_pairs, prompt_text, prompt_views, reply_view, text_key

STAGE = "deduplicate"
MAX_COMPARED = 200
"""A row is compared with at most so many kept rows of its cluster, which bounds the work in clusters of thousands."""


@dataclass(frozen=True)
class Deduplicated:
    """``kept`` rows with their ``split_group``, in the order of the input; ``dropped`` rows as quarantine rows."""

    kept: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    num_exact: int
    num_near: int
    num_clusters: int
    num_contradicting: int


def deduplicate_rows(
    rows: Sequence[Row],
    *,
    threshold: float,
    exact: bool = True,
    near: Literal["drop", "group"] = "drop",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deduplicated:
    """The rows without repetitions; which rows stay and how they are grouped does not depend on their order.

    Args:
        rows: Canonical rows of either kind.
        threshold: Jaccard similarity of character 5-grams from which two texts are near duplicates.
        exact: Whether exact duplicates are dropped.
        near: Whether near duplicates are dropped or only grouped.
        on_progress: Told the number of rows judged.
    """
    by_id = sorted(rows, key=lambda row: str(row["id"]))
    repeated = find_exact(by_id) if exact else {}
    unique = [row for index, row in enumerate(by_id) if index not in repeated]
    on_progress(len(repeated), len(rows))
    views = prompt_views(unique)
    roots = near_clusters(views, threshold)
    clusters: dict[int, list[int]] = defaultdict(list)
    for index, root in enumerate(roots):
        clusters[root].append(index)
    names = {root: _cluster_name(views[index] for index in members) for root, members in clusters.items()}
    several = [members for members in clusters.values() if len(members) > 1]
    near_repeated = find_near(unique, views, several, threshold) if near == "drop" else {}
    group_of = {id(row): names[root] for row, root in zip(unique, roots, strict=True)}
    reasons = {id(by_id[index]): "exact_duplicate" for index in repeated}
    reasons.update({id(unique[index]): "near_duplicate" for index in near_repeated})
    on_progress(len(rows), len(rows))
    kept = [{**row, "split_group": group_of[id(row)]} for row in rows if id(row) not in reasons]
    kept_clusters: dict[str, list[Row]] = defaultdict(list)
    for row in kept:
        kept_clusters[row["split_group"]].append(row)
    several_kept = [members for members in kept_clusters.values() if len(members) > 1]
    return Deduplicated(
        kept=kept,
        dropped=[
            refusal(STAGE, str(row["id"]), reasons[id(row)], row, disposition="dropped")
            for row in rows
            if id(row) in reasons
        ],
        num_exact=len(repeated),
        num_near=len(near_repeated),
        num_clusters=len(several_kept),
        num_contradicting=_count_contradicting(several_kept),
    )


def find_exact(rows: Sequence[Row]) -> dict[int, int]:
    """For each row that repeats an earlier one exactly, the index of that earlier row."""
    first: dict[str, int] = {}
    repeated: dict[int, int] = {}
    for index, row in enumerate(rows):
        original = first.setdefault(content_key(row), index)
        if original != index:
            repeated[index] = original
    return repeated


def content_key(row: Row) -> str:
    """A key equal for rows that are exact duplicates: roles, texts, label and annotations."""
    roles = ",".join(
        message["role"] for name in ("messages", "prompt", "chosen", "rejected") for message in row.get(name) or ()
    )
    votes = sorted((vote["annotator"], vote["label"]) for vote in row.get("annotations") or ())
    texts = [text for _, text in iter_texts(row)]
    return text_key(roles, row.get("label") or "", json.dumps(votes) if votes else "", *texts)


def find_near(
    rows: Sequence[Row], views: Sequence[str], clusters: Sequence[Sequence[int]], threshold: float
) -> dict[int, int]:
    """For each row that nearly repeats a row before it in its cluster, the index of that row, which is kept."""
    same = partial(says_the_same, threshold=threshold)
    answers = {index: _answers(rows[index]) for members in clusters for index in members}
    distinct = sorted({answer[0] for answer in answers.values()})
    near_answers: dict[str, list[str]] = {answer: [answer] for answer in distinct}
    for one, other in near_pairs(distinct, threshold):
        near_answers[distinct[one]].append(distinct[other])
        near_answers[distinct[other]].append(distinct[one])
    repeated: dict[int, int] = {}
    for members in clusters:
        kept: dict[str, list[int]] = defaultdict(list)  # by answer, since only rows with near answers can be the same
        for index in members:
            before = sorted(other for answer in near_answers[answers[index][0]] for other in kept[answer][-MAX_COMPARED:])
            original = next(
                (
                    other
                    for other in before[-MAX_COMPARED:]
                    if _same_judgement(rows[index], rows[other])
                    and same(views[index], views[other])
                    and all(starmap(same, zip(answers[index], answers[other], strict=True)))
                ),
                None,
            )
            if original is None:
                kept[answers[index][0]].append(index)
            else:
                repeated[index] = original
    return repeated


def _same_judgement(one: Row, other: Row) -> bool:
    return bool(one.get("label") == other.get("label") and not one.get("annotations") and not other.get("annotations"))


def _answers(row: Row) -> tuple[str, ...]:
    if "rejected" not in row:
        return (reply_view(row),)
    return (reply_view(row), reply_view({"chosen": row["rejected"], "known_values": row.get("known_values")}))


def _cluster_name(views: Any) -> str:
    """The cluster's name depends on its texts alone: it is the same in the next quarter, and in any order of rows."""
    return "g-" + hashlib.blake2b(min(views).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _count_contradicting(clusters: Iterable[Sequence[Row]]) -> int:
    """Rows whose prompt is exactly another's, while their labels differ; exact copies always share a cluster."""
    count = 0
    for rows in clusters:
        labels: dict[str, list[str | None]] = defaultdict(list)
        for row in rows:
            labels[text_key(prompt_text(row), row.get("context") or "")].append(row.get("label"))
        count += sum(len(given) for given in labels.values() if len(set(given)) > 1)
    return count
