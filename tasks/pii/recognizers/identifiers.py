"""Numbers that identify: phones, cards, accounts, documents, vehicles, patients; and any long run of digits.

Masked first, typed second: a run of seven digits or more is personal until shown otherwise (an amount, a date, a year
range), and the words before it only decide what it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.reading import JOINED, Reading
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_RUN = re.compile(
    rf"(?<!{JOINED})(?<!\d[.,])[+(]{{0,2}}\d(?:[\d()]|[ ./-]{{1,2}}(?=[\d(]))*\d"
    rf"(?:\s?(?:x|ext\.?|extension)\s?\d{{1,6}})?(?!{JOINED})",
    re.IGNORECASE,
)
_DATE_LIKE = re.compile(
    r"(?:(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d\d|\d{1,2}[-./]\d{1,2}[-./]\d\d"
    r"|(?:1[5-9]|20)\d\d\s?[-/]\s?(?:1[5-9]|20)\d\d)"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:[. ]000)+|\d{1,3}(?:\.\d{3})+|\d+\.\d+")
_NUMBER_WORD = re.compile(r"\b(?:number|nummer|nr|no)\.?(?: is| was|:)?\s?$")
_DASHED_SSN = re.compile(r"\d{3}-\d{2}-\d{4}")
_QUANTITY = re.compile(r"[1-9]\d*(?:[ .]\d+)*")
_DOTTED_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_ROUND = re.compile(r"[1-9]\d?0{5,}")
_MONEY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:usd|eur|gbp|chf|inr|rs)\.?) ?$", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"\s?(?:%|[$€£¥₹]|°|(?:usd|eur|gbp|dollars?|euros?|pounds?|percent|people|inhabitants|miles|km|kilomet|met(?:er|re)s?"
    r"|years?|square|times|bytes|bits|[kmg]b|units|tons?|lightyears?|light)\b)",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(
    r"[=×÷^*<>]\s?$|\b(?:sum|result|product|equals?|factorial|integer|decimal|binary|value|array|list|"
    r"sequence) (?:of |is |to )?$"
)
_CONTEXTS = (
    ("CREDIT_CARD", re.compile(r"\b(?:card|visa|mastercard|amex|credit|debit|cc|maestro|discover)\b")),
    ("US_SSN", re.compile(r"\b(?:ssn|social security|social insurance)\b")),
    ("US_PASSPORT", re.compile(r"\bpassport\b")),
    ("US_DRIVER_LICENSE", re.compile(r"\b(?:driv(?:er|ing)(?:'?s)?|licen[cs]e|permit)\b")),
    ("MEDICAL_RECORD_NUMBER", re.compile(r"\b(?:mrn|medical record|patient|chart|hospital)\b")),
    (
        "HEALTH_PLAN_ID",
        re.compile(r"\b(?:health|insurance|medicare|medicaid|plan|policy|subscriber|member(?:ship)?|beneficiary|nhs)\b"),
    ),
    (
        "PHONE_NUMBER",
        re.compile(
            r"\b(?:phone|telephone|tel|cell|mobile|call|text|fax|sms|ring|dial|reach|whatsapp|messages?|contact|hotline)\b"
        ),
    ),
    ("BANK_ACCOUNT", re.compile(r"\b(?:account|acct|iban|bank|routing|sort code|aba|swift)\b")),
    ("TAX_ID", re.compile(r"\b(?:tax|tin|itin|ein|vat|fiscal)\b")),
    ("DEVICE_ID", re.compile(r"\b(?:serial|imei|device|udid)\b")),
)
_CONTEXT_REACH = 40
_LABELLED = re.compile(
    r"\b(?P<label>(?:bank |customer |client |user |member(?:ship)? |patient |policy |employee |staff |student |case |claim |"
    r"social security |driv(?:er|ing)(?:'?s)? |medical record |health plan |insurance |subscriber |tax(?:payer)? |national |"
    r"identity |device |licen[cs]e |passport |account |booking |order |tracking |invoice |reference |certificate )?"
    r"(?:account|acct|licen[cs]e|passport|mrn|ssn|vin|imei|policy|id|ids|identification|identifier|certificate|"
    r"permit|badge|chart|record|serial|routing|sort code|customer|patient|member|subscriber|claim|case|booking|"
    r"nhs|medicare|employee|student|badge))"
    r"(?:\s(?:card|plate))?(?:\s?(?:number|numbers|no\.?|nr\.?|num|code|id|\#))?"
    r"(?:\s?[:=#]{1,2}\s?|\s(?:is|was|are|of|it's)\s(?:now\s)?|\s)[#\"'(]?"
    r"(?P<value>[A-Za-z]{0,5}[ -]?\d[A-Za-z0-9]*(?:[ /-][A-Za-z0-9]*\d[A-Za-z0-9]*){0,4}(?:-[A-Za-z])?)(?![\w])",
    re.IGNORECASE,
)
_LETTERED = re.compile(
    r"(?<![\w-])(?=[A-Z0-9-]*\d)(?:[A-Z]{1,4}-?\d{6,16}[A-Z]?|[A-Z]{1,4}(?:-\d{2,6}){2,4}|"
    r"\d{1,3}[A-Z]{1,3}\d{5,12}|[A-Z]{2}-\d{5,12})(?![\w-])"
)
_VIN = re.compile(r"(?<![\w-])(?=[A-HJ-NPR-Z\d]*[A-HJ-NPR-Z])(?=[A-HJ-NPR-Z\d]*\d)[A-HJ-NPR-Z\d]{17}(?![\w-])")
_PLATE_WORD = re.compile(
    r"\b(?:licen[cs]e plates?|number plates?|plates?|registration|reg|car tag|vehicle|rego)\b", re.IGNORECASE
)
_PLATE = re.compile(
    r"(?<![\w-])(?=[A-Z0-9 -]*\d)(?:[A-Z]{1,3}[ -]?[A-Z]{1,2}[ -]?\d{1,4}[A-Z]?|"
    r"[A-Z]{1,4}[ -]?\d{1,4}[ -]?[A-Z]{0,3}|\d{1,4}[ -]?[A-Z]{1,4}[ -]?\d{0,4})(?![\w-])",
    re.IGNORECASE,
)
_SURE_PLATE = re.compile(r"(?<![\w-])(?:[A-Z]{2}\d{2} [A-Z]{3}|[A-Z]{3}-\d{3,4})(?![\w-])")
_UK_POSTCODE = re.compile(r"(?<!\w)(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})(?!\w)")
_OTHER_POSTCODE = re.compile(
    r"\b(?:zip(?:\s?code)?|post(?:al)?\s?code|postcode|plz|cap|c\.p\.)(?:\s?[:#]|\sis|"
    r"\sof)?\s?(?P<value>[A-Z]{0,2}-?\d[\dA-Z]{2,5}(?:[ -]\d{0,4}[A-Z]{0,2})?)(?!\w)"
    r"|(?<![\w-])(?P<canada>[ABCEGHJ-NPRSTVXY]\d[A-Z] \d[A-Z]\d)(?!\w)|(?<![\w-])(?P<plus4>\d{5}-\d{4})(?!\w)",
    re.IGNORECASE,
)
_LAST_DIGITS = re.compile(
    r"\b(?:ending|ends|finishing|last (?:four|4)(?: digits)?(?: of [\w ]{1,30})?)\s(?:in|with|are|is|"
    r":)?\s?(?P<value>\d{4})\b",
    re.IGNORECASE,
)
_IBAN_LIKE = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", re.IGNORECASE
)


_SECURITY_CODE = re.compile(
    r"\b(?:(?P<card>cvv2?|cvc2?|csc|security code)|pin(?: ?code)?|pass ?code|otp|(?:verification|one[- ]time) code)\b"
    r"(?:\s(?:number|no\.?|is|was|of|on the back)|\s?[:=#])*\s?"
    r"(?P<value>\d{3,6})(?![\w.,-]*\d)",
    re.IGNORECASE,
)
_COORDINATES = re.compile(
    r"(?<![\w.,-])[-+]?\d{1,2}\.\d{4,}°?\s?[NS]?(?:\s?[,;]\s?|\s)[-+]?\d{1,3}\.\d{4,}°?(?:\s?[EW]\b)?(?!\w|\.\d)"
)


class IdentifierRecognizer(OwnRecognizer):
    """Numbers and codes that belong to one person, one account, one device or one vehicle."""

    def __init__(self) -> None:
        super().__init__(
            (
                *(entity for entity, _ in _CONTEXTS),
                "ID_NUMBER",
                "IBAN_CODE",
                "LICENSE_PLATE",
                "LOCATION",
                "POSTCODE",
                "VIN",
            )
        )

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`; called only for texts with a digit, since every identifier has one."""
        text, lower = reading.text, reading.lower
        yield from self._runs(text, lower)
        for match in _LABELLED.finditer(text):
            value = match.group("value")
            if sum(character.isdigit() for character in value) >= 4 and (
                "sort" in match.group("label").lower() or not _DATE_LIKE.fullmatch(value)
            ):
                entity = _entity_of(match.group("label").lower()) or "ID_NUMBER"
                yield Span(match.start("value"), match.end("value"), entity, 0.75, "own.labelled_id")
        for match in _LETTERED.finditer(text):
            entity = _entity_of(lower[max(0, match.start() - _CONTEXT_REACH) : match.start()]) or "ID_NUMBER"
            yield Span(match.start(), match.end(), entity, 0.6, "own.lettered_id")
        for match in _SECURITY_CODE.finditer(text):
            if match.group("card") or len(match.group("value")) > 3:
                entity = "CREDIT_CARD" if match.group("card") else "ID_NUMBER"
                yield Span(match.start("value"), match.end("value"), entity, 0.7, "own.security_code")
        for match in _COORDINATES.finditer(text):
            yield Span(match.start(), match.end(), "LOCATION", 0.7, "own.coordinates")
        for match in _VIN.finditer(text):
            has_check = _vin_check(match.group())
            if has_check or "vin" in lower or "chassis" in lower:
                yield Span(match.start(), match.end(), "VIN", 0.9 if has_check else 0.7, "own.vin")
        yield from self._plates(text)
        for match in _UK_POSTCODE.finditer(text):
            yield Span(match.start(), match.end(), "POSTCODE", 0.7, "own.uk_postcode")
        for match in _OTHER_POSTCODE.finditer(text):
            group = match.lastgroup or "value"
            yield Span(match.start(group), match.end(group), "POSTCODE", 0.7, "own.postcode")
        for match in _LAST_DIGITS.finditer(text):
            yield Span(match.start("value"), match.end("value"), "CREDIT_CARD", 0.5, "own.last_digits")
        for match in _IBAN_LIKE.finditer(text):
            value = match.group()
            if sum(character.isdigit() for character in value) >= 8:
                yield Span(match.start(), match.end(), "IBAN_CODE", 0.7, "own.iban_like")

    def _runs(self, text: str, lower: str) -> Iterator[Span]:
        for match in _RUN.finditer(text):
            value = match.group()
            digits = [character for character in value if character.isdigit()]
            if len(digits) < 7:
                continue
            start, end = match.span()
            before = lower[max(0, start - _CONTEXT_REACH) : start]
            entity = _entity_of(before)
            if _DOTTED_QUAD.fullmatch(value) or _is_amount_or_date(value, text, end, before, announced=entity is not None):
                continue
            if entity is None:
                is_announced = _NUMBER_WORD.search(before) is not None
                if _THOUSANDS.fullmatch(value) or _ROUND.fullmatch(value):
                    continue
                if not is_announced and not _is_grouped_like_an_identifier(value):
                    yield from _long_pieces(value, start)
                    continue
                entity = _untyped(value, len(digits))
            if value.endswith(")") and value.count("(") < value.count(")"):
                end -= 1
            yield Span(start, end, entity, 0.7, "own.digit_run")

    def _plates(self, text: str) -> Iterator[Span]:
        for match in _SURE_PLATE.finditer(text):
            yield Span(match.start(), match.end(), "LICENSE_PLATE", 0.6, "own.plate")
        for word in _PLATE_WORD.finditer(text):
            found = _PLATE.search(text, word.end(), min(len(text), word.end() + 30))
            if found is not None and len(found.group()) >= 4 and _is_plate(found.group()):
                yield Span(found.start(), found.end(), "LICENSE_PLATE", 0.7, "own.plate")


def _entity_of(before: str) -> str | None:
    """The kind of number that the nearest words before it announce."""
    best, place = None, -1
    for entity, pattern in _CONTEXTS:
        for match in pattern.finditer(before):
            if match.end() > place:
                best, place = entity, match.end()
    return best


def _long_pieces(value: str, start: int) -> Iterator[Span]:
    """The parts of a row of numbers that are long enough to identify by themselves: ``555-123-4567 555-987-6543 …``."""
    for piece in re.finditer(r"\S+", value):
        if sum(map(str.isdigit, piece.group())) >= 7 and not _DATE_LIKE.fullmatch(piece.group()):
            yield Span(start + piece.start(), start + piece.end(), _untyped(piece.group(), 9), 0.7, "own.digit_run")


def _is_plate(value: str) -> bool:
    """Upper case is enough; in lower case three digits and two letters tell a plate from ``3 days``."""
    if not any(character.islower() for character in value):
        return True
    return sum(map(str.isdigit, value)) >= 3 and sum(map(str.isalpha, value)) >= 2 and value.islower()


def _untyped(value: str, num_digits: int) -> str:
    if _DASHED_SSN.fullmatch(value):
        return "US_SSN"
    if 13 <= num_digits <= 19 and _luhn("".join(character for character in value if character.isdigit())):
        return "CREDIT_CARD"
    if value.startswith(("+", "(", "0")) or (num_digits <= 12 and not value.isdigit()):
        return "PHONE_NUMBER"
    return "ID_NUMBER"


def _is_amount_or_date(value: str, text: str, end: int, before: str, *, announced: bool) -> bool:
    """Whether a long number is an amount of something, a date, a year range or arithmetic rather than someone's number."""
    if _DATE_LIKE.fullmatch(value):
        return True
    if not _QUANTITY.fullmatch(value):
        return False
    if _MONEY_BEFORE.search(before):
        return True
    return not announced and (_ARITHMETIC.search(before) is not None or _UNIT_AFTER.match(text, end) is not None)


def _is_grouped_like_an_identifier(value: str) -> bool:
    """False for what looks like a row of separate numbers (``12 15 18 20``): spaces between many short groups."""
    groups = re.findall(r"\d+", value)
    if len(groups) == 1 or value.startswith(("+", "(", "0")):
        return True
    if all(len(group) == 4 and group.startswith(("19", "20")) for group in groups):
        return False
    has_zeros_in_front = any(len(group) > 1 and group.startswith("0") for group in groups[1:])
    if has_zeros_in_front and sum(map(len, groups)) >= 10 and not any(sign in value for sign in "./-"):
        return True
    if len(groups) > 6:
        return " " in value and "-" not in value and min(map(len, groups)) >= 3 and max(map(len, groups)) >= 4
    if " " in value:
        return max(map(len, groups)) >= 3 and min(map(len, groups)) >= 2
    return min(map(len, groups)) >= 2 or "-" in value


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if position % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


_VIN_VALUES = {
    letter: int(value) for letter, value in zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True)
}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def _vin_check(vin: str) -> bool:
    """The check digit of ISO 3779 numbers as used in North America (49 CFR 565)."""
    total = sum(
        (int(character) if character.isdigit() else _VIN_VALUES[character]) * weight
        for character, weight in zip(vin, _VIN_WEIGHTS, strict=True)
    )
    return vin[8] == ("X" if total % 11 == 10 else str(total % 11))
