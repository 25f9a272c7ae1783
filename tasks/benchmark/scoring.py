"""From rows and a model to a table of scores, and from the table to aggregates with intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.benchmark.config import BenchmarkConfig, TokenPrices
from tasks.benchmark.replies import corpus_scores, text_scores
from tasks.benchmark.slices import SLICE, slices_of
from tasks.contracts.measurement import Measurement
from tasks.core.rows import Row, prompt_messages, reply, reply_messages
from tasks.measures.metrics import METRICS
from tasks.measures.placeholders import has_placeholder
from tasks.measures.prices import price_of
from tasks.measures.reply_checks import format_valid, json_valid, named_label
from tasks.measures.tool_calls import call_scores, calls_in, calls_of, schemas_of
from tasks.stats.bootstrap import Interval, Values, statistic_interval
from tasks.stats.estimates import mean_score

if TYPE_CHECKING:
    # PyTorch is imported only where a model generates; stored replies are scored without it.
    from tasks.modeling.generation import LoadedModel

OnProgress = Callable[[int, int], None]
_Figure = tuple[Interval, int]
"""An aggregate with its interval, and the number of rows behind it."""

ANSWERS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("reply", pa.string()),
        pa.field("completed", pa.bool_()),
        pa.field("prompt_cut", pa.bool_()),
        pa.field("reply_limit", pa.int64()),
        pa.field("tokens_in", pa.int64()),
        pa.field("tokens_out", pa.int64()),
        pa.field("reference_nll", pa.float64()),
        pa.field("reference_tokens", pa.int64()),
        pa.field("reference", pa.string()),
    ]
)
"""The model's replies before any scoring: stored apart, so that another metric or pattern never generates again.
``reference`` is a reference reply with calls in the form of the chat template, null for one without."""

TIMINGS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("latency_seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("device_name", pa.string()),
    ]
)
"""The time of each reply, under the machine's load at that time. No table that is compared contains it."""

_RIGHTNESS = (
    *("chrf", "rouge_l", "bleu", "meteor_exact_stem", "exact_match"),
    *("call_decision", "call_name", "argument_f1", "call_sequence"),
)
"""Scores that compare a reply with its reference."""
_FROZEN = tuple(name for name, metric in METRICS.items() if metric.measured_on == "frozen")
_SCORES = tuple(name for name in _FROZEN if METRICS[name].per_example)
EXAMPLES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("named_label", pa.string()),
        pa.field("reply", pa.string()),
        pa.field("reference_tokens", pa.int64()),
        pa.field("reply_limit", pa.int64()),
        pa.field("slices", pa.list_(SLICE)),
        *(pa.field(name, pa.float64()) for name in _SCORES),
    ]
)
"""One row per example: a column for each metric that is measured on each frozen example."""


def choose_rows(rows: Iterable[Row], max_examples: int | None) -> list[Row]:
    """The rows to score, sorted by id: all, or those with the lowest hashes of their ids, in any order of input."""
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    return sorted(ranked[:max_examples], key=lambda row: str(row["id"]))


def answer_rows(
    rows: Sequence[Row], loaded: LoadedModel, config: BenchmarkConfig, on_progress: OnProgress | None = None
) -> tuple[pa.Table, pa.Table]:
    """A model's replies to the rows with the likelihoods of the reference replies, and the time of each reply.

    Args:
        rows: Canonical rows, conversations or preference pairs (prompt, and the chosen reply as the reference).
        loaded: The model.
        config: Generation settings.
        on_progress: Called with two steps a row.

    Returns:
        Tables of :data:`ANSWERS_SCHEMA` and :data:`TIMINGS_SCHEMA`, in the order of the rows.
    """
    from tasks.modeling.conversations import reply_as_written
    from tasks.modeling.generation import generate_replies, reply_likelihoods, reply_limit

    prompts = [prompt_messages(row) for row in rows]
    expected = [reply_messages(row)[0] for row in rows]
    num_steps = 2 * len(rows)

    def replied(done: int, _: int) -> None:
        if on_progress:
            on_progress(done, num_steps)

    def scored(done: int, _: int) -> None:
        if on_progress:
            on_progress(len(rows) + done, num_steps)

    replies = generate_replies(
        loaded, prompts, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, on_progress=replied
    )
    likelihoods = reply_likelihoods(loaded, prompts, expected, batch_size=config.batch_size, on_progress=scored)
    limit = reply_limit(loaded, config.max_new_tokens)
    timings = [
        {
            "id": row["id"],
            "latency_seconds": answer.seconds,
            "device": loaded.device,
            "device_name": loaded.device_name,
        }
        for row, answer in zip(rows, replies, strict=True)
    ]
    answers = pa.Table.from_pylist(
        [
            {
                "id": row["id"],
                "reply": answer.text,
                "completed": answer.completed,
                "prompt_cut": answer.prompt_cut or likelihood.cut,
                "reply_limit": limit,
                "tokens_in": answer.num_prompt_tokens,
                "tokens_out": answer.num_new_tokens,
                "reference_nll": likelihood.nll,
                "reference_tokens": likelihood.num_tokens,
                "reference": reply_as_written(loaded.tokenizer, prompt, message) if message.get("tool_calls") else None,
            }
            for row, answer, likelihood, prompt, message in zip(rows, replies, likelihoods, prompts, expected, strict=True)
        ],
        schema=ANSWERS_SCHEMA,
    )
    return answers, pa.Table.from_pylist(timings, schema=TIMINGS_SCHEMA)


def score_answers(rows: Sequence[Row], answers: Sequence[Mapping[str, Any]], config: BenchmarkConfig) -> pa.Table:
    """The score of every answer (:data:`EXAMPLES_SCHEMA`); null where a metric does not apply to a row.

    A row's label is scored when its own reference names it: where references are prose that never names the label, label
    accuracy is not measured, rather than 0 for every model. A reply with a placeholder is right by no comparison with its
    reference, even an equal one; and how likely a reference with a placeholder is says nothing good of a model.
    """
    labels = {row["label"] for row in rows if row.get("label")}
    scored = []
    for row, answer, slices in zip(rows, answers, slices_of(rows), strict=True):
        reference, label = answer.get("reference") or reply(row), row.get("label")
        is_named = bool(label) and named_label(reference, labels, config.label_pattern) == label
        named = named_label(answer["reply"], labels, config.label_pattern) if is_named else None
        holds = has_placeholder(answer["reply"], config.placeholder_pattern)
        learned_one = has_placeholder(reference, config.placeholder_pattern)
        compared = {**text_scores(answer["reply"], reference), **_call_scores(row, answer["reply"], reference)}
        if holds:
            compared |= {name: 0.0 for name in _RIGHTNESS if compared.get(name) is not None}
        scored.append(
            {
                "id": row["id"],
                "label": label,
                "named_label": named,
                "reply": answer["reply"],
                "reference_tokens": answer["reference_tokens"],
                "reply_limit": answer["reply_limit"],
                "slices": slices,
                **compared,
                "placeholder_rate": float(holds),
                "label_accuracy": float(named == label) if is_named else None,
                "format_valid": format_valid(answer["reply"], config.format_pattern) if config.format_pattern else None,
                "json_valid": json_valid(answer["reply"], config.json_schema) if config.json_schema is not None else None,
                "completed": float(answer["completed"]),
                "prompt_cut": float(answer["prompt_cut"]),
                "nll": _nll(answer) if not learned_one else None,
                "tokens_in": float(answer["tokens_in"]),
                "tokens_out": float(answer["tokens_out"]),
                "token_cost_per_1000": _token_cost_per_1000(answer, config.token_prices),
            }
        )
    return pa.Table.from_pylist(scored, schema=EXAMPLES_SCHEMA)


def _call_scores(row: Row, given: str, reference: str) -> dict[str, float | None]:
    """The scores of calls; none for a row whose reference has calls in a form that is not known."""
    expected, tools = calls_of(reply_messages(row)[0]), row.get("tools") or ()
    if calls_in(reference, schemas_of(tools)) != expected:
        return {}
    return call_scores(given, expected, tools)


def aggregate(
    examples: pa.Table, timings: pa.Table, references: Sequence[str], config: BenchmarkConfig
) -> tuple[Measurement, ...]:
    """Every metric that is measured on frozen examples, with its interval.

    A metric that was not measured has no value; it is never 0.

    Args:
        examples: As :func:`score_answers` returns them.
        timings: Of the same replies, see :data:`TIMINGS_SCHEMA`.
        references: The reference replies, in the same order.
        config: Bootstrap settings, and the batch size for the note on latencies.
    """
    frame = examples.to_pandas()
    measured: dict[str, _Figure | None] = {name: _mean(frame[name], config) for name in _SCORES}
    measured |= _time_taken(timings.to_pandas(), float(frame["tokens_out"].sum()), config)
    measured["perplexity"] = _perplexity(frame, config)
    measured["label_macro_f1"] = _macro_f1(frame, config)
    corpus = corpus_scores(list(frame["reply"].mask(frame["placeholder_rate"] == 1, "")), references)
    measured |= {name: _bare(value, len(frame)) for name, value in corpus.items() if value is not None}
    figures = [_measurement(name, measured.get(name), config) for name in _FROZEN]
    limit = int(frame["reply_limit"].min()) if len(frame) else config.max_new_tokens
    if limit < config.max_new_tokens:
        note = f"Replies end after {limit} tokens, half the context, not after the {config.max_new_tokens} that are set."
        figures = [figure.model_copy(update={"note": note}) if figure.name == "completed" else figure for figure in figures]
    return tuple(figures)


def aggregate_retention(general: pa.Table, config: BenchmarkConfig) -> tuple[Measurement, ...]:
    """Every metric that is measured on general questions, with its interval."""
    frame = general.to_pandas()
    names = (name for name, metric in METRICS.items() if metric.measured_on == "general")
    return tuple(_measurement(name, _mean(frame[name], config), config) for name in names)


def _nll(answer: Mapping[str, Any]) -> float | None:
    return answer["reference_nll"] / answer["reference_tokens"] if answer["reference_tokens"] else None


def _token_cost_per_1000(answer: Mapping[str, Any], prices: TokenPrices | None) -> float | None:
    """The cost of 1,000 requests like this one, by the token; None without prices."""
    if prices is None:
        return None
    return float(answer["tokens_in"] * prices.prompt + answer["tokens_out"] * prices.reply) / 1000


def _time_taken(timings: pd.DataFrame, num_tokens: float, config: BenchmarkConfig) -> dict[str, _Figure | None]:
    """The figures that depend on time: latencies, the cost of 1,000 requests, and tokens a second."""
    seconds = timings["latency_seconds"]
    prices = config.price_per_device_hour or {}
    per_hour = [
        price_of(prices, device, name) for device, name in zip(timings["device"], timings["device_name"], strict=True)
    ]
    measured = _quantiles(seconds, config) | {
        "latency_seconds": _mean(seconds, config),
        "cost_per_1000": _mean(1000 * seconds / 3600 * pd.Series(per_hour, index=timings.index, dtype=float), config),
    }
    total = float(seconds.sum())
    return measured | ({"tokens_per_second": _bare(num_tokens / total, len(timings))} if total > 0 else {})


_NOTES = {
    "label_accuracy": "No row's reference reply names its label; see benchmark.label_pattern.",
    "label_macro_f1": "No row's reference reply names its label; see benchmark.label_pattern.",
    "format_valid": "No benchmark.format_pattern is configured.",
    "json_valid": "No benchmark.json_schema is configured.",
    "token_cost_per_1000": "No benchmark.token_prices are configured.",
    "cost_per_1000": "No price for the device; see benchmark.price_per_device_hour.",
    "call_decision": "No row states tools.",
    **dict.fromkeys(
        ("valid_call", "call_name", "argument_f1", "call_sequence"),
        "No reference reply has a call in a known form.",
    ),
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
    currency = f"{config.currency}. " if config.currency else ""
    if name == "token_cost_per_1000":
        return f"{currency}By the token."
    if METRICS[name].role != "clock":
        return ""
    batches = f"Batches of {config.batch_size}: a batch's wall time over its rows, under the machine's load at that time."
    return f"{currency}{batches}" if name == "cost_per_1000" else batches


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
    measured = frame.dropna(subset=["nll"])
    tokens = measured["reference_tokens"].to_numpy(dtype=np.float64)
    rows = np.column_stack([measured["nll"].to_numpy(dtype=np.float64) * tokens, tokens])

    def perplexity(resamples: Values) -> Values:
        totals = resamples.sum(axis=1)
        ratio: Values = np.exp(totals[:, 0] / totals[:, 1])
        return ratio

    return _statistic(rows, perplexity, config)


def _macro_f1(frame: pd.DataFrame, config: BenchmarkConfig) -> _Figure | None:
    """F1 per label, averaged over the labels that occur; a reply without a label is a miss, but no false alarm."""
    measured = frame.dropna(subset=["label_accuracy"])
    labels = sorted(set(measured["label"]))
    code = {label: number for number, label in enumerate(labels)}
    unknown = len(labels)
    rows = np.column_stack(
        [[code[label] for label in measured["label"]], [code.get(name, unknown) for name in measured["named_label"]]]
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
