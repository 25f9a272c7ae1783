"""Rules as data: what each one looks for, how sure it is, and texts that it must and must not hit.

One test runs every rule's examples, and ``benchmarks/rule_yield.py`` prints what each one brings on labelled texts, so that
a rule that never earns its keep is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from presidio_analyzer import EntityRecognizer, RecognizerResult

from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.spans import Span

CONTEXT_REACH = 40
"""Characters before a value in which the words that announce it are looked for."""
_LONGEST_CONTEXT = 20

Match = re.Match[str]
SpanFinder = Callable[[TokenizedText], Iterator[tuple[int, int, str | None]]]
"""Start and end of each value, and its entity where it is not the rule's own."""
PredicateT = TypeVar("PredicateT", bound=Callable[..., object])


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[PredicateT]):
    """One way to recognise one kind of value: by a pattern, or by a predicate where a pattern cannot say it.

    Args:
        id: The name in findings and reports, such as ``own.email``.
        entity: What the value is.
        score: How sure the rule is.
        hits: Texts in which the rule finds what stands between « and », and nothing else.
        misses: Texts in which it finds nothing.
        pattern: The last named group of a match is the value; the whole match where no group has a name.
        predicate: What decides in place of a pattern; each recognizer says what it calls it with.
        keywords: One of them stands in the lower-case text, or the pattern is not tried.
        may_hold: A necessary condition that keywords cannot say.
        context: What must end at most :data:`CONTEXT_REACH` characters before the value.
        validator: Whether a match is a value, by its check digits or its words.
        entity_of: The entity by the words around a match; None leaves the rule's own.
        source: Who wrote the rule.
    """

    id: str
    entity: str
    score: float
    hits: tuple[str, ...]
    misses: tuple[str, ...]
    pattern: re.Pattern[str] | None = None
    predicate: PredicateT | None = None
    keywords: tuple[str, ...] = ()
    may_hold: Callable[[TokenizedText], bool] | None = None
    context: re.Pattern[str] | None = None
    validator: Callable[[Match, TokenizedText], bool] | None = None
    entity_of: Callable[[Match, TokenizedText], str | None] | None = None
    source: str = "own"

    def find(self, text: TokenizedText) -> Sequence[Span]:
        """Every span that the rule finds by its pattern, or by a predicate that is a :data:`SpanFinder`."""
        if self.keywords:
            lower = text.lower
            for keyword in self.keywords:
                if keyword in lower:
                    break
            else:
                return ()
        if self.may_hold is not None and not self.may_hold(text):
            return ()
        if self.pattern is None:
            spans: Any = self.predicate(text) if self.predicate is not None else ()
            return [Span(start, end, entity or self.entity, self.score, self.id) for start, end, entity in spans]
        return [
            self._span(match, text)
            for match in self.pattern.finditer(text.plain)
            if (self.context is None or _follows(self.context, text.plain, match.start(match.lastgroup or 0)))
            and (self.validator is None or self.validator(match, text))
        ]

    def _span(self, match: Match, text: TokenizedText) -> Span:
        start, end = match.span(match.lastgroup or 0)
        entity = self.entity_of(match, text) if self.entity_of is not None else None
        return Span(start, end, entity or self.entity, self.score, self.id)


def _follows(context: re.Pattern[str], plain: str, start: int) -> bool:
    matches = context.finditer(plain, max(0, start - CONTEXT_REACH - _LONGEST_CONTEXT), start)
    return any(match.end() >= start - CONTEXT_REACH for match in matches)


PatternRule = Rule[SpanFinder]


class TokenRecognizer(EntityRecognizer):  # type: ignore[misc]
    """A table of rules as a Presidio recognizer that works on a shared :class:`TokenizedText`.

    Args:
        rules: The table.
        entities: What the rules may find beside their own entities.
    """

    def __init__(self, rules: tuple[Rule[Any], ...], entities: tuple[str, ...] = ()) -> None:
        self.rules = rules
        supported = dict.fromkeys((*(rule.entity for rule in rules), *entities))
        super().__init__(supported_entities=list(supported), name=type(self).__name__, supported_language="en")

    def load(self) -> None:
        """Nothing to load; Presidio calls it."""

    def find(self, text: TokenizedText) -> Iterable[Span]:
        """What stands in the text; spans may overlap."""
        spans: list[Span] = []
        for rule in self.rules:
            spans += rule.find(text)
        return spans

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Presidio's own entry point, for use in an ``AnalyzerEngine``."""
        metadata = {RecognizerResult.RECOGNIZER_NAME_KEY: self.name, RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id}
        return [
            RecognizerResult(span.entity, span.start, span.end, span.score, recognition_metadata=dict(metadata))
            for span in self.find(TokenizedText(text))
            if span.entity in entities
        ]
