"""The summary of a run that `perennial show` prints, from the dossier's JSON; plain data, light imports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.evaluation import ArmScores
from tasks.contracts.run import RunEvidence
from tasks.core.errors import InputError
from tasks.core.storage import Store
from tasks.dossier.formatting import ARM_NAMES, interval, measured, metric_name, metric_unit, signed
from tasks.dossier.sections.prompting import VERDICTS
from tasks.dossier.verdict import approval_line, verdict_of

_SHOWN = ("rouge_l", "chrf", "bleu", "exact_match", "label_accuracy", "label_macro_f1", "perplexity", "latency_p95_seconds")

Lines = list[tuple[str, ...]]


def folder_of(run: str) -> str:
    """The folder of a run's dossier in the store; no run's name leads elsewhere."""
    return f"dossiers/{_plain(run)}"


def latest_of(model: str) -> str:
    """The file in the store that names the model's run with the newest dossier."""
    return f"latest/{_plain(model)}.txt"


def read_record(store_uri: str, run: str = "latest") -> dict[str, Any]:
    """The evidence of a run from its dossier's JSON.

    Args:
        store_uri: The store that the run wrote to.
        run: The run's name, ``<model>/latest`` for the model's dossier written last, or ``latest`` in a store of one model.

    Raises:
        InputError: There is no such run in this store, or ``latest`` could be that of several models.
    """
    store = Store(store_uri)
    model, _, word = f"/{run}".rpartition("/")
    name = run
    if word == "latest":
        name = (store.read_named(latest_of(model.strip("/") or _only_model(store))) or b"").decode()
    data = store.read_named(f"{folder_of(name)}/dossier.json") if name else None
    if data is None:
        known = store.names_in("dossiers")
        raise InputError(
            f"run {run}",
            f"no dossier in {store.uri}",
            f"one of {', '.join(known[-5:])}" if known else "a finished run",
            "Name one of them, or the store with --store." if known else "Run `perennial retrain` first, or name --store.",
        )
    record: dict[str, Any] = json.loads(data)
    return record


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"


def _only_model(store: Store) -> str:
    """The model of the store's dossiers; ``none`` where there is no dossier.

    Raises:
        InputError: The store has dossiers of several models.
    """
    models = [found.removesuffix(".txt") for found in store.names_in("latest")]
    if len(models) > 1:
        raise InputError(
            "run latest",
            f"dossiers of {', '.join(models)} in {store.uri}",
            "the name of one model",
            f"Name its latest run, such as {models[0]}/latest.",
        )
    return models[0] if models else "none"


def summary_lines(record: Mapping[str, Any], store_uri: str | None = None) -> list[tuple[str, Lines]]:
    """Titled blocks of aligned lines: verdict, scores, reasons, where to read on.

    Args:
        record: What :func:`read_record` returned.
        store_uri: The store of the record; with it the summary ends with the page's address.
    """
    evidence = RunEvidence.model_validate(record)
    verdict = verdict_of(evidence)
    blocks: list[tuple[str, Lines]] = [
        (f"{evidence.run_name}: {verdict.label}", [(verdict.sentence,)]),
        ("Scores on the frozen examples", _scores(evidence)),
        *([("Scores on the newest rows", _fresh_scores(evidence))] if evidence.benchmark.fresh else []),
        ("Why", [(reason,) for reason in evidence.decision.reasons]),
    ]
    if evidence.decision.remedies:
        blocks.append(("What would change it", [(remedy,) for remedy in evidence.decision.remedies]))
    if evidence.fit and evidence.fit.verdict:
        blocks.append((f"Prompting baselines: {VERDICTS[evidence.fit.verdict]}", [(why,) for why in evidence.fit.reasons]))
    places: Lines = [("model", f"{evidence.candidate.name}, version {evidence.candidate.version}")]
    champion = evidence.promotion.champion_version
    places.append(("champion", f"version {champion}" if champion else "none"))
    if evidence.promotion.approval is not None:
        places.append(("approval", approval_line(evidence.promotion.approval)))
    if store_uri is not None:
        store = Store(store_uri)
        folder = store.local_path or store.uri
        places.append(("dossier", f"{folder}/{folder_of(evidence.run_name)}/dossier.html"))
    blocks.append(("Where", places))
    return blocks


def _scores(evidence: RunEvidence) -> Lines:
    arms = [arm for name in ARM_NAMES if (arm := evidence.benchmark.arm(name))]
    differences = {
        comparison.metric: f"{signed(comparison.difference)} ({interval(comparison.low, comparison.high)})"
        for comparison in evidence.decision.comparisons
        if comparison.opponent == "base"
    }
    lines: Lines = [("metric", *(arm.arm for arm in arms), "candidate \u2212 base (95 %)")]
    lines += [
        (
            metric_name(name),
            *(measured(arm.score(name), metric_unit(name)) for arm in arms),
            differences.get(name, ""),
        )
        for name in _measured_names(evidence, arms)
    ]
    return lines


def _fresh_scores(evidence: RunEvidence) -> Lines:
    assert evidence.benchmark.fresh is not None
    arms = [arm for name in ARM_NAMES if (arm := evidence.benchmark.fresh.arm(name))]
    lines: Lines = [("metric", *(arm.arm for arm in arms))]
    lines += [
        (metric_name(name), *(measured(arm.score(name), metric_unit(name)) for arm in arms))
        for name in _measured_names(evidence, arms)
    ]
    return lines


def _measured_names(evidence: RunEvidence, arms: Sequence[ArmScores]) -> list[str]:
    """The metrics of the summary that any arm was measured on, the primary one first."""
    primary = evidence.decision.primary_metric
    names = [primary, *(name for name in _SHOWN if name != primary)]
    return [name for name in names if any((score := arm.score(name)) and score.value is not None for arm in arms)]
