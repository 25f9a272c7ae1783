"""What `perennial plan` prints: what a retrain would read, train and compare, and about how long it would take."""

from __future__ import annotations

import math

from flows.config import RetrainConfig
from tasks.contracts import BaseLanguageModel, TrainingPlan
from tasks.ingest import SourceConfig
from tasks.rows import Row
from tasks.splitting import SplitConfig
from tasks.storage import Store
from tasks.training import BudgetConfig

Block = tuple[str, list[tuple[str, ...]]]

# Measured on two cores with the demo's rows; the first figure is start-up (server, imports), the second per row.
_DATA_SECONDS = (40.0, 0.05)
# Share of the training speed that batched generation reaches on a CPU: it is bound by memory. Measured, 135M parameters.
_GENERATION_SPEED = 0.5


def plan_retrain(settings: RetrainConfig) -> list[Block]:
    """Titled blocks of lines. Reads the sources and resolves the base model; trains nothing, registers nothing.

    The rows are those of the source: what validation, scrubbing and the audit will remove is not known before they run, so
    the figures are upper bounds.
    """
    from tasks.modeling.resolution import resolve
    from tasks.training.forecasting import forecast, measure_flops
    from tasks.training.planning import with_price

    store = Store(settings.store)
    rows, examples = _read("examples", settings.examples)
    num_train, num_validation, num_test = _shares(len(rows), settings.prepare.splitting)
    base = resolve(settings.training.base_model, store)
    folder = store.fetch_folder(base.folder)
    sft_settings, lora = settings.training.sft, settings.training.sft.lora
    flops = measure_flops(sft_settings.device)
    sft = forecast(folder, base.num_parameters, rows[:num_train], sft_settings, lora=lora, flops_per_second=flops)
    sft = with_price(sft, settings.training.budget)
    plans = [sft]
    blocks: list[Block] = [examples, _split_block(num_train, num_validation, num_test), _base_block(base), _plan_block(sft)]
    seconds = {"prepare": _DATA_SECONDS[0] + _DATA_SECONDS[1] * len(rows), "sft": sft.estimated_seconds}
    if settings.preferences:
        pairs, preferences = _read("preferences", settings.preferences)
        blocks.insert(1, preferences)
        seconds["prepare"] += _DATA_SECONDS[1] * len(pairs)
        if settings.training.dpo:
            dpo_settings = settings.training.dpo
            dpo = forecast(folder, base.num_parameters, pairs, dpo_settings, lora=lora, flops_per_second=flops)
            dpo = with_price(dpo, settings.training.budget)
            plans.append(dpo)
            blocks.append(_plan_block(dpo))
            seconds["dpo"] = dpo.estimated_seconds
    num_scored = min(num_test, settings.benchmark.max_examples or num_test)
    speed = sft.num_tokens * sft.num_epochs / max(sft.estimated_seconds, 1e-9) * _GENERATION_SPEED
    seconds["benchmark"] = 2 * num_scored * settings.benchmark.max_new_tokens / max(speed, 1e-9)
    if settings.redteam.enabled:  # seven kinds of prompts, one of them in pairs, and personal values
        num_attacks = 9 * settings.redteam.max_probes_per_kind
        seconds["red team"] = 2 * num_attacks * settings.redteam.max_new_tokens / max(speed, 1e-9)
    if settings.training.budget.has_ceiling:
        blocks.append(_budget_block(plans, settings.training.budget))
    blocks.append(_time_block(seconds, num_scored, settings))
    return blocks


def _read(name: str, source: SourceConfig) -> tuple[list[Row], Block]:
    from tasks.ingest.reading import read_source
    from tasks.ingest.snapshot import make_snapshot

    raw = read_source(source.path, encoding=source.encoding, hub_split=source.hub_split, hub_revision=source.hub_revision)
    result = make_snapshot(raw, source, on_progress=lambda done, total: None)
    reasons = sorted({str(row["reason"]) for row in result.refused})
    lines = [
        ("source", source.path),
        ("format", result.input_format),
        ("rows", str(len(result.rows))),
        ("refused", f"{len(result.refused)} ({', '.join(reasons)})" if reasons else "0"),
    ]
    return list(result.rows), (name.capitalize(), [tuple(line) for line in lines])


def _shares(num_rows: int, config: SplitConfig) -> tuple[int, int, int]:
    """Rows to train on, to validate on and to test on, at most."""
    num_test = min(math.ceil(num_rows * config.test_share), config.max_test_rows or num_rows)
    left = num_rows - num_test
    num_validation = min(math.ceil(left * config.validation_share), config.max_validation_rows or left)
    return left - num_validation, num_validation, num_test


def _split_block(num_train: int, num_validation: int, num_test: int) -> Block:
    return "Split (at most)", [
        ("train", str(num_train)),
        ("validation", str(num_validation)),
        ("frozen test", str(num_test)),
    ]


def _base_block(base: BaseLanguageModel) -> Block:
    size = f"{base.num_parameters / 1e6:.0f} M parameters"
    return "Base model", [("name", base.name), ("size", size), ("licence", base.license)]


def _plan_block(plan: TrainingPlan) -> Block:
    from tasks.training.planning import amount

    batch = f"{plan.micro_batch_size} x {plan.accumulation_steps}"
    return plan.method.upper(), [
        ("rows", str(plan.num_rows)),
        ("tokens an epoch", str(plan.num_tokens)),
        ("rows cut at max_length", str(plan.num_truncated_rows)),
        ("steps", str(plan.num_steps)),
        ("micro-batch x accumulation", batch),
        ("trainable parameters", f"{plan.num_trainable_parameters / 1e6:.1f} M"),
        ("precision", f"{plan.precision}, quantisation {plan.quantization}"),
        ("device", plan.device),
        ("memory", f"{sum(plan.memory_bytes.values()) / 1e9:.1f} GB"),
        ("time", _duration(plan.estimated_seconds)),
        ("device-hours", amount(plan.device_hours)),
        *([] if plan.cost is None else [("price", f"{amount(plan.cost)} {plan.currency}")]),
        *(("note", note) for note in plan.notes),
    ]


def _budget_block(plans: list[TrainingPlan], budget: BudgetConfig) -> Block:
    """The ceilings beside what training would take; the run itself judges by the trainer's own, measured plan."""
    from tasks.training.planning import amount

    lines = []
    if budget.max_device_hours is not None:
        hours, ceiling = sum(plan.device_hours for plan in plans), budget.max_device_hours
        lines.append(("device-hours", _against(f"{amount(hours)} of {ceiling:g}", hours > ceiling)))
    if budget.max_cost is not None:
        costs = [plan.cost for plan in plans]
        if None in costs:
            lines.append(("cost", _against(f"no price for {plans[0].device_name}", True)))
        else:
            cost = sum(cost for cost in costs if cost is not None)
            lines.append(
                ("cost", _against(f"{amount(cost)} of {budget.max_cost:g} {budget.currency}", cost > budget.max_cost))
            )
    return "Budget", [tuple(line) for line in lines]


def _against(figures: str, refused: bool) -> str:
    return f"{figures}: training would be refused" if refused else figures


def _time_block(seconds: dict[str, float], num_scored: int, settings: RetrainConfig) -> Block:
    lines = [(name, _duration(value)) for name, value in seconds.items()]
    comparison = f"base and candidate on {num_scored} examples, the champion too when one reigns"
    gate = f"{settings.promotion.primary_metric}, policy {settings.promotion.policy}"
    return "Estimated time", [*lines, ("in all", _duration(sum(seconds.values()))), ("compares", comparison), ("gate", gate)]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
