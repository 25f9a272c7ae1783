"""The expectation suite as plain data, generated from the configuration: which rule, on which column, for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.validation.config import ValidationConfig
from tasks.validation.features import COLUMNS

NEW_VALUE_WEIGHT = 0.02
"""Weight that a label unseen in the previous snapshot is given, so that one new label is not an infinite divergence."""


@dataclass(frozen=True)
class Rule:
    """One expectation of Great Expectations.

    ``reason`` names it in reports and, for rules about rows, is the reason code of the rows that fail it.
    """

    reason: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    about: Literal["rows", "table"] = "rows"
    severity: Literal["critical", "warning"] = "critical"


def make_rules(kind: str, config: ValidationConfig, previous: Mapping[str, Mapping[str, float]] | None = None) -> list[Rule]:
    """The rules for one kind of rows; where a row fails several, the first names its reason.

    Args:
        kind: ``messages`` or ``preferences``.
        config: What rows must look like.
        previous: Shares of ``length_band`` and ``label`` in the previous snapshot (see :func:`shares`).
    """
    fewest = 2 if kind == "messages" else 3
    rules = [
        Rule("schema", "ExpectTableColumnsToMatchOrderedList", {"column_list": list(COLUMNS)}, about="table"),
        Rule("row_count", "ExpectTableRowCountToBeBetween", {"min_value": config.min_rows}, about="table"),
        Rule("missing_id", "ExpectColumnValuesToNotBeNull", {"column": "id"}),
        Rule("duplicate_id", "ExpectColumnValuesToBeUnique", {"column": "id"}),
        _between("empty_prompt", "prompt_chars", config.min_prompt_chars, None),
        _between("empty_reply", "reply_chars", config.min_reply_chars, None),
        _between("too_few_messages", "num_messages", fewest, None),
        _between("empty_message", "shortest_message_chars", 1, None),
        _between("prompt_too_long", "prompt_chars", None, config.max_prompt_chars),
        _between("reply_too_long", "reply_chars", None, config.max_reply_chars),
        Rule("foreign_role", "ExpectColumnValuesToBeNull", {"column": "foreign_roles"}),
        Rule("no_reply_at_end", "ExpectColumnValuesToBeInSet", {"column": "last_roles", "value_set": ["assistant"]}),
        Rule("invalid_call", "ExpectColumnValuesToBeNull", {"column": "invalid_call"}),
        _between("control_characters", "control_share", None, config.max_control_share),
    ]
    if config.min_latin_share > 0:
        rules.append(_between("other_script", "latin_share", config.min_latin_share, None))
    if config.languages:
        arguments = {"column": "language", "value_set": list(config.languages)}
        if config.quarantine_other_languages:
            rules.append(Rule("other_language", "ExpectColumnValuesToBeInSet", arguments))
        share = {**arguments, "mostly": config.min_language_share}
        rules.append(Rule("language_share", "ExpectColumnValuesToBeInSet", share, about="table"))
    if config.require_label:
        rules.append(Rule("missing_label", "ExpectColumnValuesToNotBeNull", {"column": "label"}))
    if config.allowed_labels:
        arguments = {"column": "label", "value_set": list(config.allowed_labels)}
        rules.append(Rule("unknown_label", "ExpectColumnValuesToBeInSet", arguments))
    for column, expected in (previous or {}).items():
        rules.append(_divergence(column, expected, config))
    return rules


def shares(values: Sequence[str | None]) -> dict[str, float]:
    """The share of each value among those that are not None, most frequent first."""
    counts = Counter(value for value in values if value is not None)
    return {value: count / counts.total() for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _between(reason: str, column: str, low: float | None, high: float | None) -> Rule:
    return Rule(reason, "ExpectColumnValuesToBeBetween", {"column": column, "min_value": low, "max_value": high})


def _divergence(column: str, expected: Mapping[str, float], config: ValidationConfig) -> Rule:
    arguments = {
        "column": column,
        "partition_object": {"values": list(expected), "weights": list(expected.values())},
        "threshold": config.max_divergence,
        "tail_weight_holdout": NEW_VALUE_WEIGHT,
    }
    severity: Literal["critical", "warning"] = "critical" if config.fail_on_divergence else "warning"
    return Rule(f"{column}_divergence", "ExpectColumnKLDivergenceToBeLessThan", arguments, about="table", severity=severity)
