"""BM25 over passages or questions, and passages from a folder of texts: enough to measure whether retrieval helps."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.documents import read_text
from tasks.core.errors import InputError
from tasks.core.storage import sha256_of_file

_SUFFIXES = (".md", ".txt")
_MAX_PASSAGE_CHARS = 1_000
_TERMS = re.compile(
    # Scripts written without spaces count by character: kana, Han, Thai, Lao, Khmer, Myanmar.
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W_]+"
)


class Bm25:
    """Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework") over a list of texts.

    Args:
        texts: The texts to search.
        k1: How fast a repeated term saturates.
        b: How much the length of a text lowers its score.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(terms_of(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._num_texts = len(texts)
        norm = k1 * (1 - b + b * lengths / max(lengths.mean(), 1.0)) if texts else lengths
        postings: dict[str, list[tuple[int, int]]] = {}
        for index, count in enumerate(counts):
            for term, frequency in count.items():
                postings.setdefault(term, []).append((index, frequency))
        self._weights: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for term, entries in postings.items():
            indices, frequency = np.array(entries, dtype=np.int64).T
            rarity = np.log1p((self._num_texts - len(entries) + 0.5) / (len(entries) + 0.5))
            self._weights[term] = (indices, rarity * frequency * (k1 + 1) / (frequency + norm[indices]))

    def scores(self, query: str) -> NDArray[np.float64]:
        """The relevance of every text, shape ``(num_texts,)``; 0 where no term is shared."""
        total = np.zeros(self._num_texts)
        for term in dict.fromkeys(terms_of(query)):
            if term in self._weights:
                indices, weights = self._weights[term]
                total[indices] += weights
        return total

    def best(self, query: str, count: int) -> list[int]:
        """The indices of the ``count`` most relevant texts, best first, earlier ones first among equals.

        Texts that share no term with the query are left out.
        """
        scores = self.scores(query)
        order = np.argsort(-scores, kind="stable")[:count]
        return [int(index) for index in order if scores[index] > 0]


def terms_of(text: str) -> list[str]:
    """The text's words, NFKC-normalised and case-folded."""
    return _TERMS.findall(unicodedata.normalize("NFKC", text).casefold())


def passages_of(text: str, max_chars: int = _MAX_PASSAGE_CHARS) -> list[str]:
    """The passages of a text: paragraphs, joined while they fit together; a longer one is cut between words."""
    passages: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for piece in _pieces(paragraph.strip(), max_chars):
            if passages and len(passages[-1]) + 2 + len(piece) <= max_chars:
                passages[-1] = f"{passages[-1]}\n\n{piece}"
            else:
                passages.append(piece)
    return passages


def read_passages(folder: str) -> list[str]:
    """The passages of every text in a folder and those below it, in the order of the files' names.

    Raises:
        InputError: The folder or its texts are missing, or one is not UTF-8.
    """
    passages = []
    for path in _documents(folder):
        try:
            passages.extend(passages_of(read_text(path)))
        except UnicodeDecodeError as error:
            raise InputError(
                str(path), f"bytes that are not UTF-8 at {error.start}", "UTF-8 text", "Save it as UTF-8."
            ) from error
    return passages


def document_digests(folder: str) -> Mapping[str, str]:
    """The SHA-256 of every text in a folder, by its name."""
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in _documents(folder)}


def _documents(folder: str) -> list[Path]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(
            f"fit.documents ({folder})",
            "no text" if Path(folder).is_dir() else "no such folder",
            f"a folder with files that end in {' or '.join(_SUFFIXES)}",
            "Name the folder with the texts, or leave fit.documents out.",
        )
    return paths


def _pieces(paragraph: str, max_chars: int) -> list[str]:
    pieces = []
    while len(paragraph) > max_chars:
        cut = paragraph.rfind(" ", 1, max_chars + 1)
        cut = cut if cut > 0 else max_chars
        pieces.append(paragraph[:cut].rstrip())
        paragraph = paragraph[cut:].lstrip()
    return [*pieces, paragraph] if paragraph else pieces
