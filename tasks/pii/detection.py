"""All detectors over a batch of records: rules first, then one pass of the name model where rules leave a doubt.

Detection is repeated on its own output until nothing more is found, so that scrubbing twice equals scrubbing once: what a
name or a number hid from a pattern shows when it is gone. Later rounds are cheap: only changed texts are read again, and
the name model's answer for an unchanged segment is remembered.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tasks.core.term_lists import items_of
from tasks.pii.config import PiiConfig
from tasks.pii.lexicon import lexicon, without_accents
from tasks.pii.ner import Entities, NameModel, load_names
from tasks.pii.operators import PLACEHOLDER, replace_value
from tasks.pii.patterns import find_patterns, gated_recognizers
from tasks.pii.policy import Policy
from tasks.pii.reading import Reading, Token, View, make_view
from tasks.pii.recognizers import (
    AddressRecognizer,
    ContactRecognizer,
    IdentifierRecognizer,
    NameRecognizer,
    PersonalFactRecognizer,
    SpokenRecognizer,
)
from tasks.pii.spans import Span, union

MAX_ROUNDS = 8
MEMO_SIZE = 50_000
_DIGIT = re.compile(r"\d")
_SEGMENT = re.compile(r"[^\n|]+")
_SENTENCE = re.compile(r"(?<=[a-z\d)\"'][.!?])\s+(?=[A-Z\"'])")
_LOCATIVE = re.compile(r"\b(?:in|from|near|at|to|around|outside|of|via)\s(?:the\s)?$", re.IGNORECASE)
"""After these a place may have a name of ordinary words (``in Reading``); elsewhere such words are things (``Port 443``)."""
_QUOTES = re.compile(r"[\"'`*_#~]")
_LETTERS = re.compile(r"[^\W\d_]+")
_NAME_MARKS = re.compile(r"[ ,.'’-]")
_MIN_NUMBER_SIGNS, _MIN_NUMBER_DIGITS = 6, 4
"""Known values with so many letters and digits are found however they are divided; shorter ones would be found by chance."""
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
    found: list[Span] = field(default_factory=list)
    reading: Reading | None = None


class Detector:
    """Finds personal data under one policy; holds loaded models, so make one per process."""

    def __init__(self, policy: Policy) -> None:
        config: PiiConfig = policy.config
        self._policy = policy
        strict = config.mode != "balanced"
        allowed_terms = {term.lower() for term in items_of(config.allowed_terms)}
        self._allowed = frozenset(word for term in allowed_terms for word in re.findall(r"[^\W_]+", term))
        self._lexicon = lexicon()
        self._patterns = gated_recognizers(strict=strict)
        self._contacts = ContactRecognizer()
        self._addresses = AddressRecognizer(self._allowed)
        self._identifiers = IdentifierRecognizer()
        self._common = self._allowed | policy.common_terms
        self._names = NameRecognizer(strict=strict, allowed=self._allowed, common=self._common)
        self._facts = PersonalFactRecognizer(strict=strict)
        self._spoken = SpokenRecognizer()
        self._model: NameModel | None = load_names(config.ner) if config.mode != "turbo" else None
        self._memo: OrderedDict[str, Entities] = OrderedDict()
        self._strict = strict

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
            changed = {text.record for text in active if text.found}
            self._propagate([text for text in every if text.record in changed], names)
            active = [text for text in every if text.found]
            for text in active:
                text.spans = union([*text.spans, *text.found])
                text.found = []
            if not active:
                return [text.spans for text in every]
        raise UnstableTextError

    def forget(self) -> None:
        """Empties the memory of segments (for measurements)."""
        self._memo.clear()

    # -- one round

    def _round(self, texts: Sequence[_Text], names: dict[int, set[str]]) -> None:
        """Fills ``found`` with what the texts, masked so far, still show."""
        wanted: list[tuple[_Text, _Masked, int, str]] = []
        for text in texts:
            masked = _mask(text, self._policy)
            reading = Reading(masked.view.text)
            spans = self._rules(reading)
            if not text.spans and text.values:
                spans.extend(_known_values(reading, text.values))
            self._keep(text, masked, spans)
            if self._model is not None:
                for start, segment in self._doubtful_segments(reading, spans):
                    wanted.append((text, masked, start, segment))
        if self._model is not None and wanted:
            answers = self._ask([segment for _, _, _, segment in wanted])
            for (text, masked, start, segment), entities in zip(wanted, answers, strict=True):
                spans = [
                    Span(start + first, start + last, entity, score, "ner")
                    for first, last, entity, score in entities
                    if self._is_plausible(segment, first, last, entity)
                ]
                self._keep(text, masked, spans)
        for text in texts:
            for span in text.found:
                if span.entity in ("PERSON", "KNOWN_VALUE") and span.score >= _NAME_SCORE:
                    names.setdefault(text.record, set()).update(self._name_parts(text.original[span.start : span.end]))
                elif span.entity == "EMAIL_ADDRESS":
                    names.setdefault(text.record, set()).update(self._email_parts(text.original[span.start : span.end]))

    def _rules(self, reading: Reading) -> list[Span]:
        text = reading.text
        num_digits = len(_DIGIT.findall(text))
        spans = list(find_patterns(self._patterns, text, num_digits))
        spans.extend(self._contacts.find(reading))
        spans.extend(self._names.find(reading))
        spans.extend(self._spoken.find(reading))
        if num_digits:
            spans.extend(self._identifiers.find(reading))
            spans.extend(self._facts.find(reading))
        spans.extend(self._addresses.find(reading))
        return spans

    def _keep(self, text: _Text, masked: _Masked, spans: Iterable[Span]) -> None:
        """Adds spans of the masked text to ``found``, at the original's offsets, less what is kept or masked already."""
        operators = self._policy.config.operators
        for span in spans:
            if operators.get(span.entity) == "keep":
                continue
            for start, end in masked.to_original(span.start, span.end):
                if any(character.isalnum() for character in text.original[start:end]):
                    text.found.append(Span(start, end, span.entity, span.score, span.detector))

    # -- the name model

    def _doubtful_segments(self, reading: Reading, spans: Sequence[Span]) -> list[tuple[int, str]]:
        """Start and plain form of each segment with a word that rules left open, or could not name."""
        tokens = reading.tokens
        covered = union(span for span in spans if span.entity != "PROPER_NOUN")
        open_places: list[int] = []
        position = 0
        for index, token in enumerate(tokens):
            if token.is_number:
                continue
            while position < len(covered) and covered[position].end <= token.start:
                position += 1
            if position < len(covered) and covered[position].start < token.end:
                continue
            if self._is_open(reading, index, token):
                open_places.append(token.start)
        if not open_places:
            return []
        segments: list[tuple[int, str]] = []
        for start, end in _segments(reading.text):
            if any(start <= place < end for place in open_places):
                segments.append((start, self._for_model(reading, start, end)))
        return segments

    def _is_open(self, reading: Reading, index: int, token: Token) -> bool:
        """Whether a word might be a name that only its sentence tells."""
        known, word = self._lexicon, token.lower
        if len(word) < 2 or word in self._common:
            return False
        if not reading.has_case:
            return len(word) > 2 and word not in known.english and word not in known.proper
        if not token.is_capital or (token.text.isupper() and len(word) <= 5):
            return False
        if word in known.proper or (word in known.top and word not in known.maybe_first):
            return False
        if reading.starts_sentence(index):
            return word in known.names or word not in known.english
        return True

    def _for_model(self, reading: Reading, start: int, end: int) -> str:
        """The segment as the model reads best: quotes blanked; capitals restored where there are none, or only they."""
        segment = _QUOTES.sub(" ", reading.text[start:end])
        if reading.has_case:
            return segment
        letters = list(segment.lower())
        for token in reading.tokens:
            if start <= token.start < end and (
                token.lower in self._lexicon.names or token.lower not in self._lexicon.english
            ):
                letters[token.start - start] = segment[token.start - start].upper()
        restored = "".join(letters)
        return restored if len(restored) == len(segment) else segment

    def _ask(self, segments: Sequence[str]) -> list[Entities]:
        """The model's entities of each segment, each distinct segment asked once."""
        unknown = [segment for segment in dict.fromkeys(segments) if segment not in self._memo]
        answers: dict[str, Entities] = {}
        if unknown and self._model is not None:
            answers = dict(zip(unknown, self._model.find(unknown), strict=True))
        result = [answers[segment] if segment in answers else self._memo[segment] for segment in segments]
        self._memo.update(answers)
        while len(self._memo) > MEMO_SIZE:
            self._memo.popitem(last=False)
        return result

    def _is_plausible(self, segment: str, start: int, end: int, entity: str) -> bool:
        """Whether a model's entity is to be masked: people, unless made of plain words; places, unless a country."""
        words = [word.lower() for word in re.findall(r"[^\W\d_]{2,}", segment[start:end])]
        if not words or all(word in self._allowed for word in words):
            return False
        known = self._lexicon
        if entity == "PERSON":
            return any(word in known.names or word not in known.ordinary for word in words)
        if entity == "LOCATION":
            if all(word in self._common for word in words):
                return False
            if all(word in known.ordinary and word not in known.names for word in words):
                return (
                    False if _LOCATIVE.search(segment, 0, start) is None else any(word not in known.proper for word in words)
                )
            return " ".join(words) not in known.countries and any(word not in known.proper for word in words)
        return entity not in ("ORGANIZATION", "NRP")

    # -- propagation

    def _propagate(self, texts: Sequence[_Text], names: dict[int, set[str]]) -> None:
        """Masks, in every text of a record, the names found in any of them."""
        for text in texts:
            parts = names.get(text.record)
            if not parts:
                continue
            masked = _mask(text, self._policy)
            reading = Reading(masked.view.text)
            spans = [
                Span(token.start, token.end, "PERSON", 0.65, "own.propagated")
                for token in reading.tokens
                if token.lower in parts and (token.is_capital or token.lower not in self._lexicon.english)
            ]
            self._keep(text, masked, spans)

    def _name_parts(self, value: str) -> set[str]:
        known = self._lexicon
        return {
            word
            for word in (part.lower() for part in re.findall(r"[^\W\d_]+", value))
            if len(word) >= 3
            and word not in self._allowed
            and (word not in known.ordinary or (word in known.names and word not in known.top))
        }

    def _email_parts(self, value: str) -> set[str]:
        local = value.split("@", 1)[0]
        words = re.findall(r"[A-Z]?[a-z]{3,}", local)
        known = self._lexicon
        return {word.lower() for word in words if word.lower() not in known.ordinary and len(word) >= 4}


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
        replacement = replace_value(span.entity, text.original[span.start : span.end], policy, intermediate=True)
        parts += (kept, replacement)
        length += len(kept) + len(replacement)
        position = span.end
    rest = text.original[position:]
    pieces.append((length, length + len(rest), position))
    parts.append(rest)
    masked = PLACEHOLDER.sub(lambda match: "|" * len(match.group()), "".join(parts))
    return _Masked(make_view(masked), tuple(pieces))


def _known_values(reading: Reading, values: Sequence[str]) -> list[Span]:
    """Every occurrence of a record's own values, whole words, in any case, numbers however they are divided.

    A name's parts count too, in any order (``Baker, Rose``).
    """
    known = lexicon()
    spans: list[Span] = []
    for value in values:
        plain = " ".join(make_view(value).text.split())
        if not plain:
            continue
        words = [token.lower for token in Reading(plain).tokens]
        is_name = len(words) > 1 and _NAME_MARKS.sub("", plain).isalpha()
        for expression in (*_writings(plain, reading), *(_name_orders(words, reading) if is_name else ())):
            found = re.finditer(expression, reading.text, re.IGNORECASE)
            spans.extend(Span(match.start(), match.end(), "KNOWN_VALUE", 1.0, "known_values") for match in found)
        if is_name:
            parts = {part for word in words for part in (word, *_LETTERS.findall(word)) if len(part) >= 3}
            bare = {without_accents(part) for part in parts}
            spans.extend(
                Span(token.start, token.end, "KNOWN_VALUE", 0.95, "known_values")
                for token in reading.tokens
                if (token.lower in parts or without_accents(token.lower) in bare)
                and (token.is_capital or token.lower not in known.english)
            )
    return spans


def _writings(plain: str, reading: Reading) -> Iterator[str]:
    """Patterns of a known value that may match: as it is, and, where it is a number, with other separators or none."""
    parts = plain.split(" ")
    if _holds_all(reading, parts):
        head = r"(?<!\w)" if plain[0].isalnum() else ""
        tail = r"(?!\w)" if plain[-1].isalnum() else ""
        yield head + r"\s+".join(map(re.escape, parts)) + tail
    signs = "".join(filter(str.isalnum, plain))
    is_number = len(signs) >= _MIN_NUMBER_SIGNS and sum(map(str.isdigit, signs)) >= _MIN_NUMBER_DIGITS
    if is_number and signs.lower() in reading.signs:
        yield r"(?<!\w)" + r"[\s\-./()]{0,2}".join(map(re.escape, signs)) + r"(?!\w)"


def _name_orders(words: Sequence[str], reading: Reading) -> Iterator[str]:
    """Patterns of a name from each of its words on: the family name first or last, with a comma or without."""
    if _holds_all(reading, words):
        for first in range(len(words)):
            turned = [*words[first:], *words[:first]]
            yield r"(?<!\w)" + r"[\s,.]+".join(map(re.escape, turned)) + r"(?!\w)"


def _holds_all(reading: Reading, parts: Iterable[str]) -> bool:
    """Whether a text holds all parts somewhere: quicker than to make a pattern and look."""
    return all(part.lower() in reading.lower or part in reading.text for part in parts)


def _segments(text: str) -> list[tuple[int, int]]:
    """Sentences within lines."""
    segments: list[tuple[int, int]] = []
    for line in _SEGMENT.finditer(text):
        start = line.start()
        for gap in _SENTENCE.finditer(text, line.start(), line.end()):
            segments.append((start, gap.start()))
            start = gap.end()
        segments.append((start, line.end()))
    return segments


_detectors: dict[str, Detector] = {}


def detector_for(policy: Policy) -> Detector:
    """The process's detector for a policy; models are loaded once."""
    name = policy.sha256
    if name not in _detectors:
        _detectors.clear()
        _detectors[name] = Detector(policy)
    return _detectors[name]
