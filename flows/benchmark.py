"""The same examples and the same attacks for the base model, the candidate, and the champion if there is one."""

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
    """Per-example scores of every arm; scores of an arm on the same examples are kept from earlier runs.

    Latency is timed anew in every run, and only where a guard on it is configured.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The base model, the first opponent.
        candidate: The adapter to evaluate.
        champion: The current champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
        findings: What the scrubber replaced in each training source, which no model may know.
        attacks: Settings of the red team.
        fresh: The newest rows, or the reason why there are none.
    """
    open_store(store_uri)
    newest, on_newest, red_team = fresh.dataset if fresh else None, None, None
    arms: list[tuple[str, BaseLanguageModel, FolderRef | None]] = [("base", base, None), ("candidate", base, candidate)]
    if champion is not None:
        arms.append(("champion", champion.base, champion.adapter))
    with gpu_slot():
        scores = tuple(benchmark.score_model(*arm, frozen, settings) for arm in arms)
        if newest:
            alone = settings.of_examples_alone()
            scored = tuple(benchmark.score_model(*arm, newest, alone) for arm in arms)
            on_newest = FreshScores(dataset=newest, arms=scored)
        timed = benchmark.time_in_turns(arms, frozen, settings) if settings.latency else None
        if attacks.enabled:
            red_team = RedTeamReport(arms=tuple(redteam.probe_model(*arm, findings, attacks) for arm in arms))
    report = BenchmarkReport(
        dataset=frozen,
        arms=scores,
        red_team=red_team,
        fresh=on_newest,
        holdout_unavailable_reason=fresh.reason if fresh else "",
        latency=timed,
    )
    # The judge model is an endpoint elsewhere; no GPU is held while it works.
    return report.model_copy(update={"judgements": benchmark.judge_replies(report, settings)})
