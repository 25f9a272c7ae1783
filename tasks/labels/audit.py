"""The audit of one data set: find issues, decide what becomes of each, account for every row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tasks.contracts.measurement import Measurement
from tasks.core.quarantine import quarantine_row
from tasks.core.rows import Row, prompt_messages, reply
from tasks.core.tool_calls import message_text
from tasks.labels.annotators import AnnotatorFindings, majority_label, score_annotations
from tasks.labels.classification import LabelFindings, audit_classes
from tasks.labels.config import LabelAuditConfig
from tasks.labels.controls import label_controls, reply_controls
from tasks.labels.policy import Decision, Issue, assign_actions
from tasks.labels.replies import Thresholds, detect_reply_faults
from tasks.labels.review import row_hash
from tasks.labels.structure import Fault, contradicting_replies, pair_faults
from tasks.labels.vectors import Vectorizer

STAGE = "labels"

logger = logging.getLogger(__name__)

OnPhase = Callable[[float, str], None]
"""Called with the share of the work that is done and the name of the next phase."""

MIN_ROWS = 50
"""Fewer replies teach the audit nothing about what is normal among them."""
_CONFIDENT_CONSENSUS = 0.9
"""Consensus quality from which the annotators' verdict over a given label is acted on."""


@dataclass(frozen=True)
class AuditOutcome:
    """The audited rows: ``kept`` (some with a corrected label), ``quarantined_rows`` (quarantine rows), and every issue."""

    kept: list[dict[str, Any]]
    quarantined_rows: list[dict[str, Any]]
    issues: list[Issue]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    method: str
    informative: bool


@dataclass
class _Findings:
    """The combined findings of the parts of the audit."""

    issues: list[Issue] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    informative: bool = True
    consensus: dict[str, str] = field(default_factory=dict)
    """Labels that annotators agreed on, for rows that came without one, by row id."""


# A matrix product sums in another order on another number of threads, and its last digits stand in the issues' scores.
@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def audit_rows(
    rows: Sequence[Row],
    kind: str,
    config: LabelAuditConfig,
    vectorizer: Vectorizer,
    decisions: Mapping[str, Decision],
    on_phase: OnPhase | None = None,
) -> AuditOutcome:
    """Audits the rows of one data set.

    What is found does not depend on the order of the rows; ``kept`` has the order of ``rows``.

    Args:
        rows: Canonical rows.
        kind: ``messages`` or ``preferences``.
        config: Settings.
        vectorizer: Where vectors come from.
        decisions: What people decided before, by row hash (:func:`tasks.labels.review.row_hash`).
        on_phase: Called at the start of each phase.
    """
    report_phase = on_phase or (lambda share, name: None)
    ordered = sorted(rows, key=lambda row: str(row["id"]))
    findings = _Findings()
    if kind == "preferences":
        _audit_pairs(ordered, findings)
    else:
        _audit_labels(ordered, config, vectorizer, findings, report_phase)
    if config.audit_responses and has_free_replies(ordered):
        report_phase(0.5, "scoring replies")
        _audit_replies(ordered, config, vectorizer, findings, report_phase)
    decided = {str(row["id"]): decisions[key] for row in ordered if (key := row_hash(row)) in decisions}
    relabel = Relabelling(ordered)
    issues, num_capped = assign_actions(findings.issues, decided, config, len(ordered), relabel.fixable(findings.issues))
    if num_capped:
        findings.notes.append(
            f"{num_capped} rows beyond the cap of {config.max_removed_share:.0%} automatic removals went to review instead."
        )
    if decided:
        findings.notes.append(f"{len(decided)} rows were reviewed by people before; their decisions stand.")
    kept, quarantined_rows = apply_actions(rows, issues, decided, relabel, findings.consensus, config)
    return AuditOutcome(
        kept=kept,
        quarantined_rows=quarantined_rows,
        issues=sorted(issues, key=lambda issue: (issue.tier, issue.kind, -issue.score, issue.row_id)),
        measurements=tuple(findings.measurements),
        notes=tuple(findings.notes),
        method="; ".join(findings.methods) or "nothing to audit",
        informative=findings.informative,
    )


# ----------------------------------------------------------------------------------------------------------- the rows


def prompt_text(row: Row) -> str:
    """What the reply answers: the last message first, the context, then the conversation before it, newest first.

    System messages are left out. The newest comes first because embedding models read only the beginning of a long text.
    """
    messages = [message["content"] or "" for message in prompt_messages(row) if message["role"] != "system"]
    parts = [*messages[-1:], *([row["context"]] if row.get("context") else []), *messages[-2::-1]]
    return "\n".join(part for part in parts if part)


def has_free_replies(rows: Sequence[Row]) -> bool:
    """Whether replies are text of their own rather than one of a few fixed answers such as class names."""
    replies = [reply(row) for row in rows]
    if len(replies) < MIN_ROWS:
        return False
    return len(set(replies)) > 0.2 * len(replies) and float(np.mean([len(text.split()) for text in replies])) > 2


class Relabelling:
    """What changing a label means for the rest of the row.

    Where the reply *is* the label (intent classification by generation), it changes along; where a free reply names the
    label, as a category tag does, the label cannot be changed alone.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {str(row["id"]): row for row in rows}
        answers: dict[str, Counter[str]] = {}
        labelled = [row for row in rows if row.get("label") and "messages" in row]
        for row in labelled:
            answers.setdefault(str(row["label"]), Counter())[reply(row)] += 1
        distinct = len({reply(row) for row in labelled})
        self._answers = (
            {label: counts.most_common(1)[0][0] for label, counts in answers.items()} if distinct <= 2 * len(answers) else {}
        )

    def fixable(self, issues: Sequence[Issue]) -> frozenset[str]:
        """Ids of the rows whose suggested label can be applied without rewriting text."""
        return frozenset(
            issue.row_id for issue in issues if issue.suggested and self.apply(issue.row_id, issue.suggested) is not None
        )

    def apply(self, row_id: str, label: str) -> dict[str, Any] | None:
        """The row with another label, or None when its reply says the old one."""
        row = self._rows[row_id]
        given = str(row.get("label") or "")
        changed = {**row, "label": label}
        if "messages" not in row:
            return changed
        said = reply(row)
        if given and said == self._answers.get(given):
            if label not in self._answers:
                return None
            changed["messages"] = [*row["messages"][:-1], {**row["messages"][-1], "content": self._answers[label]}]
            return changed
        return None if given and given.casefold() in said.casefold() else changed


# --------------------------------------------------------------------------------------------------- parts of the audit


def _audit_labels(
    rows: Sequence[Row], config: LabelAuditConfig, vectorizer: Vectorizer, findings: _Findings, report_phase: OnPhase
) -> None:
    annotations = [[(item["annotator"], item["label"]) for item in row.get("annotations") or ()] for row in rows]
    given = [row.get("label") or majority_label(votes) for row, votes in zip(rows, annotations, strict=True)]
    index = [number for number, label in enumerate(given) if label]
    if not index:
        return
    report_phase(0.0, "embedding")
    features = vectorizer.features([prompt_text(rows[number]) for number in index])
    labels = [str(given[number]) for number in index]
    report_phase(0.3, "scoring labels")
    found = audit_classes(
        features, labels, num_folds=config.num_folds, min_class_size=config.min_class_size, seed=config.seed
    )
    findings.informative = found.informative
    findings.methods.append(
        f"cleanlab over {vectorizer.name}: cross-validated logistic regression and neighbours, two rounds"
    )
    if found.classes:
        findings.measurements.append(
            Measurement(name="labels.cross_validated_accuracy", value=found.accuracy, num_samples=int(found.audited.sum()))
        )
    findings.notes += _label_notes(found)
    if not found.informative:
        return
    labelled = [rows[number] for number in index]
    findings.issues += _label_issues(labelled, labels, found)
    audited = np.flatnonzero(found.audited).tolist()
    consensus = score_annotations([annotations[index[number]] for number in audited], found.probabilities, found.classes)
    if consensus is not None:
        _add_consensus([labelled[number] for number in audited], consensus, findings)
    report_phase(0.4, "measuring the label audit")
    findings.measurements += label_controls(features, labels, found, config)


def _label_issues(rows: Sequence[Row], labels: Sequence[str], found: LabelFindings) -> list[Issue]:
    return [
        Issue(
            row_id=str(rows[number]["id"]),
            kind="wrong_label",
            score=float(found.suspicion[number]),
            tier="automatic" if found.automatic[number] else "review",
            given=labels[number],
            suggested=found.suggested[number],
        )
        for number in np.flatnonzero(found.automatic | found.review).tolist()
    ]


def _label_notes(found: LabelFindings) -> list[str]:
    notes = []
    if not found.informative:
        why = (
            "fewer than two classes have enough rows"
            if len(found.classes) < 2
            else "its classifier did not converge"
            if not found.converged
            else f"its classifier is right for {found.accuracy:.0%}, where always naming one class is for "
            f"{found.majority_share:.0%}"
        )
        notes.append(f"The label audit is not informative: {why}. No label was assessed.")
    if found.rare_classes:
        notes.append(
            f"{len(found.rare_classes)} classes ({int((~found.audited).sum())} rows) are too small and were not audited: "
            f"{', '.join(found.rare_classes[:20])}{', …' if len(found.rare_classes) > 20 else ''}."
        )
    if found.confusions and found.informative:
        pairs = "; ".join(f"{given} looks like {better} ({count})" for given, better, count in found.confusions[:5])
        notes.append(f"Most frequent suspected confusions: {pairs}.")
    return notes


def _add_consensus(rows: Sequence[Row], consensus: AnnotatorFindings, findings: _Findings) -> None:
    flagged = {issue.row_id for issue in findings.issues}
    for row, label, quality in zip(rows, consensus.consensus, consensus.quality.tolist(), strict=True):
        row_id, given = str(row["id"]), row.get("label")
        if label is None:
            continue
        if given is None and quality >= 0.5:
            findings.consensus[row_id] = label
        if row_id not in flagged and ((given is not None and given != label) or quality < 0.5):
            is_confident = given is not None and given != label and quality >= _CONFIDENT_CONSENSUS
            score = quality if given is not None and given != label else 1 - quality
            findings.issues.append(
                Issue(row_id, "annotators_disagree", score, "automatic" if is_confident else "review", given, label)
            )
    findings.methods.append("CROWDLAB consensus of several annotators")
    findings.measurements.append(Measurement(name="annotators.agreement", value=consensus.agreement))
    findings.measurements += [
        Measurement(
            name=f"annotators.quality.{hashlib.sha256(who.encode()).hexdigest()[:8]}",
            value=quality,
            num_samples=count,
            note="annotators are named by the first digits of the SHA-256 of their name",
        )
        for who, quality, count in consensus.annotator_quality[:20]
    ]
    if findings.consensus:
        findings.notes.append(f"{len(findings.consensus)} rows without a label took their annotators' consensus.")


def _audit_replies(
    rows: Sequence[Row], config: LabelAuditConfig, vectorizer: Vectorizer, findings: _Findings, report_phase: OnPhase
) -> None:
    prompts, replies = [prompt_text(row) for row in rows], [reply(row) for row in rows]
    found = detect_reply_faults(prompts, replies, vectorizer.unit_vectors, num_folds=config.num_folds, seed=config.seed)
    thresholds = Thresholds()
    suspicion, faults = found.suspicion, found.faults
    issues = [
        Issue(
            row_id=str(rows[number]["id"]),
            kind=faults[number],
            score=float(suspicion[number]),
            tier="automatic" if suspicion[number] >= thresholds.automatic else "review",
        )
        for number in np.flatnonzero(suspicion >= thresholds.review).tolist()
    ]
    vectors = vectorizer.unit_vectors([*prompts, *replies])
    flagged = {issue.row_id for issue in issues}
    contradicting = contradicting_replies(prompts, replies, vectors[: len(rows)], vectors[len(rows) :])
    findings.issues += issues
    findings.issues += [issue for issue in _structural_issues(rows, contradicting) if issue.row_id not in flagged]
    findings.methods.append(
        f"detectors trained on planted faults, over {vectorizer.name}, the form and the language of replies"
    )
    if config.control_share > 0:
        report_phase(0.8, "measuring the reply audit")
        findings.measurements += reply_controls(prompts, replies, vectorizer.unit_vectors, found, thresholds, config)
        findings.notes.append(
            "Reply faults are planted in the way that the detectors are trained on, with other phrases: the figures do not "
            "cover faults of another kind."
        )


def _audit_pairs(rows: Sequence[Row], findings: _Findings) -> None:
    faults = pair_faults(
        [prompt_text(row) for row in rows],
        [message_text(row["chosen"][-1]) if row["chosen"] else "" for row in rows],
        [message_text(row["rejected"][-1]) if row["rejected"] else "" for row in rows],
    )
    findings.issues += _structural_issues(rows, faults)
    findings.methods.append("structural checks of preference pairs")
    findings.notes.append(
        "Flipped preference pairs cannot be detected at this cost (AUROC .55 to .66 at best): have a person read "
        "a sample of the pairs."
    )


def _structural_issues(rows: Sequence[Row], faults: Sequence[Fault]) -> list[Issue]:
    return [
        Issue(str(rows[fault.index]["id"]), fault.kind, fault.score, "automatic" if fault.automatic else "review")
        for fault in faults
    ]


# --------------------------------------------------------------------------------------------------------------- actions


def apply_actions(
    rows: Sequence[Row],
    issues: Sequence[Issue],
    decided: Mapping[str, Decision],
    relabel: Relabelling,
    consensus: Mapping[str, str],
    config: LabelAuditConfig,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows kept, with labels corrected, and the quarantine rows of those that were not."""
    by_row: dict[str, list[Issue]] = {}
    for issue in issues:
        by_row.setdefault(issue.row_id, []).append(issue)
    kept, quarantined_rows = [], []
    for row in rows:
        row_id = str(row["id"])
        found = {issue.action: issue for issue in sorted(by_row.get(row_id, []), key=lambda issue: issue.score)}
        decision = decided.get(row_id)
        if decision is not None and decision.action == "drop":
            quarantined_rows.append(quarantine_row(STAGE, row_id, "reviewed", row, disposition="dropped"))
        elif decision is not None:
            if decision.action != "fix" or not decision.label:
                kept.append(dict(row))
            elif changed := relabel.apply(row_id, decision.label):
                kept.append(changed)
            else:  # the reply names the old label in its own words: it would teach what a person called wrong
                quarantined_rows.append(quarantine_row(STAGE, row_id, "fix_needs_new_reply", row))
        elif "drop" in found:
            quarantined_rows.append(quarantine_row(STAGE, row_id, found["drop"].kind, row))
        elif "review" in found and config.unanswered == "hold":
            quarantined_rows.append(quarantine_row(STAGE, row_id, "awaiting_review", row))
        elif "fix" in found and found["fix"].suggested:
            kept.append(relabel.apply(row_id, found["fix"].suggested) or dict(row))
        else:
            kept.append({**row, "label": consensus[row_id]} if row_id in consensus else dict(row))
    return kept, quarantined_rows
