"""Texts in, texts without personal data out: the pure heart of the stage.

Fail closed: what cannot be scrubbed for any reason comes back as None with a reason code. A batch in which anything goes
wrong is scrubbed again record by record, so that one hostile record never takes its neighbours along, and costs no more than
twice its limit of processor time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.core.cpu_limit import CpuLimitError, cpu_limit
from tasks.pii.detect.detector import Detector, detector_for
from tasks.pii.policy import Policy
from tasks.pii.replace.operators import PLACEHOLDER, people_of, replace_spans
from tasks.pii.replace.record import RecordPeople
from tasks.pii.spans import Span
from tasks.text.languages import unknown_language

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One replaced value: where it stood and stands, what it was, and its keyed fingerprint; never the value."""

    text_index: int
    start: int
    end: int
    output_start: int
    output_end: int
    entity: str
    score: float
    detector: str
    operator: str
    fingerprint: str | None


@dataclass(frozen=True)
class QuarantinedText:
    """One text that could not be scrubbed, and why."""

    text_index: int
    reason: str


@dataclass
class ScrubStats:
    """Counts of one batch."""

    num_texts: int = 0
    num_quarantined: int = 0
    num_characters: int = 0
    num_masked_characters: int = 0
    entities: Counter[str] = field(default_factory=Counter)


class Scrubbed(NamedTuple):
    """What :func:`scrub_batch` returns."""

    texts: list[str | None]
    findings: list[Finding]
    quarantine: list[QuarantinedText]
    stats: ScrubStats

    @property
    def replacements(self) -> dict[int, list[tuple[int, int]]]:
        """Start and end of what was written into each text, by the text's index."""
        places: dict[int, list[tuple[int, int]]] = {}
        for finding in self.findings:
            places.setdefault(finding.text_index, []).append((finding.output_start, finding.output_end))
        return places


def scrub_batch(
    texts: Sequence[object],
    policy: Policy,
    known_values: Sequence[Sequence[str]] | None = None,
    *,
    records: Sequence[int] | None = None,
) -> Scrubbed:
    """The texts with personal data replaced; None for each text that had to be quarantined.

    The output for a record depends on its own texts and known values and on the policy, never on its neighbours.

    Args:
        texts: The texts; anything that is not a string is quarantined.
        policy: The frozen rules.
        known_values: For each text, values that are personal in it (the record's own customer name, account id).
        records: For each text, the number of the record it belongs to, ascending; names found in one text of a record
            are masked in its others. Without it each text is a record of its own.
    """
    values = known_values if known_values is not None else [()] * len(texts)
    groups: dict[int, list[int]] = {}
    for index, record in enumerate(records if records is not None else range(len(texts))):
        groups.setdefault(record, []).append(index)
    reasons: dict[int, str] = {}
    for index, text in enumerate(texts):
        reason = _unreadable(text, policy.config.max_text_chars)
        if reason is not None:
            reasons[index] = reason
    detector = detector_for(policy)
    good = [group for group in groups.values() if not any(index in reasons for index in group)]
    spans: dict[int, list[Span]] = {}
    _detect(good, texts, values, detector, spans, reasons, policy.config.max_record_seconds)

    for group in good:
        language = unknown_language(_rest(group, texts, spans), policy.config.ner.languages) if group[0] in spans else None
        if language is not None:
            reasons[group[0]] = f"unsupported_language:{language}"
            for index in group:
                del spans[index]

    scrubbed: list[str | None] = [None] * len(texts)
    findings: list[Finding] = []
    stats = ScrubStats(num_texts=len(texts), num_quarantined=len(texts) - len(spans))
    people = {
        index: whole
        for group in good
        if all(index in spans for index in group)
        for whole in (people_of([(str(texts[index]), spans[index]) for index in group], policy),)
        for index in group
    }
    for index in sorted(spans):
        text = str(texts[index])
        scrubbed[index], replaced = _replace(text, spans[index], policy, index, people[index])
        findings += replaced
        stats.num_characters += len(text)
        stats.num_masked_characters += sum(span.end - span.start for span in spans[index])
        stats.entities.update(span.entity for span in spans[index])
    return Scrubbed(scrubbed, findings, [QuarantinedText(index, reasons[index]) for index in sorted(reasons)], stats)


def _rest(group: Sequence[int], texts: Sequence[object], spans: dict[int, list[Span]]) -> str:
    """The texts of a record without what is masked, now or before: its names and streets belong to any language."""
    parts: list[str] = []
    for index in group:
        text, position = str(texts[index]), 0
        for span in spans[index]:
            parts.append(text[position : span.start])
            position = span.end
        parts += (text[position:], "\n")
    return PLACEHOLDER.sub(" ", " ".join(parts))


def _unreadable(text: object, max_text_chars: int) -> str | None:
    if not isinstance(text, str):
        return "not_text"
    if len(text) > max_text_chars:
        return "too_long"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "invalid_unicode"
    return None


def _detect(
    groups: list[list[int]],
    texts: Sequence[object],
    values: Sequence[Sequence[str]],
    detector: Detector,
    spans: dict[int, list[Span]],
    reasons: dict[int, str],
    max_seconds: float,
) -> None:
    """Fills ``spans`` for the texts of the groups, or ``reasons`` for those of a group that fails alone."""
    if not groups:
        return
    indices = [index for group in groups for index in group]
    try:
        with cpu_limit(max_seconds):
            detected = detector.detect(
                [str(texts[index]) for index in indices],
                [values[index] for index in indices],
                [number for number, group in enumerate(groups) for _ in group],
            )
    except Exception as error:  # fail closed: whatever went wrong, the record is not let through
        if len(groups) == 1:
            logger.warning("a record could not be scrubbed: %s", type(error).__name__)
            slow = isinstance(error, CpuLimitError)
            reasons.update(dict.fromkeys(indices, "too_slow" if slow else f"scrub_error:{type(error).__name__}"))
            return
        for group in groups:
            _detect([group], texts, values, detector, spans, reasons, max_seconds)
    else:
        spans.update(zip(indices, detected, strict=True))


def _replace(
    text: str, spans: Sequence[Span], policy: Policy, index: int, people: RecordPeople | None
) -> tuple[str, list[Finding]]:
    output, places = replace_spans(text, spans, policy, people)
    return output, [
        Finding(
            text_index=index,
            start=span.start,
            end=span.end,
            output_start=start,
            output_end=end,
            entity=span.entity,
            score=round(span.score, 4),
            detector=span.detector,
            operator=policy.operator_for(span.entity),
            fingerprint=policy.fingerprint(span.entity, text[span.start : span.end]),
        )
        for span, (start, end) in zip(spans, places, strict=True)
    ]
