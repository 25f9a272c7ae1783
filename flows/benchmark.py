"""Base model, candidate and, if there is one, champion get the same examples and the same attacks."""

from __future__ import annotations

from prefect import flow

from flows.support.gpu_pool import gpu_slot
from flows.support.run_names import name_of
from tasks import benchmark, redteam
from tasks.contracts.evaluation import BenchmarkReport, FreshScores, RedTeamReport
from tasks.contracts.preparation import RecentHoldout
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.registry import Champion
from tasks.contracts.training import BaseLanguageModel
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(
    name="benchmark-models",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name=name_of("benchmark-{frozen.num_rows}-examples"),
)
def benchmark_models(
    store_uri: str,
    base: BaseLanguageModel,
    candidate: FolderRef,
    champion: Champion | None,
    frozen: DatasetRef,
    settings: benchmark.BenchmarkConfig,
    findings: tuple[DatasetRef, ...],
    attacks: redteam.RedTeamConfig,
    fresh: RecentHoldout | None = None,
) -> BenchmarkReport:
    """Per-example scores of every model; scores of a model on the same examples are reused from earlier runs.

    Latency is measured in every run, and only if a guard on it is configured.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The base model, the first opponent.
        candidate: The adapter to evaluate.
        champion: The current champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
        findings: What the scrubber replaced in each training source; no model may reproduce it.
        attacks: Settings of the red team.
        fresh: The newest rows, or the reason for their absence.
    """
    open_store(store_uri)
    newest, on_newest, red_team = fresh.dataset if fresh else None, None, None
    models: list[tuple[str, BaseLanguageModel, FolderRef | None]] = [("base", base, None), ("candidate", base, candidate)]
    if champion is not None:
        models.append(("champion", champion.base, champion.adapter))
    with gpu_slot():
        scores = tuple(benchmark.score_model(*model, frozen, settings) for model in models)
        if newest:
            examples_only = settings.of_examples_alone()
            newest_scores = tuple(benchmark.score_model(*model, newest, examples_only) for model in models)
            on_newest = FreshScores(dataset=newest, arms=newest_scores)
        latency = benchmark.time_in_turns(models, frozen, settings) if settings.latency else None
        if attacks.enabled:
            red_team = RedTeamReport(arms=tuple(redteam.probe_model(*model, findings, attacks) for model in models))
    report = BenchmarkReport(
        dataset=frozen,
        arms=scores,
        red_team=red_team,
        fresh=on_newest,
        holdout_unavailable_reason=fresh.reason if fresh else "",
        latency=latency,
    )
    # The judge model is a remote endpoint; the run holds no GPU while it works.
    return report.model_copy(update={"judgements": benchmark.judge_replies(report, settings)})
