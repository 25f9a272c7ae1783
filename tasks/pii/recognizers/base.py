"""What the own recognizers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from presidio_analyzer import EntityRecognizer, RecognizerResult

from tasks.pii.reading import Reading
from tasks.pii.spans import Span


class OwnRecognizer(EntityRecognizer):  # type: ignore[misc]
    """A recognizer that works on a shared :class:`Reading`.

    Args:
        entities: What it may find.
    """

    def __init__(self, entities: tuple[str, ...]) -> None:
        super().__init__(supported_entities=list(entities), name=type(self).__name__, supported_language="en")

    def load(self) -> None:
        """Nothing to load; Presidio asks for it."""

    @abstractmethod
    def find(self, reading: Reading) -> Iterator[Span]:
        """Yields what stands in the text; spans may overlap."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Presidio's own entry point, for use in an ``AnalyzerEngine``."""
        return [
            RecognizerResult(
                span.entity,
                span.start,
                span.end,
                span.score,
                recognition_metadata={
                    RecognizerResult.RECOGNIZER_NAME_KEY: self.name,
                    RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
                },
            )
            for span in self.find(Reading(text))
            if span.entity in entities
        ]
