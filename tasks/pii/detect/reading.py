"""Which lines the name model reads, and which of its findings count.

Only lines with a word that may be personal and that no rule has found are read. By itself a word needs a low score
(``pii.ner.min_score``), and a fifth of it where the dictionaries speak for a name too: a word in the lists of names, or a
capitalised word that is not English in an English text. It needs a high one where they speak against a name: the small
words of other languages, products, places written small, ``Crohn`` before ``disease``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import inf

from tasks.pii.detect.identifiers import is_published
from tasks.pii.detect.names import EPONYM_HEADS, is_eponym, is_unknown
from tasks.pii.detect.ner import CORROBORATED_SHARE, Entities, NameModel
from tasks.pii.detect.tokens import Token, TokenizedText
from tasks.pii.lexicon import vocabulary
from tasks.pii.spans import Span, union

MEMO_SIZE = 50_000
MAX_LINE = 480
"""Characters read at once; Rampart finds less in longer stretches."""
SURE_SCORE, TERM_SCORE = 0.5, 0.9
"""Required against the dictionaries, and against the word behind it: ``Crohn's disease``."""
_LINE = re.compile(r"[^\n|]+")
_SENTENCE = re.compile(r"[.!?:;]\s+")
_SMALL_WORDS = vocabulary("small_words")


class NameReader:
    """The name model behind its gate, with a memory of the lines that it has read.

    Args:
        model: The model.
        min_score: The least score of a word of which the dictionaries say nothing.
        corroborates: Whether a capitalised word that is not English speaks for a name.
        allowed: Lower-case words that are never personal.
        common: Lower-case words that are frequent in the data and in no list of names: a name only beside another.
    """

    def __init__(
        self, model: NameModel, min_score: float, *, corroborates: bool, allowed: frozenset[str], common: frozenset[str]
    ) -> None:
        self._model = model
        self._base = min_score
        self._corroborates = corroborates
        self._allowed = allowed
        self._common = common
        self._memo: OrderedDict[str, Entities] = OrderedDict()

    def forget(self) -> None:
        """Empties the memory of lines (for measurements)."""
        self._memo.clear()

    def lines(self, text: TokenizedText, spans: Sequence[Span]) -> Iterator[tuple[int, str]]:
        """Start and content of each line, or part of a long one, with a word that rules left open or could not name."""
        covered = union(span for span in spans if span.entity != "PROPER_NOUN")
        ends = [span.end for span in covered]
        open_places = []
        for index, token in enumerate(text.tokens):
            span = bisect_left(ends, token.start + 1)
            if (span == len(covered) or token.end <= covered[span].start) and self._is_open(text, index, token):
                open_places.append(token.start)
        for start, end in _lines(text.plain) if open_places else ():
            place = bisect_left(open_places, start)
            if place < len(open_places) and open_places[place] < end:
                yield start, text.plain[start:end]

    def _is_open(self, text: TokenizedText, index: int, token: Token) -> bool:
        """Whether only its line can say if a word is personal."""
        lexicon, word = text.lexicon, token.lower
        if token.is_number or len(word) < 2 or word in self._allowed:
            return False
        if word not in lexicon.ordinary or (word in lexicon.names and word not in lexicon.top):
            return True
        return token.is_capital and text.has_case and word not in lexicon.proper and not text.starts_sentence(index)

    def read(self, lines: Sequence[str]) -> list[Entities]:
        """The model's entities of each line; each distinct line is read once."""
        unknown = [line for line in dict.fromkeys(lines) if line not in self._memo]
        entities_of = dict(zip(unknown, self._model.find(unknown), strict=True)) if unknown else {}
        result = [entities_of[line] if line in entities_of else self._memo[line] for line in lines]
        self._memo.update(entities_of)
        while len(self._memo) > MEMO_SIZE:
            self._memo.popitem(last=False)
        return result

    def judge(self, text: TokenizedText, start: int, entities: Entities) -> list[Span]:
        """The entities that count, of a line that starts at a place in the text."""
        spans: list[Span] = []
        doubtful: list[Span] = []
        for first, last, entity, score in entities:
            span = Span(start + first, start + last, entity, score, "ner")
            indices = range(max(bisect_left(text.starts, span.start + 1) - 1, 0), bisect_left(text.starts, span.end))
            least = min((self._least(text, index, entity) for index in indices), default=inf)
            if score >= least:
                spans.append(span)
            elif score >= self._base and least <= 1:
                doubtful.append(span)
        # From right to left: ``van der Meulen`` begins before what counts, a house number beside it.
        for span in reversed(doubtful):
            if any(_touches(text.plain, span, other) for other in spans):
                spans.append(span)
        return spans

    def _least(self, text: TokenizedText, index: int, entity: str) -> float:
        """The least score at which a word counts by itself; above 1 it never does, even beside one that does."""
        token, lexicon = text.tokens[index], text.lexicon
        word, is_small = token.lower, text.has_case and not token.is_capital
        is_country = entity == "LOCATION" and word in lexicon.countries
        if word in self._allowed or entity in ("ORGANIZATION", "NRP") or is_country:
            return inf
        if word in _SMALL_WORDS and (is_small or text.starts_sentence(index)):
            return 1
        if is_eponym(text, index):
            return TERM_SCORE
        if word in self._common:  # the data's own brand, in each system prompt and sign-off; beside a name it is one
            return 1
        if is_small and word in EPONYM_HEADS:
            return SURE_SCORE
        if token.is_number and is_published(text, token.start):
            return inf
        if entity in ("LOCATION", "STREET_ADDRESS", "POSTCODE") and (len(word) <= 3 or is_small or word in lexicon.proper):
            return SURE_SCORE
        if word in lexicon.names and word not in lexicon.ordinary:
            return self._base * (1 if is_small else CORROBORATED_SHARE)
        if token.is_number:
            return self._base
        if is_small:
            return (1 if word in lexicon.names and word not in lexicon.top else 3) * self._base
        if token.text.isupper() and len(word) <= 5 and text.has_case:
            return SURE_SCORE
        if self._corroborates and text.is_english and is_unknown(text, index, token):
            return self._base * CORROBORATED_SHARE
        return 2 * self._base if word in lexicon.english_rare else self._base


def _touches(text: str, span: Span, other: Span) -> bool:
    """Whether only spaces and the like stand between two words."""
    gap = text[min(span.end, other.end) : max(span.start, other.start)]
    return len(gap) <= 2 and not gap.strip(" ,-'#/")


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each line; of a long one its parts, cut after a sentence or a word."""
    for line in _LINE.finditer(text):
        start, end = line.span()
        while end - start > MAX_LINE:
            half, limit = start + MAX_LINE // 2, start + MAX_LINE
            cuts = [match.end() for match in _SENTENCE.finditer(text, half, limit)]
            cut = cuts[-1] if cuts else text.rfind(" ", half, limit) + 1 or limit
            yield start, cut
            start = cut
        yield start, end
