"""Rows that several people labelled: consensus, agreement and each annotator's quality, by CROWDLAB.

CROWDLAB (Goh et al. 2022, in cleanlab.multiannotator) weighs annotators by how well they agree with each other and with a
classifier; on simulated annotators its consensus is right for .965 of the rows where the majority vote is for .829.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from cleanlab.multiannotator import get_label_quality_multiannotator
from numpy.typing import NDArray

Annotations = Sequence[tuple[str, str]]
"""One row's annotations: annotator and label."""


@dataclass(frozen=True)
class AnnotatorFindings:
    """Consensus label and its quality (0 to 1) per row, None and NaN where a row has no usable annotation."""

    consensus: tuple[str | None, ...]
    quality: NDArray[np.float64]
    agreement: float
    annotator_quality: tuple[tuple[str, float, int], ...]
    """Annotator, quality, rows labelled; worst first."""


def majority_label(annotations: Annotations) -> str | None:
    """The most frequent label, the first in the alphabet among equals; None without annotations."""
    counts = Counter(label for _, label in annotations)
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None


def score_annotations(
    annotations: Sequence[Annotations], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> AnnotatorFindings | None:
    """Consensus and qualities; None where fewer than two people labelled anything in common.

    Args:
        annotations: Per row; labels outside ``classes`` are left out.
        probabilities: Out-of-sample class probabilities, ``(num_rows, num_classes)``.
        classes: The class of each column.
    """
    code_of = {name: code for code, name in enumerate(classes)}
    usable = [{who: code_of[label] for who, label in row if label in code_of} for row in annotations]
    several = [row for row in usable if len(row) > 1]
    if not several:
        return None
    index = [number for number, row in enumerate(usable) if row]
    annotators = sorted({who for row in usable for who in row})
    table = pd.DataFrame(
        [[usable[number].get(who, np.nan) for who in annotators] for number in index], columns=annotators, dtype=float
    )
    result = get_label_quality_multiannotator(table, probabilities[index], verbose=False)
    quality = np.full(len(usable), np.nan)
    quality[index] = result["label_quality"]["consensus_quality_score"].to_numpy()
    consensus: list[str | None] = [None] * len(usable)
    for number, code in zip(index, result["label_quality"]["consensus_label"].tolist(), strict=True):
        consensus[number] = classes[int(code)]
    stats = result["annotator_stats"]
    agreement = np.mean([Counter(row.values()).most_common(1)[0][1] / len(row) for row in several])
    return AnnotatorFindings(
        consensus=tuple(consensus),
        quality=quality,
        agreement=float(agreement),
        annotator_quality=tuple(
            (str(who), float(quality), int(count))
            for who, quality, count in zip(
                stats.index, stats["annotator_quality"], stats["num_examples_labeled"], strict=True
            )
        ),
    )
