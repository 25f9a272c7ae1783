"""Whether two near texts say the same thing, so that one of them can go.

Nearness alone does not decide it: ``the melting point of gold`` is near ``the melting point of iron``. A text repeats
another when it is near it, names the same quantities, negates as often, and no content word stands for another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from tasks.text.near_duplicates import is_near, within_edits

MIN_CONTENT_CHARS = 4
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NEGATION = re.compile(r"\b(?:no|not|never|none|without|cannot|cant|dont)\b|n't\b")
_SMALL_WORDS = """
about also been could does doesn't didn't don't from have haven't hasn't having here isn't just like more need only please
should some such than thanks that their them then there these they this those very want wasn't were what when where which
will with won't would your
"""
_FUNCTION_WORDS = frozenset(_SMALL_WORDS.split())
"""Words of four letters and more that may stand for each other (``which``, ``what``) without another meaning."""


def is_same_content(one: str, other: str, threshold: float) -> bool:
    """Whether a view repeats another but for typing, spacing, courtesies and small words.

    Args:
        one: A placeholder view.
        other: Another.
        threshold: Jaccard similarity from which views are near.
    """
    return one == other or (
        _NUMBER.findall(one) == _NUMBER.findall(other)
        and len(_NEGATION.findall(one)) == len(_NEGATION.findall(other))
        and is_near(one, other, threshold)
        and not _is_reworded(one, other)
    )


def _is_reworded(one: str, other: str) -> bool:
    """Whether both texts have a content word that the other lacks, in any spelling."""
    left, right = _content_words(one), _content_words(other)
    return _has_stranger(left - right, right - left) and _has_stranger(right - left, left - right)


def _has_stranger(words: Collection[str], others: Collection[str]) -> bool:
    return any(not any(within_edits(word, other, 2) for other in others) for word in words)


def _content_words(view: str) -> Counter[str]:
    words = _WORD.findall(view)
    return Counter(word for word in words if len(word) >= MIN_CONTENT_CHARS and word not in _FUNCTION_WORDS)
