"""Section on training: the split, the plan beside the actual figures, the loss curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tasks.contracts.run import RunEvidence
from tasks.contracts.training import TrainingResult
from tasks.dossier.blocks import Block, Bullets, Cell, Details, Plot, Row, Section, Table, Text
from tasks.dossier.formatting import NOT_MEASURED, amount, count, duration, magnitude, measured, method_name, size, words
from tasks.dossier.plots import plot_curves
from tasks.dossier.report_data import ReportData


def training_section(evidence: RunEvidence, data: ReportData) -> Section:
    """Rows, plan and actual figures, and the curves of every training step."""
    split = evidence.split
    intro = (
        f"{count(split.train.num_rows)} rows to train on, {count(split.validation.num_rows)} for validation, in "
        f"{count(split.num_groups)} groups of near duplicates, each entirely on one side. "
        f"Training started from {evidence.start}."
    )
    blocks: list[Block] = [Text(intro)]
    plots = []
    for result in evidence.steps:
        name, curve = method_name(result), data.curves[result.method]
        if curve.train or curve.held_out:
            plots.append(Plot(plot_curves(curve.train, curve.held_out, f"{name} loss by step"), f"{name}: loss by step."))
    if plots:
        blocks.append(Row(plots))
    blocks.append(_plan_table(evidence.steps))
    for result in evidence.steps:
        figures = [f"{words(figure.name)}: {measured(figure, 'ratio')}." for figure in result.measurements]
        notes = [*result.plan.notes, *result.events]
        if figures or notes:
            inner: list[Block] = [Bullets(figures)] if figures else []
            inner += [Bullets(notes)] if notes else []
            blocks.append(Details(f"{method_name(result)}: figures and events", inner))
    return Section("training", "Training", blocks)


def _size(num_bytes: int) -> str:
    return size(num_bytes) if num_bytes else NOT_MEASURED


def _price(cost: float | None, result: TrainingResult) -> str:
    return "no price" if cost is None else f"{amount(cost)}\u202f{result.plan.currency}"


def _plan_table(results: Sequence[TrainingResult]) -> Table:
    lines: list[tuple[str, Callable[[TrainingResult], str], Callable[[TrainingResult], str]]] = [
        ("Steps", lambda r: count(r.plan.num_steps), lambda r: count(r.num_steps)),
        ("Tokens", lambda r: count(round(r.plan.num_tokens * r.plan.num_epochs)), lambda r: count(r.num_tokens)),
        ("Time", lambda r: duration(r.plan.estimated_seconds), lambda r: duration(r.seconds)),
        ("Memory", lambda r: _size(sum(r.plan.memory_bytes.values())), lambda r: _size(r.peak_memory_bytes)),
        ("Device-hours", lambda r: amount(r.plan.device_hours), lambda r: amount(r.device_hours)),
    ]
    if any(result.cost is not None for result in results):
        lines.append(("Cost", lambda r: _price(r.plan.cost, r), lambda r: _price(r.cost, r)))
    planned_only: list[tuple[str, Callable[[TrainingResult], str]]] = [
        ("Rows", lambda r: count(r.num_rows)),
        ("Rows cut to length", lambda r: f"{count(r.plan.num_truncated_rows)} at {count(r.plan.max_length_tokens)} tokens"),
        ("Batch", lambda r: f"{r.plan.micro_batch_size} \u00d7 {r.plan.accumulation_steps}"),
        ("Trainable", lambda r: f"{magnitude(r.plan.num_trainable_parameters)} of {magnitude(r.plan.num_parameters)}"),
        ("Device", lambda r: f"{r.plan.device}, {r.plan.precision}"),
        ("Attempts", lambda r: count(r.num_attempts)),
        ("Adapter", lambda r: size(r.adapter.size_bytes)),
    ]
    rows: list[list[Cell]] = [
        [Cell(name), *(Cell(actual(result), f"planned {planned(result)}") for result in results)]
        for name, planned, actual in lines
    ]
    rows += [[Cell(name), *(Cell(value(result)) for result in results)] for name, value in planned_only]
    return Table(("Plan and actual", *(method_name(result) for result in results)), rows)
