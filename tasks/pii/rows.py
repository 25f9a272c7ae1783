"""Scrubs canonical rows: every string of a row together, its own structured values as a deny-list.

Labels, groups and the like that many rows share name a class of rows and are left. One that few rows hold may be somebody's
name or number, and is scrubbed as any text of its row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.core.progress import OnProgress
from tasks.core.quarantine import quarantine_row
from tasks.core.rare_values import MIN_ROWS_SHOWN
from tasks.core.rows import Row, iter_strings, iter_texts, iter_values, replace_texts, replace_values
from tasks.core.timestamps import is_timestamp
from tasks.pii.key_context import personal_values, prefix_of, without_prefixes
from tasks.pii.lexicon import lexicon
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.pii.second_look import ValueIndex, distinctive_value, match_patterns

STAGE = "scrub"
SECOND_LOOK = "verifier_hit:"
"""The first part of the reason with which a row is quarantined that the detector left something in."""

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("field", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("output_start", pa.int64()),
        pa.field("output_end", pa.int64()),
        pa.field("entity", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("detector", pa.string()),
        pa.field("operator", pa.string()),
        pa.field("fingerprint", pa.string()),
    ]
)
"""Offsets in the original text (``start``, ``end``) and in the scrubbed one (``output_*``); never a value."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
"""What chat templates call those who speak."""
MIN_COMMON_ROWS = 20
"""Fewer rows than this could all be about one person."""
_CAPITALISED = re.compile(r"\b[A-ZÀ-Þ][^\W\d_]{2,}")

Spans = dict[tuple[str, str], list[tuple[int, int]]]


@dataclass
class ScrubbedRows:
    """What :func:`scrub_rows` made of its input; ``findings`` and ``quarantined`` are rows of their schemas.

    ``values`` holds the distinctive values that were found, as words, for the check of the whole corpus. They are personal
    data: they never leave memory.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    values: set[tuple[str, ...]] = field(default_factory=set)
    num_characters: int = 0
    num_masked_characters: int = 0

    def extend(self, other: ScrubbedRows) -> None:
        """Adds the rows that follow."""
        self.kept += other.kept
        self.quarantined += other.quarantined
        self.findings += other.findings
        self.values |= other.values
        self.num_characters += other.num_characters
        self.num_masked_characters += other.num_masked_characters


def scrub_rows(rows: Sequence[Row], policy: Policy, *, on_progress: OnProgress | None = None) -> ScrubbedRows:
    """The rows with personal data replaced, in order; a row with any text that cannot be scrubbed is quarantined whole.

    Args:
        rows: Canonical rows; ``known_values`` is used and emptied.
        policy: The frozen rules.
        on_progress: Called after each batch.
    """
    result = ScrubbedRows()
    size = policy.config.batch_size
    for first in range(0, len(rows), size):
        result.extend(_scrub_batch_of_rows(rows[first : first + size], policy))
        if on_progress is not None:
            on_progress(min(first + size, len(rows)), len(rows))
    return result


def find_common_terms(rows: Sequence[Row], share: float) -> frozenset[str]:
    """Unknown words that stand capitalised in so many rows that they name the data's products rather than its people.

    Words in the lists of names never count, however frequent.

    Args:
        rows: Canonical rows.
        share: The share of the rows that a word must stand in; 0 finds none. In any case 20 rows.
    """
    if not share:
        return frozenset()
    words = lexicon()
    counts: Counter[str] = Counter()
    for row in rows:
        texts = " ".join(text for _, text in iter_texts(row) if isinstance(text, str))
        counts.update({word.lower() for word in _CAPITALISED.findall(texts)} - words.ordinary - words.names)
    enough = max(MIN_COMMON_ROWS, share * len(rows))
    return frozenset(word for word, count in counts.items() if count >= enough)


MIN_ROWS_OF_CLASS = 10
"""Rows that each value of a field has on average, where the field tells classes and not people."""


def find_class_values(rows: Sequence[Row], policy: Policy) -> frozenset[str]:
    """The values beside the texts that name classes of rows and are surely nobody's.

    A class value stands alone, and without a sentence around it the name model takes ``west`` or ``EMEA`` for a person. What
    tells a class is how often it comes: in 30 rows, in all, or in a field whose values come 10 times on average.

    Args:
        rows: Canonical rows.
        policy: The rules to scrub by; a value in which they find a distinctive one is somebody's, however many rows share
            it.
    """
    values = ((name, value) for row in rows for name, value in iter_values(row))
    counts = Counter((name, value) for name, value in values if isinstance(value, str) and not _is_time(name, value))
    in_field, kinds = Counter[str](), Counter(name for name, _ in counts)
    in_rows = Counter[str]()
    for (name, value), count in counts.items():
        in_field[name] += count
        in_rows[value] += count
    classes = {name for name, count in in_field.items() if count >= MIN_ROWS_OF_CLASS * kinds[name]}
    in_class = {value for (name, value), count in counts.items() if name in classes and count > 1}
    often = {value for value, count in in_rows.items() if count >= MIN_ROWS_SHOWN or 1 < count == len(rows)}
    shared = sorted(in_class | often)
    scrubbed = scrub_batch(shared, policy)
    somebodys = {unread.text_index for unread in scrubbed.quarantine}
    for finding in scrubbed.findings:
        value = shared[finding.text_index][finding.start : finding.end]
        if distinctive_value(finding.entity, finding.score, value):
            somebodys.add(finding.text_index)
    return frozenset(value for index, value in enumerate(shared) if index not in somebodys)


def quarantine_known_values(result: ScrubbedRows, originals: Mapping[str, Row]) -> None:
    """Quarantines each row in which a value that was surely found in some row still stands.

    The same detector misses a name in one sentence that it found in another; this is where that shows. Applied to the whole
    corpus at once, so that the outcome does not depend on batches or workers.
    """
    index = ValueIndex(result.values)
    outputs = output_spans(result.findings)
    kept, caught = [], set()
    for row in result.kept:
        hit = next(
            (name for name, text in iter_strings(row) if index.find(text, outputs.get((row["id"], name), ())) is not None),
            None,
        )
        if hit is None:
            kept.append(row)
        else:
            caught.add(row["id"])
            result.quarantined.append(
                quarantine_row(STAGE, row["id"], f"{SECOND_LOOK}known_elsewhere", originals[row["id"]], field=hit)
            )
    result.kept = kept
    result.findings = [finding for finding in result.findings if finding["id"] not in caught]


def distinctive_values(findings: Sequence[Mapping[str, Any]], originals: Mapping[str, Row]) -> set[tuple[str, ...]]:
    """The values of ``ScrubbedRows.values`` again, from the findings and the rows as they were before."""
    texts: dict[str, dict[str, Any]] = {}
    values = set()
    for finding in findings:
        fields = texts.setdefault(finding["id"], dict(iter_strings(originals[finding["id"]])))
        value = fields[finding["field"]][finding["start"] : finding["end"]]
        if words := distinctive_value(finding["entity"], finding["score"], value):
            values.add(words)
    return values


def output_spans(findings: Sequence[Mapping[str, Any]]) -> Spans:
    """What the scrubber wrote, by row id and field."""
    spans: Spans = {}
    for finding in findings:
        spans.setdefault((finding["id"], finding["field"]), []).append((finding["output_start"], finding["output_end"]))
    return spans


def _scrub_batch_of_rows(rows: Sequence[Row], policy: Policy) -> ScrubbedRows:
    result = ScrubbedRows()
    fields = [
        (number, name, text)
        for number, row in enumerate(rows)
        for name, text in (*iter_texts(row), *_own_values(row, policy.class_values))
    ]
    prefixes = [prefix_of(name) for _, name, _ in fields]
    known_values = [[*(row.get("known_values") or ()), *personal_values(row)] for row in rows]
    scrubbed = scrub_batch(
        [prefix + text if prefix else text for prefix, (_, _, text) in zip(prefixes, fields, strict=True)],
        policy,
        [known_values[number] for number, _, _ in fields],
        records=[number for number, _, _ in fields],
    )
    scrubbed = without_prefixes(scrubbed, prefixes)
    reasons = {number: (name, "unknown_role") for number, row in enumerate(rows) for name in _foreign_roles(row, policy)}
    for unread in scrubbed.quarantine:
        number, name, _ = fields[unread.text_index]
        reasons.setdefault(number, (name, unread.reason))
    replacements = scrubbed.replacements
    for index, text in enumerate(scrubbed.texts):
        number, name, _ = fields[index]
        if text is not None and number not in reasons:
            for _, _, pattern in match_patterns(text, replacements.get(index, ()))[:1]:
                reasons[number] = (name, f"{SECOND_LOOK}{pattern}")
    for finding in scrubbed.findings:
        number, name, original = fields[finding.text_index]
        if number in reasons:
            continue
        entry = {key: value for key, value in vars(finding).items() if key != "text_index"}
        result.findings.append({"id": rows[number]["id"], "field": name, **entry})
        if words := distinctive_value(finding.entity, finding.score, original[finding.start : finding.end]):
            result.values.add(words)
    texts: list[dict[str, str]] = [{} for _ in rows]
    for (number, name, _), text in zip(fields, scrubbed.texts, strict=True):
        texts[number][name] = text or ""
    for number, row in enumerate(rows):
        if number in reasons:
            name, reason = reasons[number]
            result.quarantined.append(quarantine_row(STAGE, row["id"], reason, row, field=name))
        else:
            result.kept.append(_with_texts(row, texts[number]))
    result.num_characters = scrubbed.stats.num_characters
    result.num_masked_characters = scrubbed.stats.num_masked_characters
    return result


def _own_values(row: Row, class_values: Collection[str]) -> Iterator[tuple[str, str]]:
    """The values beside the texts that may be about somebody; a role is no value to replace."""
    for name, value in iter_values(row):
        if value not in class_values and not name.endswith(".role") and not _is_time(name, value):
            yield name, value


def _is_time(name: str, value: object) -> bool:
    return name == "created_at" and isinstance(value, str) and is_timestamp(value)


def _foreign_roles(row: Row, policy: Policy) -> Iterator[str]:
    """The fields of roles that no chat template knows and that few rows share: anything may stand there."""
    for name, value in iter_values(row):
        if name.endswith(".role") and value not in ROLES and value not in policy.class_values:
            yield name


def _with_texts(row: Row, texts: Mapping[str, str]) -> dict[str, Any]:
    scrubbed = replace_values(replace_texts(row, lambda name, _: texts[name]), texts)
    return {**scrubbed, "known_values": None}
