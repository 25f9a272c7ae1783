"""Searches, within the budget, for the learning rate, rank and epochs of a retrain, and the best of several base models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect import flow

from flows.mix import mix_sources
from flows.prepare import prepare_dataset
from flows.support.config import RetrainConfig, load_config, sent_to_prefect
from flows.support.gpu_pool import gpu_slot
from flows.support.run_names import name_of
from tasks import benchmark, registry, splitting, training
from tasks.contracts.evaluation import ArmScores
from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import Mixture, Split
from tasks.contracts.references import FolderRef
from tasks.contracts.training import BaseLanguageModel, SearchedBase, SearchReport, SearchTrial
from tasks.core.documents import parse_yaml, read_text
from tasks.core.errors import BudgetError, InputError, StoreError
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(name="search", persist_result=True, result_serializer=CONTRACTS, flow_run_name=name_of("search-{config.name}"))
def search(config: RetrainConfig, num_trials: int, study_uri: str) -> SearchReport:
    """The trials on the rows that a retrain would train on; a later retrain reuses the preparation.

    Args:
        config: The whole configuration; ``training.search`` is the space, ``training.budget`` limits all trials together.
        num_trials: Total number of trials on each base model; a repeated search with a larger number continues the study.
        study_uri: Database that keeps the study, such as ``sqlite:////srv/perennial/search.db``.
    """
    config = sent_to_prefect(config)
    store = open_store(config.store).uri
    sources = (config.training.base_model, *config.training.search.base_models)
    bases = [training.resolve_base_model(source, store, config.training.sft.lora) for source in sources]
    examples = prepare_dataset(config.examples, config.prepare, store, config.name)
    mixture = mix_sources(examples, config)
    rows = splitting.split(mixture.dataset, config.prepare.splitting)
    if len(bases) > 1:  # Every base model can take the rows before any is trained.
        bases = [training.check_test_rows(base, rows.validation, None) for base in bases]
    registry.claim_names(config.registry, config.name)
    reports: list[SearchReport] = []
    for base in bases:
        taken = [trial for report in reports for trial in report.trials]
        try:
            report = training.search_sft(
                base=base,
                train=rows.train,
                validation=rows.validation,
                config=config.training,
                snapshots=mixture.snapshots,
                experiment=config.name,
                study_uri=study_uri,
                num_trials=num_trials,
                device_hours_used=sum(trial.device_hours for trial in taken),
                cost_used=sum(trial.cost or 0.0 for trial in taken),
            )
        except BudgetError as error:
            if not reports:
                raise
            left_out = ", ".join(each.name for each in bases[len(reports) :])
            note = f"the budget ended the search before {left_out}: {error.found}; expected {error.expected}"
            reports[-1] = reports[-1].model_copy(update={"notes": (*reports[-1].notes, note)})
            break
        reports.append(report)
    return reports[0] if len(reports) == 1 else compare_bases(bases[: len(reports)], reports, rows, mixture, config)


def compare_bases(
    bases: Sequence[BaseLanguageModel],
    reports: Sequence[SearchReport],
    rows: Split,
    mixture: Mixture,
    config: RetrainConfig,
) -> SearchReport:
    """The report of the base model whose best trial answers the validation rows best, with all of them side by side.

    The frozen test set has no part: it stays unseen for the retrain. Beside each stands its base model, untrained, as the
    plain prompt of the prompting baselines.

    Args:
        bases: The base models.
        reports: The search of each.
        rows: Train and validation rows.
        mixture: The mixed rows, for their snapshots.
        config: The whole configuration.
    """
    scoring = config.benchmark.of_examples_alone().model_copy(
        update={"max_examples": min(config.fit.max_examples, config.benchmark.max_examples or config.fit.max_examples)}
    )
    adapters = [_adapter_of(base, report, rows, mixture, config) for base, report in zip(bases, reports, strict=True)]
    with gpu_slot():
        untrained = [benchmark.score_model("base", base, None, rows.validation, scoring) for base in bases]
        trained = [
            benchmark.score_model("candidate", base, adapter, rows.validation, scoring)
            for base, adapter in zip(bases, adapters, strict=True)
        ]
    ranking = benchmark.rank_models(tuple(trained), config.promotion.primary_metric, scoring)
    best, second = ranking.order[:2]
    metric, lead = ranking.metric, ranking.lead
    searched = tuple(
        SearchedBase(
            base=base,
            winner=report.winner,
            num_trials=len(report.trials),
            untrained=_score(before, metric),
            score=_score(after, metric),
            reply_tokens=_score(after, "tokens_out"),
        )
        for base, report, before, after in zip(bases, reports, untrained, trained, strict=True)
    )
    notes = [note for report in reports for note in report.notes]
    if metric != config.promotion.primary_metric:
        notes.append(f"{config.promotion.primary_metric} is per token and does not compare tokenizers: compared by {metric}")
    if lead.low is not None and lead.high is not None and lead.low <= 0 <= lead.high:
        notes.append(
            f"{bases[best].name} is not shown to differ from {bases[second].name}: {metric} {lead.value:+.3f} "
            f"({lead.low:+.3f} to {lead.high:+.3f}, {lead.num_samples} validation rows)"
        )
    return reports[best].model_copy(
        update={
            "bases": searched,
            "best_base": best,
            "metric": metric,
            "notes": tuple(dict.fromkeys(notes)),
            "currency": config.training.budget.currency,
        }
    )


def _adapter_of(
    base: BaseLanguageModel, report: SearchReport, rows: Split, mixture: Mixture, config: RetrainConfig
) -> FolderRef:
    """The adapter of the best trial, trained again where the store lost it."""
    winner = report.winner
    if winner.adapter is not None and open_store(config.store).holds(winner.adapter):
        return winner.adapter
    best = with_trial(config.training.sft, winner)
    trained = training.train_sft(
        base, rows.train, rows.validation, best, mixture.snapshots, config.name, config.training.budget
    )
    return trained.adapter


def with_trial(sft: training.SftConfig, trial: SearchTrial) -> training.SftConfig:
    """The settings of a trial."""
    update: dict[str, Any] = {"learning_rate": trial.learning_rate}
    if trial.num_train_epochs is not None:
        update["num_train_epochs"] = trial.num_train_epochs
    if trial.r is not None and sft.lora is not None:
        update["lora"] = sft.lora.model_copy(update={"r": trial.r})
    return sft.model_copy(update=update)


def _score(arm: ArmScores, metric: str) -> Measurement:
    return arm.score(metric) or Measurement(name=metric, value=None)


def base_lines(report: SearchReport) -> list[tuple[str, ...]]:
    """The base models as aligned columns, in the order of the configuration; empty for a search over one."""
    if not report.bases:
        return []
    head: tuple[str, ...] = ("base model", report.metric, "untrained", "reply tokens", "memory", "training")
    return [
        head,
        *(_base_line(each, number == report.best_base, report.currency) for number, each in enumerate(report.bases)),
    ]


def _base_line(searched: SearchedBase, is_best: bool, currency: str) -> tuple[str, ...]:
    winner = searched.winner
    return (
        f"{searched.base.name}{' (best)' if is_best else ''}",
        _figure(searched.score),
        "–" if searched.untrained.value is None else f"{searched.untrained.value:.3f}",
        "–" if searched.reply_tokens.value is None else f"{searched.reply_tokens.value:.1f}",
        f"{winner.peak_memory_bytes / 1e9:.2f} GB",
        f"{winner.device_hours:.3f} h" if winner.cost is None else f"{winner.cost:.2f} {currency}",
    )


def _figure(score: Measurement) -> str:
    if score.value is None:
        return "–"
    return f"{score.value:.3f}" + ("" if score.low is None or score.high is None else f" ({score.low:.3f}–{score.high:.3f})")


def trial_lines(report: SearchReport) -> list[tuple[str, ...]]:
    """The trials as aligned columns, best first, those without a loss last."""
    head: tuple[str, ...] = ("learning_rate", "epochs", "r", "validation loss", "device-hours")
    ordered = sorted(report.trials, key=lambda trial: (trial.eval_loss is None, trial.eval_loss or 0.0))
    rows: list[tuple[str, ...]] = [
        (
            f"{trial.learning_rate:g}",
            "–" if trial.num_train_epochs is None else f"{trial.num_train_epochs:g}",
            "–" if trial.r is None else str(trial.r),
            trial.outcome if trial.eval_loss is None else f"{trial.eval_loss:.4f}",
            f"{trial.device_hours:.3f}",
        )
        for trial in ordered
    ]
    return [head, *rows]


def check_out(out: Path) -> None:
    """Rejects an existing output file before the search starts.

    Raises:
        InputError: The file exists.
    """
    if out.exists():
        raise InputError(str(out), "a file that exists", "a new file", "Name another, or move it away.")


def write_winner(source: Path, out: Path, report: SearchReport) -> None:
    """Writes the configuration with the settings of the best trial; comments are lost.

    Args:
        source: The configuration of the search.
        out: The new file.
        report: The report of the search.

    Raises:
        InputError: ``out`` exists.
        StoreError: It cannot be written.
    """
    check_out(out)
    document = parse_yaml(read_text(source))
    chosen = document.setdefault("training", {})
    if report.best_base:  # the best base model changes places with the configured one
        others = chosen["search"]["base_models"]
        place = report.best_base - 1
        chosen["base_model"], others[place] = others[place], chosen.get("base_model") or {}
    sft = chosen.setdefault("sft", {})
    winner = report.winner
    sft["learning_rate"] = winner.learning_rate
    if winner.num_train_epochs is not None:
        sft["num_train_epochs"] = winner.num_train_epochs
    if winner.r is not None:
        sft.setdefault("lora", {})["r"] = winner.r
    head = (
        f"# {source.name} with the best of {len(report.trials)} trials of `perennial search`: validation loss "
        f"{winner.eval_loss:.4f}, study {report.study}.\n"
    )
    if report.bases:
        best = report.bases[report.best_base]
        head += f"# Best of {len(report.bases)} base models: {best.base.name}, {report.metric} {_figure(best.score)}.\n"
    try:
        out.write_text(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise StoreError(str(out), error.strerror or "an error", "a writable place", "Name another file.") from error
    load_config(out)
