"""The whole job on one page: a snapshot of raw examples becomes a judged, registered and explained model version.

Every line is a node of the DAG; each stage's settings are one section of the configuration. A node that was done before
on the same content is not done again, in this run or any other.
"""

from __future__ import annotations

from prefect import flow, runtime

from flows.approving import hand_over
from flows.benchmark import benchmark_models
from flows.config import RetrainConfig, sent_to_prefect
from flows.fit import judge_fit
from flows.gpu import cancel_children, on_gpu_pool
from flows.mix import mix_sources
from flows.naming import name_when_due
from flows.prepare import prepare_dataset
from flows.promote import promote_candidate
from flows.request import RunRequest, as_requested, reason_of
from flows.train import train_adapter
from tasks import groundtruth, promotion, registry, splitting, training
from tasks.contracts import RetrainOutcome, RunFindings
from tasks.stage import CONTRACTS
from tasks.storage import open_store


@flow(
    name="retrain",
    flow_run_name=name_when_due(),
    persist_result=True,
    result_serializer=CONTRACTS,
    on_cancellation=[cancel_children],
    on_crashed=[cancel_children],
)
def retrain(config: RetrainConfig, request: RunRequest | None = None) -> RetrainOutcome:
    """Retrains one model and promotes the result if it proves better; "no" is a normal, explained outcome.

    Args:
        config: The whole configuration; see docs/configuration.md.
        request: Why a person starts it, and what is to differ this time.
    """
    config = as_requested(sent_to_prefect(config), request)
    store = open_store(config.store).uri

    # 1. Prepare: raw rows become rows that may be trained on; what is refused is kept, with its reason.
    examples = prepare_dataset(config.examples, config.prepare, store, config.name)
    asked = config.preferences
    pairs = prepare_dataset(asked, config.prepare, store, config.name, examples.fresh) if asked else None

    # 2. Mix in further sources, where there are any, and split: no near-duplicate cluster stands on both sides; the frozen
    #    and fresh test sets are already out of both.
    mixture = mix_sources(examples, config)
    rows = splitting.split(mixture.dataset, config.prepare.splitting)
    pair_rows = splitting.split(pairs.dataset, config.prepare.splitting) if pairs else None

    # 3. Fit: would the base model do with a prompt, examples or retrieval? Asked, where the GPUs are, before training is
    #    paid for.
    base = training.resolve_base_model(config.training.base_model, store)
    ways = (store, base, rows, examples.frozen, config.fit, config.benchmark)
    verdict = on_gpu_pool(judge_fit, *ways) if config.fit.enabled else judge_fit(*ways)

    # 4. Train, once it is sure that experiment and registered model are nobody else's: LoRA SFT on the rows, then DPO or KTO
    #    on the pairs and GRPO by rewards where asked for, on top of the same adapter; where the GPUs are.
    registry.claim_names(config.registry, config.name)
    trained = on_gpu_pool(train_adapter, store, base, mixture, rows, pairs, pair_rows, config.training, config.name)

    # 5. Judge: the same frozen and fresh examples and attacks for base, candidate and champion; the difference must be
    #    proven.
    champion = registry.find_champion(config.registry)
    fresh = examples.fresh
    found = tuple(source.scrub.findings for source in (examples, *mixture.prepared, pairs) if source)
    arms = (base, trained.adapter, champion)
    scores = on_gpu_pool(benchmark_models, store, *arms, examples.frozen, config.benchmark, found, config.redteam, fresh)
    decision = promotion.decide_promotion(scores, config.promotion, champion)

    # 6. Measure the stages against planted ground truth, where the configuration names one.
    truth = groundtruth.measure_against_truth(config.truth, examples, pairs)

    # 7. Register, promote, ask or hold, and leave the dossier behind; in a run that may wait, where one is deployed.
    findings = RunFindings(
        run_name=runtime.flow_run.name or "",
        model_name=config.name,
        reason=reason_of(request),
        settings=config.model_dump(mode="json"),
        examples=examples,
        preferences=pairs,
        mixture=mixture,
        split=rows,
        fit=verdict,
        sft=trained.sft,
        dpo=trained.dpo,
        kto=trained.kto,
        grpo=trained.grpo,
        merged=trained.merged,
        benchmark=scores,
        decision=decision,
        truth=truth,
        flow_run_id=runtime.flow_run.id,
        flow_run_url=runtime.flow_run.ui_url,
    )
    handed_over = hand_over(store, findings, config.registry, config.dossier)
    return handed_over or promote_candidate(store, findings, config.registry, config.dossier)
