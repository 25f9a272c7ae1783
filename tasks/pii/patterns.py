"""Presidio's pattern recognizers, each called only for a text that could hold what it finds.

The gates are necessary conditions, a few string searches each; most texts pass none and cost next to nothing. Left out are
the recognizers that fire on any run of digits (bank numbers, NHS, passports): runs of digits are masked by
:mod:`tasks.pii.recognizers.identifiers`, whatever they are. Presidio skips a pattern that runs too long, and logs matched
text when a check fails; here both raise, so that the record is quarantined instead.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Read by Presidio at import: one pattern on one text, in seconds of the processor, so that what else runs has no part in it.
# It is a fuse against made-up texts on which a pattern takes minutes: the longest of ordinary texts took half a second.
os.environ["REGEX_TIMEOUT_SECONDS"] = "10"

import tldextract
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    CryptoRecognizer,
    EmailRecognizer,
    EsNieRecognizer,
    EsNifRecognizer,
    IbanRecognizer,
    InPanRecognizer,
    IpRecognizer,
    ItFiscalCodeRecognizer,
    MedicalLicenseRecognizer,
    UrlRecognizer,
    UsItinRecognizer,
    UsMbiRecognizer,
    UsSsnRecognizer,
)

from tasks.pii.lexicon import vocabulary
from tasks.pii.spans import Span

# The first e-mail otherwise makes tldextract fetch the public-suffix list; the copy it ships with is enough.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR

MIN_SCORE = 0.4
"""Presidio's weaker patterns match any digits; its own documentation tells to set a threshold of about this size."""


class RecognizerFailedError(Exception):
    """A Presidio recognizer gave up on a text, which must then not pass."""


class _NothingIsSkipped(logging.Filter):
    """Turns Presidio's "timed out, skipping" and "failed to validate" into an exception without the text."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and record.funcName in ("__analyze_patterns", "validate_result"):
            raise RecognizerFailedError(record.funcName)
        return False


_presidio_log = logging.getLogger("presidio-analyzer")
_presidio_log.setLevel(logging.WARNING)
if not any(isinstance(each, _NothingIsSkipped) for each in _presidio_log.filters):
    _presidio_log.addFilter(_NothingIsSkipped())


@dataclass(frozen=True)
class TextFacts:
    """What the gates ask about a text, gathered once."""

    text: str
    num_digits: int


Gate = Callable[[TextFacts], bool]
_AT = re.compile(r"\w@\w[\w-]*\.\w")
_IBAN = re.compile(r"[A-Z]{2}\d{2}")
_SSN = re.compile(r"\d{3}[- .]\d{2}[- .]\d{4}")
_IPV6 = re.compile(r"[\dA-Fa-f]{0,4}:[\dA-Fa-f]{0,4}:")
_LONG_WORD = re.compile(r"\b(?:[13]|bc1)[A-Za-z\d]{24,}")
_CODE = re.compile(r"[A-Za-z]\d|\d[A-Za-z]")
_MAC = re.compile(r"(?:[\dA-Fa-f]{2}[:-]){5}[\dA-Fa-f]{2}")
_WEB = re.compile(r"://|www\.|\w\.[a-z]{2,}", re.IGNORECASE)
_COMMON_DOMAINS = vocabulary("domains")


@dataclass(frozen=True)
class _Gated:
    recognizer: EntityRecognizer
    gate: Gate
    accept: Callable[[str], bool] = lambda value: True


def gated_recognizers(*, strict: bool) -> list[_Gated]:
    """The recognizers and their gates, in a fixed order; links to any web page count in strict mode only."""
    nino = PatternRecognizer("UK_NINO", patterns=[Pattern("nino", r"\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", 0.6)])
    mac = PatternRecognizer("MAC_ADDRESS", patterns=[Pattern("mac", _MAC.pattern, 0.7)])
    gated = [
        _Gated(EmailRecognizer(), lambda facts: "@" in facts.text and _AT.search(facts.text) is not None),
        _Gated(CreditCardRecognizer(), lambda facts: facts.num_digits >= 12),
        _Gated(IbanRecognizer(), lambda facts: facts.num_digits >= 8 and _IBAN.search(facts.text) is not None),
        _Gated(
            IpRecognizer(),
            lambda facts: (facts.num_digits >= 4 and facts.text.count(".") >= 3) or _IPV6.search(facts.text) is not None,
            _is_full_ip,
        ),
        _Gated(UsSsnRecognizer(), lambda facts: facts.num_digits >= 9 and _SSN.search(facts.text) is not None),
        _Gated(UsItinRecognizer(), lambda facts: facts.num_digits >= 9 and _SSN.search(facts.text) is not None),
        _Gated(CryptoRecognizer(), lambda facts: _LONG_WORD.search(facts.text) is not None),
        _Gated(nino, lambda facts: facts.num_digits >= 6),
        _Gated(mac, lambda facts: facts.text.count(":") >= 5 or facts.text.count("-") >= 5),
    ]
    codes: list[EntityRecognizer] = [
        MedicalLicenseRecognizer(),
        UsMbiRecognizer(),
        ItFiscalCodeRecognizer(),
        EsNifRecognizer(),
        EsNieRecognizer(),
        InPanRecognizer(),
    ]
    gated += [_Gated(each, lambda facts: facts.num_digits >= 2 and _CODE.search(facts.text) is not None) for each in codes]
    if strict:
        gated.append(_Gated(UrlRecognizer(), lambda facts: _WEB.search(facts.text) is not None, _is_web_address))
    return gated


def find_patterns(gated: list[_Gated], text: str, num_digits: int) -> Iterator[Span]:
    """Every span that a recognizer is sure enough of."""
    facts = TextFacts(text, num_digits)
    for each in gated:
        if each.gate(facts):
            for result in each.recognizer.analyze(text, each.recognizer.supported_entities, None):
                # Presidio's links end at a known domain, even where that is but the head of a word: `docs.int|ranet`.
                is_head = result.entity_type == "URL" and text[result.end : result.end + 1].isalnum()
                if result.score >= MIN_SCORE and not is_head and each.accept(text[result.start : result.end]):
                    yield Span(
                        result.start,
                        result.end,
                        result.entity_type,
                        result.score,
                        f"presidio.{type(each.recognizer).__name__}",
                    )


def _is_full_ip(value: str) -> bool:
    """Presidio's pattern also matches the bare ``::`` of a code sample."""
    return len(value) > 3


def _is_web_address(value: str) -> bool:
    """A link or a bare domain, but not the missing space of ``end.In`` nor a file name."""
    if "://" in value or value.lower().startswith("www."):
        return True
    host = value.split("/", 1)[0].split("?", 1)[0]
    return host.rsplit(".", 1)[-1] in _COMMON_DOMAINS and len(host.split(".", 1)[0]) > 1
