"""Spans of a text, and how overlapping ones become one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SPECIFIC_ENTITIES = frozenset(
    {
        "CREDIT_CARD",
        "EMAIL_ADDRESS",
        "IBAN_CODE",
        "IP_ADDRESS",
        "PHONE_NUMBER",
        "STREET_ADDRESS",
        "URL",
        "US_ITIN",
        "US_SSN",
    }
)
"""A known value takes its name from one of these where it is one: their surrogates are made to reach nobody."""


@dataclass(frozen=True, order=True)
class Span:
    """A stretch of text that holds personal data: ``[start, end)``, what it is, how sure, and who found it."""

    start: int
    end: int
    entity: str
    score: float
    detector: str


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans that cover every character which any of the given spans covers, in order.

    Overlapping spans become one, so that no character that any detector claimed is left over; it takes its entity, score
    and detector from the best of its parts: the highest score, then the longest, then the first by name. A known value is
    named by the specific entity of a part that holds all of it, if there is one.
    """
    merged: list[Span] = []
    group: list[Span] = []
    end = -1
    for span in sorted(spans):
        if group and span.start >= end:
            merged.append(_join(group, end))
            group = []
        group.append(span)
        end = max(end, span.end) if len(group) > 1 else span.end
    if group:
        merged.append(_join(group, end))
    return merged


def _join(group: list[Span], end: int) -> Span:
    best = min(group, key=_rank)
    entity = best.entity
    if entity == "KNOWN_VALUE":
        specific = [span for span in group if span.entity in _SPECIFIC_ENTITIES]
        holding = [span for span in specific if span.start <= best.start and best.end <= span.end]
        entity = min(holding, key=_rank, default=best).entity
    return Span(group[0].start, end, entity, best.score, best.detector)


def _rank(span: Span) -> tuple[float, int, str, str]:
    return -span.score, span.start - span.end, span.entity, span.detector


_ADDRESS_PARTS = frozenset({"STREET_ADDRESS", "LOCATION", "POSTCODE"})
_WITHIN_NAME = re.compile(r"[ \u00a0.'’-]{1,2}|[ \u00a0][A-Z]\.?[ \u00a0]")
_WITHIN_ADDRESS = re.compile(r"[ \u00a0,.#/-]{1,3}|,? (?:and|&) ")


def joined(spans: Iterable[Span], text: str) -> list[Span]:
    """Disjoint spans in order, with the words of one name and the parts of one address as one."""
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else span
        gap = text[last.end : span.start]
        kinds = {last.entity, span.entity}
        is_name = kinds == {"PERSON"} and _WITHIN_NAME.fullmatch(gap) is not None
        is_address = "STREET_ADDRESS" in kinds and kinds <= _ADDRESS_PARTS and _WITHIN_ADDRESS.fullmatch(gap) is not None
        if result and (is_name or is_address):
            best = min((last, span), key=_rank)
            entity = "STREET_ADDRESS" if is_address else best.entity
            result[-1] = Span(last.start, span.end, entity, best.score, best.detector)
        else:
            result.append(span)
    return result
