"""The audit of one data set: find issues, decide what becomes of each, account for every row."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.contracts import Measurement
from tasks.labels.classification import LabelFindings, audit_classes
from tasks.labels.config import IssueKind, LabelAuditConfig
from tasks.labels.policy import Decision, Issue, assign_actions
from tasks.labels.responses import misfit
from tasks.labels.structure import pair_faults, reply_faults
from tasks.modeling.embedding import SentenceEmbedder, has_wheel, tfidf_vectors
from tasks.rows import Row, prompt_messages, reply

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

MISFIT_REVIEW = 0.995
"""Combined p-value (turned round) above which a reply goes to review as not fitting its instruction."""


class Vectorizer(Protocol):
    """Gives texts their vectors; ``name`` goes into the report."""

    name: str

    def features(self, texts: Sequence[str]) -> Any:
        """Rows for a classifier, dense or sparse."""

    def unit_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Dense unit vectors, comparable by cosine."""


class EmbeddingVectorizer:
    """Sentence embeddings."""

    def __init__(self, embedder: SentenceEmbedder, on_progress: OnProgress | None = None) -> None:
        self.name = embedder.name
        self._embedder, self._on_progress = embedder, on_progress

    def features(self, texts: Sequence[str]) -> Any:
        """See :class:`Vectorizer`."""
        return self._embedder.embed(texts, self._on_progress)

    def unit_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :class:`Vectorizer`."""
        return self._embedder.embed(texts, self._on_progress)


class TfidfVectorizer:
    """The fallback without a model: TF-IDF for classes, its 200 leading dimensions for likeness."""

    name = "TF-IDF"

    def features(self, texts: Sequence[str]) -> Any:
        """See :class:`Vectorizer`."""
        return tfidf_vectors(texts)

    def unit_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :class:`Vectorizer`."""
        vectors: NDArray[np.float32] = tfidf_vectors(texts, 200)
        return vectors


def choose_vectorizer(config: LabelAuditConfig, on_progress: OnProgress | None = None) -> Vectorizer:
    """What the configuration asks for; ``auto`` is the MiniLM wheel when it is installed, else TF-IDF."""
    source = config.embedding_model
    if source == "auto":
        source = "minilm" if has_wheel() else "tfidf"
    if source == "tfidf":
        return TfidfVectorizer()
    return EmbeddingVectorizer(SentenceEmbedder(source, max_tokens=config.max_tokens), on_progress)


@dataclass(frozen=True)
class AuditOutcome:
    """The audited rows: ``kept`` (some with a corrected label), ``refused`` (quarantine rows), and every issue."""

    kept: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    issues: list[Issue]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    method: str
    informative: bool


def audit_rows(
    rows: Sequence[Row], kind: str, config: LabelAuditConfig, vectorizer: Vectorizer, decisions: Mapping[str, Decision]
) -> AuditOutcome:
    """Audits the rows of one data set.

    The result does not depend on the order of the rows, beyond ``kept`` having the same order.

    Args:
        rows: Canonical rows.
        kind: ``messages`` or ``preferences``.
        config: Settings.
        vectorizer: Where vectors come from.
        decisions: What people decided before, by row id.
    """
    ordered = sorted(rows, key=lambda row: str(row["id"]))
    issues: list[Issue] = []
    notes: list[str] = []
    measurements: list[Measurement] = []
    methods: list[str] = []
    informative = True
    if kind == "preferences":
        issues += _pair_issues(ordered)
        methods.append("structural checks of preference pairs")
        notes.append("Flipped preference pairs cannot be told cheaply from good ones; have a person read a sample.")
    else:
        prompts = [prompt_text(row) for row in ordered]
        labelled = [index for index, row in enumerate(ordered) if row.get("label")]
        if labelled:
            found = audit_classes(
                vectorizer.features([prompts[index] for index in labelled]),
                [str(ordered[index]["label"]) for index in labelled],
                num_folds=config.num_folds,
                min_class_size=config.min_class_size,
                seed=config.seed,
            )
            informative = found.informative
            methods.append(f"cleanlab on cross-validated logistic regression over {vectorizer.name}")
            measurements.append(
                Measurement(name="cross_validated_accuracy", value=found.accuracy, num_samples=int(found.audited.sum()))
            )
            notes += _label_notes(found)
            if informative:
                issues += _label_issues([ordered[index] for index in labelled], found)
        if config.audit_responses and has_free_replies(ordered):
            issues += _response_issues(ordered, prompts, config, vectorizer)
            methods.append(f"instruction and reply likeness over {vectorizer.name}, and structural rules")
    issues, num_capped = assign_actions(issues, decisions, config, len(ordered))
    if num_capped:
        notes.append(
            f"{num_capped} rows beyond the cap of {config.max_removed_share:.0%} automatic removals went to review instead."
        )
    kept, refused = apply_actions(rows, issues, config)
    return AuditOutcome(
        kept=kept,
        refused=refused,
        issues=sorted(issues, key=lambda issue: (issue.tier, -issue.score, issue.row_id, issue.kind)),
        measurements=tuple(measurements),
        notes=tuple(notes),
        method="; ".join(methods) or "nothing to audit",
        informative=informative,
    )


def apply_actions(
    rows: Sequence[Row], issues: Sequence[Issue], config: LabelAuditConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows kept, with labels corrected, and the quarantine rows of those that were not."""
    by_row: dict[str, list[Issue]] = {}
    for issue in issues:
        by_row.setdefault(issue.row_id, []).append(issue)
    kept, refused = [], []
    for row in rows:
        found = by_row.get(str(row["id"]), [])
        drop = next((issue for issue in found if issue.action == "drop"), None)
        waiting = next((issue for issue in found if issue.action == "review"), None)
        fix = next((issue for issue in found if issue.action == "fix"), None)
        if drop is not None:
            disposition = "dropped" if drop.tier == "decided" else "quarantined"
            refused.append(_refusal(row, drop.kind, disposition))
        elif waiting is not None and config.unanswered == "hold":
            refused.append(_refusal(row, "awaiting_review", "quarantined"))
        elif fix is not None:
            kept.append({**row, "label": fix.suggested})
        else:
            kept.append(dict(row))
    return kept, refused


def prompt_text(row: Row) -> str:
    """What the reply answers: the conversation before it without system messages, and the context."""
    parts = [message["content"] for message in prompt_messages(row) if message["role"] != "system"]
    return "\n".join([*parts, *([row["context"]] if row.get("context") else [])])


def has_free_replies(rows: Sequence[Row]) -> bool:
    """Whether replies are text rather than one of a few fixed answers such as class names."""
    replies = [reply(row) for row in rows]
    return len(rows) > 0 and len(set(replies)) > 0.2 * len(replies) and float(np.mean([len(r.split()) for r in replies])) > 2


def _label_issues(rows: Sequence[Row], found: LabelFindings) -> list[Issue]:
    return [
        Issue(
            row_id=str(rows[index]["id"]),
            kind="wrong_label",
            score=float(found.suspicion[index]),
            tier="automatic" if found.automatic[index] else "review",
            given=str(rows[index]["label"]),
            suggested=found.suggested[index],
        )
        for index in np.flatnonzero(found.automatic | found.review).tolist()
    ]


def _label_notes(found: LabelFindings) -> list[str]:
    notes = []
    if not found.informative:
        why = "is no better than the majority class" if found.converged else "did not converge"
        notes.append(f"The label audit is not informative: its classifier {why}; no label was judged.")
    if found.rare_classes:
        notes.append(
            f"{len(found.rare_classes)} classes with too few rows were not audited: {', '.join(found.rare_classes[:20])}."
        )
    if found.confusions and found.informative:
        pairs = "; ".join(f"{given} looks like {better} ({count})" for given, better, count in found.confusions[:5])
        notes.append(f"Most frequent suspected confusions: {pairs}.")
    return notes


def _response_issues(
    rows: Sequence[Row], prompts: Sequence[str], config: LabelAuditConfig, vectorizer: Vectorizer
) -> list[Issue]:
    replies = [reply(row) for row in rows]
    issues = [
        Issue(str(rows[fault.index]["id"]), fault.kind, fault.score, "automatic" if fault.automatic else "review")
        for fault in reply_faults(prompts, replies)
    ]
    vectors = vectorizer.unit_vectors([*prompts, *replies])
    scores = misfit(vectors[: len(rows)], vectors[len(rows) :], num_folds=config.num_folds, seed=config.seed)
    flagged = {issue.row_id for issue in issues}
    issues += [
        Issue(str(rows[index]["id"]), "mismatched_response", float(scores[index]), "review")
        for index in np.flatnonzero(scores > MISFIT_REVIEW).tolist()
        if str(rows[index]["id"]) not in flagged
    ]
    return issues


def _pair_issues(rows: Sequence[Row]) -> list[Issue]:
    faults = pair_faults(
        [prompt_text(row) for row in rows],
        [row["chosen"][-1]["content"] if row["chosen"] else "" for row in rows],
        [row["rejected"][-1]["content"] if row["rejected"] else "" for row in rows],
    )
    return [
        Issue(str(rows[fault.index]["id"]), fault.kind, fault.score, "automatic" if fault.automatic else "review")
        for fault in faults
    ]


def _refusal(row: Row, reason: str, disposition: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "stage": "labels",
        "reason": reason,
        "field": None,
        "disposition": disposition,
        "content": json.dumps(row, ensure_ascii=False, sort_keys=True),
    }


def count_by_reason(refused: Sequence[Mapping[str, Any]], disposition: str) -> dict[str, int]:
    """Rows refused with one disposition, by reason code."""
    return dict(sorted(Counter(str(row["reason"]) for row in refused if row["disposition"] == disposition).items()))


def count_by_kind(issues: Sequence[Issue]) -> dict[IssueKind, int]:
    """Issues by kind."""
    return dict(sorted(Counter(issue.kind for issue in issues).items()))
