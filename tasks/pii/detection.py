"""All detectors over a batch of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.pii.config import PiiConfig
from tasks.pii.ner import load_names
from tasks.pii.operators import PLACEHOLDER
from tasks.pii.patterns import find_patterns, presidio_recognizers
from tasks.pii.policy import Policy
from tasks.pii.spans import Span, union


class Detector:
    """Finds personal data under one configuration; holds loaded models, so make one per process."""

    def __init__(self, config: PiiConfig) -> None:
        self._config = config
        self._recognizers = presidio_recognizers()
        self._names = load_names(config.ner) if config.mode != "turbo" else None

    def detect(self, texts: Sequence[str], known_values: Sequence[Sequence[str]]) -> list[list[Span]]:
        """Disjoint spans of each text, in order."""
        named = self._names.find(texts) if self._names is not None else [()] * len(texts)
        return [
            self._resolve(text, entities, values) for text, entities, values in zip(texts, named, known_values, strict=True)
        ]

    def _resolve(self, text: str, entities: Sequence[tuple[int, int, str, float]], values: Sequence[str]) -> list[Span]:
        spans = [Span(start, end, entity, score, "ner") for start, end, entity, score in entities if entity == "PERSON"]
        spans.extend(find_patterns(self._recognizers, text))
        for value in values:
            if value.strip():
                found = re.finditer(rf"(?<!\w){re.escape(value.strip())}(?!\w)", text, re.IGNORECASE)
                spans.extend(Span(match.start(), match.end(), "KNOWN_VALUE", 1.0, "known_values") for match in found)
        protected = [match.span() for match in PLACEHOLDER.finditer(text)]
        return [
            span
            for span in union(spans)
            if not any(start < span.end and span.start < end for start, end in protected)
            and self._config.operators.get(span.entity) != "keep"
        ]


_detectors: dict[str, Detector] = {}


def detector_for(policy: Policy) -> Detector:
    """The process's detector for a policy; models are loaded once."""
    if policy.sha256 not in _detectors:
        _detectors.clear()
        _detectors[policy.sha256] = Detector(policy.config)
    return _detectors[policy.sha256]
