"""Credentials found by rules, each tried only where one of its keywords occurs.

One Aho-Corasick pass over the lower-cased text finds the keywords; only the rules whose keyword is there run. A text with
characters that nobody sees is read a second time without them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

import ahocorasick

from tasks.confidential.gitleaks import gitleaks_rules
from tasks.confidential.rules import OWN_RULES, SecretRule
from tasks.confidential.terms import Hit


def built_in_rules() -> tuple[SecretRule, ...]:
    """The secret formats looked for by default: the project's own, then gitleaks'."""
    return (*OWN_RULES, *gitleaks_rules())


class SecretMatcher:
    """Finds secrets in a text; keywords first, then only the rules they call for."""

    def __init__(self, rules: Iterable[SecretRule]) -> None:
        self._rules = tuple(rules)
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
        places = _visible_places(text)
        if places is not None:
            for hit in self._find("".join(text[place] for place in places)):
                yield Hit(places[hit.start], places[hit.end - 1] + 1, hit.pattern)

    def _find(self, text: str) -> Iterator[Hit]:
        lowered = text.lower()
        if len(lowered) != len(text):
            lowered = "".join(low if len(low := character.lower()) == 1 else character for character in text)
        first: dict[int, int] = {}
        for last, (length, indices) in self._automaton.iter(lowered):
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


def _visible_places(text: str) -> list[int] | None:
    """The places of the characters that are seen; None where all are (no zero-width space, no soft hyphen)."""
    if text.isascii():
        return None
    places = [place for place, character in enumerate(text) if unicodedata.category(character) != "Cf"]
    return places if len(places) < len(text) else None
