"""Credentials found by rules, each tried only where one of its keywords occurs.

One Aho-Corasick pass over the lower-cased text finds the keywords; only the rules whose keyword is there run. A text is
read up to three times: as it is; as it is seen, without invisible characters and with compatible forms of letters made
equal; and with its lines joined, since a key is broken where a mail or a terminal ends a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import ahocorasick

from tasks.confidential.gitleaks import gitleaks_rules
from tasks.confidential.rules import OWN_RULES, SecretRule
from tasks.confidential.terms import Hit
from tasks.text.lower_case import lowered

_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
"""Characters that Unicode has readers ignore (``Default_Ignorable_Code_Point``) and that are not of the category Cf."""
_BREAK = re.compile(
    r"[ \t]{0,8}(?:[=\\][ \t]{0,8})?(?:\r\n?|[\n\x0b\x0c\x85\u2028\u2029]|<w?br ?/?>|\\r\\n|\\n)[ \t>|]{0,16}"
    r"|&(?:shy|ZeroWidthSpace|zwj|zwnj|NoBreak|#173|#820[3-5]|#8288|#x(?:ad|200[b-d]|2060));",
    re.IGNORECASE,
)
"""What breaks a word in two without being a part of it: a line's end with the marks of a quoted or continued line, as a
character, an escape or a tag, and the entities of invisible characters."""


def built_in_rules() -> tuple[SecretRule, ...]:
    """The secret formats looked for by default: the project's own, then gitleaks'."""
    return (*OWN_RULES, *gitleaks_rules())


class SecretMatcher:
    """Finds secrets in a text; keywords first, then only the rules they call for."""

    def __init__(self, rules: Iterable[SecretRule]) -> None:
        self._rules = tuple(rules)
        self._loose = {rule.id for rule in self._rules if rule.is_loose}
        by_keyword: dict[str, list[int]] = {}
        for index, rule in enumerate(self._rules):
            for keyword in rule.keywords:
                by_keyword.setdefault(keyword, []).append(index)
        self._automaton = ahocorasick.Automaton()
        for keyword, indices in by_keyword.items():
            self._automaton.add_word(keyword, (len(keyword), tuple(indices)))
        self.is_empty = not by_keyword
        if not self.is_empty:
            self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[Hit]:
        """Yields each secret's span and rule, by rule, then by position; spans may overlap across rules."""
        if self.is_empty:
            return
        yield from self._find(text)
        seen, places = _seen(text)
        if seen != text:
            yield from (_moved(hit, places) for hit in self._find(seen))
        breaks = [match.span() for match in _BREAK.finditer(seen)]
        if not breaks:
            return
        # A secret may begin where a line does, or be broken where a keyword happens to stand.
        starts = {last - length + 1 for last, (length, _) in self._automaton.iter(lowered(seen))}
        inner = [span for span in breaks if span[1] not in starts]
        for removed in (breaks, inner) if len(inner) < len(breaks) else (breaks,):
            joined, kept = _without(seen, removed)
            for hit in self._find(joined):
                if self._is_broken_secret(hit, joined, kept):
                    yield _moved(_moved(hit, kept), places)

    def _is_broken_secret(self, hit: Hit, joined: str, kept: Sequence[int]) -> bool:
        """Whether a match in joined lines is one secret with a break inside, rather than a word after another."""
        breaks = [place for place in range(hit.start + 1, hit.end) if kept[place] != kept[place - 1] + 1]
        if not breaks or hit.pattern not in self._loose:
            return bool(breaks)
        pieces = (joined[start:end] for start, end in pairwise([hit.start, *breaks, hit.end]))
        return all(any(map(str.isdigit, piece)) and any(map(str.isalpha, piece)) for piece in pieces)

    def _find(self, text: str) -> Iterator[Hit]:
        first: dict[int, int] = {}
        for last, (length, indices) in self._automaton.iter(lowered(text)):
            for index in indices:
                first.setdefault(index, last - length + 1)
        for index in sorted(first):
            rule = self._rules[index]
            start = 0 if rule.lookback is None else max(0, first[index] - rule.lookback)
            for match in rule.pattern.finditer(text, start):
                group = rule.group
                if group is None:
                    group = next((name for name, value in match.groupdict().items() if value is not None), 0)
                if not match.group(group):
                    group = 0
                if rule.validator is None or rule.validator(match.group(group)):
                    start, end = match.span(group)
                    yield Hit(start, end, rule.id)


def _seen(text: str) -> tuple[str, Sequence[int]]:
    """The text as it is seen and the place in ``text`` of each of its characters."""
    if text.isascii():
        return text, range(len(text))
    seen, places = [], []
    for place, character in enumerate(text):
        if character.isascii():
            folded = character
        elif unicodedata.category(character) == "Cf" or character in _UNSEEN:
            continue
        else:
            folded = unicodedata.normalize("NFKC", character)
        seen.append(folded)
        places.extend([place] * len(folded))
    return "".join(seen), places


def _without(text: str, spans: Iterable[tuple[int, int]]) -> tuple[str, Sequence[int]]:
    """The text without some spans and the place in ``text`` of each of its characters."""
    parts: list[str] = []
    places: list[int] = []
    last = 0
    for start, end in (*spans, (len(text), len(text))):
        parts.append(text[last:start])
        places.extend(range(last, start))
        last = end
    return "".join(parts), places


def _moved(hit: Hit, places: Sequence[int]) -> Hit:
    return Hit(places[hit.start], places[hit.end - 1] + 1, hit.pattern)
