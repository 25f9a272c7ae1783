"""The benchmark of one model as a Prefect task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from tasks.benchmark.config import BenchmarkConfig, JudgeConfig
from tasks.contracts.evaluation import ArmScores, BenchmarkReport, LatencyRounds, ModelRanking, PairwiseJudgeResult
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.cache_key import cached_measurements, content_of
from tasks.core.errors import InputError, LineageError
from tasks.core.pages import measurement_table
from tasks.core.progress import StageProgress
from tasks.core.rows import Row, prompt_messages, reply
from tasks.core.secrets import load_secret
from tasks.core.source_hash import file_of, libraries_of
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, run_store, sha256_of_file, sha256_of_json
from tasks.modeling.devices import answering_device

if TYPE_CHECKING:
    from tasks.modeling.generation import LoadedModel

logger = logging.getLogger(__name__)

_ANSWERS_VERSION = 5
"""Raised when generation would give other replies for the same model, rows and settings."""
_LM_EVAL_VERSION = 2
"""Raised when the same tasks would be run or read differently."""
_RETENTION_VERSION = 2
"""Raised when general questions would be scored differently for the same model."""


@stage(
    unit="steps",
    page=lambda scores: measurement_table("metric", scores.scores, unit="examples", digits=4),
    key=lambda scores: f"scores-{scores.arm}",
    title=lambda scores: f"Scores of the {scores.arm} model",
)
def score_model(
    arm: str, base: BaseLanguageModel, adapter: FolderRef | None, dataset: DatasetRef, config: BenchmarkConfig
) -> ArmScores:
    """One model's scores on the frozen examples and on general questions: a table of each, and aggregates with intervals.

    A model's replies are kept in the store under the model, the rows, the generation settings and the device: neither a
    candidate that becomes champion nor a changed metric generates again. Their times are kept beside them for information:
    no table that is compared contains them, so that the same model and rows give the same tables on any day.

    Args:
        arm: The model's part in the comparison: ``base``, ``candidate`` or ``champion``.
        base: The base model.
        adapter: The adapter on top of it, or None for the base itself.
        dataset: The frozen examples, conversations or preference pairs.
        config: Generation and scoring.

    Raises:
        InputError: There is no example, or no task of a configured name.
        MissingDependencyError: Tasks of lm-eval are configured, and it is not installed.
    """
    from tasks.benchmark.scoring import aggregate, aggregate_retention, choose_rows, score_answers
    from tasks.benchmark.slices import slice_scores

    store = run_store()
    rows = choose_rows(store.read_rows(dataset), config.max_examples)
    if not rows:
        raise InputError(
            f"benchmark data set {dataset.sha256[:12]}",
            "no rows",
            "frozen examples",
            "Set prepare.splitting to freeze more, or give it more rows.",
        )
    model_sha256 = sha256_of_json({"base": base.folder.sha256, "adapter": adapter.sha256 if adapter else None})

    @cache
    def loaded() -> LoadedModel:
        from tasks.modeling.stored import load_stored_model

        return load_stored_model(base, adapter)

    progress = stage_progress()
    progress(0, 2 * len(rows))
    kept, timed = _kept_answers(store, model_sha256, loaded, dataset, rows, config, progress)
    harness = _measure_lm_eval(store, model_sha256, loaded, config) if config.lm_eval else ()
    general = _score_general(store, model_sha256, loaded, config) if config.retention else None
    answers = store.read_rows(kept)
    table = score_answers(rows, answers, config)
    references = [answer.get("reference") or reply(row) for row, answer in zip(rows, answers, strict=True)]
    examples = store.write_table(table, kind="table", parents=[dataset, kept])
    scores = ArmScores(
        arm=arm,
        model_sha256=model_sha256,
        examples=examples,
        scores=(
            *aggregate(table, store.read_table(timed), references, config),
            *(aggregate_retention(store.read_table(general), config) if general else ()),
            *harness,
        ),
        general=general,
        slices=store.write_table(slice_scores(table, config), kind="table", parents=[examples]),
    )
    progress.summarize(_summary(scores, len(rows)))
    return scores


@stage(unit="models")
def rank_models(arms: tuple[ArmScores, ...], metric: str, config: BenchmarkConfig) -> ModelRanking:
    """The models by a metric on the same examples, best first, with the paired lead of the first.

    Args:
        arms: The scores of each model.
        metric: What to rank by; ``chrf`` stands in for one per token.
        config: Settings of the interval.

    Raises:
        InputError: The metric was not measured on two examples of every model.
    """
    from tasks.benchmark.ranking import comparable_metric, rank

    store, metric = run_store(), comparable_metric(metric)
    tables = [store.read_table(arm.examples, columns=["id", metric, "tokens_out"]) for arm in arms]
    ranking = rank([table.to_pandas().set_index("id").sort_index() for table in tables], metric, config)
    stage_progress().summarize(f"{len(arms)} models by {metric}")
    return ranking


@stage(cached=False, unit="batches")
def time_in_turns(
    arms: Sequence[tuple[str, BaseLanguageModel, FolderRef | None]], dataset: DatasetRef, config: BenchmarkConfig
) -> LatencyRounds | None:
    """Candidate and opponent timed in turns, anew in every run; None when it is off or there is no opponent.

    Args:
        arms: Name, base model and adapter of each model.
        dataset: The frozen examples.
        config: The timing (``latency``), and the maximum length of a reply.
    """
    settings = config.latency
    models = {name: (base, adapter) for name, base, adapter in arms}
    if settings is None or settings.opponent not in models:
        return None
    from tasks.benchmark.latency import time_models
    from tasks.benchmark.scoring import choose_rows
    from tasks.modeling.stored import load_stored_model

    rows = choose_rows(run_store().read_rows(dataset), settings.max_examples)
    candidate, opponent = load_stored_model(*models["candidate"]), load_stored_model(*models[settings.opponent])
    rounds = time_models(
        candidate,
        opponent,
        [prompt_messages(row) for row in rows],
        num_rounds=settings.num_rounds,
        max_new_tokens=config.max_new_tokens,
        batch_size=settings.batch_size,
        on_progress=stage_progress(),
    )
    stage_progress().summarize(f"{len(rounds)} rounds over {len(rows)} examples")
    return LatencyRounds(opponent=settings.opponent, num_examples=len(rows), device=answering_device(), rounds=rounds)


@stage(cached=False, unit="replies")
def judge_replies(report: BenchmarkReport, config: BenchmarkConfig) -> tuple[PairwiseJudgeResult, ...]:
    """How often a language model prefers the candidate's replies to each opponent's; nothing when the judge is off.

    Verdicts are kept in the store, so that a resumed run sends only open pairs. The task itself is not cached, because an
    endpoint that was away may be back. A pair without a verdict counts as unjudged.

    Args:
        report: The scored arms.
        config: The judge, and the seed of its intervals.

    Raises:
        LineageError: The examples did not pass the scrubber, so they may not leave the machine.
    """
    if not config.judge.enabled:
        return ()
    from tasks.benchmark.judging import Judge, Pair, judge_pairs
    from tasks.benchmark.scoring import choose_rows

    frozen, settings = report.dataset, config.judge
    if "scrubbed" not in frozen.passed:
        raise LineageError(
            f"benchmark data set {frozen.sha256[:12]}",
            f"gates {', '.join(frozen.passed) or 'none'}",
            "scrubbed examples, because a judge may be on another machine",
            "Use the frozen set of `prepare`, or set benchmark.judge.enabled to false.",
        )
    store = run_store()
    replies = {arm.arm: _replies(store, arm) for arm in report.arms}
    answered = (row for row in store.read_rows(frozen) if row["id"] in replies["candidate"])
    rows = choose_rows(answered, settings.max_examples)
    judgements = []
    with Judge(settings, _judge_key(settings), store) as judge:
        for opponent in (name for name in replies if name != "candidate"):
            pairs = [Pair(row, replies["candidate"][row["id"]], replies[opponent][row["id"]]) for row in rows]
            judgements.append(judge_pairs(opponent, pairs, judge, settings, config.seed))
    stage_progress().summarize("; ".join(map(_judgement_line, judgements)))
    return tuple(judgements)


def _replies(store: Store, arm: ArmScores) -> dict[str, str]:
    return {row["id"]: row["reply"] for row in store.read_table(arm.examples, columns=["id", "reply"]).to_pylist()}


def _judge_key(config: JudgeConfig) -> str | None:
    """The key, from the Prefect Secret block when one is named, else from the environment."""
    return load_secret("benchmark.judge.key_block", variable=config.key_env, block=config.key_block)


def _judgement_line(result: PairwiseJudgeResult) -> str:
    return (
        f"against {result.opponent}: {result.num_wins} won, {result.num_ties} tied, {result.num_losses} lost, "
        f"{result.num_unjudged} unjudged"
    )


def _kept_answers(
    store: Store,
    model_sha256: str,
    loaded: Callable[[], LoadedModel],
    dataset: DatasetRef,
    rows: list[Row],
    config: BenchmarkConfig,
    progress: StageProgress,
) -> tuple[DatasetRef, DatasetRef]:
    """The model's replies and their times, from the store if both are there, else from the model."""
    from tasks.benchmark.scoring import answer_rows

    key = _answers_key(model_sha256, dataset, config)
    names = f"answers/{key}", f"timings/{key}"
    answers, timings = (store.read_pointer(name) for name in names)
    if answers is None or timings is None or not store.holds(answers) or not store.holds(timings):
        tables = answer_rows(rows, loaded(), config, progress)
        answers, timings = (store.write_table(table, kind="table", parents=[dataset]) for table in tables)
        refs = zip(names, (answers, timings), strict=True)
        answers, timings = (store.ensure_pointer(name, ref) for name, ref in refs)
    return answers, timings


def _score_general(
    store: Store, model_sha256: str, loaded: Callable[[], LoadedModel], config: BenchmarkConfig
) -> DatasetRef:
    """The model's scores on the general questions, kept in the store under the model and the questions."""
    from tasks.benchmark.retention import ITEMS_FILE, general_items, score_retention

    items = sha256_of_file(ITEMS_FILE)
    key = {
        "version": _RETENTION_VERSION,
        "model": model_sha256,
        "items": items,
        "libraries": _libraries(),
        "batch_size": config.batch_size,
        "outside": dict(config.external_fingerprints()),
    }
    name = f"retention/{sha256_of_json(key)}"
    kept = store.read_pointer(name)
    if kept is None or not store.holds(kept):
        logger.info("benchmark: model %s on general questions", model_sha256[:12])
        table = store.write_table(score_retention(general_items(), loaded(), batch_size=config.batch_size), kind="table")
        kept = store.ensure_pointer(name, table)
    return kept


def _measure_lm_eval(
    store: Store, model_sha256: str, loaded: Callable[[], LoadedModel], config: BenchmarkConfig
) -> tuple[Measurement, ...]:
    """The results of the configured lm-eval tasks, kept in the store under the model, the tasks and their files."""
    from tasks.benchmark.lm_eval_tasks import measure_tasks

    settings = config.lm_eval
    assert settings is not None

    def measure() -> tuple[Measurement, ...]:
        logger.info("benchmark: model %s on %d tasks of lm-eval", model_sha256[:12], len(settings.tasks))
        return measure_tasks(loaded(), settings, batch_size=config.batch_size)

    key = {
        "version": _LM_EVAL_VERSION,
        "model": model_sha256,
        "tasks": content_of(settings),
        "libraries": _libraries(),
        "outside": dict(config.external_fingerprints()),
    }
    return cached_measurements(store, "lm-eval", key, measure)


def _libraries() -> Mapping[str, str]:
    """The versions of the libraries that generate: other kernels or another tokenizer may give other replies."""
    return libraries_of(file_of("tasks.modeling.generation"))


def _answers_key(model_sha256: str, dataset: DatasetRef, config: BenchmarkConfig) -> str:
    """The hash of everything that the replies depend on."""
    generation = config.model_dump(include={"max_new_tokens", "batch_size", "max_examples"})
    return sha256_of_json(
        {
            "version": _ANSWERS_VERSION,
            "libraries": _libraries(),
            "model": model_sha256,
            "rows": dataset.sha256,
            "generation": generation,
            "outside": dict(config.external_fingerprints()),
        }
    )


def _summary(scores: ArmScores, num_rows: int) -> str:
    shown = [score for name in ("chrf", "rouge_l", "label_accuracy") if (score := scores.score(name))]
    figures = ", ".join(f"{score.name} {score.value:.3f}" for score in shown if score.value is not None)
    return f"{scores.arm}: {num_rows} examples, {figures}"
