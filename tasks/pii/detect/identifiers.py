"""Numbers that identify: phones, cards, accounts, documents, vehicles, patients; and any long run of digits.

Masked first, typed second: a run of seven digits or more is personal until shown otherwise (an amount, a date, a year
range), and the words before it only decide what it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stdnum import luhn

from tasks.pii.detect.rules import CONTEXT_REACH, Match, PatternRule, Rule
from tasks.pii.detect.tokens import JOINED, TokenizedText

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
_PUBLISHED = re.compile(r"\b(?:isbn(?:-1[03])?|issn|doi|rfc|build|version|release)(?: (?:number|no\.?))?[ \t]?[:=]?\Z")
"""What stands before a number that is the same for everybody."""
_TIMESTAMP = re.compile(r"(?:19|20)\d\d[-./]\d\d[-./]\d\d \d\d")
_DOTTED_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_ROUND = re.compile(r"[1-9]\d?0{5,}")
_MONEY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:usd|eur|gbp|chf|inr|rs)\.?) ?\Z", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"\s?(?:%|[$€£¥₹]|°|(?:usd|eur|gbp|dollars?|euros?|pounds?|percent|people|inhabitants|miles|km|kilomet|met(?:er|re)s?"
    r"|years?|square|times|bytes|bits|[kmg]b|units|tons?|lightyears?|light)\b)",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(
    r"[=×÷^*<>][ \t]?\Z|\b(?:sum|result|product|equals?|factorial|integer|decimal|binary|value|array|list|"
    r"sequence) (?:of |is |to )?\Z"
)
_ENTITY_WORDS = (
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
    r"\b(?:licen[cs]e plates?|number plates?|plates?|registration|reg|car tag|vehicle|rego|kennzeichen|matr[ií]cula|targa|"
    r"immatriculation|plaque|kenteken|rejestracj\w+|rejestracyjn\w+|plaka(?:s[ıi])?)\b",
    re.IGNORECASE,
)
_PLATE = re.compile(
    r"(?<![\w-])(?=[A-Z0-9 -]*\d)(?:[A-Z]{1,3}[ -]?[A-Z]{1,2}[ -]?\d{1,4}[A-Z]?|"
    r"[A-Z]{1,4}[ -]?\d{1,4}[ -]?[A-Z]{0,3}|\d{1,4}[ -]?[A-Z]{1,4}[ -]?\d{0,4})(?![\w-])",
    re.IGNORECASE,
)
_SURE_PLATE = re.compile(
    r"(?<![\w-])(?:[A-Z]{2}\d{2} [A-Z]{3}|[A-Z]{3}-\d{3,4}|[A-ZÄÖÜ]{1,3}[- ][A-Z]{1,2} \d{2,4}[EH]?"
    r"|\d{4} [B-DF-HJ-NPR-TV-Z]{3}"
    r"|[A-Z]{2}[ -]\d{3}[ -][A-Z]{2}|[A-Z]{2}-\d{2}-[A-Z]{2}|\d{2}-[A-Z]{2}-\d{2}|[A-Z]{1,2}-\d{3}-[A-Z]{1,2}"
    r"|\d{2} [A-Z]{2,3} \d{2,4})(?![\w-])"
)
_UK_POSTCODE = re.compile(r"(?<!\w)(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})(?!\w)")
_ANNOUNCED_POSTCODE = re.compile(
    r"\b(?:zip(?:\s?code)?|post(?:al)?\s?code|postcode|plz|cap|c\.p\.)(?:\s?[:#]|\sis|"
    r"\sof)?\s?(?P<value>[A-Z]{0,2}-?\d[\dA-Z]{2,5}(?:[ -]\d{0,4}[A-Z]{0,2})?)(?!\w)",
    re.IGNORECASE,
)
_CANADIAN_POSTCODE = re.compile(r"(?<![\w-])[ABCEGHJ-NPRSTVXY]\d[A-Z] \d[A-Z]\d(?!\w)", re.IGNORECASE)
_ZIP_PLUS_4 = re.compile(r"(?<![\w-])\d{5}-\d{4}(?!\w)")
_LAST_DIGITS = re.compile(
    r"\b(?:ending|ends|finishing|last (?:four|4)(?: digits)?(?: of [\w ]{1,30})?)\s(?:in|with|are|is|"
    r":)?\s?(?P<value>\d{4})\b",
    re.IGNORECASE,
)
_IBAN_LIKE = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", re.IGNORECASE
)


_CODE_GAP = r"(?:\s(?:number|no\.?|is|was|of|on the back)|\s?[:=#])*\s?"
_CARD_CODE = re.compile(
    rf"\b(?:cvv2?|cvc2?|csc|security code)\b{_CODE_GAP}(?P<value>\d{{3,6}})(?![\w.,-]*\d)", re.IGNORECASE
)
_PIN = re.compile(
    r"\b(?:pin(?: ?code)?|pass ?code|otp|(?:verification|one[- ]time) code)\b"
    rf"{_CODE_GAP}(?P<value>\d{{4,6}})(?![\w.,-]*\d)",
    re.IGNORECASE,
)
_COORDINATES = re.compile(
    r"(?<![\w.,-])[-+]?\d{1,2}\.\d{4,}°?\s?[NS]?(?:\s?[,;]\s?|\s)[-+]?\d{1,3}\.\d{4,}°?(?:\s?[EW]\b)?(?!\w|\.\d)"
)


def _runs(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    """Runs of seven digits or more that are no amount, date or row of separate numbers."""
    for match in _RUN.finditer(text.plain):
        value = match.group()
        num_digits = sum(map(str.isdigit, value))
        if num_digits < 7:
            continue
        start, end = match.span()
        before = text.lower[max(0, start - CONTEXT_REACH) : start]
        if is_published(text, start) or (_TIMESTAMP.fullmatch(value) and text.plain.startswith(":", end)):
            continue
        entity = _entity_of(before)
        is_announced = entity is not None
        if _DOTTED_QUAD.fullmatch(value) or _is_amount_or_date(value, text.plain, end, before, announced=is_announced):
            continue
        if entity is None:
            if _THOUSANDS.fullmatch(value) or _ROUND.fullmatch(value):
                continue
            if _NUMBER_WORD.search(before) is None and not _is_grouped_like_an_identifier(value):
                yield from _long_pieces(value, start)
                continue
            entity = _untyped(value, num_digits)
        if value.endswith(")") and value.count("(") < value.count(")"):
            end -= 1
        yield start, end, entity


def is_published(text: TokenizedText, start: int) -> bool:
    """Whether a number, or one that its part at a place belongs to, is the same for everybody: an ISBN, a build."""
    before = text.lower[max(0, start - CONTEXT_REACH) : start].rstrip("0123456789-–. x")
    return _PUBLISHED.search(before) is not None


def _announced_plates(text: TokenizedText) -> Iterator[tuple[int, int, None]]:
    for word in _PLATE_WORD.finditer(text.plain):
        plate = _PLATE.search(text.plain, word.end(), min(len(text.plain), word.end() + 30))
        if plate is not None and len(plate.group()) >= 4 and _is_plate(plate.group()):
            yield plate.start(), plate.end(), None


def _entity_before(match: Match, text: TokenizedText) -> str | None:
    return _entity_of(text.lower[max(0, match.start() - CONTEXT_REACH) : match.start()])


def _entity_of_label(match: Match, text: TokenizedText) -> str | None:
    return _entity_of(match.group("label").lower())


def _is_labelled_number(match: Match, text: TokenizedText) -> bool:
    """Four digits or more, and no date; a sort code looks like one."""
    value = match.group("value")
    is_number = "sort" in match.group("label").lower() or not _DATE_LIKE.fullmatch(value)
    return is_number and sum(map(str.isdigit, value)) >= 4


def _entity_of(before: str) -> str | None:
    """The kind of number that the nearest words before it announce."""
    best, place = None, -1
    for entity, pattern in _ENTITY_WORDS:
        for match in pattern.finditer(before):
            if match.end() > place:
                best, place = entity, match.end()
    return best


def _long_pieces(value: str, start: int) -> Iterator[tuple[int, int, str]]:
    """The parts of a row of numbers that are long enough to identify by themselves: ``555-123-4567 555-987-6543 …``."""
    for piece in re.finditer(r"\S+", value):
        if sum(map(str.isdigit, piece.group())) >= 7 and not _DATE_LIKE.fullmatch(piece.group()):
            yield start + piece.start(), start + piece.end(), _untyped(piece.group(), 9)


def _is_plate(value: str) -> bool:
    """Upper case is enough; in lower case three digits and two letters distinguish a plate from ``3 days``."""
    if not any(character.islower() for character in value):
        return True
    return sum(map(str.isdigit, value)) >= 3 and sum(map(str.isalpha, value)) >= 2 and value.islower()


def _untyped(value: str, num_digits: int) -> str:
    if _DASHED_SSN.fullmatch(value):
        return "US_SSN"
    if 13 <= num_digits <= 19 and luhn.is_valid("".join(filter(str.isdigit, value))):
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


_VIN_VALUES = {
    letter: int(value) for letter, value in zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True)
}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def _has_vin_check(match: Match, text: TokenizedText) -> bool:
    """The check digit of ISO 3779 numbers as used in North America (49 CFR 565); python-stdnum knows none."""
    vin = match.group()
    total = sum(
        (int(character) if character.isdigit() else _VIN_VALUES[character]) * weight
        for character, weight in zip(vin, _VIN_WEIGHTS, strict=True)
    )
    return vin[8] == ("X" if total % 11 == 10 else str(total % 11))


IDENTIFIER_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.digit_run",
        entity="ID_NUMBER",
        score=0.7,
        predicate=_runs,
        hits=("call «(415) 555-0132» soon", "我的电话是«13812345678»，谢谢", "my ref is «1 85 05 78 006 084 36» here"),
        misses=(
            "ISBN 978-0-306-40615-7, build 20240517",
            "12,345,678 miles and $250,000,000",
            "Sort 10 25 30 45 60 75",
            "from 2019 to 2022",
            "2024-05-01",
        ),
    ),
    Rule(
        id="own.labelled_id",
        entity="ID_NUMBER",
        score=0.75,
        pattern=_LABELLED,
        validator=_is_labelled_number,
        entity_of=_entity_of_label,
        hits=("MRN: «00482913», thanks", "Employee «004512» has left.", "sort code «20-45-77»"),
        misses=("case 12", "the account was opened on 01/02/2024"),
    ),
    Rule(
        id="own.sort_code",
        entity="BANK_ACCOUNT",
        score=0.7,
        pattern=re.compile(r"(?<![\d-])\d{2}-\d{2}-\d{2}(?![\d-])"),
        keywords=("bank", "sort", "account", "acct", "branch"),
        context=re.compile(r"\b(?:bank|sort(?: code)?|account|acct|branch)\b", re.IGNORECASE),
        hits=("Bank: «88-29-78» / 12",),
        misses=("on 88-29-78 we met",),
    ),
    Rule(
        id="own.parted_id",
        entity="ID_NUMBER",
        score=0.6,
        pattern=re.compile(r"(?<![\w/-])(?=[A-Z\d]*[A-Z])[A-Z\d]{1,6}(?:[/-][A-Z\d]{1,10}){1,4}(?![\w/-])"),
        may_hold=lambda text: "/" in text.plain,
        validator=lambda match, text: "/" in match.group() and sum(map(str.isdigit, match.group())) >= 5,
        hits=("policy «HS/20/991837», ref «TP/99120/MV»",),
        misses=("TCP/IP and A/B, 24/7", "ISO/IEC 27001"),
    ),
    Rule(
        id="own.coordinate",
        entity="LOCATION",
        score=0.7,
        pattern=re.compile(
            r"\b(?:lat(?:itude)?|lng|lon(?:gitude)?)[\"']?\s?[:=]?\s?[\"']?(?P<value>[-+]?\d{1,3}\.\d{2,})", re.IGNORECASE
        ),
        keywords=("lat", "lng", "lon"),
        hits=('{"lat":«51.44», "lng" : "«-0.12»"}',),
        misses=("flat 3.50 a month", "latitude 51"),
    ),
    Rule(
        id="own.lettered_id",
        entity="ID_NUMBER",
        score=0.6,
        pattern=_LETTERED,
        entity_of=_entity_before,
        hits=("see «VX-704937» please", "it is «AB12345678»"),
        misses=("the B2B and G20 talks", "see PDF-1"),
    ),
    Rule(
        id="own.card_code",
        entity="CREDIT_CARD",
        score=0.7,
        pattern=_CARD_CODE,
        keywords=("cvv", "cvc", "csc", "security code"),
        hits=("the cvv is «123» and more",),
        misses=("the cvv is missing",),
    ),
    Rule(
        id="own.pin",
        entity="ID_NUMBER",
        score=0.7,
        pattern=_PIN,
        keywords=("pin", "pass", "otp", "code"),
        hits=("my pin: «4821»", "one-time code 482 913 or otp «482913»"),
        misses=("Pin 12 of the connector is the clock.", "pin 4.821,50"),
    ),
    Rule(
        id="own.coordinates",
        entity="LOCATION",
        score=0.7,
        pattern=_COORDINATES,
        keywords=(".",),
        hits=("Last login from «52.5200, 13.4050».",),
        misses=("it rose from 52.52 to 13.40",),
    ),
    Rule(
        id="own.vin",
        entity="VIN",
        score=0.9,
        pattern=_VIN,
        validator=_has_vin_check,
        hits=("it is «1HGCM82633A004352»",),
        misses=("it is 1HGCM82633A004353",),
    ),
    Rule(
        id="own.announced_vin",
        entity="VIN",
        score=0.7,
        pattern=_VIN,
        keywords=("vin", "chassis"),
        hits=("the chassis is «1HGCM82633A004353»",),
        misses=("vin 1HGCM8263",),
    ),
    Rule(
        id="own.plate",
        entity="LICENSE_PLATE",
        score=0.6,
        pattern=_SURE_PLATE,
        hits=("«GJV-4769» blocked it", "the «AB12 CDE» is mine", "mit «HH-KV 4471» und «FX 447 KR»", "el «4471 KLM»"),
        misses=("model ABC-12 is out", "AB12CDE", "at 1200 EST", "2024 USD"),
    ),
    Rule(
        id="own.announced_plate",
        entity="LICENSE_PLATE",
        score=0.7,
        predicate=_announced_plates,
        keywords=("plate", "reg", "car tag", "vehicle", "kenn", "matr", "targ", "immat", "plaq", "kent", "rejes", "plak"),
        hits=("plate «7ABC123» blocked it",),
        misses=("registration takes 3 days",),
    ),
    Rule(
        id="own.uk_postcode",
        entity="POSTCODE",
        score=0.7,
        pattern=_UK_POSTCODE,
        hits=("in «NW1 6XE».",),
        misses=("in NW1 today",),
    ),
    Rule(
        id="own.postcode",
        entity="POSTCODE",
        score=0.7,
        pattern=_ANNOUNCED_POSTCODE,
        keywords=("zip", "post", "plz", "cap", "c.p."),
        hits=("my zip code is «90210»", "PLZ «10115»"),
        misses=("unzip 3 files",),
    ),
    Rule(
        id="own.canadian_postcode",
        entity="POSTCODE",
        score=0.7,
        pattern=_CANADIAN_POSTCODE,
        hits=("in «K1A 0B1» now",),
        misses=("in K1A now",),
    ),
    Rule(
        id="own.zip_plus_4",
        entity="POSTCODE",
        score=0.7,
        pattern=_ZIP_PLUS_4,
        keywords=("-",),
        hits=("in «20500-0003» now",),
        misses=("in 20500-003 now",),
    ),
    Rule(
        id="own.last_digits",
        entity="CREDIT_CARD",
        score=0.5,
        pattern=_LAST_DIGITS,
        keywords=("end", "finishing", "last"),
        hits=("the card ending in «4821»",),
        misses=("the week ending in 48 hours",),
    ),
    Rule(
        id="own.iban_like",
        entity="IBAN_CODE",
        score=0.7,
        pattern=_IBAN_LIKE,
        validator=lambda match, text: sum(map(str.isdigit, match.group())) >= 8,
        hits=("refund «DE89 3704 0044 0532 0130 01»",),
        misses=("refund DE89 ABCD EFGH IJKL",),
    ),
    Rule(
        id="own.uk_nino",
        entity="UK_NINO",
        score=0.6,
        pattern=re.compile(r"\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", re.IGNORECASE),
        hits=("his number was «QQ 12 34 56 C»",),
        misses=("his number was QQ 12 34 56 E",),
    ),
    Rule(
        id="own.mac_address",
        entity="MAC_ADDRESS",
        score=0.7,
        pattern=re.compile(r"(?:[\dA-F]{2}[:-]){5}[\dA-F]{2}", re.IGNORECASE),
        may_hold=lambda text: text.plain.count(":") >= 5 or text.plain.count("-") >= 5,
        hits=("the sticker says «9C:53:22:1F:A0:7E»",),
        misses=("at 10:20:30",),
    ),
)
"""Numbers and codes that belong to one person, one account, one device or one vehicle; for texts with a digit."""

IDENTIFIER_ENTITIES = tuple(entity for entity, _ in _ENTITY_WORDS)
"""What the words before a number may make of it."""
