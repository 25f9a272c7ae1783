"""The model card that travels with a registered version."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.contracts.evaluation import BenchmarkReport, PromotionDecision
from tasks.contracts.measurement import Measurement
from tasks.contracts.training import TrainingResult


def model_card(
    run_name: str,
    trained: TrainingResult,
    scores: BenchmarkReport,
    decision: PromotionDecision,
    lineage: Mapping[str, str],
) -> str:
    """A Markdown model card: the model, its scores beside its opponents', its lineage. It holds no text of a record."""
    base = trained.base
    arms = {arm.arm: arm for arm in scores.arms}
    names = [score.name for score in arms["candidate"].scores if score.value is not None] if "candidate" in arms else []
    lines = [
        "---",
        f"license: {base.license}",
        f"base_model: {base.name}",
        "library_name: peft",
        "---",
        "",
        f"# {run_name}",
        "",
        f"A LoRA adapter ({trained.method}, {trained.plan.num_trainable_parameters:,} parameters) on {base.name} "
        f"({base.num_parameters:,} parameters{', ' + base.note if base.note else ''}), trained on {trained.num_rows:,} "
        f"rows for {trained.num_steps:,} steps.",
        "",
        f"Decision: **{decision.outcome}**. {' '.join(decision.reasons)}",
        "",
        "Intended for the task that it was benchmarked on; nothing else was evaluated. The base model's licence applies.",
        "",
        f"## Scores on {scores.dataset.num_rows:,} frozen examples",
        "",
        f"| metric | {' | '.join(arms)} |",
        f"|---|{'---|' * len(arms)}",
        *(f"| {name} | {' | '.join(_cell(arm.score(name)) for arm in arms.values())} |" for name in names),
        "",
        "## Lineage",
        "",
        *(f"- {name}: `{value}`" for name, value in lineage.items()),
        f"- base model: `{base.folder.sha256}`",
        f"- adapter: `{trained.adapter.sha256}`",
        "",
    ]
    return "\n".join(lines)


def _cell(score: Measurement | None) -> str:
    if score is None or score.value is None:
        return "not measured"
    interval = f" ({score.low:.3g} to {score.high:.3g})" if score.low is not None and score.high is not None else ""
    return f"{score.value:.4g}{interval}"
