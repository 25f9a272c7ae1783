"""What scrubbing takes from the subject matter: how much is masked, of what, and which words are masked again and again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import MaskedTerm
from tasks.core.rare_values import MIN_ROWS_SHOWN
from tasks.core.rows import Row, iter_strings, iter_texts
from tasks.pii.lexicon import lexicon

MIN_CHARACTERS = 20_000
"""On less text the share of masked characters says nothing about a language or a subject."""
_WORDY = frozenset({"PERSON", "PROPER_NOUN", "LOCATION", "ORGANIZATION", "NRP"})
_NAMES = frozenset({"PERSON", "KNOWN_VALUE"})
_MAX_TERMS = 20


@dataclass
class MaskingCost:
    """Counts that are added up row by row, in any order."""

    num_rows: int = 0
    num_masked_rows: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    terms: Counter[tuple[str, str]] = field(default_factory=Counter)
    words_of_people: set[str] = field(default_factory=set)
    before: set[bytes] = field(default_factory=set)
    after: set[bytes] = field(default_factory=set)

    def add(self, kept: Iterable[Row], findings: Sequence[Mapping[str, Any]], originals: Mapping[str, Row]) -> None:
        """Adds some scrubbed rows.

        Args:
            kept: The rows as they are now.
            findings: What was replaced in them.
            originals: The rows as they were, by id.
        """
        for row in kept:
            self.num_rows += 1
            self.before.add(_digest(originals[row["id"]]))
            self.after.add(_digest(row))
        fields: dict[str, dict[str, str]] = {}
        terms: dict[str, set[tuple[str, str]]] = {}
        for finding in findings:
            self.characters[finding["entity"]] += finding["end"] - finding["start"]
            texts = fields.setdefault(finding["id"], dict(iter_strings(originals[finding["id"]])))
            term = texts[finding["field"]][finding["start"] : finding["end"]].casefold()
            found = terms.setdefault(finding["id"], set())
            if finding["entity"] in _NAMES and " " in term:
                self.words_of_people.update(term.split())
            if finding["entity"] in _WORDY and _names_no_person(term):
                found.add((finding["entity"], term))
        self.num_masked_rows += len(terms)
        for found in terms.values():
            self.terms.update(found)

    def frequent_terms(self) -> tuple[MaskedTerm, ...]:
        """The words that were masked in the most rows, in 30 at least, and that stand in nobody's full name."""
        most = sorted(self.terms.items(), key=lambda item: (-item[1], item[0]))
        own = (item for item in most if self.words_of_people.isdisjoint(item[0][1].split()))
        enough = [item for item in own if item[1] >= MIN_ROWS_SHOWN][:_MAX_TERMS]
        return tuple(MaskedTerm(term=term, entity=entity, num_rows=count) for (entity, term), count in enough)

    def measurements(self, num_characters: int) -> tuple[Measurement, ...]:
        """The shares of rows and characters that were masked, and the distinct rows before and after."""
        by_entity = (
            Measurement(name=f"masked_character_share {entity}", value=count / num_characters, num_samples=num_characters)
            for entity, count in sorted(self.characters.items())
            if num_characters
        )
        share = self.num_masked_rows / self.num_rows if self.num_rows else 0.0
        return (
            Measurement(name="masked_row_share", value=share, num_samples=self.num_rows),
            *by_entity,
            Measurement(name="distinct_rows_before", value=len(self.before), num_samples=self.num_rows),
            Measurement(name="distinct_rows_after", value=len(self.after), num_samples=self.num_rows),
        )


def _names_no_person(term: str) -> bool:
    """Whether a term may be shown: one or two words of letters, none of which is listed as a name of people."""
    words = term.split()
    return 0 < len(words) <= 2 and all(word.isalpha() and len(word) > 2 and word not in lexicon().names for word in words)


def _digest(row: Row) -> bytes:
    return hashlib.blake2b("\0".join(text for _, text in iter_texts(row)).encode(), digest_size=12).digest()
