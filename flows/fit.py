"""Before training is paid for: whether the base model would do, asked in another way."""

from __future__ import annotations

from prefect import flow

from flows.gpu import gpu_slot
from tasks import benchmark, fit
from tasks.contracts import BaseLanguageModel, DatasetRef, FitVerdict, Split
from tasks.stage import CONTRACTS
from tasks.storage import open_store


@flow(name="judge-fit", persist_result=True, result_serializer=CONTRACTS, flow_run_name="judge-fit-{base.name}")
def judge_fit(
    store_uri: str,
    base: BaseLanguageModel,
    rows: Split,
    frozen: DatasetRef,
    settings: fit.FitConfig,
    scoring: benchmark.BenchmarkConfig,
) -> FitVerdict:
    """The verdict on whether to train; the base model's own answers are those that the benchmark needs anyway.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The base model.
        rows: Train and validation rows; examples in a prompt come from the former.
        frozen: The frozen evaluation set.
        settings: Ways of asking, target, and whether the verdict stops the run.
        scoring: Metrics and generation.
    """
    open_store(store_uri)
    scores = []
    if settings.enabled:
        affordable = scoring.model_copy(
            update={"max_examples": min(settings.max_examples, scoring.max_examples or settings.max_examples)}
        )
        ways = fit.prompt_arms(frozen, rows.train, settings)
        with gpu_slot():
            scores.append(benchmark.score_model("base", base, None, frozen, scoring))
            scores += [benchmark.score_model(way.arm, base, None, way.dataset, affordable) for way in ways]
    return fit.judge_fit(tuple(scores), frozen, rows.train, settings, scoring.max_examples)
