"""Searches, within the budget, for the learning rate, rank and number of epochs of a retrain."""

from __future__ import annotations

from pathlib import Path

import yaml
from prefect import flow

from flows.mix import mix_sources
from flows.prepare import prepare_dataset
from flows.support.config import RetrainConfig, load_config, sent_to_prefect
from flows.support.run_names import name_of
from tasks import registry, splitting, training
from tasks.contracts.training import SearchReport
from tasks.core.documents import parse_yaml, read_text
from tasks.core.errors import InputError, StoreError
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(name="search", persist_result=True, result_serializer=CONTRACTS, flow_run_name=name_of("search-{config.name}"))
def search(config: RetrainConfig, num_trials: int, study_uri: str) -> SearchReport:
    """The trials on the rows that a retrain would train on; a later retrain reuses the preparation.

    Args:
        config: The whole configuration; ``training.search`` is the space, ``training.budget`` limits all trials together.
        num_trials: Total number of trials; a repeated search with a larger number continues the study.
        study_uri: Database that keeps the study, such as ``sqlite:////srv/perennial/search.db``.
    """
    config = sent_to_prefect(config)
    store = open_store(config.store).uri
    examples = prepare_dataset(config.examples, config.prepare, store, config.name)
    mixture = mix_sources(examples, config)
    rows = splitting.split(mixture.dataset, config.prepare.splitting)
    base = training.resolve_base_model(config.training.base_model, store)
    registry.claim_names(config.registry, config.name)
    return training.search_sft(
        base=base,
        train=rows.train,
        validation=rows.validation,
        config=config.training,
        snapshots=mixture.snapshots,
        experiment=config.name,
        study_uri=study_uri,
        num_trials=num_trials,
    )


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
    sft = document.setdefault("training", {}).setdefault("sft", {})
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
    try:
        out.write_text(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise StoreError(str(out), error.strerror or "an error", "a writable place", "Name another file.") from error
    load_config(out)
