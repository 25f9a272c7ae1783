"""Slices: the frozen examples by label, group, length and script, and a model's scores on each."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tasks.benchmark.config import BenchmarkConfig
from tasks.core.rare_values import MIN_ROWS_SHOWN, WITHHELD
from tasks.core.rows import Row, question_of
from tasks.measures.metrics import METRICS
from tasks.stats.estimates import mean_score

SLICE = pa.struct([pa.field("dimension", pa.string()), pa.field("value", pa.string())])
"""``dimension`` is ``label``, ``group``, ``length`` or ``script``; a group's value names it, such as ``region: emea``."""

SLICES_SCHEMA = pa.schema(
    [
        pa.field("dimension", pa.string()),
        pa.field("value", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("num_examples", pa.int64()),
        pa.field("mean", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)
"""One row per slice and metric; ``low`` and ``high`` are null on fewer examples than an interval requires."""

_LENGTHS = ("short third", "middle third", "long third")


def slices_of(rows: Sequence[Row]) -> list[list[dict[str, str]]]:
    """The slices that each row belongs to, as :data:`SLICE`; a dimension on which no two rows differ is left out.

    The length is that of the user's last question, in thirds of the rows. The script stands in for the language, which
    is not detected here; rows with a known language have it as a group.
    """
    questions = [question_of(row) for row in rows]
    lengths = np.array([len(question) for question in questions])
    thirds = np.searchsorted(np.quantile(lengths, (1 / 3, 2 / 3)), lengths) if len(rows) else lengths
    slices: list[list[tuple[str, str]]] = []
    for row, question, third in zip(rows, questions, thirds, strict=True):
        named = [("label", str(row["label"]))] if row.get("label") else []
        named += [("group", f"{group['name']}: {group['value']}") for group in row.get("groups") or ()]
        slices.append([*named, ("length", _LENGTHS[third]), ("script", script_of(question))])
    values: dict[str, set[str]] = {}
    for row_slices in slices:
        for dimension, value in row_slices:
            values.setdefault(dimension, set()).add(value)
    return [
        [{"dimension": dimension, "value": value} for dimension, value in row_slices if len(values[dimension]) > 1]
        for row_slices in slices
    ]


def script_of(text: str) -> str:
    """The script of most of a text's letters, such as ``Latin`` or ``Cyrillic``; ``none`` without letters."""
    counts = Counter(_script(letter) for letter in text if letter.isalpha())
    return max(sorted(counts), key=lambda script: counts[script]) if counts else "none"


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script for all but a few."""
    name = unicodedata.name(letter, "unknown").split()[0]
    return {"Cjk": "Han"}.get(word := name.capitalize(), word)


def slice_scores(examples: pa.Table, config: BenchmarkConfig) -> pa.Table:
    """The scores by slice (:data:`SLICES_SCHEMA`): every slice, every metric measured on it.

    Labels and groups of fewer than 30 examples stand together as one slice, since they may point to a person.

    Args:
        examples: As :func:`tasks.benchmark.scoring.score_answers` returns them.
        config: Bootstrap settings, and the number of examples from which there is an interval.
    """
    names = [name for name in examples.column_names if name in METRICS and METRICS[name].higher_is_better is not None]
    columns = {name: np.array(examples[name].to_pylist(), dtype=np.float64) for name in names}
    members: dict[tuple[str, str], list[int]] = {}
    for index, row_slices in enumerate(examples["slices"].to_pylist()):
        for item in row_slices:
            members.setdefault((item["dimension"], item["value"]), []).append(index)
    for dimension, value in list(members):
        if dimension in ("label", "group") and len(members[dimension, value]) < MIN_ROWS_SHOWN:
            members.setdefault((dimension, WITHHELD), []).extend(members.pop((dimension, value)))
    scored = []
    for (dimension, value), indices in sorted(members.items()):
        for name, column in columns.items():
            values = column[sorted(set(indices))]
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            enough = len(values) >= config.min_slice_examples
            interval = (
                mean_score(values, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed)
                if enough
                else None
            )
            scored.append(
                {
                    "dimension": dimension,
                    "value": value,
                    "metric": name,
                    "num_examples": len(values),
                    "mean": float(values.mean()),
                    "low": interval.low if interval else None,
                    "high": interval.high if interval else None,
                }
            )
    return pa.Table.from_pylist(scored, schema=SLICES_SCHEMA)
