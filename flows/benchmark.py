"""The same examples, and the same attacks, for the base model, the candidate, and the champion when one reigns."""

from __future__ import annotations

from prefect import flow

from flows.gpu import gpu_slot
from tasks import benchmark, redteam
from tasks.contracts import (
    ArmScores,
    BaseLanguageModel,
    BenchmarkReport,
    Champion,
    DatasetRef,
    FolderRef,
    FreshScores,
    FreshSet,
    RedTeamReport,
)
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
    findings: tuple[DatasetRef, ...],
    attacks: redteam.RedTeamConfig,
    fresh: FreshSet | None = None,
) -> BenchmarkReport:
    """Per-example scores of every arm; an arm that was scored before on the same examples is not scored again.

    Args:
        base: The base model, the first opponent.
        candidate: The adapter to judge.
        champion: The reigning champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
        findings: What the scrubber replaced in each source that was trained on, which no model may know.
        attacks: Settings of the red team.
        fresh: The newest rows, or why there are none.
    """
    newest, red_team = fresh.dataset if fresh else None, None
    with gpu_slot():
        arms = _score_arms(base, candidate, champion, frozen, settings)
        on_newest = _score_arms(base, candidate, champion, newest, settings.of_examples_alone()) if newest else ()
        if attacks.enabled:
            probed = [
                redteam.probe_model("base", base, None, findings, attacks),
                redteam.probe_model("candidate", base, candidate, findings, attacks),
            ]
            if champion is not None:
                probed.append(redteam.probe_model("champion", champion.base, champion.adapter, findings, attacks))
            red_team = RedTeamReport(arms=tuple(probed))
    report = BenchmarkReport(
        dataset=frozen,
        arms=arms,
        red_team=red_team,
        fresh=FreshScores(dataset=newest, arms=on_newest) if newest else None,
        no_fresh=fresh.reason if fresh else "",
    )
    # A judge is an endpoint elsewhere; no GPU is held while it is asked.
    return report.model_copy(update={"judgements": benchmark.judge_replies(report, settings)})


def _score_arms(
    base: BaseLanguageModel,
    candidate: FolderRef,
    champion: Champion | None,
    examples: DatasetRef,
    settings: benchmark.BenchmarkConfig,
) -> tuple[ArmScores, ...]:
    """Every arm's scores on the same examples."""
    arms = [
        benchmark.score_model("base", base, None, examples, settings),
        benchmark.score_model("candidate", base, candidate, examples, settings),
    ]
    if champion is not None:
        arms.append(benchmark.score_model("champion", champion.base, champion.adapter, examples, settings))
    return tuple(arms)
