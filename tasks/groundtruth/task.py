"""The measurement against planted ground truth as a Prefect task."""

from __future__ import annotations

from tasks.contracts.evaluation import GroundTruthReport
from tasks.contracts.preparation import PreparedDataset
from tasks.core.stage import stage, stage_progress
from tasks.groundtruth.config import GroundTruthConfig
from tasks.groundtruth.page import figures_table


@stage(unit="data sets", page=figures_table, title="Measured precision and recall of the stages")
def measure_against_truth(
    config: GroundTruthConfig, examples: PreparedDataset, preferences: PreparedDataset | None
) -> GroundTruthReport:
    """Precision and recall of every data stage on the planted faults; empty when the configuration names no list of them.

    Raises:
        InputError: The list cannot be read, or belongs to other data files.
    """
    from tasks.groundtruth.measuring import Tally, measure_prepared
    from tasks.groundtruth.planted import check_source, faults_in, read_planted_faults

    if config.path is None:
        return GroundTruthReport()
    progress, tally = stage_progress(), Tally()
    faults = read_planted_faults(config.path)
    check_source(config.path, faults, examples.snapshot.source_uri)
    prepared = [examples, *([preferences] if preferences is not None else [])]
    for number, dataset in enumerate(prepared, start=1):
        measure_prepared(dataset, faults_in(dataset.snapshot.source_uri, faults), tally)
        progress(number, len(prepared))
    report = GroundTruthReport(measurements=tally.measurements())
    progress.summarize(f"{len(report.measurements)} figures from {len(faults)} planted faults")
    return report
