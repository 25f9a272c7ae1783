"""A promotion record as the run's page shows it."""

from __future__ import annotations

from tasks.contracts.registry import PromotionRecord


def describe_outcome(record: PromotionRecord) -> str:
    """What became of the candidate, in a sentence."""
    champion = f"champion is {record.champion_version or 'none'}"
    if record.promoted:
        outcome = "is champion"
    elif record.rollout_share is not None:
        outcome = f"starts its rollout with {record.rollout_share} % of the traffic; {champion}"
    elif record.approval is not None and record.approval.verdict is None:
        outcome = f"awaits a person's approval; {champion}"
    else:
        outcome = f"is registered and not promoted; {champion}"
    return f"version {record.candidate.version} {outcome}"


def alias_table(record: PromotionRecord) -> str:
    """The aliases as a Markdown table, and the reason."""
    rows = [("champion", record.champion_version or "none"), ("previous", record.previous_version or "none")]
    if record.rollout_share is not None:
        rows.append((f"rollout, {record.rollout_share} %", record.candidate.version))
    lines = ["| alias | version |", "|---|---|", *(f"| {alias} | {version} |" for alias, version in rows)]
    return "\n".join([*lines, "", record.reason])
