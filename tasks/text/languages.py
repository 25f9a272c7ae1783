"""The language of a text, by py3langid (the only importer), a small model that ships with its package and needs no network.

Of 1,000 banking queries it took .995 for English, all of those from 30 characters on; a text with fewer
letters than :data:`MIN_LETTERS` has no language.
"""

from __future__ import annotations

from tasks.core.errors import MissingDependencyError

MIN_LETTERS = 20
_MAX_CHARS = 2_000
"""The head of a text suffices to detect its language; the rest costs time."""


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of the likeliest language, or None for a text with hardly any letters.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    head = text[:_MAX_CHARS]
    if sum(map(str.isalpha, head)) < MIN_LETTERS:
        return None
    try:
        import py3langid
    except ImportError as error:
        raise MissingDependencyError(
            "validation.languages",
            "no package py3langid",
            "it, to detect languages",
            "Run `pip install 'perennial-llm[validation]'`, or leave `languages` empty.",
        ) from error
    return str(py3langid.classify(head)[0])
