"""The measured figures as the run's page shows them."""

from __future__ import annotations

from tasks.contracts.evaluation import GroundTruthReport


def figures_table(report: GroundTruthReport) -> str:
    """The figures as a Markdown table; empty where nothing was measured."""
    rows = []
    for figure in report.measurements:
        interval = f"{figure.low:.3f} to {figure.high:.3f}" if figure.low is not None and figure.high is not None else ""
        rows.append(f"| {figure.name} | {figure.value:.3f} | {interval} | {figure.num_samples} |")
    return "\n".join(["| figure | value | 95 % interval | n |", "|---|---|---|---|", *rows]) if rows else ""
