"""The measurement against planted ground truth as a Prefect task."""

from __future__ import annotations

import logging

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.evaluation import GroundTruthReport
from tasks.contracts.preparation import PreparedDataset
from tasks.core.errors import InputError
from tasks.core.progress import report_progress
from tasks.core.stage import stage_task
from tasks.groundtruth.config import TruthConfig

logger = logging.getLogger(__name__)


@stage_task("measure_against_truth")
def measure_against_truth(
    config: TruthConfig, examples: PreparedDataset, preferences: PreparedDataset | None
) -> GroundTruthReport:
    """Precision and recall of every data stage on the planted faults; empty when the configuration names no list of them.

    Raises:
        InputError: The list cannot be read, or belongs to other data files.
    """
    from tasks.groundtruth.measuring import Tally, measure_prepared
    from tasks.groundtruth.planted import faults_of, read_truth

    if config.path is None:
        return GroundTruthReport()
    faults = read_truth(config.path)
    sources = [prepared for prepared in (examples, preferences) if prepared is not None]
    logger.info("truth: measuring the stages against %d planted faults", len(faults))
    tally = Tally()
    with report_progress("measure_against_truth", len(sources), "data sets") as progress:
        for number, prepared in enumerate(sources, start=1):
            planted = faults_of(faults, prepared.snapshot.source_uri)
            if not planted and prepared is examples:
                raise InputError(
                    f"truth.path {config.path}",
                    f"faults of {', '.join(sorted({fault.file or '' for fault in faults}))}",
                    f"faults of {prepared.snapshot.source_uri}",
                    "Name the list that was generated with this data, or remove truth.path.",
                )
            measure_prepared(prepared, planted, tally)
            progress(number)
        report = GroundTruthReport(measurements=tally.measurements())
        progress.finish(f"{len(report.measurements)} figures")
    logger.info("truth: %d figures measured", len(report.measurements))
    if TaskRunContext.get() is not None:
        create_markdown_artifact(_page(report), key="truth", description="Measured precision and recall of the stages")
    return report


def _page(report: GroundTruthReport) -> str:
    lines = ["| figure | value | 95 % interval | n |", "|---|---|---|---|"]
    for figure in report.measurements:
        interval = f"{figure.low:.3f} to {figure.high:.3f}" if figure.low is not None and figure.high is not None else ""
        lines.append(f"| {figure.name} | {figure.value:.3f} | {interval} | {figure.num_samples} |")
    return "\n".join(lines)
