"""The same frozen examples, and the same attacks, for the base model, the candidate, and the champion when one reigns."""

from __future__ import annotations

from prefect import flow

from flows.gpu import gpu_slot
from tasks import benchmark, redteam
from tasks.contracts import BaseLanguageModel, BenchmarkReport, Champion, DatasetRef, FolderRef, RedTeamReport
from tasks.stage import CONTRACTS


@flow(
    name="benchmark-models",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name="benchmark-{frozen.num_rows}-examples",
)
def benchmark_models(
    base: BaseLanguageModel,
    candidate: FolderRef,
    champion: Champion | None,
    frozen: DatasetRef,
    settings: benchmark.BenchmarkConfig,
    findings: DatasetRef,
    attacks: redteam.RedTeamConfig,
) -> BenchmarkReport:
    """Per-example scores of every arm; an arm that was scored before on the same examples is not scored again.

    Args:
        base: The base model, the first opponent.
        candidate: The adapter to judge.
        champion: The reigning champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
        findings: What the scrubber replaced, which no model may know.
        attacks: Settings of the red team.
    """
    with gpu_slot():
        arms = [
            benchmark.score_model("base", base, None, frozen, settings),
            benchmark.score_model("candidate", base, candidate, frozen, settings),
        ]
        if champion is not None:
            arms.append(benchmark.score_model("champion", champion.base, champion.adapter, frozen, settings))
        report = BenchmarkReport(dataset=frozen, arms=tuple(arms))
        report = report.model_copy(update={"judgements": benchmark.judge_replies(report, settings)})
        if not attacks.enabled:
            return report
        probed = [
            redteam.probe_model("base", base, None, findings, attacks),
            redteam.probe_model("candidate", base, candidate, findings, attacks),
        ]
        if champion is not None:
            probed.append(redteam.probe_model("champion", champion.base, champion.adapter, findings, attacks))
        return report.model_copy(update={"red_team": RedTeamReport(arms=tuple(probed))})
