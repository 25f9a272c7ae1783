"""The frozen word lists that tell a name from an ordinary word; shipped with the project, see ``data/SOURCES.md``."""

from __future__ import annotations

import hashlib
import tomllib
import unicodedata
from functools import lru_cache
from importlib.resources import files

_DATA = files("tasks.pii").joinpath("data")
_VOCABULARY = "vocabulary.toml"
_LABELS = "labels.toml"
_LISTS = (
    "countries.txt",
    "english_capitalised.txt",
    "english_common.txt",
    "english_rare.txt",
    "english_top.txt",
    "first_names.txt",
    "last_names.txt",
    "surrogate_first_names.txt",
    "surrogate_last_names.txt",
)


@lru_cache(maxsize=len(_LISTS))
def read_list(name: str) -> tuple[str, ...]:
    """The entries of a list, in file order."""
    lines = _DATA.joinpath(name).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@lru_cache(maxsize=1)
def _vocabularies() -> dict[str, frozenset[str]]:
    lists = tomllib.loads(_DATA.joinpath(_VOCABULARY).read_text(encoding="utf-8"))
    return {name: frozenset(words.split()) for name, words in lists.items()}


def vocabulary(name: str) -> frozenset[str]:
    """One of the project's own word lists, ``data/vocabulary.toml``; each is explained there."""
    return _vocabularies()[name]


@lru_cache(maxsize=1)
def entities_by_label() -> dict[str, str]:
    """The entity of each known label of name models, ``none`` for what is no personal data."""
    lists = tomllib.loads(_DATA.joinpath(_LABELS).read_text(encoding="utf-8"))
    return {label: entity for entity, labels in lists.items() for label in labels.split()}


@lru_cache(maxsize=1)
def lists_sha256() -> str:
    """The hash of all lists together; part of the policy's hash."""
    digest = hashlib.sha256()
    for name in (*_LISTS, _VOCABULARY, _LABELS):
        digest.update(_DATA.joinpath(name).read_bytes())
    return digest.hexdigest()


def without_accents(word: str) -> str:
    """The word with each accented letter replaced by its base letter."""
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if unicodedata.category(letter) != "Mn")


class Lexicon:
    """What is known about words, as sets of lower-case words."""

    def __init__(self) -> None:
        self.top = frozenset(read_list("english_top.txt"))
        self.english = frozenset(read_list("english_common.txt")) | self.top
        self.english_rare = frozenset(read_list("english_rare.txt"))
        self.countries = frozenset(country.lower() for country in read_list("countries.txt"))
        country_words = frozenset(
            word for country in self.countries for word in country.replace("(", " ").split() if len(word) > 3
        )
        first = _with_plain_forms(read_list("first_names.txt"))
        last = _with_plain_forms(read_list("last_names.txt"))
        capitalised = frozenset(read_list("english_capitalised.txt"))
        self.proper = capitalised | (country_words - first - last) | vocabulary("countries_short") | vocabulary("well_known")
        self.ordinary = self.english | self.proper
        """Words whose capital says nothing about a person."""
        self.first = first
        self.last = last
        self.names = first | last
        self.sure_first = first - self.ordinary - self.english_rare - vocabulary("small_words")
        """Given names that are no English word at all, nor a small word of another language."""
        self.maybe_first = (first & (self.english | self.english_rare)) - self.proper - vocabulary("never_names")
        """Given names that are also words: Mark, Rose, Will. They need evidence."""


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The process's lexicon."""
    return Lexicon()


def _with_plain_forms(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names) | frozenset(without_accents(name) for name in names if not name.isascii())
