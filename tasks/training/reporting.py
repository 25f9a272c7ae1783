"""One training as a page in Prefect: plan against actual, losses, events. Figures only, no record's text."""

from __future__ import annotations

from tasks.contracts.training import TrainingResult
from tasks.training.plan.budget import amount


def training_table(result: TrainingResult) -> str:
    """A short Markdown page."""
    plan = result.plan
    speed = result.num_tokens / result.seconds if result.seconds else 0.0
    rows = [
        ("steps", f"{plan.num_steps}", f"{result.num_steps}"),
        ("tokens", f"{plan.num_tokens * plan.num_epochs:.0f}", f"{result.num_tokens}"),
        ("seconds", f"{plan.estimated_seconds:.0f}", f"{result.seconds:.0f}"),
        ("memory, GB", f"{sum(plan.memory_bytes.values()) / 1e9:.2f}", f"{result.peak_memory_bytes / 1e9:.2f}"),
        ("device-hours", amount(plan.device_hours), amount(result.device_hours)),
    ]
    if plan.cost is not None and result.cost is not None:
        rows.append((f"cost, {plan.currency}", amount(plan.cost), amount(result.cost)))
    batch = f"{plan.micro_batch_size} x {plan.accumulation_steps} x {plan.num_processes}"
    return "\n".join(
        [
            f"{result.method.upper()} on {result.base.name}: {result.num_rows} rows, {plan.num_trainable_parameters:,} of "
            f"{plan.num_parameters:,} parameters, {speed:.0f} tokens/s on {plan.device_name or plan.device}, "
            f"{result.num_attempts} attempts.",
            "",
            "| what | planned | actual |",
            "|---|---|---|",
            *(f"| {name} | {planned} | {actual} |" for name, planned, actual in rows),
            "",
            "| setting | value |",
            "|---|---|",
            f"| precision, quantisation | {plan.precision}, {plan.quantization} |",
            f"| micro-batch x accumulation x processes | {batch} |",
            f"| gradient checkpointing, packing | {plan.gradient_checkpointing}, {plan.packing} |",
            *(f"| {m.name} | {'not measured' if m.value is None else f'{m.value:.4g}'} |" for m in result.measurements),
            "",
            *(f"- {note}" for note in (*plan.notes, *result.events)),
        ]
    )
