"""Postal addresses, grown from an anchor.

An anchor is what only addresses have: a street word with a number beside it, an apartment, a post-office box, a number
beside a proper noun. From there the address grows both ways over numbers, capitalised words, commas and line breaks,
until ordinary lower-case text or the end of a sentence stops it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tasks.pii.detect.rules import Rule, TokenRecognizer
from tasks.pii.detect.tokens import Token, TokenizedText
from tasks.pii.lexicon import vocabulary
from tasks.pii.spans import Span

_SURE_STREET = vocabulary("streets")
_SOFT_STREET = vocabulary("soft_streets")
_STREET_ENDINGS = tuple(sorted(vocabulary("street_endings")))
_UNIT = vocabulary("units")
_SURE_UNIT = vocabulary("sure_units")
_MILITARY = frozenset(("apo", "fpo", "dpo"))
_ANCHOR_WORDS = _SURE_UNIT | _SURE_STREET | _MILITARY | {"unit"}
_JOIN = vocabulary("address_joins")
_PLACE_WORDS = vocabulary("place_words")
_STATES = vocabulary("states")
_MONTHS = vocabulary("months")
_COMPASS = frozenset(("N", "S", "E", "W", "NE", "NW", "SE", "SW"))
_PLOTS = frozenset(("plot", "door", "flat", "house", "villa", "block", "shop", "stand", "erf"))
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
MAX_ADDRESS_TOKENS = 18


class AddressRecognizer(TokenRecognizer):
    """Postal addresses: each rule finds an anchor, from which the address grows.

    Args:
        allowed: Lower-case words that are never personal.
    """

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(ADDRESS_RULES)
        self._allowed = allowed

    def find(self, text: TokenizedText) -> Iterator[Span]:
        """See :class:`TokenRecognizer`."""
        tokens = text.tokens
        done = -1
        for first, last, rule in sorted(self._anchors(text), key=lambda anchor: (anchor[0], -anchor[1])):
            if last <= done:
                continue
            left = self.grow_left(text, first)
            done = self._grow_right(text, last)
            yield Span(tokens[left].start, tokens[done].end, rule.entity, rule.score, rule.id)

    # -- anchors

    def _anchors(self, text: TokenizedText) -> Iterator[tuple[int, int, AnchorRule]]:
        """First and last token of each sure sign of an address, and the rule that found it."""
        for rule in TEXT_ANCHORS:
            yield from self._apply(rule, text, 0)
        for index, token in enumerate(text.tokens):
            if token.is_number:
                if len(token.text) <= 5 or (token.text.isdigit() and len(token.text) <= 6):
                    for rule in NUMBER_ANCHORS:
                        yield from self._apply(rule, text, index)
            elif token.lower in _ANCHOR_WORDS or (token.is_capital and token.lower.endswith(_STREET_ENDINGS)):
                for rule in WORD_ANCHORS:
                    anchors = list(self._apply(rule, text, index))
                    yield from anchors
                    if anchors:
                        break

    def _apply(self, rule: AnchorRule, text: TokenizedText, index: int) -> Iterator[tuple[int, int, AnchorRule]]:
        if rule.predicate is not None:
            yield from ((first, last, rule) for first, last in rule.predicate(self, text, index))

    def is_proper(self, text: TokenizedText, index: int) -> bool:
        """Whether the token may be the name of a street or a place: capitalised, or in caseless text, no plain English."""
        token = text.tokens[index]
        if token.is_number or len(token.lower) < 3 or token.lower in self._allowed or token.lower in text.lexicon.ordinary:
            return False
        return token.is_capital or not text.has_case

    # -- growth

    def _grow_right(self, text: TokenizedText, last: int) -> int:
        tokens = text.tokens
        for _ in range(MAX_ADDRESS_TOKENS):
            step = self._next_part(text, last)
            if step is None:
                break
            last = step
        if last + 1 < len(tokens) and tokens[last + 1].before.count("\n") > 1 and self._is_postal_line(text, last + 1):
            last += 2
        return last

    def _next_part(self, text: TokenizedText, last: int) -> int | None:
        """The token up to which an address that ends at ``last`` goes on, or None.

        Small words and ordinary capitalised words are taken only together with the part after them: ``rue de la Hulotais``,
        ``Mill Village 12345``, ``Avenue du Golf Arabe``.
        """
        tokens = text.tokens
        ahead = last + 1
        while ahead < len(tokens) and ahead - last <= 4 and self._may_follow(text, ahead - 1, ahead):
            if self._is_part(text, ahead):
                return ahead
            if not self._connects(text, ahead):
                return None
            ahead += 1
        return None

    def _connects(self, text: TokenizedText, index: int) -> bool:
        token = text.tokens[index]
        if token.lower in _JOIN:
            return True
        if "\n" in token.before and token.lower not in text.lexicon.english:
            return True
        return token.is_capital and not token.is_number

    def _is_postal_line(self, text: TokenizedText, index: int) -> bool:
        """Whether a line of its own holds a country or a place and its postcode, after a blank line."""
        tokens = text.tokens
        if index + 1 >= len(tokens) or not tokens[index + 1].is_number or tokens[index + 1].before != " ":
            return False
        return (self.is_proper(text, index) or tokens[index].lower in text.lexicon.countries) and (
            4 <= len(tokens[index + 1].text) <= 6
        )

    def grow_left(self, text: TokenizedText, first: int) -> int:
        """The first token of the address that the token at a place belongs to."""
        tokens = text.tokens
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
            elif self._starts_address(text, first - 1):
                first -= 1
            elif token.lower in _JOIN and first > 1 and tokens[first].before == " " and self.is_proper(text, first - 2):
                first -= 2
            else:
                break
        return first

    def _starts_address(self, text: TokenizedText, index: int) -> bool:
        """Whether a word before an address belongs to it."""
        token = text.tokens[index]
        if not token.is_capital:
            return not text.has_case and token.lower not in text.lexicon.english
        if token.lower in _MONTHS:
            return False
        if token.lower not in text.lexicon.top:
            return True
        return not text.starts_sentence(index) and token.lower in _PLACE_WORDS | _SOFT_STREET | _UNIT

    def _may_follow(self, text: TokenizedText, last: int, following: int) -> bool:
        tokens = text.tokens
        gap = tokens[following].before
        is_closed = text.plain[tokens[following].end : tokens[following].end + 1] == ")"
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

    def _is_part(self, text: TokenizedText, index: int) -> bool:
        """Whether a token may stand inside an address."""
        tokens, lexicon = text.tokens, text.lexicon
        token = tokens[index]
        if token.is_number:
            return len(token.text) <= 8
        word = token.lower
        if word in _UNIT and index + 1 < len(tokens) and (tokens[index + 1].is_number or len(tokens[index + 1].text) == 1):
            return True
        if word in _STATES and (token.text.isupper() or not text.has_case):
            return True
        if not token.is_capital:
            if text.has_case:
                return word in _SURE_STREET and len(word) > 2 and tokens[index - 1].is_capital
            return word not in lexicon.english or word in lexicon.countries or word in _SURE_STREET or word in _PLACE_WORDS
        return (
            word not in lexicon.top
            or word in lexicon.last
            or word in _PLACE_WORDS
            or word in _SURE_STREET
            or word in _SOFT_STREET
        )


Anchors = Iterator[tuple[int, int]]
AnchorFinder = Callable[[AddressRecognizer, TokenizedText, int], Anchors]
"""First and last token of each anchor: in the whole text, or around the token at a place."""
AnchorRule = Rule[AnchorFinder]


# -- anchors in the whole text


def _po_boxes(recognizer: AddressRecognizer, text: TokenizedText, _: int) -> Anchors:
    for match in _PO_BOX.finditer(text.plain):
        if match.start() in text.token_at:
            last = first = text.token_at[match.start()]
            while last + 1 < len(text.tokens) and text.tokens[last + 1].end <= match.end():
                last += 1
            yield first, last


def _corners(recognizer: AddressRecognizer, text: TokenizedText, _: int) -> Anchors:
    for match in _CORNER.finditer(text.plain):
        first, last = text.token_at.get(match.start()), text.token_at.get(match.end())
        if first is not None and last is not None and _may_be_street(text, last):
            yield first, last


def _may_be_street(text: TokenizedText, index: int) -> bool:
    return text.tokens[index].is_number or _is_shaped(text, index) or text.tokens[index].lower in _SURE_STREET


def _postcodes_and_cities(recognizer: AddressRecognizer, text: TokenizedText, _: int) -> Anchors:
    tokens = text.tokens
    for match in _POSTCODE_CITY.finditer(text.plain):
        index = text.token_at.get(match.end(), 0)
        if index > 0 and recognizer.is_proper(text, index) and tokens[index].lower not in _MONTHS:
            is_year = tokens[index - 1].text.startswith(("19", "20")) and len(tokens[index - 1].text) == 4
            if not is_year:
                yield index - 1, index


# -- anchors around a word


def _unit_and_box(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    tokens = text.tokens
    if tokens[index].lower == "unit" and _near_number(tokens, index) and _followed_by_box(tokens, index + 2):
        yield index, index + 3


def _unit(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    if text.tokens[index].lower in _SURE_UNIT and _near_number(text.tokens, index):
        yield index, index + 1


def _military_post(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    tokens, token = text.tokens, text.tokens[index]
    is_post = token.lower in _MILITARY and (token.text.isupper() or not text.has_case)
    if is_post and index + 1 < len(tokens) and tokens[index + 1].lower in ("aa", "ae", "ap"):
        yield _ship_before(tokens, index), index + 1


def _street_name(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``Rosewood Gardens``: a street word after its name."""
    if index > 0 and _is_long_street_word(text.tokens[index]) and _names_a_street(text, index - 1):
        yield index - 1, index


def _street_ending(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    token = text.tokens[index]
    if token.is_capital and not (index > 0 and _is_long_street_word(token)) and _ends_like_a_street(token, text):
        yield index, index


def _is_long_street_word(token: Token) -> bool:
    return token.is_capital and token.lower in _SURE_STREET and len(token.lower) > 3


# -- anchors around a house number


def _country_before(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``Estonia 62488``, ``New Zealand 57006``."""
    tokens = text.tokens
    if not 4 <= len(tokens[index].text) <= 6:
        return
    name = ""
    for first in range(index - 1, max(index - 5, -1), -1):
        if tokens[first + 1].before != " ":
            return
        name = f"{tokens[first].lower} {name}".strip()
        if name in text.lexicon.countries:
            yield first, index


def _street_after(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``12 Timms Drive``, ``71 Rue de la Paix``."""
    tokens = text.tokens
    start = tokens[index].start
    is_home = _HOME_CUE.search(text.plain, max(0, start - 30), start) is not None
    for ahead in range(index + 1, min(index + 6, len(tokens))):
        token = tokens[ahead]
        if not _is_address_gap(token.before, allow_newline=False) or token.before.startswith(", "):
            return
        is_street = is_home and ahead > index + 1 and len(token.lower) > 3 and token.lower in _SURE_STREET
        if is_street or _is_street_word(text, ahead, number_at=index):
            yield index, ahead
            return
        is_plain = is_home or not text.has_case
        in_plain_text = is_plain and ahead <= index + 2 and token.lower not in _FUNCTION_WORDS
        if not (_is_shaped(text, ahead) or token.is_number or token.lower in _JOIN or in_plain_text):
            return


def _street_before(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``Via Tasso 129``, ``Hauptstraße 5``."""
    tokens = text.tokens
    for back in range(index - 1, max(index - 5, -1), -1):
        if tokens[back + 1].before not in (" ", ". ", ", ", " # ", " #", "  "):
            return
        if _is_street_word(text, back, number_at=index):
            yield back, index
            return
        if not (_is_shaped(text, back) or tokens[back].lower in _JOIN or (not text.has_case and back >= index - 2)):
            return


def _number_and_name(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``6400 12 Oldenbarneveld``: a number and a proper noun, with a cue before or another number behind."""
    if not _may_name_a_street(text, index) or not recognizer.is_proper(text, index + 1):
        return
    if index == 0 or _number_within(text.tokens, index + 1) or _cue_before(text, text.tokens[index].start, 40):
        yield index, index + 1


def _compass_street(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``2200 E Colfax``: a number, a point of the compass and a name."""
    tokens = text.tokens
    is_compass = index + 2 < len(tokens) and tokens[index + 1].text in _COMPASS and tokens[index + 2].before in (" ", ". ")
    if is_compass and _is_shaped(text, index + 2):
        yield index, index + 2


def _named_house(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``3 The Old Maltings, Bridge Street``: a number and a house's name, and after a comma or a line the next part."""
    tokens, last = text.tokens, index
    while last + 1 < len(tokens) and tokens[last + 1].is_capital and tokens[last + 1].before == " " and last - index < 4:
        last += 1
    is_named = last - index >= 2 and last + 1 < len(tokens) and tokens[index + 1].text == "The"
    if is_named and tokens[last + 1].is_capital and tokens[last + 1].before.strip(" \n") in (",", ""):
        yield index, last


def _plot(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``Plot 7 Admiralty Way``, ``Door No 4/118, Car Street``."""
    tokens = text.tokens
    first = index - 1 if index and tokens[index - 1].lower not in ("no", "number", "nr") else index - 2
    if first < 0 or tokens[first].lower not in _PLOTS or not tokens[first].is_capital:
        return
    last = index
    while last + 1 < len(tokens) and tokens[last + 1].is_number and tokens[last + 1].before == "/":
        last += 1
    if last + 1 < len(tokens) and tokens[last + 1].is_capital and tokens[last + 1].before in (" ", ", "):
        yield first, last + 1


def _cued_number(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``she lives at 12 Other``: a sure cue, a number, and another number or a word with a capital."""
    if not _may_name_a_street(text, index):
        return
    after = text.tokens[index + 1]
    is_written_like_one = after.is_capital or after.is_number
    if is_written_like_one and _SURE_CUE.search(_cue_before(text, text.tokens[index].start, 40)):
        yield index, index + 1


def _may_name_a_street(text: TokenizedText, index: int) -> bool:
    """Whether the token after a number may be a street's name: neither a month nor something that is counted."""
    tokens = text.tokens
    if index + 1 >= len(tokens) or tokens[index + 1].before not in (" ", "  ", " #"):
        return False
    return tokens[index + 1].lower not in _MONTHS and tokens[index + 1].lower not in _COUNTED


def _cue_before(text: TokenizedText, start: int, reach: int) -> str:
    """The words right before a place that announce an address; empty without."""
    cue = _CUE.search(text.plain, max(0, start - reach), start)
    return cue.group() if cue else ""


def _name_and_number(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``she lives on Joaquin Suarez 2906``: a proper noun and a house number after a sure cue."""
    name = _name_before(recognizer, text, index)
    if name is not None and _SURE_CUE.search(_cue_before_name(recognizer, text, name)):
        yield name, index


def _name_and_house_number(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> Anchors:
    """``Pivovarská 276``, ``Wesselényi u. 94``: a proper noun that is nobody's name, and a house number or postcode."""
    name, number = _name_before(recognizer, text, index), text.tokens[index].text
    is_year = len(number) == 4 and number[:2] in ("19", "20")
    if name is None or not number.isdigit() or is_year or text.tokens[name].lower in text.lexicon.names:
        return
    is_house = len(number) >= 2 and bool(_cue_before_name(recognizer, text, name) or _goes_on(recognizer, text, index))
    if len(number) >= 5 or is_house:
        yield name, index


def _cue_before_name(recognizer: AddressRecognizer, text: TokenizedText, name: int) -> str:
    return _cue_before(text, text.tokens[recognizer.grow_left(text, name)].start, 60)


def _name_before(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> int | None:
    """The proper noun right before a house number, whatever short street word (``u.``) stands between."""
    tokens, number = text.tokens, text.tokens[index]
    if index == 0 or number.before not in (" ", ". ") or len(number.text) > 6:
        return None
    name = index - 1
    if tokens[name].lower in _SURE_STREET and name > 0 and tokens[name].before == " ":
        name -= 1
    word = tokens[name]
    if not recognizer.is_proper(text, name) or word.text.isupper() or word.lower in _MONTHS or word.lower in _COUNTED:
        return None
    return name


# -- what words are


def _goes_on(recognizer: AddressRecognizer, text: TokenizedText, index: int) -> bool:
    """Whether a unit, a comma or a new line and then a place follow a house number."""
    tokens = text.tokens
    if index + 1 >= len(tokens) or not _is_address_gap(tokens[index + 1].before, allow_newline=True):
        return False
    return tokens[index + 1].lower in _UNIT or ("," in tokens[index + 1].before and recognizer.is_proper(text, index + 1))


def _names_a_street(text: TokenizedText, index: int) -> bool:
    """Whether the token before a street word may be the street's name: capitalised in mid-sentence."""
    token = text.tokens[index]
    if not token.is_capital or text.tokens[index + 1].before != " " or text.starts_sentence(index):
        return False
    return token.lower not in text.lexicon.top or token.lower in _SOFT_STREET | _PLACE_WORDS


def _is_street_word(text: TokenizedText, index: int, number_at: int) -> bool:
    token = text.tokens[index]
    word = token.lower
    if word in _SURE_STREET:
        if len(word) > 3:
            return token.is_capital or not text.has_case or _beside_proper(text, index)
        # "St", "Dr", "Av", "al", "via" are other words too: only beside another word of a street
        return _beside_proper(text, index)
    if not (token.is_capital or not text.has_case):
        return False
    if _ends_like_a_street(token, text):
        return True
    return word in _SOFT_STREET and abs(index - number_at) > 1 and _beside_proper(text, index)


def _beside_proper(text: TokenizedText, index: int) -> bool:
    tokens = text.tokens
    return (index > 0 and tokens[index].before in (" ", ". ", "  ", "-") and _is_shaped(text, index - 1)) or (
        index + 1 < len(tokens)
        and tokens[index + 1].before in (" ", ". ", "  ", "-")
        and (_is_shaped(text, index + 1) or tokens[index + 1].lower in _JOIN)
    )


def _is_shaped(text: TokenizedText, index: int) -> bool:
    """Whether a word could be part of a name: capitalised, or, in text without capitals, not frequent English."""
    token = text.tokens[index]
    if token.is_number:
        return False
    return token.is_capital or (not text.has_case and token.lower not in text.lexicon.top)


def _near_number(tokens: list[Token], index: int) -> bool:
    return (
        index + 1 < len(tokens)
        and tokens[index + 1].is_number
        and tokens[index + 1].before in (" ", ". ", " #", "#", " # ", ".# ", ". #")
    )


def _ship_before(tokens: list[Token], index: int) -> int:
    """The first token of the line before a military post office (``USS Mahler``), or the post office itself."""
    first = index
    while (
        first > 0 and index - first < 4 and tokens[first - 1].is_capital and tokens[first].before.strip(" ,") in ("", "\n")
    ):
        if first != index and "\n" in tokens[first].before:
            break
        first -= 1
    return first


def _followed_by_box(tokens: list[Token], index: int) -> bool:
    return index + 1 < len(tokens) and tokens[index].lower == "box" and tokens[index + 1].is_number


def _number_within(tokens: list[Token], index: int) -> bool:
    return any(
        tokens[ahead].is_number or tokens[ahead].lower in _SURE_UNIT
        for ahead in range(index + 1, min(index + 4, len(tokens)))
        if all(_is_address_gap(tokens[step].before, allow_newline=True) for step in range(index + 1, ahead + 1))
    )


def _ends_like_a_street(token: Token, text: TokenizedText) -> bool:
    """``Ziegelgasse``, ``Nybyvägen``: one word, with the ending of streets."""
    return len(token.lower) > 6 and token.lower.endswith(_STREET_ENDINGS) and token.lower not in text.lexicon.ordinary


def _is_address_gap(gap: str, *, allow_newline: bool) -> bool:
    """Whether only spaces and the punctuation of addresses stand between two tokens."""
    if len(gap) > 12 or ("\n" in gap and (not allow_newline or gap.count("\n") > 1)):
        return False
    return not gap.strip(" \t\n\r,.#/-") and gap.count(",") <= 2


def _rule(name: str, score: float, predicate: AnchorFinder, hits: tuple[str, ...], misses: tuple[str, ...]) -> AnchorRule:
    return Rule(id=f"own.{name}", entity="STREET_ADDRESS", score=score, predicate=predicate, hits=hits, misses=misses)


TEXT_ANCHORS: tuple[AnchorRule, ...] = (
    _rule("po_box", 0.85, _po_boxes, ("sent to «P.O. Box 1142, Harrisburg»",), ("the box 1142 is full",)),
    _rule("corner", 0.8, _corners, ("at «the corner of Vine» now",), ("in the corner of the room",)),
    _rule("postcode_city", 0.6, _postcodes_and_cities, ("in «75001 Zorbville» now",), ("in 1999 Zorbville won",)),
)
NUMBER_ANCHORS: tuple[AnchorRule, ...] = (
    _rule("country_and_postcode", 0.6, _country_before, ("from «Estonia 62488» today",), ("Estonia has 62488 lakes",)),
    _rule("street", 0.85, _street_after, ("at «12 Timms Drive» now", "lives at «22 acacia avenue» now"), ("12 miles",)),
    _rule("street_and_number", 0.8, _street_before, ("to «Via Tasso 129» now", "«Hauptstraße 5»"), ("on Monday 5",)),
    _rule("number_and_name", 0.6, _number_and_name, ("ship to «12 Oldenbarneveld» now",), ("12 May", "8 Gigabytes")),
    _rule("compass", 0.7, _compass_street, ("at «2200 E Colfax» today",), ("grade 7 A", "5 W of power")),
    _rule("named_house", 0.7, _named_house, ("to «3 The Old Maltings, Bridge Street» now",), ("rated 3 The end",)),
    _rule(
        "plot", 0.7, _plot, ("at «Plot 7 Admiralty Way» now", "to «Door No 4/118, Car Street» now"), ("the plot 7 of it",)
    ),
    _rule("cued_number", 0.5, _cued_number, ("she lives at «12 Other» now",), ("press 12 Other",)),
    _rule("name_and_number", 0.6, _name_and_number, ("she lives on «Pivovarská 276» now",), ("see Pivovarská 7",)),
    _rule("name_and_house_number", 0.5, _name_and_house_number, ("see «Zorbgrad 62488» now",), ("see Zorbgrad 1999",)),
)
"""Around each number of a house or a postcode."""
WORD_ANCHORS: tuple[AnchorRule, ...] = (
    _rule("unit_and_box", 0.8, _unit_and_box, ("to «Unit 4521 Box 88» now",), ("unit 4521 is broken",)),
    _rule("unit", 0.8, _unit, ("at «Apt. 12» now",), ("the apartment has 12 rooms",)),
    _rule("military", 0.9, _military_post, ("to «USS Mahler\nFPO AE 09213» now",), ("the apo AE",)),
    _rule("street_name", 0.6, _street_name, ("near «Zorb Avenue» now",), ("The Avenue is long",)),
    _rule("street_ending", 0.6, _street_ending, ("near «Ziegelgasse» now",), ("the ziegelgasse is long",)),
)
"""Around a word; the first that finds an anchor there decides."""
ADDRESS_RULES = (*TEXT_ANCHORS, *NUMBER_ANCHORS, *WORD_ANCHORS)
