"""From issues to actions: first a person's decision, then the policy of each kind, then the cap on removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pyarrow as pa

from tasks.labels.config import Action, IssueKind, LabelAuditConfig

Tier = Literal["automatic", "review", "decided"]
ISSUES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("score", pa.float64()),
        *((name, pa.string()) for name in ("given", "suggested", "action", "tier")),
    ]
)


@dataclass(frozen=True)
class Issue:
    """One suspected fault of one row; ``score`` is 0 to 1, higher is surer, comparable within a kind."""

    row_id: str
    kind: IssueKind
    score: float
    tier: Tier
    given: str | None = None
    suggested: str | None = None
    action: Action = "review"


def issues_table(issues: Sequence[Issue]) -> pa.Table:
    """The issues as a table with the columns of :data:`ISSUES_SCHEMA`."""
    return pa.Table.from_pylist([{**asdict(issue), "id": issue.row_id} for issue in issues], schema=ISSUES_SCHEMA)


@dataclass(frozen=True)
class Decision:
    """What a person decided on a row: keep it as it is, drop it, or give it ``label``."""

    action: Literal["keep", "drop", "fix"]
    label: str | None = None


def assign_actions(
    issues: Sequence[Issue],
    decisions: Mapping[str, Decision],
    config: LabelAuditConfig,
    num_rows: int,
    fixable: frozenset[str] = frozenset(),
) -> tuple[list[Issue], int]:
    """The issues with their actions, and how many rows the cap sent to review instead of removing them.

    A person's decision stands over every policy. Of the rows that policies would remove, the surest stay within the cap.
    A label that cannot be corrected without rewriting the reply goes to review.

    Args:
        issues: What was found, at most one per row and kind.
        decisions: What people decided, by row id.
        config: Policies and cap.
        num_rows: Rows audited, of which the cap is a share.
        fixable: Ids of the rows whose label can be changed alone.
    """
    acted = [_act(issue, decisions.get(issue.row_id), config, issue.row_id in fixable) for issue in issues]
    surest: dict[str, float] = {}
    for issue in acted:
        if issue.action == "drop" and issue.tier != "decided":
            surest[issue.row_id] = max(issue.score, surest.get(issue.row_id, 0.0))
    ranked = sorted(surest, key=lambda row_id: (-surest[row_id], row_id))
    beyond = set(ranked[int(config.max_removed_share * num_rows) :])
    capped = [
        replace(issue, action="review")
        if issue.row_id in beyond and issue.action == "drop" and issue.tier != "decided"
        else issue
        for issue in acted
    ]
    return capped, len(beyond)


def _act(issue: Issue, decision: Decision | None, config: LabelAuditConfig, fixable: bool) -> Issue:
    if decision is not None:
        return replace(issue, tier="decided", action=decision.action, suggested=decision.label or issue.suggested)
    policy = config.policy(issue.kind)
    action = policy.automatic if issue.tier == "automatic" else policy.review
    if action == "fix" and (issue.suggested is None or not fixable):
        action = "review"
    return replace(issue, action=action)
