"""Names of people from dictionaries and from the words around them.

A given name that is no English word is enough; one that is (Mark, Rose, Will) needs a family name, a title, a greeting or
an introduction beside it. A name found grows over its initials, particles and family names. In strict mode every
capitalised word that is not ordinary English is taken for a name too: on noisy real text, dictionaries of names miss
most, and a dictionary of everything else misses least.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from string import ascii_lowercase

from tasks.pii.lexicon import lexicon, vocabulary
from tasks.pii.reading import Reading, Token
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_PARTICLES = vocabulary("particles")
_TITLES = vocabulary("titles")
_SOFT_TITLES = vocabulary("soft_titles")
_HARD_TITLES = _TITLES - _SOFT_TITLES
_ACTING = vocabulary("acting")
_LETTERED_THINGS = vocabulary("lettered_things")
_SOMETIMES_NAMES = vocabulary("sometimes_names")
_NOT_INTRODUCED = vocabulary("not_after_introductions")
_NOT_IN_NAMES = vocabulary("not_in_names")
_FUNCTION_WORDS = vocabulary("function_words")

_INTRODUCTION = re.compile(
    r"\b(?:my (?:full |first |last |maiden |real |legal )?name(?:'s| is| was|:)|name(?:'s| is|:)|names? (?:are|were)|"
    r"(?:it|change it|correct it|changed) to|call(?:s|ed)? (?:me|him|her)|goes by|known as|named|in the name of|"
    r"on behalf of|"
    r"signed(?: by)?[:,]?|sincerely,?|regards,?|cheers,?|best wishes,?|yours truly,?|dear|attn[.:]?|attention:|c/o|"
    r"(?:customer|patient|client|employee|user|agent|contact|account holder|card ?holder|beneficiary|recipient|passenger|"
    r"guest|tenant|applicant|candidate|student|teacher|owner|manager|author|sender|spouse|from|to|cc)(?: name)?:)"
    r"[\s\"'*-]{0,4}(?=\w)",
    re.IGNORECASE,
)
"""What a name must follow; the next word is taken for a name unless it is frequent English."""

_ADDRESSING = re.compile(
    r"(?:\b(?:hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)|thanks|thank you|thx|ty|"
    r"welcome|bye|goodbye|"
    r"congrats|congratulations|happy birthday|rip|i am|i'm|im|it's|this is|here is|ask(?:ed)?(?: for)?|tell|"
    r"told|speak(?:ing)? (?:with|to)|"
    r"spoke (?:with|to)|call(?:ed)?|talk(?:ed|ing)? (?:with|to)|met(?: with)?|meet(?:ing)?(?: with)?|"
    r"contact(?:ed)?|email(?:ed)?|phone[d]?|"
    r"see(?:ing)?|saw|love|miss|with|by|from|and|son|daughter|wife|husband|mother|father|mom|mum|dad|brother|"
    r"sister|friend|friends|boss|colleague|"
    r"partner|girlfriend|boyfriend|fianc[eé]e?|uncle|aunt|cousin|nephew|niece|neighbou?r|named)\b[,:]?|[@#])\s{0,2}$",
    re.IGNORECASE,
)
"""What makes an ambiguous capitalised word (Mark, Rose) a name when it follows."""

_SELF = re.compile(r"\b(?:i am|i'm|im|this is|it's|its|name is|name's|names|name:?)\s{1,2}$", re.IGNORECASE)
"""What makes two common words (``john smith``) a given and a family name in text without capitals."""

_SIGN_OFF = re.compile(
    r"(?:^|[\n.!?,]\s{0,2})(?:(?:kind|best|warm|many)\s)?(?:regards|wishes|thanks|thank you|thx|cheers|sincerely|best|yours"
    r"(?: truly| sincerely| faithfully)?|br|ta)[,.!]?\s{0,3}\n\s{0,4}[-~*]{0,2}\s?$",
    re.IGNORECASE,
)
"""A closing line; a name of one to three words alone on the next line signs the text."""

_MISREAD = re.compile(r"[A-ZÀ-Þ][^\W\d_A-Z]*[0158][^\W\d_A-Z]{2,}")
"""``Fl0rence``, ``Se1ma``: a digit inside a capitalised word, as scanners misread letters."""
_LETTERS_OF_DIGITS = str.maketrans("0158", "olsb")
_LONGEST_WORD = 30
_LETTERS = f"{ascii_lowercase}'"
_CAMEL = re.compile(r"[a-z][A-Z]")
_NAME_PREFIX = re.compile(r"(?:Mc|Mac|De|Di|Da|Du|La|Le|Van|Von|Fitz|O'|D'|L')[A-Z][a-z]")
_PART_OF_JOINED = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_DETERMINERS = vocabulary("determiners")
_AUXILIARIES = vocabulary("auxiliaries")
_GAPS = {" ", "-", "\u00a0"}
MAX_NAME_TOKENS = 6


class NameRecognizer(OwnRecognizer):
    """Names of people, and in strict mode every capitalised word that is not ordinary English.

    Args:
        strict: Whether unknown capitalised words count.
        allowed: Lower-case words that are never personal.
        common: Lower-case words that an unknown capital alone does not make personal.
    """

    def __init__(self, *, strict: bool, allowed: frozenset[str] = frozenset(), common: frozenset[str] = frozenset()) -> None:
        super().__init__(("PERSON", "PROPER_NOUN"))
        self._strict = strict
        self._allowed = allowed
        self._common = common

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`."""
        tokens = reading.tokens
        introduced = _introduced(reading) | _signatures(reading)
        for index, token in enumerate(tokens):
            if token.is_number or token.lower in self._allowed:
                continue
            found = self._judge(reading, index, token, token.start in introduced)
            if found is not None:
                score, detector = found
                first, last = self._grow(reading, index, introduced)
                entity = "PROPER_NOUN" if detector == "own.strict" else "PERSON"
                yield Span(tokens[first].start, tokens[last].end, entity, score, detector)

    def _judge(self, reading: Reading, index: int, token: Token, is_introduced: bool) -> tuple[float, str] | None:
        """How sure, and by which rule, the token begins or belongs to a name; None when it does not."""
        known = reading.lexicon
        word = token.lower
        follows_title = self._follows_title(reading, index)
        if token.is_capital and self._strict and (misread := _MISREAD.fullmatch(token.text)) is not None:
            plain = misread.group().lower().translate(_LETTERS_OF_DIGITS)
            return (0.6, "own.misread_name") if plain in known.names or plain not in known.ordinary else None
        if word in _HARD_TITLES and reading.text.startswith(". ", token.full_end):
            return None  # "Pvt. D. Cole": what follows is the name
        if token.is_capital:
            is_name = word in known.names
            is_ordinary = word in known.ordinary
            if follows_title and (not is_ordinary or is_name or not reading.starts_sentence(index)) and len(word) > 1:
                return 0.9, "own.title"
            if is_introduced and len(word) > 1 and (is_name or word not in known.top) and not self._asks(reading, index):
                return 0.9, "own.introduction"
            if is_name and len(word) > 2 and self._follows_initial(reading, index):
                return 0.7, "own.initial"
            if word in known.sure_first and len(word) > 2:
                if token.text.isupper() and len(word) <= 4 and reading.has_case:
                    return (0.5, "own.strict") if self._strict and len(word) == 4 else None
                return 0.85, "own.given_name"
            if len(word) == 2 and word in known.names and not is_ordinary and self._is_short_name(reading, index):
                return 0.5, "own.short_name"
            if word in known.maybe_first and self._has_evidence(reading, index, token):
                return 0.7, "own.ambiguous_name"
            if word in _SOMETIMES_NAMES and self._acts_or_has_surname(reading, index):
                return 0.7, "own.ambiguous_name"
            if _CAMEL.search(token.text) and self._is_joined_name(reading, token):
                return 0.6, "own.joined_name"
            if self._strict and word not in self._common and self._is_unknown(reading, index, token):
                return 0.5, "own.strict"
            return None
        if follows_title and len(word) > 2 and word not in known.english:
            return 0.8, "own.title"
        if (
            is_introduced
            and len(word) > 2
            and (word in known.sure_first or (word not in known.english and not word[0].isdigit()))
        ):
            return 0.8, "own.introduction"
        if is_introduced and not reading.has_case and word in known.maybe_first and word not in _NOT_INTRODUCED:
            return 0.7, "own.introduction"
        if word in known.sure_first and len(word) > 3 and (self._strict or not reading.has_case):
            return 0.55, "own.lower_case_name"
        if not reading.has_case and self._is_pair(reading, index):
            return 0.55, "own.lower_case_pair"
        if self._strict and not reading.has_case and len(word) > 3 and self._is_strange(reading, index):
            return 0.5, "own.strict"
        return None

    def _is_strange(self, reading: Reading, index: int) -> bool:
        """Whether, in English without capitals, a word is none, nor a slip of the pen.

        What could be one counts where someone is addressed or spoken of, and beside a word that could not.
        """
        if not self._is_no_word(reading, index):
            return False
        tokens, start = reading.tokens, reading.tokens[index].start
        if _ADDRESSING.search(reading.text, max(0, start - 30), start) is not None:
            return True
        if not reading.is_english or tokens[index].lower in self._common:
            return False
        beside = [index - 1] if index > 0 and tokens[index].before == " " else []
        beside += [index + 1] if index + 1 < len(tokens) and tokens[index + 1].before == " " else []
        return any(self._is_no_word(reading, place) and not is_slip(tokens[place].lower) for place in (index, *beside))

    def _is_no_word(self, reading: Reading, index: int) -> bool:
        known, word = reading.lexicon, reading.tokens[index].lower
        if len(word) < 4 or not word.isalpha() or word in known.ordinary or word in known.english_rare:
            return False
        return not _is_inflected(word, known.ordinary)

    def _is_pair(self, reading: Reading, index: int) -> bool:
        """Whether, in text without capitals, a given and a family name that are no common words stand side by side."""
        tokens, known = reading.tokens, reading.lexicon
        if index + 1 >= len(tokens) or tokens[index + 1].before != " ":
            return False
        first, second = tokens[index].lower, tokens[index + 1].lower
        if min(len(first), len(second)) < 3 or first in known.top:
            return False
        if first not in known.first or second not in known.names:
            return False
        start = tokens[index].start
        if second in known.last and _SELF.search(reading.text, max(0, start - 20), start) is not None:
            return True
        return second not in known.top and not (first in known.english and second in known.english)

    def _is_followed_by_surname(self, reading: Reading, index: int, introduced: set[int]) -> bool:
        """Whether a title or an introduction announces a given name, and the next word can only be the family name.

        ``Mrs. Violet Plum``, ``my name is Hope Grace``: whatever else that word may mean.
        """
        tokens, known = reading.tokens, reading.lexicon
        token, after = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else None
        if after is None or after.before != " " or token.lower not in known.first or not reading.has_case:
            return False
        if (
            not token.is_capital
            or not after.is_capital
            or len(after.text) < 3
            or after.text.isupper() != token.text.isupper()
        ):
            return False
        if after.lower in _NOT_IN_NAMES or after.lower in _FUNCTION_WORDS or after.lower in self._allowed:
            return False
        return token.start in introduced or self._follows_title(reading, index)

    def _grow(self, reading: Reading, index: int, introduced: set[int]) -> tuple[int, int]:
        """First and last token of the name that holds the token."""
        tokens = reading.tokens
        last = index
        while last + 1 < len(tokens) and last - index < MAX_NAME_TOKENS:
            step = self._next_part(reading, last)
            if step is None:
                break
            last = step
        if last == index and self._is_followed_by_surname(reading, index, introduced):
            last += 1
        first = index
        while first > 0 and index - first < 3 and self._leads(reading, first):
            first -= 1
        return first, last

    def _leads(self, reading: Reading, first: int) -> bool:
        """Whether the token before a name belongs to it: an initial, an abbreviation, a given name that is also a word."""
        tokens, known = reading.tokens, reading.lexicon
        token, gap = tokens[first - 1], tokens[first].before
        if not token.is_capital or token.is_number or token.lower in self._allowed or token.full_end != token.end:
            return False
        if len(token.text) <= 2 and token.lower != "i" and token.lower not in _TITLES:
            return gap in (". ", ".") or (gap == " " and token.lower not in known.top and len(token.text) == 1)
        if gap not in _GAPS or token.lower in _NOT_IN_NAMES or token.lower in _TITLES:
            return False
        if token.lower in known.names and token.lower not in known.proper:
            return (
                token.lower not in known.top
                or not reading.starts_sentence(first - 1)
                or self._is_own_line(reading, first - 1)
            )
        return token.lower not in known.ordinary or self._is_own_line(reading, first - 1)

    def _is_own_line(self, reading: Reading, index: int) -> bool:
        """Whether a line holds nothing but two to four capitalised words, from this token on."""
        tokens = reading.tokens
        if (index > 0 and "\n" not in tokens[index].before) or (index == 0 and "\n" not in reading.text):
            return False
        last = index
        while (
            last + 1 < len(tokens)
            and tokens[last + 1].before in (" ", ". ", "-")
            and tokens[last + 1].is_capital
            and last - index < 4
        ):
            last += 1
        after = reading.text[tokens[last].full_end : tokens[last].full_end + 2].strip(" ,.")
        return 1 <= last - index <= 3 and (after == "" or after.startswith("\n"))

    def _next_part(self, reading: Reading, last: int) -> int | None:
        """The token up to which a name that ends at ``last`` goes on, or None when it ends there."""
        tokens, known = reading.tokens, reading.lexicon
        token = tokens[last + 1]
        gap = token.before
        if tokens[last].full_end != tokens[last].end and gap != "-":
            return None
        if gap == "-" and not token.is_number and token.lower not in known.top and len(token.text) > 1:
            return last + 1
        after_initial = _is_initial(tokens[last]) or tokens[last].lower in ("st", "dr", "jr")
        if (
            gap not in _GAPS
            and not (after_initial and gap in (". ", "."))
            and not (gap == ", " and token.lower in ("jr", "sr"))
        ):
            return None
        if token.is_capital and token.lower not in self._allowed:
            if _is_initial(token):
                follows = tokens[last + 2] if last + 2 < len(tokens) else None
                is_middle = follows is not None and follows.is_capital and follows.before in (". ", " ", ".")
                return last + 2 if is_middle else (last + 1 if token.lower != "i" else None)
            if token.lower in known.last or token.lower in known.sure_first or token.lower not in known.ordinary:
                return None if token.lower in _NOT_IN_NAMES else last + 1
            return last + 1 if token.lower in known.maybe_first and gap == "-" else None
        if token.lower in _PARTICLES:
            for ahead in (last + 2, last + 3):
                if ahead < len(tokens) and tokens[ahead].before in _GAPS:
                    if tokens[ahead].is_capital and tokens[ahead].lower not in known.top:
                        return ahead
                    if tokens[ahead].lower not in _PARTICLES:
                        return None
            return None
        if not reading.has_case and len(tokens[last].text) > 1 and last + 2 < len(tokens) and len(token.text) == 1:
            # "eric g. samoylova" in text without capitals
            surname = tokens[last + 2]
            if surname.before in (". ", " ") and token.lower not in "ai" and surname.lower not in known.english:
                return last + 2
        if not reading.has_case or not tokens[last].is_capital:
            is_family_name = token.lower in known.last and token.lower not in known.english
            is_unknown = not reading.has_case and token.lower not in known.english and token.lower not in known.english_rare
            if (is_family_name or is_unknown or token.lower in known.sure_first) and len(token.lower) > 2:
                return last + 1
        return last + 1 if not reading.has_case and self._is_pair(reading, last) else None

    def _follows_title(self, reading: Reading, index: int) -> bool:
        if index == 0:
            return False
        title = reading.tokens[index - 1]
        token = reading.tokens[index]
        if title.lower not in _TITLES or token.before not in (" ", ". ", ".", "  "):
            return False
        if title.lower in _SOFT_TITLES:
            known = reading.lexicon
            return (
                title.is_capital and token.is_capital and (token.lower in known.names or token.lower not in known.ordinary)
            )
        return True

    def _is_short_name(self, reading: Reading, index: int) -> bool:
        """``customer Bo``, ``Lee and Ng``: two letters, of which the second is small, within a sentence."""
        token = reading.tokens[index]
        return reading.has_case and token.text[1].islower() and not reading.starts_sentence(index)

    def _asks(self, reading: Reading, index: int) -> bool:
        """Whether a word that may be a name begins a question: ``Agent: May I have your name?``."""
        tokens = reading.tokens
        if tokens[index].lower not in _SOMETIMES_NAMES or index + 1 >= len(tokens):
            return False
        return tokens[index + 1].before == " " and tokens[index + 1].lower in _FUNCTION_WORDS

    def _follows_initial(self, reading: Reading, index: int) -> bool:
        """Whether an initial stands before the token, as in ``D. Cole``, and not the end of a sentence: ``Plan B. Rose``."""
        tokens = reading.tokens
        if index == 0 or tokens[index].before not in (". ", ".") or not _is_initial(tokens[index - 1]):
            return False
        return index == 1 or tokens[index - 1].before != " " or tokens[index - 2].lower not in _LETTERED_THINGS

    def _acts_or_has_surname(self, reading: Reading, index: int) -> bool:
        """Whether what follows a very frequent word (Will, May) makes it a name: what people do, or a family name."""
        tokens, known = reading.tokens, reading.lexicon
        if index + 1 >= len(tokens) or tokens[index + 1].before != " ":
            return False
        after = tokens[index + 1]
        if after.lower in _ACTING:
            return True
        return (
            after.is_capital
            and (after.lower in known.last or after.lower not in known.ordinary)
            and after.lower not in known.top
        )

    def _is_joined_name(self, reading: Reading, token: Token) -> bool:
        """Whether a word such as ``JustinBieber`` (a hashtag, a handle) has a name among its parts."""
        known = reading.lexicon
        parts = [part.lower() for part in _PART_OF_JOINED.findall(token.text)]
        return any(len(part) > 2 and part in known.sure_first for part in parts)

    def _has_evidence(self, reading: Reading, index: int, token: Token) -> bool:
        """Whether the words around an ambiguous capitalised given name make it a name."""
        tokens, known = reading.tokens, reading.lexicon
        if not reading.has_case and token.text.isupper():
            return False
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        if after is not None and after.is_capital and after.before == " " and not after.text.isupper():
            if after.lower in known.last and (after.lower not in known.top or not reading.starts_sentence(index)):
                return True
            if after.lower not in known.ordinary and not _CAMEL.search(after.text):
                return True
        if after is not None and _is_initial(after) and after.lower != "i" and after.before == " ":
            return True
        before = reading.text[max(0, token.start - 30) : token.start]
        in_heading = (index > 0 and tokens[index - 1].is_capital and not reading.starts_sentence(index - 1)) or (
            after is not None and after.is_capital and after.before == " "
        )
        if _ADDRESSING.search(before) and not in_heading:
            return True
        if after is not None and after.before == " " and after.lower in _ACTING:
            return True
        is_possessive = token.full_end != token.end
        if reading.starts_sentence(index):
            is_subject = after is not None and after.before == " " and after.lower in _AUXILIARIES
            return (is_possessive or is_subject) and token.lower not in known.top
        if is_possessive:
            return True
        return not in_heading and tokens[index - 1].lower not in _DETERMINERS

    def _is_unknown(self, reading: Reading, index: int, token: Token) -> bool:
        """Whether a capitalised word is not ordinary English, whatever its inflection or form."""
        known, word, text = reading.lexicon, token.lower, token.text
        if len(word) < 3 or (not text.isalpha() and not text.replace("'", "").isalpha()):
            return False
        if word in known.ordinary or word in known.countries or word in _TITLES:
            return False
        if (
            "'" in word
            and all(part in known.ordinary or len(part) < 3 for part in word.split("'"))
            and not _NAME_PREFIX.match(text)
        ):
            return False
        if text.isupper():
            if len(word) <= 5 and reading.has_case:
                return False
            return word not in known.english_rare and not _is_inflected(word, known.english)
        if text[:-1].isupper() and text.endswith("s"):
            return False
        if _CAMEL.search(text) and not _NAME_PREFIX.match(text):
            return False
        if reading.starts_sentence(index) and (
            word in known.english_rare or _is_inflected(word, known.english) or (len(word) > 6 and is_slip(word))
        ):
            return False
        return not _is_inflected(word, known.ordinary)


_SUFFIXES = (
    "s",
    "es",
    "ed",
    "d",
    "ing",
    "er",
    "ers",
    "ly",
    "ness",
    "ish",
    "less",
    "able",
    "ism",
    "ist",
    "ists",
    "like",
    "ies",
    "ied",
)
_PREFIXES = (
    "un",
    "re",
    "non",
    "pre",
    "anti",
    "over",
    "under",
    "super",
    "micro",
    "multi",
    "inter",
    "sub",
    "co",
    "bio",
    "cyber",
    "eco",
    "auto",
)


def _is_inflected(word: str, words: frozenset[str]) -> bool:
    """Whether the word is an ordinary one with an English ending or beginning that the list leaves out."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            stem = word[: -len(suffix)]
            if (
                stem in words
                or (suffix in ("ies", "ied") and stem + "y" in words)
                or (suffix in ("ing", "er", "able") and stem + "e" in words)
            ):
                return True
    return any(
        word.startswith(prefix) and word[len(prefix) :] in words and len(word) - len(prefix) >= 4 for prefix in _PREFIXES
    )


@lru_cache(maxsize=50_000)
def is_slip(word: str) -> bool:
    """Whether one letter or apostrophe left out, put in, replaced or swapped with the next makes the word common English.

    A missing space counts too (``timeframe``).
    """
    if len(word) > _LONGEST_WORD:
        return False  # the work grows with the square of the length
    words = lexicon().english
    cuts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    return any(
        head + tail[1:] in words
        or (len(tail) > 1 and head + tail[1] + tail[0] + tail[2:] in words)
        or any(head + letter + tail in words or head + letter + tail[1:] in words for letter in _LETTERS)
        or (min(len(head), len(tail)) > 3 and head in words and tail in words)
        for head, tail in cuts
    )


def _is_initial(token: Token) -> bool:
    return len(token.text) == 1 and token.is_capital


def _signatures(reading: Reading) -> set[int]:
    """The places right after a closing line, where one to three words alone on theirs are a signature."""
    text = reading.text
    places: set[int] = set()
    if "\n" not in text:
        return places
    for token in reading.tokens:
        if "\n" not in token.before or _SIGN_OFF.search(text, max(0, token.start - 60), token.start) is None:
            continue
        line_end = text.find("\n", token.start)
        line = text[token.start : line_end if line_end >= 0 else len(text)]
        if len(line.split()) <= 3 and not any(character.isdigit() for character in line):
            places.add(token.start)
    return places


def _introduced(reading: Reading) -> set[int]:
    """The places right after an introduction."""
    return {match.end() for match in _INTRODUCTION.finditer(reading.text)}
