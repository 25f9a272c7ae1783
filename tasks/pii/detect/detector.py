"""All detectors over a batch of records: rules first, then one pass of the name model where rules leave a doubt.

Detection is repeated on its own output until nothing more is found, so that scrubbing twice equals scrubbing once: what a
name or a number hid from a pattern shows when it is gone. Later rounds are cheap: only changed texts are read again, and
the name model's answer for an unchanged segment is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tasks.core.term_lists import items_of
from tasks.pii.config import PiiConfig
from tasks.pii.detect.addresses import AddressRecognizer
from tasks.pii.detect.contacts import CONTACT_RULES
from tasks.pii.detect.disguises import DISGUISE_RULES
from tasks.pii.detect.identifiers import IDENTIFIER_ENTITIES, IDENTIFIER_RULES
from tasks.pii.detect.known_values import find_known_values
from tasks.pii.detect.names import NameRecognizer
from tasks.pii.detect.ner import load_names
from tasks.pii.detect.personal_facts import PERSONAL_FACT_RULES, STRICT_FACT_RULES
from tasks.pii.detect.presidio import PRESIDIO_RULES
from tasks.pii.detect.reading import NameReader
from tasks.pii.detect.rules import TokenRecognizer
from tasks.pii.detect.spoken import SPOKEN_RULES
from tasks.pii.detect.tokens import TokenizedText, View, make_view
from tasks.pii.lexicon import lexicon
from tasks.pii.policy import Policy
from tasks.pii.replace.operators import PLACEHOLDER, replace_value
from tasks.pii.spans import Span, joined, union

MAX_ROUNDS = 8
_NAME_SCORE = 0.7
"""Names at least this sure are masked wherever else they stand in their record."""


class UnstableTextError(Exception):
    """A text in which every round finds something new; it is quarantined."""


@dataclass
class _Text:
    """One text on its way: what is masked so far, in the original's offsets."""

    original: str
    record: int
    values: Sequence[str]
    spans: list[Span] = field(default_factory=list)
    new_spans: list[Span] = field(default_factory=list)


class Detector:
    """Finds personal data under one policy; holds loaded models, so make one per process."""

    def __init__(self, policy: Policy) -> None:
        config: PiiConfig = policy.config
        self._policy = policy
        strict = config.mode != "balanced"
        self._reader: NameReader | None = None
        allowed_terms = {term.lower() for term in items_of(config.allowed_terms)}
        self._allowed = frozenset(word for term in allowed_terms for word in re.findall(r"[^\W_]+", term))
        self._lexicon = lexicon()
        common = self._allowed | policy.common_terms
        names = NameRecognizer(alone=config.mode == "turbo", allowed=self._allowed, common=common)
        facts = (*PERSONAL_FACT_RULES, *(STRICT_FACT_RULES if strict else ()))
        self.presidio_rules = tuple(rule for rule in PRESIDIO_RULES if strict or not rule.strict_only)
        self.recognizers = (
            TokenRecognizer(CONTACT_RULES),
            names,
            TokenRecognizer(SPOKEN_RULES),
            TokenRecognizer(DISGUISE_RULES),
            AddressRecognizer(self._allowed),
        )
        self.digit_recognizers = (
            TokenRecognizer(IDENTIFIER_RULES, IDENTIFIER_ENTITIES),
            TokenRecognizer(facts),
        )
        """Called only for texts with a digit."""
        if config.mode != "turbo":
            self._reader = NameReader(
                load_names(config.ner),
                config.ner.min_score,
                corroborates=strict,
                allowed=self._allowed,
                common=policy.common_terms,
            )

    def detect(
        self, texts: Sequence[str], known_values: Sequence[Sequence[str]], records: Sequence[int]
    ) -> list[list[Span]]:
        """Disjoint spans of each text, in order.

        Args:
            texts: The texts.
            known_values: For each text, values that are personal in it.
            records: For each text, its record's number; names found in one text are masked in its record's others.

        Raises:
            UnstableTextError: Rounds did not come to an end.
            RecognizerFailedError: A pattern took too long on a text.
        """
        every = [_Text(text, record, values) for text, record, values in zip(texts, records, known_values, strict=True)]
        names: dict[int, set[str]] = {}
        active = every
        for _ in range(MAX_ROUNDS):
            self._round(active, names)
            changed = {text.record for text in active if text.new_spans}
            self._propagate([text for text in every if text.record in changed], names)
            active = [text for text in every if text.new_spans]
            for text in active:
                text.spans = union([*text.spans, *text.new_spans])
                text.new_spans = []
            if not active:
                return [joined(text.spans, text.original) for text in every]
        raise UnstableTextError

    def forget(self) -> None:
        """Empties the memory of lines (for measurements)."""
        if self._reader is not None:
            self._reader.forget()

    # -- one round

    def _round(self, texts: Sequence[_Text], names: dict[int, set[str]]) -> None:
        """Fills ``new_spans`` with what the texts, masked so far, still show."""
        lines: list[tuple[_Text, _Masked, TokenizedText, list[Span], int, str]] = []
        for text in texts:
            masked = _mask(text, self._policy)
            tokenized = TokenizedText(masked.view.text)
            spans = self._apply_rules(tokenized)
            if not text.spans and text.values:
                spans.extend(find_known_values(tokenized, text.values))
            self._keep(text, masked, spans)
            if self._reader is not None:
                lines += [(text, masked, tokenized, spans, *line) for line in self._reader.lines(tokenized, spans)]
        if self._reader is not None:
            entities_of = self._reader.read([line for *_, line in lines])
            for (text, masked, tokenized, spans, start, _), entities in zip(lines, entities_of, strict=True):
                found = [span for span in self._reader.judge(tokenized, start, entities) if not _is_within(span, spans)]
                self._keep(text, masked, found)
        for text in texts:
            for span in text.new_spans:
                value = text.original[span.start : span.end]
                if span.entity in ("PERSON", "KNOWN_VALUE") and span.score >= _NAME_SCORE:
                    names.setdefault(text.record, set()).update(self._name_parts(value))
                elif span.entity == "EMAIL_ADDRESS":
                    names.setdefault(text.record, set()).update(self._email_parts(value))

    def _apply_rules(self, text: TokenizedText) -> list[Span]:
        recognizers = (*self.recognizers, *(self.digit_recognizers if text.num_digits else ()))
        spans: list[Span] = []
        for finder in (*self.presidio_rules, *recognizers):
            spans += finder.find(text)
        return spans

    def _keep(self, text: _Text, masked: _Masked, spans: Iterable[Span]) -> None:
        """Adds spans of the masked text to ``new_spans``, at the original's offsets, less what is kept or masked already."""
        operators = self._policy.config.operators
        for span in spans:
            if operators.get(span.entity) == "keep":
                continue
            for start, end in masked.to_original(span.start, span.end):
                if any(character.isalnum() for character in text.original[start:end]):
                    text.new_spans.append(Span(start, end, span.entity, span.score, span.detector))

    # -- propagation

    def _propagate(self, texts: Sequence[_Text], names: dict[int, set[str]]) -> None:
        """Masks, in every text of a record, the names found in any of them."""
        for text in texts:
            parts = names.get(text.record)
            if not parts:
                continue
            masked = _mask(text, self._policy)
            spans = [
                Span(token.start, token.end, "PERSON", 0.65, "own.propagated")
                for token in TokenizedText(masked.view.text).tokens
                if token.lower in parts and (token.is_capital or token.lower not in self._lexicon.english)
            ]
            self._keep(text, masked, spans)

    def _name_parts(self, value: str) -> set[str]:
        lexicon = self._lexicon
        return {
            word
            for word in (part.lower() for part in re.findall(r"[^\W\d_]+", value))
            if len(word) >= 3
            and word not in self._allowed
            and (word not in lexicon.ordinary or (word in lexicon.names and word not in lexicon.top))
        }

    def _email_parts(self, value: str) -> set[str]:
        local = value.split("@", 1)[0]
        words = re.findall(r"[A-Z]?[a-z]{3,}", local)
        lexicon = self._lexicon
        return {word.lower() for word in words if word.lower() not in lexicon.ordinary and len(word) >= 4}


# -- masked texts


@dataclass(frozen=True)
class _Masked:
    """A text with its findings replaced, and the way from it back to the original."""

    view: View
    pieces: tuple[tuple[int, int, int], ...]
    """Unmasked stretches: start in the masked text, end there, start in the original."""

    def to_original(self, start: int, end: int) -> list[tuple[int, int]]:
        """The original spans of a span of the view; parts that were replaced already are left out."""
        if end <= start:
            return []
        start, end = self.view.to_original(start, end)
        return [
            (original + max(start, first) - first, original + min(end, last) - first)
            for first, last, original in self.pieces
            if first < end and start < last
        ]


def _mask(text: _Text, policy: Policy) -> _Masked:
    parts: list[str] = []
    pieces: list[tuple[int, int, int]] = []
    position = length = 0
    for span in text.spans:
        kept = text.original[position : span.start]
        if kept:
            pieces.append((length, length + len(kept), position))
        replacement = replace_value(span.entity, text.original[span.start : span.end], policy)
        parts += (kept, replacement)
        length += len(kept) + len(replacement)
        position = span.end
    rest = text.original[position:]
    pieces.append((length, length + len(rest), position))
    parts.append(rest)
    masked = PLACEHOLDER.sub(_blank, "".join(parts))
    return _Masked(make_view(masked), tuple(pieces))


def _blank(placeholder: re.Match[str]) -> str:
    """Bars for the scrubber's own placeholder; one with a number in it (``<ID_NUMBER:415555267199>``) is a person's."""
    value = placeholder.group()
    return value if value.rpartition(":")[2][:-1].isdigit() else "|" * len(value)


def _is_within(span: Span, others: Iterable[Span]) -> bool:
    """Whether a rule has found all of it, and knows better what it is."""
    return any(other.start <= span.start and span.end <= other.end for other in others)


_detectors: dict[str, Detector] = {}


def detector_for(policy: Policy) -> Detector:
    """The process's detector for a policy; models are loaded once."""
    name = policy.sha256
    if name not in _detectors:
        _detectors.clear()
        _detectors[name] = Detector(policy)
    return _detectors[name]
