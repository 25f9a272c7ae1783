"""Names of people from dictionaries and from the words around them.

A given name that is no English word is enough; one that is (Mark, Rose, Will) needs a family name, a title, a greeting or
an introduction beside it. A name found grows over its initials, particles and family names. What a name model adds is in
:mod:`tasks.pii.detect.reading`; without one every capitalised word that is not ordinary English is taken for a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tasks.pii.detect.rules import Rule, TokenRecognizer
from tasks.pii.detect.tokens import Token, TokenizedText
from tasks.pii.lexicon import Lexicon, vocabulary
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
    r"(?:it|change it|correct it|changed) to|call(?:s|ed)? (?:me|him|her)|goes by|lexicon as|named|in the name of|"
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

_SIGN_OFF = re.compile(
    r"(?:^|[\n.!?,]\s{0,2})(?:(?:kind|best|warm|many)\s)?(?:regards|wishes|thanks|thank you|thx|cheers|sincerely|best|yours"
    r"(?: truly| sincerely| faithfully)?|br|ta)[,.!]?\s{0,3}\n\s{0,4}[-~*]{0,2}\s?$",
    re.IGNORECASE,
)
"""A closing line; a name of one to three words alone on the next line signs the text."""

_CAMEL = re.compile(r"[a-z][A-Z]")
_NAME_PREFIX = re.compile(r"(?:Mc|Mac|De|Di|Da|Du|La|Le|Van|Von|Fitz|O'|D'|L')[A-Z][a-z]")
_DETERMINERS = vocabulary("determiners")
_AUXILIARIES = vocabulary("auxiliaries")
EPONYM_HEADS = vocabulary("eponym_heads")
_LONGEST_EPONYM = 4
"""Words up to a head: ``Charcot-Marie-Tooth disease``."""
_GAPS = {" ", "-", "\u00a0"}
MAX_NAME_TOKENS = 6


class NameRecognizer(TokenRecognizer):
    """Names of people, and without a name model every capitalised word that is not ordinary English.

    For each word the first rule that applies decides (:data:`CAPITAL_RULES`, :data:`LOWER_CASE_RULES`).

    Args:
        alone: Whether no model reads the text too; then unknown capitalised words count, which is good for English only.
        allowed: Lower-case words that are never personal.
        common: Lower-case words that an unknown capital alone does not make personal.
    """

    def __init__(self, *, alone: bool, allowed: frozenset[str] = frozenset(), common: frozenset[str] = frozenset()) -> None:
        super().__init__((*CAPITAL_RULES, *LOWER_CASE_RULES))
        self.alone = alone
        self.allowed = allowed
        self.common = common

    def find(self, text: TokenizedText) -> Iterator[Span]:
        """See :class:`TokenRecognizer`."""
        tokens = text.tokens
        introduced = _introduced(text) | _signatures(text)
        for index, token in enumerate(tokens):
            if token.is_number or token.lower in self.allowed:
                continue
            is_introduced, follows_title = token.start in introduced, _follows_title(text, index)
            if not is_introduced and not follows_title and not self._may_be_name(text, token):
                continue
            rules = CAPITAL_RULES if token.is_capital else LOWER_CASE_RULES
            rule = _Word(self, text, index, token, is_introduced, follows_title).first_rule(rules)
            if rule is not None:
                first, last = self._grow(text, index, introduced)
                yield Span(tokens[first].start, tokens[last].end, rule.entity, rule.score, rule.id)

    def _may_be_name(self, text: TokenizedText, token: Token) -> bool:
        """A necessary condition of every rule, for words without a title or an introduction before them."""
        word, lexicon = token.lower, text.lexicon
        if token.is_capital:
            return word not in lexicon.ordinary or word in lexicon.names or not token.text[1:].islower()
        return word in lexicon.sure_first or not text.has_case

    def _is_followed_by_surname(self, text: TokenizedText, index: int, introduced: set[int]) -> bool:
        """Whether a title or an introduction announces a given name, and the next word can only be the family name.

        ``Mrs. Violet Plum``, ``my name is Hope Grace``: whatever else that word may mean.
        """
        tokens, lexicon = text.tokens, text.lexicon
        token, after = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else None
        if after is None or after.before != " " or token.lower not in lexicon.first or not text.has_case:
            return False
        if (
            not token.is_capital
            or not after.is_capital
            or len(after.text) < 3
            or after.text.isupper() != token.text.isupper()
        ):
            return False
        if after.lower in _NOT_IN_NAMES or after.lower in _FUNCTION_WORDS or after.lower in self.allowed:
            return False
        return token.start in introduced or _follows_title(text, index)

    def _grow(self, text: TokenizedText, index: int, introduced: set[int]) -> tuple[int, int]:
        """First and last token of the name that holds the token."""
        tokens = text.tokens
        last = index
        while last + 1 < len(tokens) and last - index < MAX_NAME_TOKENS:
            step = self._next_part(text, last)
            if step is None:
                break
            last = step
        if last == index and self._is_followed_by_surname(text, index, introduced):
            last += 1
        first = index
        while first > 0 and index - first < 3 and self._starts_name(text, first):
            first -= 1
        return first, last

    def _starts_name(self, text: TokenizedText, first: int) -> bool:
        """Whether the token before a name belongs to it: an initial, an abbreviation, a given name that is also a word."""
        tokens, lexicon = text.tokens, text.lexicon
        token, gap = tokens[first - 1], tokens[first].before
        if not token.is_capital or token.is_number or token.lower in self.allowed or token.full_end != token.end:
            return False
        if len(token.text) <= 2 and token.lower != "i" and token.lower not in _TITLES:
            return gap in (". ", ".") or (gap == " " and token.lower not in lexicon.top and len(token.text) == 1)
        if gap not in _GAPS or token.lower in _NOT_IN_NAMES or token.lower in _TITLES:
            return False
        if token.lower in lexicon.names and token.lower not in lexicon.proper:
            return (
                token.lower not in lexicon.top or not text.starts_sentence(first - 1) or self._is_own_line(text, first - 1)
            )
        return token.lower not in lexicon.ordinary or self._is_own_line(text, first - 1)

    def _is_own_line(self, text: TokenizedText, index: int) -> bool:
        """Whether a line holds nothing but two to four capitalised words, from this token on."""
        tokens = text.tokens
        if (index > 0 and "\n" not in tokens[index].before) or (index == 0 and "\n" not in text.plain):
            return False
        last = index
        while (
            last + 1 < len(tokens)
            and tokens[last + 1].before in (" ", ". ", "-")
            and tokens[last + 1].is_capital
            and last - index < 4
        ):
            last += 1
        after = text.plain[tokens[last].full_end : tokens[last].full_end + 2].strip(" ,.")
        return 1 <= last - index <= 3 and (after == "" or after.startswith("\n"))

    def _next_part(self, text: TokenizedText, last: int) -> int | None:
        """The token up to which a name that ends at ``last`` goes on, or None when it ends there."""
        tokens, lexicon = text.tokens, text.lexicon
        token, gap = tokens[last + 1], tokens[last + 1].before
        if tokens[last].full_end != tokens[last].end and gap != "-":
            return None
        if gap == "-" and not token.is_number and token.lower not in lexicon.top and len(token.text) > 1:
            return last + 1
        after_initial = _is_initial(tokens[last]) or tokens[last].lower in ("st", "dr", "jr")
        if (
            gap not in _GAPS
            and not (after_initial and gap in (". ", "."))
            and not (gap == ", " and token.lower in ("jr", "sr"))
        ):
            return None
        if token.is_capital and token.lower not in self.allowed:
            return _next_capital_part(text, last)
        if token.lower in _PARTICLES:
            return _part_after_particles(text, last)
        return _next_lower_case_part(text, last)


def _next_capital_part(text: TokenizedText, last: int) -> int | None:
    tokens, lexicon = text.tokens, text.lexicon
    token = tokens[last + 1]
    if _is_initial(token):
        after = tokens[last + 2] if last + 2 < len(tokens) else None
        is_middle = after is not None and after.is_capital and after.before in (". ", " ", ".")
        return last + 2 if is_middle else (last + 1 if token.lower != "i" else None)
    if token.lower in lexicon.last or token.lower in lexicon.sure_first or token.lower not in lexicon.ordinary:
        return None if token.lower in _NOT_IN_NAMES else last + 1
    return last + 1 if token.lower in lexicon.maybe_first and token.before == "-" else None


def _part_after_particles(text: TokenizedText, last: int) -> int | None:
    """The family name after one or two particles, as in ``van der Berg``."""
    tokens = text.tokens
    for ahead in (last + 2, last + 3):
        if ahead < len(tokens) and tokens[ahead].before in _GAPS:
            if tokens[ahead].is_capital and tokens[ahead].lower not in text.lexicon.top:
                return ahead
            if tokens[ahead].lower not in _PARTICLES:
                return None
    return None


def _next_lower_case_part(text: TokenizedText, last: int) -> int | None:
    tokens, lexicon = text.tokens, text.lexicon
    token = tokens[last + 1]
    if not text.has_case and len(tokens[last].text) > 1 and last + 2 < len(tokens) and len(token.text) == 1:
        # "eric g. samoylova" in text without capitals
        surname = tokens[last + 2]
        if surname.before in (". ", " ") and token.lower not in "ai" and surname.lower not in lexicon.english:
            return last + 2
    if not text.has_case or not tokens[last].is_capital:
        is_family_name = token.lower in lexicon.last and token.lower not in lexicon.english
        is_unknown = not text.has_case and token.lower not in lexicon.english and token.lower not in lexicon.english_rare
        if (is_family_name or is_unknown or token.lower in lexicon.sure_first) and len(token.lower) > 2:
            return last + 1
    return None


def _follows_title(text: TokenizedText, index: int) -> bool:
    if index == 0:
        return False
    title = text.tokens[index - 1]
    token = text.tokens[index]
    if title.lower not in _TITLES or token.before not in (" ", ". ", ".", "  "):
        return False
    if title.lower in _SOFT_TITLES:
        lexicon = text.lexicon
        return (
            title.is_capital and token.is_capital and (token.lower in lexicon.names or token.lower not in lexicon.ordinary)
        )
    return True


def _is_short_name(text: TokenizedText, index: int) -> bool:
    """``customer Bo``, ``Lee and Ng``: two letters, of which the second is small, within a sentence."""
    token = text.tokens[index]
    return text.has_case and token.text[1].islower() and not text.starts_sentence(index)


def _begins_question(text: TokenizedText, index: int) -> bool:
    """Whether a word that may be a name begins a question: ``Agent: May I have your name?``."""
    tokens = text.tokens
    if tokens[index].lower not in _SOMETIMES_NAMES or index + 1 >= len(tokens):
        return False
    return tokens[index + 1].before == " " and tokens[index + 1].lower in _FUNCTION_WORDS


def _follows_initial(text: TokenizedText, index: int) -> bool:
    """Whether an initial stands before the token, as in ``D. Cole``, and not the end of a sentence: ``Plan B. Rose``."""
    tokens = text.tokens
    if index == 0 or tokens[index].before not in (". ", ".") or not _is_initial(tokens[index - 1]):
        return False
    return index == 1 or tokens[index - 1].before != " " or tokens[index - 2].lower not in _LETTERED_THINGS


def _acts_or_has_surname(text: TokenizedText, index: int) -> bool:
    """Whether what follows a very frequent word (Will, May) makes it a name: what people do, or a family name."""
    tokens, lexicon = text.tokens, text.lexicon
    if index + 1 >= len(tokens) or tokens[index + 1].before != " ":
        return False
    after = tokens[index + 1]
    if after.lower in _ACTING:
        return True
    return (
        after.is_capital
        and (after.lower in lexicon.last or after.lower not in lexicon.ordinary)
        and after.lower not in lexicon.top
    )


def _has_evidence(text: TokenizedText, index: int, token: Token) -> bool:
    """Whether the words around an ambiguous capitalised given name make it a name."""
    tokens, lexicon = text.tokens, text.lexicon
    if not text.has_case and token.text.isupper():
        return False
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if after is not None and after.is_capital and after.before == " " and not after.text.isupper():
        if after.lower in lexicon.last and (after.lower not in lexicon.top or not text.starts_sentence(index)):
            return True
        if after.lower not in lexicon.ordinary and not _CAMEL.search(after.text):
            return True
    if after is not None and _is_initial(after) and after.lower != "i" and after.before == " ":
        return True
    before = text.plain[max(0, token.start - 30) : token.start]
    in_heading = (index > 0 and tokens[index - 1].is_capital and not text.starts_sentence(index - 1)) or (
        after is not None and after.is_capital and after.before == " "
    )
    if _ADDRESSING.search(before) and not in_heading:
        return True
    if after is not None and after.before == " " and after.lower in _ACTING:
        return True
    is_possessive = token.full_end != token.end
    if text.starts_sentence(index):
        is_subject = after is not None and after.before == " " and after.lower in _AUXILIARIES
        return (is_possessive or is_subject) and token.lower not in lexicon.top
    if is_possessive:
        return True
    return not in_heading and tokens[index - 1].lower not in _DETERMINERS


def is_unknown(text: TokenizedText, index: int, token: Token) -> bool:
    """Whether a capitalised word is not ordinary English, whatever its inflection or form."""
    lexicon, word, cased = text.lexicon, token.lower, token.text
    if len(word) < 3 or (not cased.isalpha() and not cased.replace("'", "").isalpha()):
        return False
    if word in lexicon.ordinary or word in lexicon.countries or word in _TITLES:
        return False
    if (
        "'" in word
        and all(part in lexicon.ordinary or len(part) < 3 for part in word.split("'"))
        and not _NAME_PREFIX.match(cased)
    ):
        return False
    if cased.isupper():
        if len(word) <= 5 and text.has_case:
            return False
        return word not in lexicon.english_rare and not _is_inflected(word, lexicon.english)
    if cased[:-1].isupper() and cased.endswith("s"):
        return False
    if _CAMEL.search(cased) and not _NAME_PREFIX.match(cased):
        return False
    if text.starts_sentence(index) and (word in lexicon.english_rare or _is_inflected(word, lexicon.english)):
        return False
    return not _is_inflected(word, lexicon.ordinary)


def is_eponym(text: TokenizedText, index: int) -> bool:
    """Whether a word is part of a term: ``Crohn's disease``, ``Charcot-Marie-Tooth disease``."""
    tokens = text.tokens
    for ahead in range(index + 1, min(index + 1 + _LONGEST_EPONYM, len(tokens))):
        gap = tokens[ahead].before
        if gap not in (" ", "-") and not gap.startswith("'s"):
            return False
        if tokens[ahead].lower in EPONYM_HEADS:
            return True
        if not tokens[ahead].is_capital or gap != "-":
            return False
    return False


@dataclass(slots=True)
class _Word:
    """A word that may begin or belong to a name, with what the rules ask about it."""

    recognizer: NameRecognizer
    text: TokenizedText
    index: int
    token: Token
    is_introduced: bool
    follows_title: bool
    lower: str = field(init=False)
    lexicon: Lexicon = field(init=False)

    def __post_init__(self) -> None:
        self.lower = self.token.lower
        self.lexicon = self.text.lexicon

    def first_rule(self, rules: tuple[NameRule, ...]) -> NameRule | None:
        """The first rule that applies, if any."""
        if self._is_no_name:
            return None
        for rule in rules:
            if rule.predicate is not None and rule.predicate(self):
                return rule
        return None

    @property
    def _is_no_name(self) -> bool:
        """``Pvt. D. Cole``: what follows the title is the name; ``Crohn's disease`` is no person."""
        if self.lower in _HARD_TITLES and self.text.plain.startswith(". ", self.token.full_end):
            return True
        return not (self.is_introduced or self.follows_title) and is_eponym(self.text, self.index)

    @property
    def is_name(self) -> bool:
        return self.lower in self.lexicon.names

    @property
    def is_given_name(self) -> bool:
        return self.lower in self.lexicon.sure_first and len(self.lower) > 2

    @property
    def is_short_capitals(self) -> bool:
        """``ANNA`` and ``ANA`` among lower-case words may be an abbreviation."""
        return self.token.text.isupper() and len(self.lower) <= 4 and self.text.has_case


NamePredicate = Callable[[_Word], bool]
NameRule = Rule[NamePredicate]


def _is_titled(word: _Word) -> bool:
    is_other_word = word.lower in word.lexicon.ordinary and not word.is_name and word.text.starts_sentence(word.index)
    return word.follows_title and not is_other_word and len(word.lower) > 1


def _is_introduced(word: _Word) -> bool:
    is_plausible = len(word.lower) > 1 and (word.is_name or word.lower not in word.lexicon.top)
    return word.is_introduced and is_plausible and not _begins_question(word.text, word.index)


def _is_introduced_in_lower_case(word: _Word) -> bool:
    lower, lexicon = word.lower, word.lexicon
    is_plausible = lower in lexicon.sure_first or (lower not in lexicon.english and not lower[0].isdigit())
    return word.is_introduced and len(lower) > 2 and is_plausible


def _is_ambiguous_name(word: _Word) -> bool:
    text, index = word.text, word.index
    if word.lower in word.lexicon.maybe_first and _has_evidence(text, index, word.token):
        return True
    return word.lower in _SOMETIMES_NAMES and _acts_or_has_surname(text, index)


def _is_unknown_capital(word: _Word) -> bool:
    recognizer = word.recognizer
    return recognizer.alone and word.lower not in recognizer.common and is_unknown(word.text, word.index, word.token)


CAPITAL_RULES: tuple[NameRule, ...] = (
    Rule(
        id="own.title",
        entity="PERSON",
        score=0.9,
        predicate=_is_titled,
        hits=("ask Mrs. «Violet Plum» today", "Dr. «King» left"),
        misses=("He saw the doctor. The office is closed.",),
    ),
    Rule(
        id="own.introduction",
        entity="PERSON",
        score=0.9,
        predicate=_is_introduced,
        hits=("My name is «Tarjanne Wexelblatt».", "Thanks,\n«Mike»"),
        misses=("Agent: May I help you?", "Call me The boss"),
    ),
    Rule(
        id="own.initial",
        entity="PERSON",
        score=0.7,
        predicate=lambda word: word.is_name and len(word.lower) > 2 and _follows_initial(word.text, word.index),
        hits=("signed by «D. Cole» yesterday",),
        misses=("We chose plan B. Rose water helps.",),
    ),
    Rule(
        id="own.given_name",
        entity="PERSON",
        score=0.85,
        predicate=lambda word: word.is_given_name and not word.is_short_capitals,
        hits=("so «Siobhan O'Leary» came",),
        misses=("so Mark came", "the ANNA protocol"),
    ),
    Rule(
        id="own.short_name",
        entity="PERSON",
        score=0.5,
        predicate=lambda word: (
            len(word.lower) == 2
            and word.is_name
            and word.lower not in word.lexicon.ordinary
            and _is_short_name(word.text, word.index)
        ),
        hits=("Tell customer «Bo» to call.",),
        misses=("Go to the UK now.",),
    ),
    Rule(
        id="own.ambiguous_name",
        entity="PERSON",
        score=0.7,
        predicate=_is_ambiguous_name,
        hits=("I met «Grace» there.", "so «Will» said it"),
        misses=("Will it bake with grace?", "You may call May the month of flowers."),
    ),
    Rule(
        id="own.strict",
        entity="PROPER_NOUN",
        score=0.5,
        predicate=_is_unknown_capital,
        hits=("all «Zorbatron» ships",),
        misses=("It is necesary.", "The updater restarts", "GHZ and iPhones"),
    ),
)
"""For capitalised words, in order: the first that applies decides."""

LOWER_CASE_RULES: tuple[NameRule, ...] = (
    Rule(
        id="own.lower_case_title",
        entity="PERSON",
        score=0.8,
        predicate=lambda word: word.follows_title and len(word.lower) > 2 and word.lower not in word.lexicon.english,
        hits=("ask mrs. «wexelblatt» today",),
        misses=("ask mr president today",),
    ),
    Rule(
        id="own.lower_case_introduction",
        entity="PERSON",
        score=0.8,
        predicate=_is_introduced_in_lower_case,
        hits=("my name is «tarjanne wexelblatt»",),
        misses=("my name is on the list",),
    ),
)
"""For words in lower case, in order."""


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


def _is_initial(token: Token) -> bool:
    return len(token.text) == 1 and token.is_capital


def _signatures(text: TokenizedText) -> set[int]:
    """The places right after a closing line, where one to three words alone on theirs are a signature."""
    plain = text.plain
    places: set[int] = set()
    if "\n" not in plain:
        return places
    for token in text.tokens:
        if "\n" not in token.before or _SIGN_OFF.search(plain, max(0, token.start - 60), token.start) is None:
            continue
        line_end = plain.find("\n", token.start)
        line = plain[token.start : line_end if line_end >= 0 else len(plain)]
        if len(line.split()) <= 3 and not any(character.isdigit() for character in line):
            places.add(token.start)
    return places


def _introduced(text: TokenizedText) -> set[int]:
    """The places right after an introduction."""
    return {match.end() for match in _INTRODUCTION.finditer(text.plain)}
