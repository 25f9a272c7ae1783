"""`perennial plan`: what a retrain would read, train and compare, and the estimated time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flows.support.config import RetrainConfig
from perennial.operations import understanding
from tasks.contracts.training import BaseLanguageModel, TrainingPlan
from tasks.core.rows import Row
from tasks.core.storage import Store
from tasks.splitting import SplitConfig
from tasks.training import BudgetConfig, DpoConfig, GrpoConfig, KtoConfig, SftConfig

if TYPE_CHECKING:
    from tasks.modeling.profile import BaseProfile
    from tasks.modeling.template_profile import TemplateProfile
    from tasks.training.plan.hardware import Hardware

Block = tuple[str, list[tuple[str, ...]]]

# Measured on two cores with the demo's rows; the first figure is start-up (server, imports), the second per row.
_DATA_SECONDS = (40.0, 0.05)
# English text with common tokenizers; and the tokens that a chat template adds to a question and its answer.
_CHARS_PER_TOKEN, _TEMPLATE_TOKENS = 4.0, 30.0
# Speed of batched generation relative to training on a CPU: it is memory-bound. Measured with 135M parameters.
_GENERATION_SPEED = 0.5


def plan_retrain(settings: RetrainConfig, *, show_row: bool = False) -> list[Block]:
    """Titled blocks of lines. Reads the sources and resolves the base model; trains nothing, registers nothing.

    The last block is :data:`~perennial.operations.understanding.REFUSED` where the run would stop.

    The figures are upper bounds: they count the rows of the sources, before validation, scrubbing and the audit.

    Args:
        settings: The configuration.
        show_row: Whether the text of the first row is shown.

    Raises:
        InputError: A source cannot be read, or holds rows of another kind than its section needs.
    """
    from tasks.modeling.profile import profile_in_store
    from tasks.modeling.resolution import resolve
    from tasks.modeling.template_profile import template_in_store
    from tasks.training.plan.budget import with_price
    from tasks.training.plan.forecasting import forecast, training_speed

    store = Store(settings.store)
    rows, blocks, num_read = _read_examples(settings)
    gates, refusals = understanding.gates_block(rows, "messages", settings.prepare)
    blocks.append(gates)
    shares = _shares(len(rows), settings.prepare.splitting)
    refusals += understanding.refusals_of([lambda: understanding.require_train_rows(shares[0], len(rows))])
    if not shares[0]:
        return [*blocks, _split_block(*shares), understanding.refusal_block(refusals)]
    training, lora = settings.training, settings.training.sft.lora
    base = resolve(training.base_model, store)
    folder = store.fetch_folder(base.folder)
    hardware, flops = _devices(settings)

    def plan_training(
        method: SftConfig | DpoConfig | KtoConfig | GrpoConfig, rows: list[Row], num_eval_rows: int
    ) -> TrainingPlan:
        plan = forecast(
            folder,
            rows,
            method,
            lora=lora,
            hardware=hardware,
            flops_per_second=flops,
            num_eval_rows=num_eval_rows,
        )
        refusals.extend(understanding.training_refusals(plan, hardware, method.max_truncated_share))
        return with_price(plan, training.budget)

    sft = plan_training(training.sft, rows[: shares[0]], shares[1])
    plans = {"sft": sft}
    if settings.preferences:
        pairs, preferences = understanding.read_source_block("preferences", settings.preferences, "preferences")
        gates, refused_pairs = understanding.gates_block(pairs, "preferences", settings.prepare)
        blocks += [preferences, gates]
        refusals += refused_pairs
        num_read += len(pairs)
        if settings_of_pairs := training.preference:
            num_pairs, num_eval_pairs, _ = _shares(len(pairs), settings.prepare.splitting)
            plans[settings_of_pairs.kind] = plan_training(settings_of_pairs, pairs[:num_pairs], num_eval_pairs)
    if training.grpo:
        plans["grpo"] = plan_training(training.grpo, rows[: shares[0]], 0)
    blocks += [
        _split_block(*shares),
        _base_block(base, profile_in_store(store, base.folder), template_in_store(store, base.folder)),
        understanding.row_block(folder, rows, settings, with_text=show_row),
        *map(_plan_block, plans.values()),
    ]
    num_scored = min(shares[2], settings.benchmark.max_examples or shares[2])
    seconds = {
        "prepare": _DATA_SECONDS[0] + _DATA_SECONDS[1] * num_read,
        **_evaluation_seconds(settings, rows, num_scored, sft, training_speed(base.num_parameters, hardware.device, flops)),
        **{method: plan.estimated_seconds for method, plan in plans.items()},
    }
    if training.budget.has_ceiling:
        blocks.append(_budget_block(list(plans.values()), training.budget))
    blocks.append(_time_block(seconds, num_scored, settings))
    if refusals:
        blocks.append(understanding.refusal_block(refusals))
    return blocks


def _read_examples(settings: RetrainConfig) -> tuple[list[Row], list[Block], int]:
    """The mixed rows, a block per source and one for the mixture, and the number of rows read."""
    from tasks.mixing.weighting import mix_rows

    rows, examples = understanding.read_source_block("examples", settings.examples, "messages")
    if not settings.mixture:
        return rows, [examples], len(rows)
    further = [understanding.read_source_block(part.name, part.source, "messages") for part in settings.mixture]
    sources = [
        ("examples", 1.0, rows),
        *((part.name, part.weight, read) for part, (read, _) in zip(settings.mixture, further, strict=True)),
    ]
    mixed, counts = mix_rows(sources, seed=settings.prepare.splitting.seed)
    shares = [
        (name, f"{taken} rows at weight {weight:g} ({taken / max(1, len(mixed)):.0%}), {duplicates} duplicates left out")
        for (name, weight, _), (taken, duplicates) in zip(sources, counts, strict=True)
    ]
    mixture: Block = ("Mixture", [*shares, ("rows", str(len(mixed)))])
    return list[Row](mixed), [examples, *(block for _, block in further), mixture], sum(len(read) for _, _, read in sources)


def _devices(settings: RetrainConfig) -> tuple[Hardware, float]:
    """The hardware and the floating-point operations per second of one device: as declared, else as measured."""
    from tasks.training.plan.hardware import declared_hardware

    if declared := settings.training.hardware:
        return declared_hardware(declared), declared.flops_per_second
    from tasks.training.plan.forecasting import measure_flops
    from tasks.training.plan.hardware import find_hardware

    device = settings.training.sft.device
    return find_hardware(device), measure_flops(device)


def _evaluation_seconds(
    settings: RetrainConfig, rows: list[Row], num_scored: int, sft: TrainingPlan, speed: float
) -> dict[str, float]:
    """Seconds of the stages that generate replies: prompting baselines, benchmark, red team.

    Two models are evaluated, base and candidate; a champion would be a third. The prompting baselines reuse the replies of
    the base model from the benchmark.

    Args:
        settings: The whole configuration.
        rows: The rows of all sources.
        num_scored: Number of frozen examples in the benchmark.
        sft: The plan of supervised training.
        speed: Training tokens per second of one device.
    """
    row_tokens = sft.num_tokens / max(1, sft.num_rows)

    def answers(number: int, prompt_tokens: float, new_tokens: int) -> float:
        """Generation, and one forward pass over each prompt: half of a training pass with frozen weights."""
        return number * (new_tokens / _GENERATION_SPEED + 0.5 * prompt_tokens) / speed

    seconds = {}
    fit, scoring = settings.fit, settings.benchmark
    prompts = _prompt_names(settings, rows)
    if fit.enabled and prompts:
        number = min(num_scored, fit.max_examples)
        added = fit.max_added_chars / _CHARS_PER_TOKEN
        prompt_tokens = sum(2 * row_tokens + (added if name != "prompt" else 0) for name in prompts) / len(prompts)
        seconds[f"fit ({', '.join(prompts)})"] = len(prompts) * answers(number, prompt_tokens, scoring.max_new_tokens)
    # Includes the perplexity of the reference replies.
    seconds["benchmark"] = 2 * answers(num_scored, 2 * row_tokens, scoring.max_new_tokens)
    if scoring.retention:
        seconds["general questions"] = 2 * 0.5 * _count_general_tokens() / speed
    if settings.redteam.enabled:  # seven kinds of prompts, one of them in pairs, and personal values
        number = 9 * settings.redteam.max_probes_per_kind
        seconds["red team"] = 2 * answers(number, row_tokens, settings.redteam.max_new_tokens)
    return seconds


def _prompt_names(settings: RetrainConfig, rows: list[Row]) -> list[str]:
    """Names of the prompting baselines besides the plain prompt."""
    fit = settings.fit
    return [
        *(["prompt"] if fit.prompt else []),
        *(["few-shot"] if fit.num_shots else []),
        *(["retrieval"] if fit.documents or any(row.get("context") for row in rows) else []),
    ]


def _count_general_tokens() -> float:
    """Approximate tokens of the general questions, each counted once per answer."""
    from tasks.benchmark.retention import general_items

    offered = [item.question + choice for item in general_items() for choice in item.choices]
    return sum(_TEMPLATE_TOKENS + len(text) / _CHARS_PER_TOKEN for text in offered)


def _shares(num_rows: int, config: SplitConfig) -> tuple[int, int, int]:
    """Maximum numbers of rows for training, validation and test."""
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


def _base_block(base: BaseLanguageModel, profile: BaseProfile, template: TemplateProfile) -> Block:
    size = f"{base.num_parameters / 1e6:.0f} M parameters"
    lines = [("name", base.name), ("size", size), ("licence", base.license), *profile.summary, *template.summary]
    return "Base model", [tuple(line) for line in lines]


def _plan_block(plan: TrainingPlan) -> Block:
    from tasks.training.plan.budget import amount

    batch = f"{plan.micro_batch_size} x {plan.accumulation_steps}"
    return plan.method.upper(), [
        ("rows", str(plan.num_rows)),
        ("tokens an epoch", str(plan.num_tokens)),
        ("rows cut at max_length", str(plan.num_truncated_rows)),
        ("steps", str(plan.num_steps)),
        ("micro-batch x accumulation", batch),
        ("trainable parameters", f"{plan.num_trainable_parameters / 1e6:.1f} M"),
        ("precision", f"{plan.precision}, quantisation {plan.quantization}"),
        ("device", f"{plan.num_processes} x {plan.device_name}" if plan.device == "cuda" else plan.device_name),
        ("memory", f"{sum(plan.memory_bytes.values()) / 1e9:.1f} GB"),
        ("time", _duration(plan.estimated_seconds)),
        ("device-hours", amount(plan.device_hours)),
        *([] if plan.cost is None else [("price", f"{amount(plan.cost)} {plan.currency}")]),
        *(("note", note) for note in plan.notes),
    ]


def _budget_block(plans: list[TrainingPlan], budget: BudgetConfig) -> Block:
    """The ceilings and the planned use; the run itself decides by the trainer's measured plan."""
    from tasks.training.plan.budget import amount

    lines = []
    if budget.max_device_hours is not None:
        hours, ceiling = sum(plan.device_hours for plan in plans), budget.max_device_hours
        lines.append(("device-hours", _with_verdict(f"{amount(hours)} of {ceiling:g}", hours > ceiling)))
    if budget.max_cost is not None:
        costs = [plan.cost for plan in plans]
        if None in costs:
            lines.append(("cost", _with_verdict(f"no price for {plans[0].device_name}", True)))
        else:
            cost = sum(cost for cost in costs if cost is not None)
            lines.append(
                ("cost", _with_verdict(f"{amount(cost)} of {budget.max_cost:g} {budget.currency}", cost > budget.max_cost))
            )
    return "Budget", [tuple(line) for line in lines]


def _with_verdict(figures: str, is_exceeded: bool) -> str:
    return f"{figures}: training would be rejected" if is_exceeded else figures


def _time_block(seconds: dict[str, float], num_scored: int, settings: RetrainConfig) -> Block:
    lines = [(name, _duration(value)) for name, value in seconds.items()]
    comparison = f"base and candidate on {num_scored} examples, and the champion, if there is one"
    gate = f"{settings.promotion.primary_metric}, policy {settings.promotion.policy}"
    total = sum(seconds.values())
    return "Estimated time", [
        *lines,
        ("total", f"{_duration(total)} (half to twice as long: the rows that stay and the replies' lengths are not known)"),
        ("compares", comparison),
        ("gate", gate),
        understanding.gate_line(settings, num_scored),
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
