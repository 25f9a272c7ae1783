"""The same examples, and the same attacks, for the base model, the candidate, and the champion when one reigns."""

from __future__ import annotations

from prefect import flow

from flows.gpu import gpu_slot
from tasks import benchmark, redteam
from tasks.contracts import (
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
from tasks.storage import open_store


@flow(
    name="benchmark-models",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name="benchmark-{frozen.num_rows}-examples",
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
    fresh: FreshSet | None = None,
) -> BenchmarkReport:
    """Per-example scores of every arm; an arm that was scored before on the same examples is not scored again.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The base model, the first opponent.
        candidate: The adapter to judge.
        champion: The reigning champion, the second opponent, or None.
        frozen: The frozen evaluation set.
        settings: Metrics and generation.
        findings: What the scrubber replaced in each source that was trained on, which no model may know.
        attacks: Settings of the red team.
        fresh: The newest rows, or why there are none.
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
        if attacks.enabled:
            red_team = RedTeamReport(arms=tuple(redteam.probe_model(*arm, findings, attacks) for arm in arms))
    report = BenchmarkReport(
        dataset=frozen,
        arms=scores,
        red_team=red_team,
        fresh=on_newest,
        no_fresh=fresh.reason if fresh else "",
    )
    # A judge is an endpoint elsewhere; no GPU is held while it is asked.
    return report.model_copy(update={"judgements": benchmark.judge_replies(report, settings)})
