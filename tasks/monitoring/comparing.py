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
from tasks.monitoring.drift import TestResult, Vectors, length_test, mmd_test, new_terms, novelty_test, psi_of_vectors
from tasks.text.near_duplicates import near_clusters
from tasks.text.normalization import prompt_text

TERMS_SCHEMA = pa.schema([pa.field("term", pa.string()), pa.field("num_requests", pa.int64())])
TESTS = ("drift_mmd", "drift_novelty", "drift_length")
_SVD_DIMENSIONS = 100
_MAX_TERMS = 30


@dataclass(frozen=True)
class Comparison:
    """The tests' measurements, the name of the vectors, the number of different requests, and the new words."""

    measurements: tuple[SignalMeasurement, ...]
    vectors: str
    num_requests: int
    terms: list[tuple[str, int]]


def compare_requests(
    reference: Sequence[Row],
    requests: Sequence[Row],
    config: DriftConfig,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Every test on a sample of both sides, near duplicates counted once; too few rows are not evaluated."""
    known, new = (_sample(rows, config) for rows in (reference, requests))
    terms = new_terms(known, new, config.min_term_requests)
    if min(len(known), len(new)) < config.min_rows:
        why = f"insufficient data: {len(new)} different requests and {len(known)} training rows, min_rows {config.min_rows}"
        return Comparison(not_evaluated(why, len(new)), "", len(new), terms)
    name, known_vectors, new_vectors = embed(known, new, config.vectors, on_progress)
    results = (
        mmd_test(known_vectors, new_vectors, num_permutations=config.num_permutations, seed=config.seed),
        novelty_test(known_vectors, new_vectors, seed=config.seed),
        length_test(known, new),
    )
    tests = [_measurement(test, result, len(new), config.alpha) for test, result in zip(TESTS, results, strict=True)]
    effect = SignalMeasurement(
        name="drift_psi",
        signal="drift",
        value=psi_of_vectors(known_vectors, new_vectors),
        num_samples=len(new),
        note="an effect size without a limit",
    )
    return Comparison((*tests, effect), name, len(new), terms[:_MAX_TERMS])


def not_evaluated(why: str, num_requests: int) -> tuple[SignalMeasurement, ...]:
    """The tests' measurements where there was nothing to test, with the reason."""
    return tuple(
        SignalMeasurement(name=name, signal="drift", value=None, num_samples=num_requests, note=why) for name in TESTS
    )


def embed(
    known: Sequence[str], new: Sequence[str], source: str, on_progress: Callable[[int, int], None]
) -> tuple[str, Vectors, Vectors]:
    """The name of the vectors, and both samples' unit rows. TF-IDF takes its vocabulary from both samples."""
    if source == "auto":
        source = "minilm" if has_wheel() else "tfidf"
    texts = [*known, *new]
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
    # Clustering near duplicates of all texts costs more than it brings; twice the sample is enough.
    drawn = texts[: 2 * config.max_rows]
    clusters = near_clusters(drawn, config.near_duplicate_threshold)
    return [text for place, text in enumerate(drawn) if clusters[place] == place][: config.max_rows]


def _measurement(name: str, result: TestResult, count: int, alpha: float) -> SignalMeasurement:
    return SignalMeasurement(
        name=name,
        signal="drift",
        value=result.value,
        p_value=result.p_value,
        limit=alpha,
        num_samples=count,
        violated=result.p_value < alpha,
    )
