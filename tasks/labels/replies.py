"""Faulty replies, found by detectors trained on synthetic faults.

No reply is labelled good or bad, so the audit makes its own negatives: copies of the user's replies are swapped, cut,
shuffled, replaced by another language or by a refusal (:mod:`tasks.labels.corruption`). For each fault one logistic
regression learns, from the features that the fault changes (:mod:`tasks.labels.reply_features`), to separate the broken
copies from the rows as they are. It scores the rows of a held-out fold. A second round leaves the rows found faulty out of
the training set. What is normal is thus always the user's own data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tasks.labels.config import ReplyFault
from tasks.labels.corruption import REFUSALS, REPLY_FAULTS, corrupt_reply
from tasks.labels.reply_features import FEATURES, Floats, FoldModel, Mask, ReplyCorpus, Vectors

DETECTOR_FEATURES: Mapping[ReplyFault, tuple[str, ...]] = {
    "mismatched_response": (
        "cosine", "expected", "neighbours", "backward", "better_prompt", "shared_words", "length",
    ),
    "truncated_response": (
        "full_stop", "ends_in_letter", "ends_in_function_word", "ends_in_comma", "ends_in_quote", "end", "length",
        "num_words", "inner_stops", "num_lines", "unbalanced", "order",
    ),
    "garbled_response": (
        "order", "order_per_word", "word_pairs", "start", "end", "full_stop", "lower_start", "lower_after_stop",
        "capitals_inside", "num_words", "ends_in_quote", "unbalanced",
    ),
    "wrong_language_response": (
        "cosine", "expected", "neighbours", "known_words", "function_words", "characters", "characters_to_prompt",
        "new_words", "non_ascii", "foreign_script",
    ),
    "refusal_response": ("cosine", "expected", "neighbours", "refusal", "refusal_likeness", "shared_words", "length"),
}  # fmt: skip
"""The features of each detector: only those that its fault changes, so that it learns the fault and not how we make it."""

PRIOR = 0.01
"""Share of rows assumed to have each fault, before anything is looked at."""
MAX_COPIES = 400
"""Broken copies per fault: enough for a dozen coefficients, and embedding them stays cheap beside the rows."""
_NUM_ROUNDS = 2


@dataclass(frozen=True)
class Thresholds:
    """Probabilities of a fault above which a reply is in a tier.

    On replies with two in a hundred of each fault planted, .5 had a precision of .99 to 1.0 and a recall of .4 to .5, and
    .1 a precision of .91 to .98 and a recall of .78 to .89 (``benchmarks/response_audit_quality.py``).
    """

    automatic: float = 0.5
    review: float = 0.1


@dataclass(frozen=True)
class ReplyFindings:
    """Per row and fault the probability of the fault, ``(num_rows, len(REPLY_FAULTS))``; the rest is "none of them"."""

    probabilities: Floats

    @property
    def suspicion(self) -> Floats:
        """The probability that a reply has some fault."""
        return np.asarray(self.probabilities.sum(axis=1))

    @property
    def faults(self) -> list[ReplyFault]:
        """The likeliest fault of each row."""
        return [REPLY_FAULTS[index] for index in self.probabilities.argmax(axis=1).tolist()]


def detect_reply_faults(
    prompts: Sequence[str],
    replies: Sequence[str],
    embed: Callable[[Sequence[str]], Vectors],
    *,
    num_folds: int,
    seed: int,
) -> ReplyFindings:
    """The probability of each fault for each reply.

    Args:
        prompts: The instructions.
        replies: Their replies.
        embed: Unit vectors of texts.
        num_folds: Each fold is scored by detectors trained on the others.
        seed: Seed of the folds and of the broken copies.
    """
    rng = np.random.default_rng(seed)
    num_rows = len(prompts)
    copies = [
        (row, fault, broken)
        for fault in REPLY_FAULTS
        for row in rng.permutation(num_rows)[:MAX_COPIES].tolist()
        if (broken := corrupt_reply(fault, row, replies, rng)) is not None
    ]
    texts = [*replies, *(broken for _, _, broken in copies)]
    rows = np.asarray([*range(num_rows), *(row for row, _, _ in copies)], dtype=np.int64)
    faults = np.asarray([-1] * num_rows + [REPLY_FAULTS.index(fault) for _, fault, _ in copies])
    corpus = ReplyCorpus(prompts, texts, rows)
    vectors = embed([*prompts, *texts, *REFUSALS])
    prompt_vectors, reply_vectors, refusal_vectors = np.split(vectors, [num_rows, num_rows + len(texts)])
    likeness = _refusal_likeness(texts, reply_vectors, refusal_vectors)

    folds = rng.permutation(num_rows) % num_folds
    good = np.ones(num_rows, dtype=bool)
    for _ in range(_NUM_ROUNDS):
        features = np.zeros((len(texts), len(FEATURES)))
        for fold in range(num_folds):
            chosen = folds[rows] == fold
            model = FoldModel(corpus, (folds != fold) & good, prompt_vectors, reply_vectors, likeness)
            features[chosen] = model.features(chosen)
        findings = ReplyFindings(_probabilities(features, rows, faults, folds, good))
        good = findings.suspicion < 0.5
    return findings


def _refusal_likeness(texts: Sequence[str], vectors: Vectors, refusals: Vectors) -> Floats:
    """Largest cosine to a known refusal other than the text itself, so that being on the list gives no copy away."""
    likeness = vectors @ refusals.T
    place = {text: index for index, text in enumerate(REFUSALS)}
    for index, text in enumerate(texts):
        if text in place:
            likeness[index, place[text]] = -1.0
    return np.asarray(likeness.max(axis=1), dtype=np.float64)


def _probabilities(
    features: Floats, rows: NDArray[np.int64], faults: NDArray[np.int64], folds: NDArray[np.int64], good: Mask
) -> Floats:
    """Fault probabilities of the rows, each fold by detectors trained on the good rows of the others."""
    num_rows = len(folds)
    odds = np.zeros((num_rows, len(REPLY_FAULTS)))
    for number, fault in enumerate(REPLY_FAULTS):
        columns = [FEATURES.index(name) for name in DETECTOR_FEATURES[fault]]
        for fold in range(int(folds.max()) + 1):
            train = np.flatnonzero(((faults == -1) | (faults == number)) & (folds[rows] != fold) & good[rows])
            broken = (faults[train] == number).astype(np.int64)
            test = np.flatnonzero(folds == fold)
            if broken.min() == broken.max():
                continue
            scaler = StandardScaler().fit(features[train][:, columns])
            detector = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(features[train][:, columns]), broken)
            log_odds = detector.decision_function(scaler.transform(features[test][:, columns]))
            odds[test, number] = np.exp(np.clip(log_odds, -50, 50)) * (1 - broken).sum() / broken.sum() * PRIOR
    return np.asarray(odds / (1 - PRIOR * len(REPLY_FAULTS) + odds.sum(axis=1, keepdims=True)))
