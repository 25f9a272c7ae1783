"""The whole pipeline on one page: a snapshot of raw examples becomes an evaluated, registered and documented model version.

Every call is a node of the DAG; each stage's settings are one section of the configuration. A node whose inputs and code
have not changed reuses its earlier result, from this run or any other.
"""

from __future__ import annotations

from prefect import flow, runtime

from flows.benchmark import benchmark_models
from flows.mix import mix_sources
from flows.prepare import prepare_dataset
from flows.promote import promote_candidate
from flows.prompting_baselines import measure_prompting_baselines
from flows.support.approvals import hand_over
from flows.support.config import RetrainConfig, sent_to_prefect
from flows.support.gpu_pool import cancel_children, on_gpu_pool, on_gpu_pool_if
from flows.support.outcomes import shown_as_state
from flows.support.requests import RunRequest, as_requested, reason_of, starter_of
from flows.support.run_names import scheduled_run_name
from flows.train import train_adapter
from tasks import groundtruth, promotion, redteam, refresh, registry, splitting, training
from tasks.contracts.run import RetrainOutcome, RunFindings
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(
    name="retrain",
    flow_run_name=scheduled_run_name(),
    persist_result=True,
    result_serializer=CONTRACTS,
    on_cancellation=[cancel_children],
    on_crashed=[cancel_children],
)
def retrain(config: RetrainConfig, request: RunRequest | None = None) -> RetrainOutcome:
    """Retrains one model and promotes the result if it is proven better; "not promoted" is a normal, explained outcome.

    Args:
        config: The whole configuration; see docs/configuration.md.
        request: Why a person or an alert starts the run, and how it differs from the configuration.
    """
    config = as_requested(sent_to_prefect(config), request)
    store = open_store(config.store).uri

    # 1. A base model that cannot be trained, and attacks that its chat template cannot write, end the run here. Prepare: raw
    #    rows become training rows; quarantined rows are kept, with their reason.
    base = training.resolve_base_model(config.training.base_model, store, config.training.sft.lora)
    base = redteam.check_probes(base, config.redteam)
    examples = prepare_dataset(config.examples, config.prepare, store, config.name)
    preferences = config.preferences
    pairs = (
        prepare_dataset(preferences, config.prepare, store, config.name, examples.fresh, kind="preferences")
        if preferences
        else None
    )

    # 2. Mix in further sources and split. No near-duplicate cluster is on both sides; both exclude the frozen and fresh
    #    test sets.
    mixture = mix_sources(examples, config)
    rows = splitting.split(mixture.dataset, config.prepare.splitting)
    pair_rows = splitting.split(pairs.dataset, config.prepare.splitting) if pairs else None

    # 3. Prompting baselines: does the base model suffice with a prompt, examples or retrieval? Measured before training.
    base = training.check_test_rows(
        base,
        examples.frozen,
        examples.fresh.dataset if examples.fresh else None,
        pair_rows.train if pair_rows else None,
        config.training.preference,
    )
    prompting = on_gpu_pool_if(
        config.fit.enabled,
        measure_prompting_baselines,
        store_uri=store,
        base=base,
        rows=rows,
        frozen=examples.frozen,
        settings=config.fit,
        scoring=config.benchmark,
    )

    # 4. Train on the GPU pool, once experiment and registered model belong to this installation: LoRA SFT from the base on
    #    all rows, or from the champion's adapter on those new to it and some to replay; then, on the same adapter, DPO or
    #    KTO on the pairs and GRPO by rewards where configured.
    registry.claim_names(config.registry, config.name)
    start = registry.find_start(
        config.registry,
        start_from=config.training.start_from,
        base=base,
        rows=rows.train,
        frozen=examples.frozen,
    )
    chosen = refresh.choose_training_rows(rows, start, replay=config.training.replay, seed=config.prepare.splitting.seed)
    trained = on_gpu_pool(
        train_adapter,
        store_uri=store,
        base=base,
        mixture=mixture,
        rows=chosen.rows,
        pairs=pairs,
        pair_rows=pair_rows,
        settings=config.training,
        experiment=config.name,
        start=chosen.start,
    )

    # 5. Evaluate: base, candidate and champion get the same frozen and fresh examples and the same attacks. The decision
    #    requires a proven difference.
    champion = registry.find_champion(config.registry)
    scores = on_gpu_pool(
        benchmark_models,
        store_uri=store,
        base=base,
        candidate=trained.adapter,
        champion=champion,
        frozen=examples.frozen,
        settings=config.benchmark,
        findings=tuple(source.scrub.findings for source in (examples, *mixture.prepared, pairs) if source),
        attacks=config.redteam,
        fresh=examples.fresh,
    )
    decision = promotion.decide_promotion(scores, config.promotion, champion)

    # 6. Measure the stages against planted ground truth, if configured.
    ground_truth = groundtruth.measure_against_truth(config.truth, examples, pairs)

    # 7. Register, then promote, request approval or hold, and write the dossier; in a separate run if one is deployed.
    findings = RunFindings(
        run_name=runtime.flow_run.name or "",
        model_name=config.name,
        reason=reason_of(request),
        started_by=starter_of(request),
        settings=config.model_dump(mode="json"),
        examples=examples,
        preferences=pairs,
        mixture=mixture,
        split=rows,
        fit=prompting,
        start=chosen.reason,
        sft=trained.sft,
        dpo=trained.dpo,
        kto=trained.kto,
        grpo=trained.grpo,
        merged=trained.merged,
        benchmark=scores,
        decision=decision,
        truth=ground_truth,
        flow_run_id=runtime.flow_run.id,
        flow_run_url=runtime.flow_run.ui_url,
    )
    handed_over = hand_over(store, findings, config.registry, config.dossier)
    return shown_as_state(handed_over or promote_candidate(store, findings, config.registry, config.dossier))
