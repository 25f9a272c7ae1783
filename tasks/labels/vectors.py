"""Where the audit's vectors come from: a sentence-embedding model, or TF-IDF where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.labels.config import LabelAuditConfig
from tasks.modeling.embedding import SentenceEmbedder, has_wheel, tfidf_vectors

OnProgress = Callable[[int, int], None]
Vectors = NDArray[np.float32]


class Vectorizer(Protocol):
    """Gives texts their vectors; ``name`` goes into the report."""

    name: str

    def features(self, texts: Sequence[str]) -> Any:
        """Unit rows for a classifier, dense or sparse."""

    def unit_vectors(self, texts: Sequence[str]) -> Vectors:
        """Dense unit rows, comparable by cosine."""


class EmbeddingVectorizer:
    """Sentence embeddings; a text met before is not embedded again."""

    def __init__(self, embedder: SentenceEmbedder, on_progress: OnProgress | None = None) -> None:
        self.name = embedder.name
        self._embedder, self._on_progress = embedder, on_progress
        self._known: dict[str, Vectors] = {}

    def features(self, texts: Sequence[str]) -> Vectors:
        """See :class:`Vectorizer`."""
        return self.unit_vectors(texts)

    def unit_vectors(self, texts: Sequence[str]) -> Vectors:
        """See :class:`Vectorizer`."""
        missing = sorted({text for text in texts if text not in self._known})
        if missing:
            self._known.update(zip(missing, self._embedder.embed(missing, self._on_progress), strict=True))
        return np.stack([self._known[text] for text in texts])


class TfidfVectorizer:
    """The fallback without a model: TF-IDF for classes, its 200 leading dimensions for likeness."""

    name = "TF-IDF"

    def features(self, texts: Sequence[str]) -> Any:
        """See :class:`Vectorizer`."""
        return tfidf_vectors(texts)

    def unit_vectors(self, texts: Sequence[str]) -> Vectors:
        """See :class:`Vectorizer`."""
        vectors: Vectors = tfidf_vectors(texts, 200)
        return vectors


def choose_vectorizer(config: LabelAuditConfig, on_progress: OnProgress | None = None) -> Vectorizer:
    """The configured vectorizer; ``auto`` is the MiniLM wheel when it is installed, else TF-IDF."""
    source = config.embedding_model
    if source == "auto":
        source = "minilm" if has_wheel() else "tfidf"
    if source == "tfidf":
        return TfidfVectorizer()
    load = _wheel_embedder if source == "minilm" else SentenceEmbedder
    return EmbeddingVectorizer(load(source, max_tokens=config.max_tokens), on_progress)


@cache
def _wheel_embedder(source: str, *, max_tokens: int) -> SentenceEmbedder:
    """The wheel's model, unpacked and loaded once for all audits of a process; a folder or hub id may change meanwhile."""
    return SentenceEmbedder(source, max_tokens=max_tokens)
