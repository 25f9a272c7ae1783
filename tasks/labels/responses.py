"""Replies that do not fit their instruction, judged by meaning: three views of the embeddings, fused.

For every row: the cosine of instruction and reply; the disagreement of the reply with the replies of the nearest
instructions; and the residual of a ridge regression from instruction to reply vector, out of fold. Each view becomes a
p-value by its rank, and Fisher's method adds their logarithms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, rankdata
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

Floats = NDArray[np.float64]
_BLOCK = 1024
"""Rows whose similarities to all others are held at a time."""


def misfit(prompts: NDArray[np.float32], replies: NDArray[np.float32], *, num_folds: int, seed: int) -> Floats:
    """How little each reply fits its instruction, as a combined p-value turned round: near 1 is the worst fit.

    Args:
        prompts: Unit vectors of the instructions, ``(num_rows, dimensions)``.
        replies: Unit vectors of the replies, same shape.
        num_folds: Folds of the ridge regression.
        seed: Seed of the folds.
    """
    if len(prompts) < 2 * num_folds:
        return np.zeros(len(prompts))
    views = (
        1.0 - np.einsum("ij,ij->i", prompts, replies, dtype=np.float64),
        neighbour_disagreement(prompts, replies),
        regression_residual(prompts, replies, num_folds=num_folds, seed=seed),
    )
    # The rank from the top, over n: the share of rows at least as suspicious.
    statistic = sum(-2.0 * np.log(rankdata(-view) / len(view)) for view in views)
    return np.asarray(chi2.cdf(statistic, df=2 * len(views)))


def neighbour_disagreement(prompts: NDArray[np.float32], replies: NDArray[np.float32], num_neighbours: int = 10) -> Floats:
    """One minus the cosine between each reply and the mean reply of the nearest instructions, weighted by nearness."""
    k = min(num_neighbours, len(prompts) - 1)
    result = np.empty(len(prompts))
    for start in range(0, len(prompts), _BLOCK):
        stop = min(start + _BLOCK, len(prompts))
        similarity = prompts[start:stop] @ prompts.T
        similarity[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.clip(np.take_along_axis(similarity, nearest, axis=1), 1e-6, None)
        mean = np.einsum("bk,bkd->bd", weights, replies[nearest])
        mean /= np.linalg.norm(mean, axis=1, keepdims=True) + 1e-12
        result[start:stop] = 1.0 - np.einsum("bd,bd->b", mean, replies[start:stop])
    return result


def regression_residual(prompts: NDArray[np.float32], replies: NDArray[np.float32], *, num_folds: int, seed: int) -> Floats:
    """One minus the cosine between each reply and what a ridge regression on the other folds expects for its instruction."""
    result = np.empty(len(prompts))
    for train, test in KFold(num_folds, shuffle=True, random_state=seed).split(prompts):
        expected = Ridge(alpha=1.0).fit(prompts[train], replies[train]).predict(prompts[test])
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-12
        result[test] = 1.0 - np.einsum("bd,bd->b", expected, replies[test])
    return result
