"""The metrics: one line each, with the direction that is better. The benchmark measures them, the gate compares them.

Named here, above all stages, so that a configuration which names an unknown metric is rejected before anything is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Name of the score, and of the per-example column where there is one.
        meaning: One line for people.
        higher_is_better: None where neither direction is better in itself.
        per_example: Whether the table of examples has a column of this name whose mean is the score. Only such metrics
            can be compared example by example.
        unit: ``share`` runs from 0 to 1.
        measured_on: ``frozen`` examples, or ``general`` questions, which guard against forgetting.
        role: What the gate may do with it. A ``primary`` metric says which model is better, and guards too. A ``guard``
            says what a reply costs or what was lost. ``information`` is shown and never compared; so is what a ``clock``
            measures, because it depends on what else the machine did.
    """

    name: str
    meaning: str
    higher_is_better: bool | None
    per_example: bool = True
    unit: str = "share"
    measured_on: Literal["frozen", "general"] = "frozen"
    role: Literal["primary", "guard", "information", "clock"] = "primary"


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("chrf", "character n-gram F-score against the reference reply (sentence chrF2, sacrebleu)", True),
        Metric("rouge_l", "longest common subsequence F1 against the reference reply (ROUGE-L, Unicode words)", True),
        Metric("bleu", "word n-gram precision against the reference reply (smoothed sentence BLEU, sacrebleu)", True),
        Metric("meteor_exact_stem", "METEOR with exact and (English, Porter) stem matches, without synonyms (nltk)", True),
        Metric("exact_match", "replies equal to the reference after Unicode, case and space normalisation", True),
        Metric("label_accuracy", "replies that name the row's label", True),
        Metric("format_valid", "replies that match the configured format", True),
        Metric("json_valid", "replies that are JSON and satisfy the configured schema", True),
        Metric("call_decision", "replies that call a tool exactly where the reference does", True),
        Metric("valid_call", "replies whose calls all name a tool of the row and satisfy its schema", True),
        Metric("call_name", "replies that call the same tools as the reference, in any order", True),
        Metric("argument_f1", "F1 of the names and values in the arguments of the reference's calls", True),
        Metric("call_sequence", "replies with the reference's calls, equal in arguments and order", True),
        Metric("completed", "replies that end by themselves within the token limit", True),
        Metric("prompt_cut", "examples whose prompt or reference was cut to fit the model's context", False, role="guard"),
        Metric("placeholder_rate", "replies with a placeholder of scrubbing, such as <PERSON>; they match no reference",
               False, role="guard"),
        Metric("corpus_chrf", "chrF2 over all replies at once", True, per_example=False),
        Metric("corpus_bleu", "BLEU over all replies at once (references of four words or more)", True, per_example=False),
        Metric("label_macro_f1", "F1 of the named labels, every label weighing the same", True, per_example=False),
        Metric("nll", "mean negative log-likelihood of the reference reply's tokens", False, unit="nats per token"),
        Metric("perplexity", "exp of the mean nll over all reference tokens", False, per_example=False, unit="ratio"),
        Metric("latency_seconds", "wall time of a batch over its rows, beside whatever load the machine had", False,
               per_example=False, unit="seconds", role="clock"),
        Metric("latency_p50_seconds", "median of latency_seconds", False, per_example=False, unit="seconds",
               role="clock"),
        Metric("latency_p95_seconds", "95th percentile of latency_seconds", False, per_example=False, unit="seconds",
               role="clock"),
        Metric("cost_per_1000", "device time of 1,000 requests at the price table's price", False, per_example=False,
               unit="currency", role="clock"),
        Metric("tokens_per_second", "generated tokens over generation time", True, per_example=False, unit="tokens/s",
               role="clock"),
        Metric("tokens_in", "prompt tokens; fewer are cheaper", False, unit="tokens", role="guard"),
        Metric("tokens_out", "generated tokens; fewer are cheaper", False, unit="tokens", role="guard"),
        Metric("token_cost_per_1000", "price of the tokens of 1,000 requests", False, unit="currency", role="guard"),
        Metric("length_ratio", "characters of the reply over those of the reference", None, unit="ratio",
               role="information"),
        Metric("length_error", "absolute log of length_ratio: 0 is the reference's length, 0.69 is half or double", False,
               unit="nats"),
        Metric("retention", "probability of right answers among those offered, on general questions", True,
               measured_on="general", role="guard"),
        Metric("retention_nll", "mean negative log-likelihood of the right answers' tokens, on general questions", False,
               unit="nats per token", measured_on="general", role="guard"),
    )
}  # fmt: skip

COMPARABLE = tuple(name for name, metric in METRICS.items() if metric.per_example and metric.role == "primary")
"""Metrics that a gate can compare example by example on the frozen set to say which model is better."""

GUARDABLE = tuple(name for name, metric in METRICS.items() if metric.per_example and metric.role in ("primary", "guard"))
"""Metrics that a guard can watch: the comparable ones, what a reply costs, and those on general questions."""

_BY_A_CLOCK = {
    "latency_seconds": "set promotion.max_latency_increase, which measures both models in one sitting",
    "cost_per_1000": "guard tokens_out, or token_cost_per_1000 with benchmark.token_prices",
}
"""Metrics of a clock that somebody may want to guard, and what to do instead."""


def known_metric(name: str) -> str:
    """``name`` when a gate can say by it which model is better; for Pydantic validators.

    Raises:
        ValueError: It is not one of :data:`COMPARABLE`, all of which the message names.
    """
    return _one_of(name, COMPARABLE)


def guardable_metric(name: str) -> str:
    """``name`` when a guard can watch it; for Pydantic validators.

    Raises:
        ValueError: It is not one of :data:`GUARDABLE`, all of which the message names.
    """
    return _one_of(name, GUARDABLE)


def _one_of(name: str, known: tuple[str, ...]) -> str:
    if name in known:
        return name
    if name in _BY_A_CLOCK:
        raise ValueError(f"{name!r} is measured by a clock beside whatever load the machine has; {_BY_A_CLOCK[name]}")
    raise ValueError(f"no metric that is compared example by example; choose one of {', '.join(known)}")
