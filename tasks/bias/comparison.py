"""Representation and outcomes by group: estimates, intervals, and whether a difference is more than chance and size allow.

Each dimension (a declared group such as ``region``, or a demographic dimension found in instructions) parts the rows into
groups. Per group: its share of the rows, the refusal rate, the length of the replies and the rate of each label. A
difference is found when the bootstrap interval of "this group minus the rest" lies wholly beyond what is allowed.
fairlearn's MetricFrame gives the estimates; its own bootstrap took a second per resample on 10,000 rows (0.15), so the
intervals are drawn here, on sums per group.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from numpy.typing import NDArray

from tasks.bias.config import BiasConfig
from tasks.bias.terms import DIMENSIONS, mentioned_values
from tasks.core.rare_values import MIN_ROWS_SHOWN, WITHHELD
from tasks.core.rows import Row, TableRows, prompt_messages, reply
from tasks.stats.intervals import wilson_interval
from tasks.text.refusals import is_refusal

Verdict = Literal["no_difference_found", "differences_found", "not_assessable"]
Floats = NDArray[np.float64]

NOT_STATED = "(not stated)"
NOT_MENTIONED = "(not mentioned)"
SEVERAL = "(several)"
_DECLARED = "declared:"


@dataclass(frozen=True)
class GroupMeasure:
    """One measure of one group; ``difference`` is the group minus the rest of its dimension (None: not assessable)."""

    dimension: str
    group: str
    num_rows: int
    measure: str
    value: float
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    finding: Literal["no_difference", "difference", "not_assessable"]


def compare_groups(rows: TableRows, config: BiasConfig) -> tuple[list[GroupMeasure], Verdict, list[str]]:
    """Every measure of every group, the verdict over all, and notes; independent of the order of the rows."""
    ordered = rows.in_order_of("id")
    outcomes = outcome_columns(ordered)
    measures: list[GroupMeasure] = []
    for dimension, groups in _dimensions(ordered, config):
        measures += _compare(dimension, groups, outcomes, config)
    compared = [measure for measure in measures if measure.finding != "not_assessable"]
    found = [measure for measure in compared if measure.finding == "difference"]
    verdict: Verdict = "differences_found" if found else "no_difference_found" if compared else "not_assessable"
    num_small = len({(one.dimension, one.group) for one in measures if one.num_rows < config.min_group_size})
    measures = [_shown(measure) for measure in measures]
    return measures, verdict, _notes(measures, num_small, config)


def _shown(measure: GroupMeasure) -> GroupMeasure:
    """The measure without the name of a group that rows declare and that is small enough to point to a person."""
    is_rare = measure.dimension.startswith(_DECLARED) and measure.num_rows < MIN_ROWS_SHOWN
    return replace(measure, group=WITHHELD) if is_rare and measure.group != NOT_STATED else measure


def outcome_columns(rows: Sequence[Row]) -> dict[str, Floats]:
    """The outcomes of each row: refusal (0 or 1), reply length relative to the mean, and one 0/1 column per common label.

    A label of fewer than 30 rows has no column, since it may point to a person.
    """
    figures = np.zeros((len(rows), 2))
    labels: list[str | None] = []
    for place, row in enumerate(rows):
        text = reply(row)
        figures[place] = is_refusal(text), len(text.split())
        labels.append(row.get("label"))
    refused, words = figures.T
    columns = {
        "refusal_rate": refused,
        "relative_reply_length": words / max(float(words.mean()) if len(words) else 1.0, 1e-9),
    }
    counts = Counter(label for label in labels if label)
    common = sorted((name for name in counts if counts[name] >= MIN_ROWS_SHOWN), key=lambda name: (-counts[name], name))[:10]
    for name in common:
        columns[f"label_rate:{name}"] = np.asarray([label == name for label in labels], dtype=np.float64)
    return columns


def _dimensions(rows: Sequence[Row], config: BiasConfig) -> Iterator[tuple[str, list[str]]]:
    """Each dimension with the group of every row."""
    if config.audit_declared_groups:
        declared: dict[str, list[str]] = {}
        for place, row in enumerate(rows):
            for item in row.get("groups") or ():
                declared.setdefault(item["name"], [NOT_STATED] * len(rows))[place] = sys.intern(item["value"] or NOT_STATED)
        for name in sorted(declared):
            yield f"{_DECLARED}{name}", declared[name]
    if config.audit_mentioned_terms:
        prompts = [
            " ".join(message["content"] for message in prompt_messages(row) if message["role"] != "system") for row in rows
        ]
        for dimension in DIMENSIONS:
            groups = [_group_of(mentioned_values(prompt, dimension)) for prompt in prompts]
            if any(group != NOT_MENTIONED for group in groups):
                yield f"mentioned:{dimension}", groups


def _group_of(mentioned: Sequence[str]) -> str:
    return NOT_MENTIONED if not mentioned else mentioned[0] if len(mentioned) == 1 else SEVERAL


def _compare(dimension: str, groups: list[str], outcomes: dict[str, Floats], config: BiasConfig) -> Iterator[GroupMeasure]:
    names, codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(codes)
    estimates = _estimates(codes, outcomes)
    rng = np.random.default_rng(config.seed)
    resampled = {
        code: _bootstrap_means(
            np.column_stack([column[codes == code] for column in outcomes.values()]), config.num_resamples, rng
        )
        for code in range(len(names))
        if sizes[code] >= config.min_group_size
    }
    for code, name in enumerate(names):
        size = int(sizes[code])
        low, high = wilson_interval(size, len(groups))
        yield GroupMeasure(
            dimension, str(name), size, "share", size / len(groups), low, high, None, None, None, "not_assessable"
        )
        others = [other for other in resampled if other != code]
        for column, measure in enumerate(outcomes):
            value = float(estimates[code, column])
            if code not in resampled:
                yield GroupMeasure(dimension, str(name), size, measure, value, *(None,) * 5, "not_assessable")
                continue
            own = resampled[code][:, column]
            low, high = _interval(own)
            if not others:
                yield GroupMeasure(dimension, str(name), size, measure, value, low, high, *(None,) * 3, "not_assessable")
                continue
            weights = sizes[others] / sizes[others].sum()
            rest = sum(w * resampled[other][:, column] for w, other in zip(weights, others, strict=True))
            rest_value = float(np.average(estimates[others, column], weights=weights))
            difference_low, difference_high = _interval(own - rest)
            allowed = config.max_length_difference if measure == "relative_reply_length" else config.max_rate_difference
            beyond = difference_low > allowed or difference_high < -allowed
            yield GroupMeasure(
                dimension,
                str(name),
                size,
                measure,
                value,
                low,
                high,
                value - rest_value,
                difference_low,
                difference_high,
                "difference" if beyond else "no_difference",
            )


def _estimates(codes: NDArray[np.int_], outcomes: dict[str, Floats]) -> Floats:
    """Mean outcomes, ``(groups, measures)``."""
    position = np.arange(len(codes))
    metrics = {
        name: (lambda y_true, y_pred, column=column: float(column[np.asarray(y_pred)].mean()))
        for name, column in outcomes.items()
    }
    frame = MetricFrame(metrics=metrics, y_true=position, y_pred=position, sensitive_features=pd.Series(codes, name="group"))
    return np.asarray(frame.by_group[list(outcomes)].sort_index(), dtype=np.float64)


def _bootstrap_means(values: Floats, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Means of resampled rows, ``(num_resamples, columns)``."""
    size = len(values)
    return np.stack([rng.multinomial(size, np.full(size, 1 / size)) @ values / size for _ in range(num_resamples)])


def _interval(samples: Floats) -> tuple[float, float]:
    """The central 95 %."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _notes(measures: Sequence[GroupMeasure], num_small: int, config: BiasConfig) -> list[str]:
    notes = []
    found = [measure for measure in measures if measure.finding == "difference"]
    if found:
        worst = sorted(found, key=lambda m: (-abs(m.difference or 0.0), m.dimension, m.group, m.measure))[:5]
        notes.append(
            "Largest differences: "
            + "; ".join(
                f"{m.dimension}={m.group} {m.measure} {m.value:.2f} ({m.difference:+.2f} to the rest)" for m in worst
            )
            + "."
        )
    if num_small:
        notes.append(f"{num_small} groups have fewer than {config.min_group_size} rows and are not assessable.")
    if not measures:
        notes.append("No row declares a group or mentions a demographic term: there is nothing to compare.")
    notes.append("Groups are what rows declare and what instructions say; nothing is inferred from names.")
    return notes
