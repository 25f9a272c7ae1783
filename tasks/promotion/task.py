"""The promotion gate as a Prefect task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.contracts.evaluation import BenchmarkReport, PromotionDecision, RedTeamReport
from tasks.contracts.references import DatasetRef
from tasks.contracts.registry import Champion
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.promotion.config import PromotionConfig

if TYPE_CHECKING:
    import pandas as pd


def _markdown(decision: PromotionDecision) -> str:
    lines = [f"## {decision.outcome}", "", *(f"- {reason}" for reason in decision.reasons)]
    if decision.remedies:
        lines += ["", "What would change this:", "", *(f"- {remedy}" for remedy in decision.remedies)]
    lines += ["", "| against | metric | difference | low | high | examples | passed |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row.opponent} | {row.metric} | {row.difference:+.3f} | {row.low:+.3f} | {row.high:+.3f} "
        f"| {row.num_examples} | {'yes' if row.passed else 'no'} |"
        for row in decision.comparisons
    ]
    return "\n".join(lines)


@stage(unit="models", page=_markdown, key="decision", title=lambda decision: decision.outcome)
def decide_promotion(scores: BenchmarkReport, config: PromotionConfig, champion: Champion | None) -> PromotionDecision:
    """``PROMOTE``, ``HOLD`` or ``NEEDS_HUMAN``, with reasons; moves no alias.

    Args:
        scores: The same examples answered by every arm.
        config: The rules.
        champion: The current champion, or None.

    Raises:
        IntegrityError: The arms answered different examples.
    """
    from tasks.promotion.gate import decide

    version = champion.version.version if champion else None
    frames = {arm.arm: _by_id(arm.examples) for arm in scores.arms}
    general = {arm.arm: _by_id(arm.general) for arm in scores.arms if arm.general}
    candidate, champion_arm = scores.arm("candidate"), scores.arm("champion")
    decision = decide(
        frames,
        config,
        champion_version=version,
        general=general,
        is_champion=bool(candidate and champion_arm and candidate.model_sha256 == champion_arm.model_sha256),
        fresh={arm.arm: _by_id(arm.examples) for arm in scores.fresh.arms} if scores.fresh else None,
        holdout_unavailable_reason=scores.holdout_unavailable_reason,
        latency=scores.latency,
        attacks=_failures(scores.red_team) if scores.red_team else None,
    )
    stage_progress().summarize(f"{decision.outcome}: {' '.join(decision.reasons)}")
    return decision


def _failures(report: RedTeamReport) -> dict[str, dict[str, dict[str, bool]]]:
    """Whether each probe failed, by arm, rate and probe."""
    attacks: dict[str, dict[str, dict[str, bool]]] = {}
    for arm in report.arms:
        rates = attacks.setdefault(arm.arm, {})
        for row in run_store().read_rows(arm.probes):
            rates.setdefault(row["rate"], {})[row["id"]] = bool(row["failed"])
    return attacks


def _by_id(table: DatasetRef) -> pd.DataFrame:
    frame: pd.DataFrame = run_store().read_table(table).to_pandas().set_index("id")
    return frame
