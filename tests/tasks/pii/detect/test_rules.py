"""Every rule finds what its examples mark, there and nowhere else, and leaves its counter-examples alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from tasks.pii.config import PiiConfig
from tasks.pii.detect.detector import Detector
from tasks.pii.detect.presidio import PresidioRule
from tasks.pii.detect.rules import Rule, TokenRecognizer
from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.entities import ENTITIES
from tasks.pii.lexicon import entities_by_label
from tasks.pii.policy import Policy

DETECTOR = Detector(Policy(PiiConfig(mode="turbo")))
RECOGNIZERS = (*DETECTOR.recognizers, *DETECTOR.digit_recognizers)


def _rules() -> Iterator[tuple[TokenRecognizer | PresidioRule, Rule | PresidioRule]]:
    yield from ((rule, rule) for rule in DETECTOR.presidio_rules)
    yield from ((recognizer, rule) for recognizer in RECOGNIZERS for rule in recognizer.rules)


def _unmarked(example: str) -> tuple[str, list[tuple[int, int]]]:
    """The example without its marks, and the spans that they enclose."""
    parts = example.replace("»", "«").split("«")
    starts = [sum(map(len, parts[:place])) for place in range(1, len(parts), 2)]
    return "".join(parts), [(start, start + len(part)) for start, part in zip(starts, parts[1::2], strict=True)]


@pytest.mark.parametrize(("finder", "rule"), [pytest.param(*pair, id=pair[1].id) for pair in _rules()])
def test_a_rule_hits_and_misses_as_its_examples_say(
    finder: TokenRecognizer | PresidioRule, rule: Rule | PresidioRule
) -> None:
    assert rule.hits
    assert rule.misses
    for example in rule.hits:
        plain, marked = _unmarked(example)
        spans = [span for span in finder.find(TokenizedText(plain)) if span.detector == rule.id]
        assert [(span.start, span.end) for span in spans] == marked, example
        if isinstance(rule, Rule):
            assert {span.score for span in spans} == {rule.score}
            assert rule.entity_of or rule.predicate or {span.entity for span in spans} == {rule.entity}
    for example in rule.misses:
        assert [span for span in finder.find(TokenizedText(example)) if span.detector == rule.id] == [], example


def test_every_rule_has_a_name_of_its_own_and_an_entity_that_is_known() -> None:
    names = Counter(rule.id for _, rule in _rules())
    assert [name for name, count in names.items() if count > 1] == []
    finders: tuple[EntityRecognizer, ...] = (*RECOGNIZERS, *(rule.recognizer for rule in DETECTOR.presidio_rules))
    entities = {entity for finder in finders for entity in finder.supported_entities}
    assert entities | (set(entities_by_label().values()) - {"none"}) | {"KNOWN_VALUE"} == ENTITIES


class _NoEngine(NlpEngine):
    """An NLP engine that does nothing, since the project's own recognizers need none."""

    def load(self) -> None: ...

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        return NlpArtifacts([], [], [], [], self, language)

    def process_batch(self, texts: object, language: str, **kwargs: object) -> object:
        return ((text, self.process_text(text, language)) for text in texts)  # type: ignore[attr-defined]

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return False

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return ["en"]


def test_tables_of_rules_work_in_an_ordinary_analyzer() -> None:
    engine = AnalyzerEngine(
        registry=RecognizerRegistry(list(RECOGNIZERS)), nlp_engine=_NoEngine(), supported_languages=["en"]
    )
    results = engine.analyze("Priya moved to 12 Rosewood Gardens, Leeds; phone 0113 496 0000", "en")
    assert {"PERSON", "STREET_ADDRESS", "PHONE_NUMBER"} <= {result.entity_type for result in results}
