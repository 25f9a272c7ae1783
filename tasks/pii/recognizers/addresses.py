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
_FUNCTION_WORDS = vocabulary("function_words")
_CUE = re.compile(
    r"(?:\b(?:address(?:es)?(?: is| was|:| to| with)?|live[sd]?(?: on| at| in)?|living (?:on|at|in)|resid(?:e|"
    r"es|ing) (?:on|at|in)|"
    r"located (?:on|at|in)|moved? to|ship(?:ped)?(?: it)? to|deliver(?:ed|y)?(?: it)?(?: to)?|"
    r"sen[dt](?: \w+){0,4}? to|mail(?:ed)?(?: it)? to|"
    r"home (?:is )?(?:at|on)|meet (?:\w+ )?(?:at|on)|side of|corner of|taxi to|ride to|pick(?:ed)? \w+ up (?:at|"
    r"from)|enter (?:on|at)|"
    r"arrived at|office (?:is )?(?:at|on)|at|on|to)[\s:]*)$",
    re.IGNORECASE,
)
_SURE_CUE = re.compile(
    r"(?:address|live|living|resid|located|moved?\b|ship|deliver|meet|side of|corner of|taxi|ride|enter|arrived)",
    re.IGNORECASE,
)
_HOME_CUE = re.compile(
    r"\b(?:address(?: is| was|:)|live[sd]? (?:on|at|in)|living (?:on|at|in)|stay(?:s|ing|ed)? at"
    r"|resid(?:e|es|ing) (?:on|at|in)|home (?:is )?(?:at|on))(?: no\.?| number)?\s$",
    re.IGNORECASE,
)
"""Before a number: what follows is a street even without a capital."""
_CORNER = re.compile(r"\b(?:the )?corner of\s+(?=\w)", re.IGNORECASE)
_PO_BOX = re.compile(
    r"\b(?:p\.?\s?o\.?\s?box|post(?:al)?\s?(?:office)?\s?box|postbox|postfach|boîte postale|apartado|"
    r"casella postale|postboks|"
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
        tokens = reading.tokens
        starts = {token.start: index for index, token in enumerate(tokens)}
        for match in _PO_BOX.finditer(reading.text):
            if match.start() in starts:
                box = starts[match.start()]
                number = box
                while number + 1 < len(tokens) and tokens[number + 1].end <= match.end():
                    number += 1
                yield box, number, 0.85, "own.po_box"
        for match in _CORNER.finditer(reading.text):
            first, last = starts.get(match.start()), starts.get(match.end())
            if first is not None and last is not None and (tokens[last].is_number or self._is_shaped(reading, last)):
                yield first, last, 0.8, "own.corner"
        for match in _POSTCODE_CITY.finditer(reading.text):
            index = starts.get(match.end())
            if index is not None and index > 0 and self._is_proper(reading, index) and tokens[index].lower not in _MONTHS:
                is_year = tokens[index - 1].text.startswith(("19", "20")) and len(tokens[index - 1].text) == 4
                if not is_year:
                    yield index - 1, index, 0.6, "own.postcode_city"
        for index, token in enumerate(tokens):
            if token.is_number:
                if len(token.text) <= 5 or (token.text.isdigit() and len(token.text) <= 6):
                    yield from self._number_anchors(reading, index)
            elif token.lower == "unit" and self._near_number(tokens, index) and self._followed_by_box(tokens, index + 2):
                yield index, index + 3, 0.8, "own.unit_and_box"
            elif token.lower in _SURE_UNIT and self._near_number(tokens, index):
                yield index, index + 1, 0.8, "own.unit"
            elif (
                token.lower in _MILITARY
                and token.text.isupper()
                and index + 1 < len(tokens)
                and tokens[index + 1].lower in ("aa", "ae", "ap")
            ):
                yield self._ship_before(tokens, index), index + 1, 0.9, "own.military"
            elif token.is_capital and token.lower in _SURE_STREET and len(token.lower) > 3 and index > 0:
                if self._names_a_street(reading, index - 1):
                    yield index - 1, index, 0.6, "own.street_name"
            elif token.is_capital and _ends_like_a_street(token, reading):
                yield index, index, 0.6, "own.street_ending"

    def _names_a_street(self, reading: Reading, index: int) -> bool:
        """Whether the token before a street word may be the street's name: capitalised in mid-sentence."""
        token = reading.tokens[index]
        if not token.is_capital or reading.tokens[index + 1].before != " " or reading.starts_sentence(index):
            return False
        return token.lower not in reading.lexicon.top or token.lower in _SOFT_STREET | _PLACE_WORDS

    def _number_anchors(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """Anchors around a house number: a street before or after it, or any proper noun where an address is expected."""
        yield from self._country_before(reading, index)
        yield from self._street_after(reading, index)
        yield from self._street_before(reading, index)
        yield from self._name_after(reading, index)
        yield from self._name_before(reading, index)

    def _country_before(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """``Estonia 62488``, ``New Zealand 57006``."""
        tokens = reading.tokens
        if not 4 <= len(tokens[index].text) <= 6:
            return
        name = ""
        for first in range(index - 1, max(index - 5, -1), -1):
            if tokens[first + 1].before != " ":
                return
            name = f"{tokens[first].lower} {name}".strip()
            if name in reading.lexicon.countries:
                yield first, index, 0.6, "own.country_and_postcode"

    def _street_after(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """``12 Timms Drive``, ``71 Rue de la Paix``."""
        tokens = reading.tokens
        start = tokens[index].start
        is_home = _HOME_CUE.search(reading.text, max(0, start - 30), start) is not None
        for ahead in range(index + 1, min(index + 6, len(tokens))):
            token = tokens[ahead]
            if not _is_address_gap(token.before, allow_newline=False) or token.before.startswith(", "):
                return
            is_street = is_home and ahead > index + 1 and len(token.lower) > 3 and token.lower in _SURE_STREET
            if is_street or self._is_street_word(reading, ahead, number_at=index):
                yield index, ahead, 0.85, "own.street"
                return
            is_plain = is_home or not reading.has_case
            in_plain_text = is_plain and ahead <= index + 2 and token.lower not in _FUNCTION_WORDS
            if not (self._is_shaped(reading, ahead) or token.is_number or token.lower in _JOIN or in_plain_text):
                return

    def _street_before(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """``Via Tasso 129``, ``Hauptstraße 5``."""
        tokens = reading.tokens
        for back in range(index - 1, max(index - 5, -1), -1):
            if tokens[back + 1].before not in (" ", ". ", ", ", " # ", " #", "  "):
                return
            if self._is_street_word(reading, back, number_at=index):
                yield back, index, 0.8, "own.street"
                return
            if not (
                self._is_shaped(reading, back) or tokens[back].lower in _JOIN or (not reading.has_case and back >= index - 2)
            ):
                return

    def _name_after(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """``6400 12 Oldenbarneveld``: a number and a proper noun, with a cue before or another number behind."""
        tokens = reading.tokens
        if index + 1 >= len(tokens) or tokens[index + 1].before not in (" ", "  ", " #"):
            return
        after = tokens[index + 1]
        if after.lower in _MONTHS or after.lower in _COUNTED:
            return
        start = tokens[index].start
        cue = _CUE.search(reading.text, max(0, start - 40), start)
        if self._is_proper(reading, index + 1) and (cue or index == 0 or self._number_within(tokens, index + 1)):
            yield index, index + 1, 0.6, "own.number_and_name"
        elif cue and _SURE_CUE.search(cue.group()) and (after.is_capital or after.is_number):
            yield index, index + 1, 0.5, "own.cued_number"

    def _name_before(self, reading: Reading, index: int) -> Iterator[tuple[int, int, float, str]]:
        """``Pivovarská 276``, ``Wesselényi u. 94``, ``Joaquin Suarez 2906``: a proper noun and a house number."""
        tokens, number = reading.tokens, reading.tokens[index]
        if index == 0 or number.before not in (" ", ". ") or len(number.text) > 6:
            return
        name = index - 1
        if tokens[name].lower in _SURE_STREET and name > 0 and tokens[name].before == " ":
            name -= 1
        before = tokens[name]
        if (
            not self._is_proper(reading, name)
            or before.text.isupper()
            or before.lower in _MONTHS
            or before.lower in _COUNTED
        ):
            return
        is_year = len(number.text) == 4 and number.text[:2] in ("19", "20")
        first = self._grow_left(reading, name)
        start = tokens[first].start
        cue = _CUE.search(reading.text, max(0, start - 60), start)
        if cue is not None and _SURE_CUE.search(cue.group()):
            yield name, index, 0.6, "own.name_and_number"
        elif number.text.isdigit() and not is_year and before.lower not in reading.lexicon.names:
            is_postcode = len(number.text) >= 5
            if is_postcode or (len(number.text) >= 2 and (cue is not None or self._goes_on(reading, index))):
                yield name, index, 0.5, "own.name_and_number"

    def _goes_on(self, reading: Reading, index: int) -> bool:
        """Whether a unit, a comma or a new line and then a place follow a house number."""
        tokens = reading.tokens
        if index + 1 >= len(tokens) or not _is_address_gap(tokens[index + 1].before, allow_newline=True):
            return False
        return tokens[index + 1].lower in _UNIT or ("," in tokens[index + 1].before and self._is_proper(reading, index + 1))

    def _is_street_word(self, reading: Reading, index: int, number_at: int) -> bool:
        token = reading.tokens[index]
        word = token.lower
        if word in _SURE_STREET:
            if len(word) > 3:
                return token.is_capital or not reading.has_case or self._beside_proper(reading, index)
            # "St", "Dr", "Av", "al", "via" are other words too: only beside another word of a street
            return self._beside_proper(reading, index)
        if not (token.is_capital or not reading.has_case):
            return False
        if _ends_like_a_street(token, reading):
            return True
        return word in _SOFT_STREET and abs(index - number_at) > 1 and self._beside_proper(reading, index)

    def _beside_proper(self, reading: Reading, index: int) -> bool:
        tokens = reading.tokens
        return (index > 0 and tokens[index].before in (" ", ". ", "  ", "-") and self._is_shaped(reading, index - 1)) or (
            index + 1 < len(tokens)
            and tokens[index + 1].before in (" ", ". ", "  ", "-")
            and (self._is_shaped(reading, index + 1) or tokens[index + 1].lower in _JOIN)
        )

    def _is_shaped(self, reading: Reading, index: int) -> bool:
        """Whether a word could be part of a name: capitalised, or, in text without capitals, not frequent English."""
        token = reading.tokens[index]
        if token.is_number:
            return False
        return token.is_capital or (not reading.has_case and token.lower not in reading.lexicon.top)

    def _near_number(self, tokens: list[Token], index: int) -> bool:
        return (
            index + 1 < len(tokens)
            and tokens[index + 1].is_number
            and tokens[index + 1].before in (" ", ". ", " #", "#", " # ", ".# ", ". #")
        )

    def _ship_before(self, tokens: list[Token], index: int) -> int:
        """The first token of the line before a military post office (``USS Mahler``), or the post office itself."""
        first = index
        while (
            first > 0
            and index - first < 4
            and tokens[first - 1].is_capital
            and tokens[first].before.strip(" ,") in ("", "\n")
        ):
            if first != index and "\n" in tokens[first].before:
                break
            first -= 1
        return first

    def _followed_by_box(self, tokens: list[Token], index: int) -> bool:
        return index + 1 < len(tokens) and tokens[index].lower == "box" and tokens[index + 1].is_number

    def _number_within(self, tokens: list[Token], index: int) -> bool:
        return any(
            tokens[ahead].is_number or tokens[ahead].lower in _SURE_UNIT
            for ahead in range(index + 1, min(index + 4, len(tokens)))
            if all(_is_address_gap(tokens[step].before, allow_newline=True) for step in range(index + 1, ahead + 1))
        )

    def _is_proper(self, reading: Reading, index: int) -> bool:
        """Whether the token may be the name of a street or a place: capitalised, or in caseless text, no plain English."""
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
        for _ in range(MAX_ADDRESS_TOKENS):
            step = self._next_part(reading, last)
            if step is None:
                break
            last = step
        if last + 1 < len(tokens) and tokens[last + 1].before.count("\n") > 1 and self._is_postal_line(reading, last + 1):
            last += 2
        return last

    def _next_part(self, reading: Reading, last: int) -> int | None:
        """The token up to which an address that ends at ``last`` goes on, or None.

        Small words and ordinary capitalised words are taken only together with the part after them: ``rue de la Hulotais``,
        ``Mill Village 12345``, ``Avenue du Golf Arabe``.
        """
        tokens = reading.tokens
        ahead = last + 1
        while ahead < len(tokens) and ahead - last <= 4 and self._may_follow(reading, ahead - 1, ahead):
            if self._is_part(reading, ahead):
                return ahead
            if not self._connects(reading, ahead):
                return None
            ahead += 1
        return None

    def _connects(self, reading: Reading, index: int) -> bool:
        token = reading.tokens[index]
        if token.lower in _JOIN:
            return True
        if "\n" in token.before and token.lower not in reading.lexicon.english:
            return True
        return token.is_capital and not token.is_number

    def _is_postal_line(self, reading: Reading, index: int) -> bool:
        """Whether a line of its own holds a country or a place and its postcode, after a blank line."""
        tokens = reading.tokens
        if index + 1 >= len(tokens) or not tokens[index + 1].is_number or tokens[index + 1].before != " ":
            return False
        return (self._is_proper(reading, index) or tokens[index].lower in reading.lexicon.countries) and (
            4 <= len(tokens[index + 1].text) <= 6
        )

    def _grow_left(self, reading: Reading, first: int) -> int:
        tokens = reading.tokens
        for _ in range(6):
            if first == 0 or not _is_address_gap(tokens[first].before, allow_newline=False):
                break
            token = tokens[first - 1]
            if ". " in tokens[first].before and not (len(token.text) <= 3 or token.lower in _SURE_STREET):
                break
            if token.is_number:
                if len(token.text) > 6:
                    break
                first -= 1
            elif self._leads(reading, first - 1):
                first -= 1
            elif token.lower in _JOIN and first > 1 and tokens[first].before == " " and self._is_proper(reading, first - 2):
                first -= 2
            else:
                break
        return first

    def _leads(self, reading: Reading, index: int) -> bool:
        """Whether a word before an address belongs to it."""
        token = reading.tokens[index]
        if not token.is_capital:
            return not reading.has_case and token.lower not in reading.lexicon.english
        if token.lower in _MONTHS:
            return False
        if token.lower not in reading.lexicon.top:
            return True
        return not reading.starts_sentence(index) and token.lower in _PLACE_WORDS | _SOFT_STREET | _UNIT

    def _may_follow(self, reading: Reading, last: int, following: int) -> bool:
        tokens = reading.tokens
        gap = tokens[following].before
        is_closed = reading.text[tokens[following].end : tokens[following].end + 1] == ")"
        if (gap == " (" and tokens[following].is_capital and is_closed) or (gap == ") " and tokens[following].is_number):
            return True
        if not _is_address_gap(gap, allow_newline=True) or tokens[last].full_end != tokens[last].end:
            return False
        if "." in gap:
            previous = tokens[last]
            if previous.is_number:
                return "\n" in gap or tokens[following].lower in _UNIT
            return len(previous.text) <= 4 or previous.lower in _UNIT or previous.lower in _SURE_STREET
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
            return word not in known.english or word in known.countries or word in _SURE_STREET or word in _PLACE_WORDS
        return (
            word not in known.top
            or word in known.last
            or word in _PLACE_WORDS
            or word in _SURE_STREET
            or word in _SOFT_STREET
        )


def _ends_like_a_street(token: Token, reading: Reading) -> bool:
    """``Ziegelgasse``, ``Nybyvägen``: one word, with the ending of streets."""
    return len(token.lower) > 6 and token.lower.endswith(_STREET_ENDINGS) and token.lower not in reading.lexicon.ordinary


def _is_address_gap(gap: str, *, allow_newline: bool) -> bool:
    """Whether only spaces and the punctuation of addresses stand between two tokens."""
    if len(gap) > 12 or ("\n" in gap and (not allow_newline or gap.count("\n") > 1)):
        return False
    return not gap.strip(" \t\n\r,.#/-") and gap.count(",") <= 2
