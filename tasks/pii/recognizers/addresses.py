"""Postal addresses, grown from an anchor.

An anchor is what only addresses have: a street word with a number beside it, an apartment, a post-office box, a number
beside a proper noun. From there the address grows both ways over numbers, capitalised words, commas and line breaks,
until ordinary lower-case text or the end of a sentence stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.lexicon import vocabulary
from tasks.pii.reading import Reading, Token
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_SURE_STREET = vocabulary("streets")
_SOFT_STREET = vocabulary("soft_streets")
_STREET_ENDINGS = tuple(sorted(vocabulary("street_endings")))
_UNIT = vocabulary("units")
_SURE_UNIT = vocabulary("sure_units")
_MILITARY = frozenset(("apo", "fpo", "dpo"))
_JOIN = vocabulary("address_joins")
_PLACE_WORDS = vocabulary("place_words")
_STATES = vocabulary("states")
_MONTHS = vocabulary("months")
_COUNTED = vocabulary("counted")
_CUE = re.compile(
    r"(?:\b(?:address(?:es)?(?: is| was|:| to| with)?|live[sd]?(?: on| at| in)?|living (?:on|at|in)|resid(?:e|es|ing) (?:on|at|in)|"
    r"located (?:on|at|in)|moved? to|ship(?:ped)?(?: it)? to|deliver(?:ed|y)?(?: it)?(?: to)?|sen[dt](?: \w+){0,4}? to|mail(?:ed)?(?: it)? to|"
    r"home (?:is )?(?:at|on)|meet (?:\w+ )?(?:at|on)|side of|corner of|taxi to|ride to|pick(?:ed)? \w+ up (?:at|from)|enter (?:on|at)|"
    r"arrived at|office (?:is )?(?:at|on)|at|on|to)[\s:]*)$",
    re.IGNORECASE,
)
_SURE_CUE = re.compile(
    r"(?:address|live|living|resid|located|moved?\b|ship|deliver|meet|side of|corner of|taxi|ride|enter|arrived)",
    re.IGNORECASE,
)
_CORNER = re.compile(r"\bcorner of\s+(?=\w)", re.IGNORECASE)
_PO_BOX = re.compile(
    r"\b(?:p\.?\s?o\.?\s?box|post(?:al)?\s?(?:office)?\s?box|postbox|postfach|boîte postale|apartado|casella postale|postboks|"
    r"gpo box|locked bag|private bag|pmb)\s?(?:no\.?\s?)?#?\d{1,6}\b",
    re.IGNORECASE,
)
_POSTCODE_CITY = re.compile(r"(?<![\w.,$€£#-])(?:[A-Z]{1,2}-)?\d{4,5} (?=[A-ZÀ-Þ][a-zà-ÿ]{2,})")
_STOP_GAP = re.compile(r"[?!;:()\[\]{}<>\"=|@*…]|\n\s*\n")
MAX_ADDRESS_TOKENS = 18


class AddressRecognizer(OwnRecognizer):
    """Postal addresses.

    Args:
        allowed: Lower-case words that are never personal.
    """

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(("STREET_ADDRESS",))
        self._allowed = allowed

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`."""
        tokens = reading.tokens
        done = -1
        for first, last, score, detector in sorted(self._anchors(reading), key=lambda anchor: (anchor[0], -anchor[1])):
            if last <= done:
                continue
            left = self._grow_left(reading, first)
            right = self._grow_right(reading, last)
            done = right
            yield Span(tokens[left].start, tokens[right].end, "STREET_ADDRESS", score, detector)

    # -- anchors

    def _anchors(self, reading: Reading) -> Iterator[tuple[int, int, float, str]]:
        """First and last token of each sure sign of an address."""
        tokens, known = reading.tokens, reading.lexicon
        starts = {token.start: index for index, token in enumerate(tokens)}
        for match in _PO_BOX.finditer(reading.text):
            if match.start() in starts:
                first = starts[match.start()]
                last = first
                while last + 1 < len(tokens) and tokens[last + 1].end <= match.end():
                    last += 1
                yield first, last, 0.85, "own.po_box"
        for match in _CORNER.finditer(reading.text):
            index = starts.get(match.end())
            if index is not None and self._is_proper(reading, index):
                yield index, index, 0.8, "own.corner"
        for match in _POSTCODE_CITY.finditer(reading.text):
            index = starts.get(match.end())
            if index is not None and index > 0 and self._is_proper(reading, index) and tokens[index].lower not in _MONTHS:
                is_year = tokens[index - 1].text.startswith(("19", "20")) and len(tokens[index - 1].text) == 4
                if not is_year:
                    yield index - 1, index, 0.6, "own.postcode_city"
        for index, token in enumerate(tokens):
            if token.is_number:
                if len(token.text) <= 5 or token.text.isdigit() and len(token.text) <= 6:
                    yield from self._number_anchors(reading, index)
            elif token.lower in _SURE_UNIT and self._near_number(tokens, index):
                yield index, index + 1, 0.8, "own.unit"
            elif (
                token.lower in _MILITARY
                and token.text.isupper()
                and index + 1 < len(tokens)
                and tokens[index + 1].lower in ("aa", "ae", "ap")
            ):
                yield index, index + 1, 0.9, "own.military"
            elif token.is_capital and token.lower in _SURE_STREET and len(token.lower) > 3 and index > 0:
                before = tokens[index - 1]
                if (
                    before.is_capital
                    and token.before == " "
                    and not reading.starts_sentence(index - 1)
                    and before.lower not in known.top
                ):
                    yield index - 1, index, 0.6, "own.street_name"
            elif (
                token.is_capital
                and token.lower.endswith(_STREET_ENDINGS)
                and token.lower not in known.ordinary
                and len(token.lower) > 6
            ):
                yield index, index, 0.6, "own.street_ending"

    def _number_anchors(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """Anchors around a house number: a street before or after it, or any proper noun where an address is expected."""
        tokens, known = reading.tokens, reading.lexicon
        number = tokens[index]
        for ahead in range(index + 1, min(index + 6, len(tokens))):
            token = tokens[ahead]
            if not _is_address_gap(token.before, allow_newline=False) or token.before.startswith(", "):
                break
            if self._is_street_word(reading, ahead, number_at=index):
                yield index, ahead, 0.85, "own.street"
                break
            if not (
                token.is_capital
                or token.is_number
                or token.lower in _JOIN
                or not reading.has_case
                and token.lower not in known.english
            ):
                break
        for back in range(index - 1, max(index - 5, -1), -1):
            token = tokens[back]
            if tokens[back + 1].before not in (" ", ". ", ", ", " # ", " #", "  "):
                break
            if self._is_street_word(reading, back, number_at=index):
                yield back, index, 0.8, "own.street"
                break
            if not (token.is_capital or token.lower in _JOIN):
                break
        if index + 1 < len(tokens) and tokens[index + 1].before in (" ", "  ", " #"):
            after = tokens[index + 1]
            cue = _CUE.search(reading.text, max(0, number.start - 40), number.start)
            if (
                self._is_proper(reading, index + 1)
                and after.lower not in _MONTHS | _COUNTED
                and (cue or index == 0 or self._number_within(tokens, index + 1))
            ):
                yield index, index + 1, 0.6, "own.number_and_name"
            elif cue and _SURE_CUE.search(cue.group()) and after.is_capital and after.lower not in _MONTHS | _COUNTED:
                yield index, index + 1, 0.6, "own.cued_number"
            elif cue and _SURE_CUE.search(cue.group()) and after.is_number:
                yield index, index + 1, 0.5, "own.cued_number"
        if index > 0 and number.before in (" ", ". ") and len(number.text) <= 5:
            before = tokens[index - 1]
            if (
                self._is_proper(reading, index - 1)
                and before.lower not in _MONTHS | _COUNTED
                and not before.text.isupper()
                and not (len(number.text) == 4 and number.text[:2] in ("19", "20"))
            ):
                cue = _CUE.search(reading.text, max(0, before.start - 60), before.start)
                sure = cue is not None and _SURE_CUE.search(cue.group()) is not None
                if sure or (number.text.isdigit() and len(number.text) in (2, 3, 4) and before.lower not in known.names):
                    yield index - 1, index, 0.6 if sure else 0.5, "own.name_and_number"

    def _is_street_word(self, reading: Reading, index: int, number_at: int) -> bool:
        token = reading.tokens[index]
        word = token.lower
        lower_case_is_fine = not reading.has_case
        if word in _SURE_STREET:
            if len(word) > 3:
                return token.is_capital or lower_case_is_fine or self._beside_proper(reading, index)
            # "St", "Dr", "Av", "al", "via": only beside another word of a street
            return self._beside_proper(reading, index) and (token.is_capital or lower_case_is_fine or token.before == " ")
        if not (token.is_capital or lower_case_is_fine):
            return False
        if word.endswith(_STREET_ENDINGS) and word not in reading.lexicon.ordinary and len(word) > 5:
            return True
        return word in _SOFT_STREET and abs(index - number_at) > 1 and self._beside_proper(reading, index)

    def _beside_proper(self, reading: Reading, index: int) -> bool:
        tokens = reading.tokens
        for other in (index - 1, index + 1):
            if 0 <= other < len(tokens):
                token = tokens[other]
                gap = token.before if other > index else tokens[index].before
                if (
                    gap in (" ", ". ", "  ", "-")
                    and not token.is_number
                    and (token.is_capital or not reading.has_case and token.lower not in reading.lexicon.top)
                ):
                    return True
        return False

    def _near_number(self, tokens: list[Token], index: int) -> bool:
        return (
            index + 1 < len(tokens)
            and tokens[index + 1].is_number
            and tokens[index + 1].before in (" ", ". ", " #", "#", " # ", ".# ", ". #")
        )

    def _number_within(self, tokens: list[Token], index: int) -> bool:
        return any(
            tokens[ahead].is_number or tokens[ahead].lower in _SURE_UNIT
            for ahead in range(index + 1, min(index + 4, len(tokens)))
            if all(_is_address_gap(tokens[step].before, allow_newline=True) for step in range(index + 1, ahead + 1))
        )

    def _is_proper(self, reading: Reading, index: int) -> bool:
        """Whether the token may be the name of a street or a place: capitalised (or in caseless text) and not plain English."""
        token = reading.tokens[index]
        if (
            token.is_number
            or len(token.lower) < 3
            or token.lower in self._allowed
            or token.lower in reading.lexicon.ordinary
        ):
            return False
        return token.is_capital or not reading.has_case

    # -- growth

    def _grow_right(self, reading: Reading, last: int) -> int:
        tokens = reading.tokens
        count = 0
        while last + 1 < len(tokens) and count < MAX_ADDRESS_TOKENS:
            following = last + 1
            if not self._may_follow(reading, last, following):
                break
            if self._is_part(reading, following):
                last = following
            else:
                # a connecting word is taken only with the part after it: "rue de la Hulotais", ", nan 18237"
                ahead = following + 1
                while ahead < len(tokens) and tokens[ahead].lower in _JOIN and ahead - following < 3:
                    ahead += 1
                connects = tokens[following].lower in _JOIN or (
                    tokens[following].lower not in reading.lexicon.english and "\n" in tokens[following].before
                )
                if (
                    not connects
                    or ahead >= len(tokens)
                    or not self._is_part(reading, ahead)
                    or not self._may_follow(reading, ahead - 1, ahead)
                ):
                    break
                last = ahead
            count += 1
        return last

    def _grow_left(self, reading: Reading, first: int) -> int:
        tokens = reading.tokens
        count = 0
        while first > 0 and count < 6:
            gap = tokens[first].before
            token = tokens[first - 1]
            if not _is_address_gap(gap, allow_newline=False) or _STOP_GAP.search(gap):
                break
            if ". " in gap and not (len(token.text) <= 3 or token.lower in _SURE_STREET):
                break
            if token.is_number and len(token.text) <= 6:
                first -= 1
            elif (
                not token.is_number
                and token.is_capital
                and token.lower not in _MONTHS
                and (
                    token.lower not in reading.lexicon.top
                    or (token.lower in _PLACE_WORDS | _SOFT_STREET | _UNIT and not reading.starts_sentence(first - 1))
                )
            ):
                first -= 1
            elif token.lower in _JOIN and first > 1 and self._is_proper(reading, first - 2) and gap == " ":
                first -= 2
            elif not reading.has_case and token.lower not in reading.lexicon.english and not token.is_number:
                first -= 1
            else:
                break
            count += 1
        return first

    def _may_follow(self, reading: Reading, last: int, following: int) -> bool:
        tokens = reading.tokens
        gap = tokens[following].before
        if not _is_address_gap(gap, allow_newline=True) or tokens[last].full_end != tokens[last].end:
            return False
        if "." in gap:
            previous = tokens[last]
            abbreviated = len(previous.text) <= 4 and not previous.is_number or previous.lower in _UNIT | _SURE_STREET
            return (
                abbreviated
                or (previous.is_number and "\n" in gap)
                or (previous.is_number and tokens[following].lower in _UNIT)
            )
        return True

    def _is_part(self, reading: Reading, index: int) -> bool:
        """Whether a token may stand inside an address."""
        tokens, known = reading.tokens, reading.lexicon
        token = tokens[index]
        if token.is_number:
            return len(token.text) <= 8
        word = token.lower
        if word in _UNIT and index + 1 < len(tokens) and (tokens[index + 1].is_number or len(tokens[index + 1].text) == 1):
            return True
        if word in _STATES and (token.text.isupper() or not reading.has_case):
            return True
        if not token.is_capital:
            if reading.has_case:
                return word in _SURE_STREET and len(word) > 2 and tokens[index - 1].is_capital
            return word not in known.english or word in _SURE_STREET or word in known.countries
        if word not in known.english or word in _PLACE_WORDS or word in _SURE_STREET or word in _SOFT_STREET:
            return True
        if word in known.top and word not in known.last:
            # an ordinary capitalised word goes on only where a number, a state or a country follows: "Mill Village 12345"
            ahead = tokens[index + 1 : index + 3]
            return any(
                other.is_number or other.lower in _STATES and other.text.isupper() for other in ahead
            ) and "\n" not in (ahead[0].before if ahead else "")
        return True


def _is_address_gap(gap: str, *, allow_newline: bool) -> bool:
    """Whether only spaces and the punctuation of addresses stand between two tokens."""
    if len(gap) > 12 or ("\n" in gap and (not allow_newline or gap.count("\n") > 1)):
        return False
    return not gap.strip(" \t\n\r,.#/-") and gap.count(",") <= 2
