"""Whether two near texts say the same thing, so that one of them can go.

Nearness alone does not decide it: ``the melting point of gold`` is near ``the melting point of iron``, and ``convert pounds
to kilograms`` near its reverse. A text repeats another when it is near it, names the same quantities and signs, and has the
same words in the same order but for typing errors, endings, articles and courtesies. In doubt both texts stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from rapidfuzz.distance import DamerauLevenshtein, Levenshtein

from tasks.text.near_duplicates import is_near

ESTABLISHED_ROWS = 3
"""A word in as many rows is a word, and no typing error for another one."""
TYPO_RATIO = 200
"""A word this many times rarer than one that it nearly equals is a typing error for it, however many rows repeat it."""
MIN_TYPO_CHARS = 4
"""Of two shorter words (``cat``, ``car``) none is the other's typing error."""
_LONG_WORD_CHARS = 6
_NUMBER = re.compile(r"\d+")
_SIGN = re.compile(r"[+<>=×÷%€$£¥₹^~≤≥≠√]|(?<=[\d)])\s*[-−*/:]\s*(?=[\d(])")
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
    "\uac00-\ud7af"  # Korean, where one syllable negates
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W\d_]|[\u0300-\u036f\u0900-\u0dff])+(?:'[^\W\d_]+)?")
"""A word; in scripts without spaces, a character."""
_UNSPACED_SCRIPT = re.compile(rf"[{_UNSPACED}]")
_CONTRACTED = re.compile(r"(?<=[^\W\d_])n['’]t\b|(?<=\bcan)not\b|(?<=\b(?:do))nt\b|(?<=\bcan)t\b")

_SMALL = """
a an the this that these those it its is are was were be been am do does did has have had having will would can could should
may might must i we you he'll i'm i've i'd we're you're it's my our your me us here there which what who where when how
please thanks thank hello hi hey dear also just like want need to of for at as so and about some such very their them they
der die das den dem des ein eine einen einem einer eines bitte danke hallo ich wir mein meine ist sind
le la les un une des du s'il vous te plaît merci bonjour je mon ma mes est
el los las una unos unas por favor gracias hola mi es
il lo gli per favore grazie ciao
os as um uma obrigado obrigada olá
de het een alstublieft bedankt
"""
_SMALL_WORDS = frozenset(_SMALL.split())
"""Words that may stand for each other, or be left out, without another meaning: articles, forms of address, courtesies.

A word of another language is content: there a row more is kept."""
_NEGATING = """
no not never none nor neither nobody nothing nowhere without
nicht kein keine keinen keinem keiner keines nie niemals nichts niemand ohne weder
ne pas jamais sans aucun aucune rien ni non
nunca jamás sin ningún ninguna ninguno nada nadie tampoco
mai senza nessun nessuno nessuna niente né
não sem nenhum nenhuma nem ninguém
niet geen nooit niets zonder niemand
nie nigdy bez żaden żadna żadne nikt nic nikdy žádný žádná
inte aldrig utan ingen inget inga ikke aldri uden uten intet
ei en et emme ette eivät älä ilman
nem soha nélkül sincs değil yok hayır
nu niciodată fără
не нет ни никогда без нельзя ні немає ніколи няма
δεν μη μην χωρίς ποτέ όχι
لا ليس ليست لم لن بدون غير לא אין בלי אף
नहीं न मत बिना
không chưa tidak bukan tanpa jangan
"""
_NEGATIONS = frozenset(_NEGATING.split())
"""Words that no other word is a typing error of: ``kein`` is not ``ein``."""
_OPPOSITE_HEADS = frozenset(
    map(frozenset, (("", "a"), ("an", "ab"), ("auf", "aus"), ("in", "un"), ("в", "вы"), ("за", "на"), ("", "о"), ("", "u")))
)
"""Beginnings that one letter reverses: ``anmelden`` and ``abmelden``, ``включить`` and ``выключить``."""


def is_same_content(one: str, other: str, threshold: float, counts: Mapping[str, int] = MappingProxyType({})) -> bool:
    """Whether a view repeats another but for typing, spacing, endings, courtesies and small words.

    Args:
        one: A placeholder view.
        other: Another.
        threshold: Jaccard similarity from which views are near.
        counts: Rows with each word; two words that are both known are no spellings of one.
    """
    return one == other or (
        _NUMBER.findall(one) == _NUMBER.findall(other)
        and _signs(one) == _signs(other)
        and is_near(one, other, threshold)
        and _has_same_words(words_of(one), words_of(other), counts)
    )


def words_of(view: str) -> list[str]:
    """The words of a view in order; in scripts without spaces its characters. A contracted ``not`` is a word of its own."""
    return _WORD.findall(_CONTRACTED.sub(" not", view).replace("’", "'"))


def _signs(view: str) -> list[str]:
    return [sign.strip() for sign in _SIGN.findall(view)]


def _has_same_words(left: Sequence[str], right: Sequence[str], counts: Mapping[str, int]) -> bool:
    equal = [block for block in Levenshtein.opcodes(left, right) if block.tag == "equal"]
    starts = [(0, 0), *((block.src_end, block.dest_end) for block in equal)]
    ends = [*((block.src_start, block.dest_start) for block in equal), (len(left), len(right))]
    return all(
        _is_rewritten(left[start[0] : end[0]], right[start[1] : end[1]], counts)
        for start, end in zip(starts, ends, strict=True)
    )


def _is_rewritten(left: Sequence[str], right: Sequence[str], counts: Mapping[str, int]) -> bool:
    """Whether two stretches between equal words are one, written in two ways."""
    if _are_spellings(left, right, counts):
        return True
    if _is_mistyped(left, right, counts) or _is_mistyped(right, left, counts):
        return True
    left, right = _without_small(left), _without_small(right)
    return _are_spellings(left, right, counts) or (bool(left) and "".join(left) == "".join(right))


def _is_mistyped(words: Sequence[str], others: Sequence[str], counts: Mapping[str, int]) -> bool:
    """Whether ``words``, of which one is no known word, are typing errors in known words, spaces among them."""
    num_rows = min((_num_rows(word, counts) for word in others), default=0)
    if num_rows < ESTABLISHED_ROWS or not any(_is_rare(word, num_rows, counts) for word in words):
        return False
    if not _NEGATIONS.isdisjoint(words) or not _NEGATIONS.isdisjoint(others):
        return False
    one, other = " ".join(words), " ".join(others)
    if min(len(one), len(other)) < 2 or _UNSPACED_SCRIPT.search(one + other):
        return False
    return DamerauLevenshtein.distance(one, other, score_cutoff=2) <= 2 and _is_scattered(one, other)


def _num_rows(word: str, counts: Mapping[str, int]) -> int:
    return max(counts.get(word, 0), ESTABLISHED_ROWS if word in _SMALL_WORDS else 0)


def _is_rare(word: str, num_rows: int, counts: Mapping[str, int]) -> bool:
    """Whether a word is no known one, or so rare beside one in ``num_rows`` rows that it is a spelling of it."""
    return _num_rows(word, counts) < max(ESTABLISHED_ROWS, num_rows / TYPO_RATIO)


def _are_two_words(one: str, other: str, counts: Mapping[str, int]) -> bool:
    few, many = sorted((_num_rows(one, counts), _num_rows(other, counts)))
    return few >= max(ESTABLISHED_ROWS, many / TYPO_RATIO)


def _are_spellings(left: Sequence[str], right: Sequence[str], counts: Mapping[str, int]) -> bool:
    return len(left) == len(right) and all(_is_spelling(one, other, counts) for one, other in zip(left, right, strict=True))


def _without_small(words: Iterable[str]) -> list[str]:
    return [word for word in words if word not in _SMALL_WORDS]


def _is_spelling(one: str, other: str, counts: Mapping[str, int]) -> bool:
    if one == other or (one in _SMALL_WORDS and other in _SMALL_WORDS):
        return True
    if one in _NEGATIONS or other in _NEGATIONS:
        return False
    if one in _SMALL_WORDS or other in _SMALL_WORDS:
        unknown = other if one in _SMALL_WORDS else one
        return counts.get(unknown, 0) < ESTABLISHED_ROWS and DamerauLevenshtein.distance(one, other, score_cutoff=1) <= 1
    if min(len(one), len(other)) < MIN_TYPO_CHARS:
        return False
    return _is_inflection(one, other) or (not _are_two_words(one, other, counts) and _is_typing_error(one, other))


def _is_inflection(one: str, other: str) -> bool:
    """Whether one word is the other with an ending of one or two letters (``transaction``, ``transactions``)."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and len(long) - len(short) <= 2


def _is_typing_error(one: str, other: str) -> bool:
    """Whether one letter was mistyped, or two of a long word."""
    edits = 1 if min(len(one), len(other)) < _LONG_WORD_CHARS else 2
    return DamerauLevenshtein.distance(one, other, score_cutoff=edits) <= edits and _is_scattered(one, other)


def _is_scattered(one: str, other: str) -> bool:
    """Whether the edits between two words are single letters. Two in a row are a part of a word (``unlock``, ``export``)."""
    blocks = [block for block in Levenshtein.opcodes(one, other) if block.tag != "equal"]
    is_single = all(max(b.src_end - b.src_start, b.dest_end - b.dest_start) == 1 for b in blocks)
    return (is_single or DamerauLevenshtein.distance(one, other, score_cutoff=1) <= 1) and not _is_reversed(one, other)


def _is_reversed(one: str, other: str) -> bool:
    """Whether two words are alike but for beginnings that stand for opposites."""
    return any(
        one.startswith(head) and other.startswith(tail) and one[len(head) :] == other[len(tail) :]
        for heads in _OPPOSITE_HEADS
        for head, tail in (tuple(heads), tuple(heads)[::-1])
    )
