"""Measures, before training, whether another prompt makes the base model sufficient."""

from __future__ import annotations

from prefect import flow

from flows.support.gpu_pool import gpu_slot
from flows.support.run_names import name_of
from tasks import benchmark, prompting
from tasks.contracts.evaluation import PromptingVerdict
from tasks.contracts.preparation import Split
from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(
    name="prompting-baselines",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name=name_of("prompting-baselines-{base.name}"),
)
def measure_prompting_baselines(
    store_uri: str,
    base: BaseLanguageModel,
    rows: Split,
    frozen: DatasetRef,
    settings: prompting.FitConfig,
    scoring: benchmark.BenchmarkConfig,
) -> PromptingVerdict:
    """The verdict on whether to train; the benchmark reuses the base model's own replies.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The base model.
        rows: Train and validation rows; few-shot examples come from the train rows.
        frozen: The frozen evaluation set.
        settings: Prompts, target, and whether the verdict stops the run.
        scoring: Metrics and generation.
    """
    open_store(store_uri)
    scores = []
    if settings.enabled:
        affordable = scoring.model_copy(
            update={"max_examples": min(settings.max_examples, scoring.max_examples or settings.max_examples)}
        )
        prompts = prompting.prompt_arms(frozen, rows.train, settings)
        with gpu_slot():
            scores.append(benchmark.score_model("base", base, None, frozen, scoring))
            scores += [benchmark.score_model(prompt.arm, base, None, prompt.dataset, affordable) for prompt in prompts]
    return prompting.measure_prompting_baselines(tuple(scores), frozen, rows.train, settings, scoring.max_examples)
