"""The same frozen examples answered by the base model, the candidate, and the champion when one reigns."""

from __future__ import annotations

from prefect import flow

from tasks import benchmark
from tasks.contracts import BaseLanguageModel, BenchmarkReport, Champion, DatasetRef, FolderRef


@flow(
    name="benchmark-models",
    persist_result=True,
    result_serializer="json",
    flow_run_name="benchmark-{frozen.num_rows}-examples",
)
def benchmark_models(
    base: BaseLanguageModel,
    candidate: FolderRef,
    champion: Champion | None,
    frozen: DatasetRef,
    settings: benchmark.BenchmarkConfig,
) -> BenchmarkReport:
    """Per-example scores of every arm; an arm that was scored before on the same examples is not scored again.

    Args:
        base: The base model, the first opponent.
        candidate: The adapter to judge.
        champion: The reigning champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
    """
    arms = [
        benchmark.score_model("base", base, None, frozen, settings),
        benchmark.score_model("candidate", base, candidate, frozen, settings),
    ]
    if champion is not None:
        arms.append(benchmark.score_model("champion", champion.base, champion.adapter, frozen, settings))
    return BenchmarkReport(dataset=frozen, arms=tuple(arms))
