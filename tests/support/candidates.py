"""Candidates for the registry, made by hand: nothing was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.contracts.evaluation import ArmScores, BenchmarkReport, Comparison, PromotionDecision
from tasks.contracts.measurement import Measurement
from tasks.contracts.training import BaseLanguageModel, TrainingPlan, TrainingResult
from tasks.core.storage import Store
from tasks.registry.versions import Candidate


def decide(outcome: Any = "PROMOTE", champion: str | None = None) -> PromotionDecision:
    """A decision against a champion."""
    won = Comparison(
        opponent="base", metric="chrf", difference=0.3, low=0.2, high=0.4, num_examples=250, rule="superior", passed=True
    )
    return PromotionDecision(
        outcome=outcome,
        primary_metric="chrf",
        comparisons=(won,),
        reasons=("Better than the base model.",),
        champion_version=champion,
    )


def make_candidate(store: Store, folder: Path, number: int = 1, decision: PromotionDecision | None = None) -> Candidate:
    """A candidate whose adapter differs by ``number``; nothing was trained."""
    source = folder / f"adapter-{number}"
    source.mkdir(exist_ok=True)
    (source / "adapter_config.json").write_text(f'{{"r": {number}}}')
    model = folder / "base"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    rows = store.write_rows([], kind="messages", passed=["scrubbed", "decontaminated"])
    table = store.write_table(pa.table({"id": pa.array([], pa.string())}), kind="table")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(model), license="apache-2.0", num_parameters=130_000)
    return make_from(store.add_folder(source), base, rows, table, decision or decide())


def make_from(adapter: Any, base: BaseLanguageModel, rows: Any, table: Any, decision: PromotionDecision) -> Candidate:
    """A candidate around an adapter."""
    plan = TrainingPlan(
        method="sft",
        num_rows=100,
        num_tokens=1000,
        num_steps=10,
        micro_batch_size=1,
        accumulation_steps=1,
        max_length_tokens=64,
        num_truncated_rows=0,
        precision="fp32",
        device="cpu",
        num_parameters=130_000,
        num_trainable_parameters=1_000,
        memory_bytes={},
        estimated_seconds=1.0,
    )
    trained = TrainingResult(
        method="sft",
        base=base,
        adapter=adapter,
        dataset=rows.model_copy(update={"sha256": "d" * 64}),
        plan=plan,
        num_steps=10,
        num_tokens=1000,
        seconds=1.0,
        curves=table,
    )
    scores = tuple(
        ArmScores(
            arm=arm,
            model_sha256="a" * 64,
            examples=table,
            scores=(
                Measurement(name="chrf", value=value, low=value - 0.1, high=value + 0.1, num_samples=250),
                Measurement(name="format_valid", value=None),
            ),
        )
        for arm, value in (("base", 0.2), ("candidate", 0.5))
    )
    return Candidate(
        model_name="desk",
        run_name="desk-20261101-020000",
        trained=trained,
        scores=BenchmarkReport(dataset=rows, arms=scores),
        decision=decision,
        lineage={"snapshot_sha256": "b" * 64, "train_sha256": "c" * 64},
    )
