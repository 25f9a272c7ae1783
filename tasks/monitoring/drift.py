"""Whether two samples of requests come from the same distribution: tests with a p value, and effect sizes. Pure numpy.

The population stability index (PSI) is shown without its customary limits of .1 and .2: on embeddings of a thousand
requests they do not fire when a fifth of the topics is new.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, ks_2samp

Vectors = NDArray[np.float32]
_TOP_SHARE = 0.1
_WORD = re.compile(r"[^\W\d_]{3,}")
_NUM_BINS, _NUM_DIRECTIONS = 10, 5
_BLOCK = 256
_ROUNDING = 1e-6
"""Equal statistics differ by less in single precision; counting them as larger errs on the side of no drift."""


@dataclass(frozen=True)
class TestResult:
    """A statistic, and the probability of one as large if nothing differs."""

    value: float
    p_value: float


def mmd_test(reference: Vectors, found: Vectors, *, num_permutations: int, seed: int) -> TestResult:
    """Squared maximum mean discrepancy with its permutation test (Gretton et al. 2012, "A Kernel Two-Sample Test").

    A Gaussian kernel whose width is the median distance. The kernel matrix is computed once; a permutation is a vector of
    signs, so that all of them are two matrix products.

    Args:
        reference: Shape ``(n, dimensions)``.
        found: Shape ``(m, dimensions)``.
        num_permutations: The p value is at least ``1 / (1 + num_permutations)``.
        seed: Seed of the permutations.
    """
    pooled = np.concatenate([reference, found]).astype(np.float32)
    squares = (pooled**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * pooled @ pooled.T, 0.0)
    width = float(np.median(distances[np.triu_indices(min(len(pooled), 1_000), 1)])) or 1.0
    kernel = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0.0)  # the diagonal adds the same to every permutation
    first = np.full(len(pooled), -1.0 / len(found), dtype=np.float32)
    first[: len(reference)] = 1.0 / len(reference)
    generator = np.random.default_rng(seed)
    observed = float(first @ kernel @ first)
    num_larger = 0
    for start in range(0, num_permutations, _BLOCK):
        shape = (min(_BLOCK, num_permutations - start), len(pooled))
        signs = generator.permuted(np.broadcast_to(first, shape), axis=1)
        num_larger += int((((signs @ kernel) * signs).sum(1) >= observed - _ROUNDING).sum())
    return TestResult(observed, (1 + num_larger) / (1 + num_permutations))


def novelty_test(reference: Vectors, found: Vectors, *, seed: int) -> TestResult:
    """The share of requests that lie farther from every training row than nine in ten of both do, and its exact test.

    Half of the training rows are anchors. If nothing differs, the other half and the requests are alike in their distance
    to the nearest anchor, so that the far tenth of both together holds each in proportion (hypergeometric, one-sided).
    """
    order = np.random.default_rng(seed).permutation(len(reference))
    anchors, others = reference[order[: len(order) // 2]], reference[order[len(order) // 2 :]]
    distances = np.concatenate([1.0 - (others @ anchors.T).max(1), 1.0 - (found @ anchors.T).max(1)])
    num_far = max(1, round(_TOP_SHARE * len(distances)))
    # Ties at the edge go by position in a random order, not to one of the two sides.
    shuffled = np.random.default_rng(seed + 1).permutation(len(distances))
    far = shuffled[np.argsort(-distances[shuffled], kind="stable")[:num_far]]
    num_found = int((far >= len(others)).sum())
    p_value = float(hypergeom.sf(num_found - 1, len(distances), len(found), num_far))
    return TestResult(num_found / len(found), p_value)


def length_test(reference: Sequence[str], found: Sequence[str]) -> TestResult:
    """The Kolmogorov-Smirnov test of the texts' lengths in characters."""
    result = ks_2samp([len(text) for text in reference], [len(text) for text in found])
    return TestResult(float(result.statistic), float(result.pvalue))


def psi_of_vectors(reference: Vectors, found: Vectors) -> float:
    """The mean PSI over the reference's five leading directions, each in ten bins of equal content."""
    centre = reference.mean(0)
    _, _, directions = np.linalg.svd(reference - centre, full_matrices=False)
    leading = directions[:_NUM_DIRECTIONS].T
    pairs = zip(((reference - centre) @ leading).T, ((found - centre) @ leading).T, strict=True)
    return float(np.mean([population_stability_index(one, other) for one, other in pairs]))


def population_stability_index(reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The PSI of one figure in ten bins of equal content of the reference; an empty bin counts as half a row."""
    edges = np.quantile(reference, np.linspace(0, 1, _NUM_BINS + 1)[1:-1])

    def shares(values: NDArray[np.float32]) -> NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(edges, values), minlength=_NUM_BINS)
        return np.maximum(counts, 0.5) / len(values)

    expected, actual = shares(reference), shares(found)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def new_terms(reference: Sequence[str], found: Sequence[str], min_texts: int) -> list[tuple[str, int]]:
    """Words of at least ``min_texts`` requests that no training row holds, with their number of requests, most first."""
    known = {word for text in reference for word in _WORD.findall(text.lower())}
    counts = Counter(word for text in found for word in set(_WORD.findall(text.lower())))
    new = [(word, count) for word, count in counts.items() if word not in known and count >= min_texts]
    return sorted(new, key=lambda item: (-item[1], item[0]))
