"""From rows and a model to a table of scores, and from the table to aggregates with intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.replies import corpus_scores, text_scores
from tasks.benchmark.slices import SLICE, slices_of
from tasks.bootstrap import Interval, Values, statistic_interval
from tasks.contracts import Measurement
from tasks.estimates import mean_score
from tasks.metrics import METRICS
from tasks.prices import price_of
from tasks.rows import Row, prompt_messages, reply
from tasks.verifiable import format_valid, json_valid, named_label

if TYPE_CHECKING:
    # PyTorch is loaded where a model answers; answers that are kept are scored without it.
    from tasks.modeling.generation import LoadedModel

OnProgress = Callable[[int, int], None]
_Figure = tuple[Interval, int]
"""An aggregate with its interval, and the number of rows behind it."""

ANSWERS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("reply", pa.string()),
        pa.field("completed", pa.bool_()),
        pa.field("tokens_in", pa.int64()),
        pa.field("tokens_out", pa.int64()),
        pa.field("latency_seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("device_name", pa.string()),
        pa.field("reference_nll", pa.float64()),
        pa.field("reference_tokens", pa.int64()),
    ]
)
"""What the model did, before any judgement: kept apart, so that another metric or pattern never generates again."""

_FROZEN = tuple(name for name, metric in METRICS.items() if metric.measured_on == "frozen")
_SCORES = tuple(name for name in _FROZEN if METRICS[name].per_example)
EXAMPLES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("named_label", pa.string()),
        pa.field("reply", pa.string()),
        pa.field("reference_tokens", pa.int64()),
        pa.field("slices", pa.list_(SLICE)),
        *(pa.field(name, pa.float64()) for name in _SCORES),
    ]
)
"""One row per example: a column for each metric that is measured on each frozen example."""


def choose_rows(rows: Iterable[Row], max_examples: int | None) -> list[Row]:
    """The rows to score, sorted by id: all, or those whose ids hash lowest, whatever the order they came in."""
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    return sorted(ranked[:max_examples], key=lambda row: str(row["id"]))


def answer_rows(
    rows: Sequence[Row], loaded: LoadedModel, config: BenchmarkConfig, on_progress: OnProgress | None = None
) -> pa.Table:
    """A model's replies to the rows, and how likely it finds the reference replies (:data:`ANSWERS_SCHEMA`).

    Args:
        rows: Canonical rows, conversations or preference pairs (prompt, and the chosen reply as the reference).
        loaded: The model.
        config: Generation settings.
        on_progress: Told of two steps a row.
    """
    from tasks.modeling.generation import generate_replies, reply_likelihoods

    prompts = [prompt_messages(row) for row in rows]
    num_steps = 2 * len(rows)

    def replied(done: int, _: int) -> None:
        if on_progress:
            on_progress(done, num_steps)

    def weighed(done: int, _: int) -> None:
        if on_progress:
            on_progress(len(rows) + done, num_steps)

    replies = generate_replies(
        loaded, prompts, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, on_progress=replied
    )
    likelihoods = reply_likelihoods(
        loaded, prompts, [reply(row) for row in rows], batch_size=config.batch_size, on_progress=weighed
    )
    return pa.Table.from_pylist(
        [
            {
                "id": row["id"],
                "reply": answer.text,
                "completed": answer.completed,
                "tokens_in": answer.num_prompt_tokens,
                "tokens_out": answer.num_new_tokens,
                "latency_seconds": answer.seconds,
                "device": loaded.device,
                "device_name": loaded.device_name,
                "reference_nll": likelihood.nll,
                "reference_tokens": likelihood.num_tokens,
            }
            for row, answer, likelihood in zip(rows, replies, likelihoods, strict=True)
        ],
        schema=ANSWERS_SCHEMA,
    )


def score_answers(rows: Sequence[Row], answers: Sequence[Mapping[str, Any]], config: BenchmarkConfig) -> pa.Table:
    """The score of every answer (:data:`EXAMPLES_SCHEMA`); null where a metric does not apply to a row.

    A row's label is scored when its own reference names it: where references are prose that never names the label, label
    accuracy is not measured, instead of 0 for every model.
    """
    labels = {row["label"] for row in rows if row.get("label")}
    scored = []
    for row, answer, slices in zip(rows, answers, slices_of(rows), strict=True):
        reference, label = reply(row), row.get("label")
        is_named = bool(label) and named_label(reference, labels, config.label_pattern) == label
        named = named_label(answer["reply"], labels, config.label_pattern) if is_named else None
        scored.append(
            {
                "id": row["id"],
                "label": label,
                "named_label": named,
                "reply": answer["reply"],
                "reference_tokens": answer["reference_tokens"],
                "slices": slices,
                **text_scores(answer["reply"], reference),
                "label_accuracy": float(named == label) if is_named else None,
                "format_valid": format_valid(answer["reply"], config.format_pattern) if config.format_pattern else None,
                "json_valid": json_valid(answer["reply"], config.json_schema) if config.json_schema is not None else None,
                "completed": float(answer["completed"]),
                "nll": answer["reference_nll"] / answer["reference_tokens"] if answer["reference_tokens"] else None,
                "latency_seconds": answer["latency_seconds"],
                "cost_per_1000": _cost_per_1000(answer, config),
                "tokens_in": float(answer["tokens_in"]),
                "tokens_out": float(answer["tokens_out"]),
            }
        )
    return pa.Table.from_pylist(scored, schema=EXAMPLES_SCHEMA)


def aggregate(examples: pa.Table, references: Sequence[str], config: BenchmarkConfig) -> tuple[Measurement, ...]:
    """Every metric that is measured on frozen examples, with its interval.

    What was not measured has no value; it is never 0.

    Args:
        examples: As :func:`score_answers` returns them.
        references: The reference replies, in the same order.
        config: Bootstrap settings and the batch size that latencies are told with.
    """
    frame = examples.to_pandas()
    measured: dict[str, _Figure | None] = {name: _mean(frame[name], config) for name in _SCORES}
    measured |= _quantiles(frame["latency_seconds"], config)
    measured["perplexity"] = _perplexity(frame, config)
    measured["label_macro_f1"] = _macro_f1(frame, config)
    corpus = corpus_scores(list(frame["reply"]), references)
    measured |= {name: _bare(value, len(frame)) for name, value in corpus.items() if value is not None}
    seconds = float(frame["latency_seconds"].sum())
    if seconds > 0:
        speed = float(frame["tokens_out"].sum()) / seconds
        measured["tokens_per_second"] = _bare(speed, len(frame))
    return tuple(_measurement(name, measured.get(name), config) for name in _FROZEN)


def aggregate_retention(general: pa.Table, config: BenchmarkConfig) -> tuple[Measurement, ...]:
    """Every metric that is measured on general questions, with its interval."""
    frame = general.to_pandas()
    names = (name for name, metric in METRICS.items() if metric.measured_on == "general")
    return tuple(_measurement(name, _mean(frame[name], config), config) for name in names)


def _cost_per_1000(answer: Mapping[str, Any], config: BenchmarkConfig) -> float | None:
    """What 1,000 requests like this one cost in device time; None where the table has no price for the device."""
    price = price_of(config.price_per_device_hour or {}, answer["device"], answer["device_name"])
    return None if price is None else 1000 * answer["latency_seconds"] / 3600 * price


_NOTES = {
    "label_accuracy": "No row's reference reply names its label; see benchmark.label_pattern.",
    "label_macro_f1": "No row's reference reply names its label; see benchmark.label_pattern.",
    "format_valid": "No benchmark.format_pattern is configured.",
    "json_valid": "No benchmark.json_schema is configured.",
    "cost_per_1000": "No price for the device that answered; see benchmark.price_per_device_hour.",
    "corpus_bleu": "No reference reply has four words.",
    "bleu": "No reference reply has four words.",
}


def _bare(value: float, num_rows: int) -> _Figure:
    """A figure without an interval."""
    return Interval(value, math.nan, math.nan), num_rows


def _measurement(name: str, figure: _Figure | None, config: BenchmarkConfig) -> Measurement:
    if figure is None:
        return Measurement(name=name, value=None, note=_NOTES.get(name, "Nothing to measure it on."))
    interval, num_rows = figure
    has_interval = not math.isnan(interval.low)
    return Measurement(
        name=name,
        value=interval.estimate,
        low=interval.low if has_interval else None,
        high=interval.high if has_interval else None,
        num_samples=num_rows,
        note=_measured_note(name, config),
    )


def _measured_note(name: str, config: BenchmarkConfig) -> str:
    batches = f"Batches of {config.batch_size}: a batch's wall time over its rows."
    if name == "cost_per_1000":
        return f"{config.currency}. {batches}" if config.currency else batches
    return batches if name.startswith("latency") else ""


def _mean(column: pd.Series[Any], config: BenchmarkConfig) -> _Figure | None:
    values = column.dropna().to_numpy(dtype=np.float64)
    if len(values) == 0:
        return None
    interval = mean_score(values, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed)
    return interval, len(values)


def _statistic(rows: Values, statistic: Callable[[Values], Values], config: BenchmarkConfig) -> _Figure | None:
    if len(rows) == 0:
        return None
    interval = statistic_interval(
        rows, statistic, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed
    )
    return interval, len(rows)


def _quantiles(column: pd.Series[Any], config: BenchmarkConfig) -> dict[str, _Figure | None]:
    values = column.to_numpy(dtype=np.float64)[:, None]
    shares = {"latency_p50_seconds": 0.5, "latency_p95_seconds": 0.95}
    return {
        name: _statistic(values, lambda rows, share=share: np.quantile(rows[..., 0], share, axis=1), config)  # type: ignore[misc]
        for name, share in shares.items()
    }


def _perplexity(frame: pd.DataFrame, config: BenchmarkConfig) -> _Figure | None:
    """exp(total nll / total tokens): long references weigh more, as perplexity is defined."""
    known = frame.dropna(subset=["nll"])
    tokens = known["reference_tokens"].to_numpy(dtype=np.float64)
    rows = np.column_stack([known["nll"].to_numpy(dtype=np.float64) * tokens, tokens])

    def perplexity(resamples: Values) -> Values:
        totals = resamples.sum(axis=1)
        ratio: Values = np.exp(totals[:, 0] / totals[:, 1])
        return ratio

    return _statistic(rows, perplexity, config)


def _macro_f1(frame: pd.DataFrame, config: BenchmarkConfig) -> _Figure | None:
    """F1 per label, averaged over the labels that occur; a reply that names no label is a miss and no false alarm."""
    known = frame.dropna(subset=["label_accuracy"])
    labels = sorted(set(known["label"]))
    code = {label: number for number, label in enumerate(labels)}
    unknown = len(labels)
    rows = np.column_stack(
        [[code[label] for label in known["label"]], [code.get(name, unknown) for name in known["named_label"]]]
    ).astype(np.float64)

    def macro_f1(resamples: Values) -> Values:
        num, width = len(resamples), unknown + 1
        offsets = np.arange(num)[:, None] * width
        given, named = (resamples[..., column].astype(np.int64) + offsets for column in (0, 1))

        def per_label(codes: Any) -> Values:
            counts: Values = np.bincount(codes.ravel(), minlength=num * width).reshape(num, width)[:, :unknown].astype(float)
            return counts

        num_given, num_named, num_right = per_label(given), per_label(named), per_label(given[given == named])
        f1 = 2 * num_right / np.maximum(num_given + num_named, 1)
        occurs = num_given > 0
        mean: Values = (f1 * occurs).sum(axis=1) / occurs.sum(axis=1)
        return mean

    return _statistic(rows, macro_f1, config)
