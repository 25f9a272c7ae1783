"""A window's requests against the champion's training rows: samples, vectors, tests, new words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.contracts.monitoring import SignalMeasurement
from tasks.core.rows import Row
from tasks.modeling.embedding import SentenceEmbedder, has_wheel, tfidf_vectors
from tasks.monitoring.config import DriftConfig
from tasks.monitoring.drift import Tested, Vectors, length_test, mmd_test, new_terms, novelty_test, psi_of_vectors
from tasks.text.similarity import near_clusters, prompt_text

TERMS_SCHEMA = pa.schema([pa.field("term", pa.string()), pa.field("num_requests", pa.int64())])
TESTS = ("drift_mmd", "drift_novelty", "drift_length")
_SVD_DIMENSIONS = 100
_MAX_TERMS = 30


@dataclass(frozen=True)
class Compared:
    """What the tests said, with which vectors, over how many different requests, and the words that are new."""

    readings: tuple[SignalMeasurement, ...]
    vectors: str
    num_requests: int
    terms: list[tuple[str, int]]


def compare_requests(
    reference: Sequence[Row],
    requests: Sequence[Row],
    config: DriftConfig,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compared:
    """Samples of both, their near duplicates counted once, put to every test; not judged where there are too few."""
    known, asked = (_sample(rows, config) for rows in (reference, requests))
    if min(len(known), len(asked)) < config.min_rows:
        why = f"insufficient data: {len(asked)} different requests and {len(known)} training rows, wanted {config.min_rows}"
        return Compared(not_judged(why, len(asked)), "", len(asked), new_terms(known, asked, config.min_term_requests))
    name, one, other = embed(known, asked, config.vectors, on_progress)
    found = (
        mmd_test(one, other, num_permutations=config.num_permutations, seed=config.seed),
        novelty_test(one, other, seed=config.seed),
        length_test(known, asked),
    )
    readings = [_reading(test, tested, len(asked), config.alpha) for test, tested in zip(TESTS, found, strict=True)]
    effect = SignalMeasurement(
        name="drift_psi",
        signal="drift",
        value=psi_of_vectors(one, other),
        num_samples=len(asked),
        note="an effect size, never judged",
    )
    terms = new_terms(known, asked, config.min_term_requests)[:_MAX_TERMS]
    return Compared((*readings, effect), name, len(asked), terms)


def not_judged(why: str, num_requests: int) -> tuple[SignalMeasurement, ...]:
    """The tests' readings where there was nothing to test."""
    return tuple(
        SignalMeasurement(name=name, signal="drift", value=None, num_samples=num_requests, note=why) for name in TESTS
    )


def embed(
    known: Sequence[str], asked: Sequence[str], source: str, on_progress: Callable[[int, int], None]
) -> tuple[str, Vectors, Vectors]:
    """The name of the vectors and those of both samples: unit rows, made together where the texts give the vocabulary."""
    if source == "auto":
        source = "minilm" if has_wheel() else "tfidf"
    texts = [*known, *asked]
    if source == "tfidf":
        vectors: Vectors = np.asarray(tfidf_vectors(texts, _SVD_DIMENSIONS), dtype=np.float32)
        return "TF-IDF with SVD", vectors[: len(known)], vectors[len(known) :]
    embedder = SentenceEmbedder(source)
    vectors = embedder.embed(texts, on_progress)
    return embedder.name, vectors[: len(known)], vectors[len(known) :]


def _sample(rows: Sequence[Row], config: DriftConfig) -> list[str]:
    """Different requests, drawn by a hash of the text, so that no order of the rows changes the sample."""
    key = f"drift:{config.seed}".encode()
    texts = sorted(
        {prompt_text(row) for row in rows}, key=lambda text: hashlib.blake2b(text.encode(), key=key, digest_size=16).digest()
    )
    # Twice as many as wanted before near duplicates are put together, which costs more than it brings on all of them.
    drawn = texts[: 2 * config.max_rows]
    clusters = near_clusters(drawn, config.near_duplicate_threshold)
    return [text for place, text in enumerate(drawn) if clusters[place] == place][: config.max_rows]


def _reading(name: str, tested: Tested, count: int, alpha: float) -> SignalMeasurement:
    return SignalMeasurement(
        name=name,
        signal="drift",
        value=tested.value,
        p_value=tested.p_value,
        limit=alpha,
        num_samples=count,
        violated=tested.p_value < alpha,
    )
