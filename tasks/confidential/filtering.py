"""Splits rows into those that may go on and those that hold confidential content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from tasks.confidential.config import ConfidentialConfig, SecretPattern
from tasks.confidential.rules import SecretRule
from tasks.confidential.secrets import SecretMatcher, built_in_rules
from tasks.confidential.terms import Hit, TermMatcher
from tasks.core.errors import ConfigError
from tasks.core.quarantine import quarantine_row
from tasks.core.rows import Row, iter_strings
from tasks.core.term_lists import items_of
from tasks.core.tool_calls import iter_names, keys_of

STAGE = "confidential"

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("field", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("pattern", pa.string()),
    ]
)
"""Where something confidential stands and which pattern found it; never the value."""


@dataclass
class Filtered:
    """What :func:`filter_rows` made of its input; ``findings`` and ``removed`` are rows of their schemas."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)


class ConfidentialMatcher:
    """Finds secrets and denied terms in one text.

    Args:
        config: Which patterns to use.
        file_terms: The terms of ``config.denied_terms_file``, already read.

    Raises:
        ConfigError: A disabled pattern does not exist.
    """

    def __init__(self, config: ConfidentialConfig, file_terms: Sequence[str] = ()) -> None:
        rules = built_in_rules()
        names = {rule.id for rule in rules}
        unknown = sorted(set(config.disabled_patterns) - names)
        if unknown:
            raise ConfigError(
                "confidential.disabled_patterns",
                f"{len(unknown)} of {len(config.disabled_patterns)} names that no pattern has",
                f"names among {', '.join(sorted(names))}",
                "Correct or remove them.",
            )
        chosen = [rule for rule in rules if config.secrets and rule.id not in config.disabled_patterns]
        self._secrets = SecretMatcher([*chosen, *map(_own, config.extra_patterns)])
        self._terms = TermMatcher([*items_of(config.denied_terms), *file_terms])

    def find(self, text: str) -> list[Hit]:
        """Every confidential span, ordered by position, then pattern; a span found by several patterns stands once each."""
        hits = {*self._secrets.find(text), *self._terms.find(text)}
        return sorted(hits, key=lambda hit: (hit.start, hit.end, hit.pattern))


def filter_rows(
    rows: Iterable[Row],
    matcher: ConfidentialMatcher,
    *,
    action: str = "quarantine",
    max_text_chars: int = 200_000,
) -> Filtered:
    """Rows without confidential content, and the others with their reason and findings; order is kept.

    Args:
        rows: Canonical rows.
        matcher: What is confidential.
        action: ``quarantine`` keeps the content of a removed row, ``drop`` only its id.
        max_text_chars: Longer texts are quarantined as ``too_long`` whatever the action: unread is not known to be clean.
    """
    result = Filtered()
    for row in rows:
        texts = list(iter_strings(row))
        unreadable = next(_unreadable(texts, max_text_chars), None)
        if unreadable is not None:
            name, reason = unreadable
            result.removed.append(quarantine_row(STAGE, row["id"], reason, row, field=name))
        else:
            hits = [(name, hit) for name, text in (*texts, *iter_names(row)) for hit in _find(matcher, name, text)]
            for name, hit in hits:
                result.findings.append(
                    {"id": row["id"], "field": name, "start": hit.start, "end": hit.end, "pattern": hit.pattern}
                )
                result.hits[hit.pattern] += 1
            if hits:
                is_secret = any(not hit.pattern.startswith("denied_term_") for _, hit in hits)
                reason = "secret" if is_secret else "denied_term"
                result.removed.append(
                    quarantine_row(STAGE, row["id"], reason, None, field=hits[0][0], disposition="dropped")
                    if action == "drop"
                    else quarantine_row(STAGE, row["id"], reason, row, field=hits[0][0])
                )
            else:
                result.kept.append(dict(row))
    return result


def _find(matcher: ConfidentialMatcher, name: str, text: str) -> Iterator[Hit]:
    """What is confidential in a text. A value in JSON is read as an assignment to its key, as rules for secrets expect."""
    prefix = f'{keys[-1]}: "' if (keys := keys_of(name)) else ""
    for hit in matcher.find(f'{prefix}{text}"' if prefix else text):
        if hit.end > len(prefix):
            start, end = max(0, hit.start - len(prefix)), min(hit.end - len(prefix), len(text))
            yield replace(hit, start=start, end=end)


def _unreadable(texts: Iterable[tuple[str, Any]], max_text_chars: int) -> Iterator[tuple[str, str]]:
    for name, text in texts:
        if not isinstance(text, str):
            yield name, "not_text"
        elif len(text) > max_text_chars:
            yield name, "too_long"


def _own(extra: SecretPattern) -> SecretRule:
    pattern = re.compile(extra.regex, re.IGNORECASE)
    return SecretRule(
        id=extra.name, keywords=(extra.keyword.lower(),), pattern=pattern, source="configuration", is_loose=True
    )
