"""Class labels that look wrong: out-of-sample probabilities by cross-validation, judged by cleanlab.

The ranking adds the ranks of self-confidence and of normalised margin: no single score of cleanlab's is best both for
uniform noise and for confusable classes. The automatic tier is ``low_normalized_margin``, the precise one; the review
tier is ``prune_by_noise_rate``, which finds more.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_normalized_margin_for_each_label, get_self_confidence_for_each_label
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelFindings:
    """What the audit says of each row; arrays run parallel to the rows, and unaudited rows are never flagged.

    ``suspicion`` is 1 for the most suspicious row and falls with its rank towards 0; ``probability`` is that of the
    suggested label.
    """

    suspicion: Floats
    automatic: Mask
    review: Mask
    suggested: tuple[str, ...]
    audited: Mask
    accuracy: float
    majority_share: float
    converged: bool
    rare_classes: tuple[str, ...]
    confusions: tuple[tuple[str, str, int], ...]

    @property
    def informative(self) -> bool:
        """Whether the classifier converged and closes at least a tenth of the gap between guessing and knowing."""
        return self.converged and self.accuracy >= self.majority_share + 0.1 * (1 - self.majority_share)


def audit_classes(features: Any, labels: Sequence[str], *, num_folds: int, min_class_size: int, seed: int) -> LabelFindings:
    """Finds the labels that a classifier trained on the other rows disputes.

    Args:
        features: ``(num_rows, dimensions)``, dense or sparse.
        labels: The given labels.
        num_folds: Folds of the cross-validation; a class must have as many rows.
        min_class_size: Rows of smaller classes are not audited.
        seed: Seed of the folds.
    """
    given = np.asarray(labels, dtype=object)
    sizes = Counter(labels)
    rare = tuple(sorted(name for name, size in sizes.items() if size < max(min_class_size, num_folds)))
    audited = ~np.isin(given, np.asarray(rare, dtype=object)) if rare else np.ones(len(given), dtype=bool)
    classes = sorted(set(given[audited].tolist()))
    nothing = np.zeros(len(given), dtype=bool)
    if len(classes) < 2:
        share = 1.0 if classes else 0.0
        return LabelFindings(nothing * 0.0, nothing, nothing, tuple(labels), audited, share, share, False, rare, ())
    codes = np.searchsorted(np.asarray(classes), given[audited].astype(str))
    probabilities, converged = _out_of_sample(features[np.flatnonzero(audited)], codes, num_folds, seed)
    predicted = probabilities.argmax(axis=1)

    self_confidence = get_self_confidence_for_each_label(codes, probabilities)
    margin = get_normalized_margin_for_each_label(codes, probabilities)
    combined = rankdata(self_confidence) + rankdata(margin)
    automatic = find_label_issues(codes, probabilities, filter_by="low_normalized_margin", n_jobs=1)
    review = find_label_issues(codes, probabilities, filter_by="prune_by_noise_rate", n_jobs=1) & (predicted != codes)

    suspicion = np.zeros(len(given))
    suspicion[audited] = 1 - (rankdata(combined) - 1) / len(codes)
    suggested = given.copy()
    suggested[audited] = np.asarray(classes, dtype=object)[predicted]
    confusions = Counter(
        (classes[codes[i]], classes[predicted[i]]) for i in np.flatnonzero((automatic | review) & (predicted != codes))
    )
    return LabelFindings(
        suspicion=suspicion,
        automatic=_spread(automatic & (predicted != codes), audited),
        review=_spread(review, audited),
        suggested=tuple(suggested.tolist()),
        audited=audited,
        accuracy=float((predicted == codes).mean()),
        majority_share=float(np.bincount(codes).max() / len(codes)),
        converged=converged,
        rare_classes=rare,
        confusions=tuple((a, b, n) for (a, b), n in sorted(confusions.items(), key=lambda item: (-item[1], item[0]))),
    )


def _out_of_sample(features: Any, codes: NDArray[np.int_], num_folds: int, seed: int) -> tuple[Floats, bool]:
    """Class probabilities of each row from a model that did not see it, and whether every fold's fit converged."""
    probabilities = np.zeros((len(codes), int(codes.max()) + 1))
    converged = True
    for train, test in StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(codes, codes):
        model = LogisticRegression(C=10.0, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told by the result instead
            model.fit(features[train], codes[train])
        converged &= bool(np.all(model.n_iter_ < model.max_iter))
        probabilities[np.ix_(test, model.classes_)] = model.predict_proba(features[test])
    return probabilities, converged


def _spread(mask: Mask, audited: Mask) -> Mask:
    spread = np.zeros(len(audited), dtype=bool)
    spread[audited] = mask
    return spread
