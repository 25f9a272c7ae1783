"""From issues to actions: what a person decided first, then the policy of each kind, then the cap on removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.labels.config import Action, IssueKind, LabelAuditConfig

Tier = Literal["automatic", "review", "decided"]


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


@dataclass(frozen=True)
class Decision:
    """What a person decided on a row: keep it, drop it, or give it ``label``."""

    action: Literal["keep", "drop", "fix"]
    label: str | None = None


def assign_actions(
    issues: Sequence[Issue], decisions: Mapping[str, Decision], config: LabelAuditConfig, num_rows: int
) -> tuple[list[Issue], int]:
    """The issues with their actions, and how many removals the cap turned into reviews.

    Args:
        issues: What was found, at most one per row and kind.
        decisions: What people decided, by row id.
        config: Policies and cap.
        num_rows: Rows audited, of which the cap is a share.
    """
    acted = []
    for issue in issues:
        decision = decisions.get(issue.row_id)
        if decision is not None:
            acted.append(replace(issue, tier="decided", action=decision.action, suggested=decision.label or issue.suggested))
            continue
        policy = config.policy(issue.kind)
        action = policy.automatic if issue.tier == "automatic" else policy.review
        if action == "fix" and issue.suggested is None:
            action = "review"
        acted.append(replace(issue, action=action))
    removals = sorted(
        {issue.row_id for issue in acted if issue.tier != "decided" and issue.action == "drop"},
        key=lambda row_id: (-max(i.score for i in acted if i.row_id == row_id and i.action == "drop"), row_id),
    )
    beyond = set(removals[int(config.max_removed_share * num_rows) :])
    capped = [
        replace(issue, action="review")
        if issue.row_id in beyond and issue.action == "drop" and issue.tier != "decided"
        else issue
        for issue in acted
    ]
    return capped, len(beyond)
