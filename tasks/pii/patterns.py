"""Presidio's pattern recognizers."""

from __future__ import annotations

from collections.abc import Iterator

import tldextract
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    CryptoRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    PhoneRecognizer,
    UrlRecognizer,
    UsSsnRecognizer,
)

from tasks.pii.spans import Span

# The first e-mail otherwise makes tldextract fetch the public-suffix list; the copy it ships with is enough.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR


def presidio_recognizers() -> list[EntityRecognizer]:
    """The recognizers used, in a fixed order."""
    return [
        EmailRecognizer(),
        CreditCardRecognizer(),
        IbanRecognizer(),
        IpRecognizer(),
        UsSsnRecognizer(),
        PhoneRecognizer(),
        CryptoRecognizer(),
        UrlRecognizer(),
    ]


def find_patterns(recognizers: list[EntityRecognizer], text: str) -> Iterator[Span]:
    """Every span that a recognizer is sure enough of."""
    for recognizer in recognizers:
        for result in recognizer.analyze(text, recognizer.supported_entities, None):
            if result.score >= 0.3:
                yield Span(result.start, result.end, result.entity_type, result.score, type(recognizer).__name__)
