"""Presidio's pattern recognizers, each called only for a text that could hold what it finds.

The gates are necessary conditions, a few string searches each; most texts pass none and cost next to nothing. Left out are
the recognizers that fire on any run of digits (bank numbers, NHS, passports): runs of digits are masked by
the rule ``own.digit_run``, whatever they are. Presidio skips a pattern that runs too long, and logs matched
text when a check fails; here both raise, so that the record is quarantined instead.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

# Read by Presidio at import: one pattern on one text, in seconds of the processor, so that what else runs has no part in it.
# It is a fuse against made-up texts on which a pattern takes minutes: the longest of ordinary texts took half a second.
os.environ["REGEX_TIMEOUT_SECONDS"] = "10"

import tldextract
from presidio_analyzer import PatternRecognizer
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

from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.lexicon import vocabulary
from tasks.pii.spans import Span

# The first e-mail otherwise makes tldextract fetch the public-suffix list; the copy it ships with is enough.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR

MIN_SCORE = 0.4
"""Presidio's weaker patterns match any digits; its documentation recommends a threshold of about this size."""


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


_DIGIT = re.compile(r"\d")
_AT = re.compile(r"\w@\w[\w-]*\.\w")
_IBAN = re.compile(r"[A-Z]{2}\d{2}")
_SSN = re.compile(r"\d{3}[- .]\d{2}[- .]\d{4}")
_IPV6 = re.compile(r"[\dA-Fa-f]{0,4}:[\dA-Fa-f]{0,4}:")
_LONG_WORD = re.compile(r"\b(?:[13]|bc1)[A-Za-z\d]{24,}")
_CODE = re.compile(r"[A-Za-z]\d|\d[A-Za-z]")
_WEB = re.compile(r"://|www\.|\w\.[a-z]{2,}", re.IGNORECASE)
_PART = re.compile(r"(?:\b(?:section|sect?\.|chapter|clause|article|paragraph|figure|table|appendix|step)|§)[ \t]?\Z", re.I)
_RELEASE = re.compile(r"\b(?:version|release|build|v)[ \t]?\Z", re.I)
_COMMON_DOMAINS = vocabulary("domains")


@dataclass(frozen=True)
class PresidioRule:
    """One of Presidio's recognizers behind a gate.

    Args:
        make: The recognizer's class.
        hits: Texts in which it finds what stands between « and ».
        misses: Texts in which it finds nothing.
        may_hold: A necessary condition of a match: what stands in the text, or a test of it.
        min_digits: Digits that a text must have.
        accept: Whether what it found at a place counts.
        strict_only: Whether it is used in strict mode only.
    """

    make: type[PatternRecognizer]
    hits: tuple[str, ...]
    misses: tuple[str, ...]
    may_hold: re.Pattern[str] | Callable[[TokenizedText], bool]
    min_digits: int = 0
    accept: Callable[[str, int, int], bool] | None = None
    strict_only: bool = False
    source: str = "presidio-analyzer (MIT)"

    @cached_property
    def recognizer(self) -> PatternRecognizer:
        """The recognizer, made at its first use, without patterns whose score is too low whatever they match."""
        recognizer = self.make()
        if type(recognizer).validate_result is PatternRecognizer.validate_result:  # a check may raise a score
            recognizer.patterns = [pattern for pattern in recognizer.patterns if pattern.score >= MIN_SCORE]
        return recognizer

    @property
    def id(self) -> str:
        """The name in findings and reports."""
        return f"presidio.{type(self.recognizer).__name__}"

    def find(self, text: TokenizedText) -> Sequence[Span]:
        """Every span that the recognizer is sure enough of."""
        plain, may_hold = text.plain, self.may_hold
        if text.num_digits < self.min_digits:
            return ()
        if not (may_hold.search(plain) if isinstance(may_hold, re.Pattern) else may_hold(text)):
            return ()
        return [
            Span(result.start, result.end, result.entity_type, result.score, self.id)
            for result in self.recognizer.analyze(plain, self.recognizer.supported_entities, None)
            if result.score >= MIN_SCORE and (self.accept is None or self.accept(plain, result.start, result.end))
        ]


def _is_full_ip(plain: str, start: int, end: int) -> bool:
    """An address, but not the bare ``::`` of a code sample nor the number of a release or of a document's part.

    Parts of a document have numbers of one or two digits, so ``section 108.243.109.20`` holds an address.
    """
    before, value = plain[max(0, start - 20) : start], plain[start:end]
    if len(value) <= 3 or _RELEASE.search(before):
        return False
    return _PART.search(before) is None or max(map(len, value.split("."))) > 2


def _is_web_address(plain: str, start: int, end: int) -> bool:
    """A link or a bare domain, but not the missing space of ``end.In`` nor a file name.

    Presidio's links end at a known domain, even where that is but the head of a word: ``docs.int|ranet``.
    """
    value = plain[start:end]
    if plain[end : end + 1].isalnum():
        return False
    if "://" in value or value.lower().startswith("www."):
        return True
    host = value.split("/", 1)[0].split("?", 1)[0]
    return host.rsplit(".", 1)[-1] in _COMMON_DOMAINS and len(host.split(".", 1)[0]) > 1


def _may_hold_ip(text: TokenizedText) -> bool:
    return (text.num_digits >= 4 and text.plain.count(".") >= 3) or _IPV6.search(text.plain) is not None


PRESIDIO_RULES: tuple[PresidioRule, ...] = (
    PresidioRule(EmailRecognizer, ("mail «jo.smith@corp.com» now",), ("meet @ 10.30",), _AT),
    PresidioRule(
        CreditCardRecognizer, ("card «4111 1111 1111 1111»",), ("card 4111 1111 1111 1112",), _DIGIT, min_digits=12
    ),
    PresidioRule(IbanRecognizer, ("to «DE89370400440532013000»",), ("to DE89370400440532013001",), _IBAN, min_digits=8),
    PresidioRule(
        IpRecognizer,
        ("from «192.168.10.44»", "host «2001:db8::8a2e:370:7334»", "§ «108.243.109.20»", "a new version\n«10.20.3.40»"),
        ("a :: b", "see section 10.2.3.4", "in version 4.18.2.1"),
        _may_hold_ip,
        0,
        _is_full_ip,
    ),
    PresidioRule(UsSsnRecognizer, ("SSN «219-09-9999».",), ("SSN 000-09-9999.",), _SSN, min_digits=9),
    PresidioRule(UsItinRecognizer, ("ITIN «912-70-1234».",), ("it is 219-09-9999",), _SSN, min_digits=9),
    PresidioRule(
        CryptoRecognizer,
        ("to «1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa» now",),
        ("to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb now",),
        _LONG_WORD,
    ),
    PresidioRule(MedicalLicenseRecognizer, ("number «BB1388568» is",), ("number BB1388569 is",), _CODE, min_digits=2),
    PresidioRule(UsMbiRecognizer, ("it is «1EG4-TE5-MK73».",), ("it is 1EG4-TE5-MK7.",), _CODE, min_digits=2),
    PresidioRule(ItFiscalCodeRecognizer, ("mio «RSSMRA85T10A562S»",), ("mio RSSMRA85T10A562",), _CODE, min_digits=2),
    PresidioRule(EsNifRecognizer, ("mi DNI es «12345678Z»",), ("mi DNI es 12345678A",), _CODE, min_digits=2),
    PresidioRule(EsNieRecognizer, ("es «X1234567L»",), ("es X1234567A",), _CODE, min_digits=2),
    PresidioRule(InPanRecognizer, ("PAN «ABCPD1234Z» is",), ("PAN ABCPD123 is",), _CODE, min_digits=2),
    PresidioRule(
        UrlRecognizer,
        ("see «https://acme.com/a» now", "see «acme.org» now"),
        ("it is the end.In time", "read report.pdf"),
        _WEB,
        accept=_is_web_address,
        strict_only=True,
    ),
)
"""In a fixed order; links to any web page count in strict mode only."""
