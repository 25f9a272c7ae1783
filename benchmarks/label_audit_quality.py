"""Quality and speed of the label audit on planted label noise, next to the plain rule "predicted differs from given".

Wrong labels are planted in 5, 10 and 20 % of the rows: any other class (uniform), or one of the three classes whose mean
embedding is nearest (confusable). Printed per kind and share, as means over the seeds: average precision of the ranking
against its target at 10 %, precision and recall of the automatic tier, of both tiers together, and of the plain rule.
The data's own wrong labels count as false alarms, so every precision is a lower bound.

Usage::

    python benchmarks/label_audit_quality.py [--data FILE.csv] [--vectors minilm tfidf] [--seeds 3]

The default data is BANKING77 (``text,category``) beside the repository, where the targets were set.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from tasks.labels.classification import audit_classes
from tasks.labels.config import LabelAuditConfig
from tasks.labels.vectors import TfidfVectorizer, choose_vectorizer

DATA = Path(__file__).parents[2] / "shared" / "data" / "banking77" / "train.csv"
TARGETS = {
    "minilm": {"uniform": 0.98, "confusable": 0.91},
    "tfidf": {"uniform": 0.95, "confusable": 0.85},
}
SHARES = (0.05, 0.1, 0.2)


def plant(codes: np.ndarray, neighbours: np.ndarray, kind: str, share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noisy, num_classes = codes.copy(), len(neighbours)
    for index in rng.choice(len(codes), round(share * len(codes)), replace=False).tolist():
        if kind == "uniform":
            noisy[index] = (codes[index] + rng.integers(1, num_classes)) % num_classes
        else:
            noisy[index] = rng.choice(neighbours[codes[index]])
    return noisy


def nearest_classes(vectors: np.ndarray, codes: np.ndarray, count: int = 3) -> np.ndarray:
    means = np.stack([vectors[codes == code].mean(axis=0) for code in range(int(codes.max()) + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    likeness = means @ means.T
    np.fill_diagonal(likeness, -1.0)
    return np.argsort(-likeness, axis=1)[:, :count]


def precision_recall(flagged: np.ndarray, bad: np.ndarray) -> tuple[float, float]:
    return (float(bad[flagged].mean()) if flagged.any() else float("nan"), float(flagged[bad].mean()))


def measure(features: Any, names: Sequence[str], noisy: np.ndarray, bad: np.ndarray) -> list[float]:
    started = time.process_time()
    found = audit_classes(features, [names[code] for code in noisy], num_folds=5, min_class_size=5, seed=0)
    seconds = time.process_time() - started
    predicted = np.asarray(found.suggested, dtype=object) != np.asarray([names[code] for code in noisy], dtype=object)
    return [
        float(average_precision_score(bad, found.suspicion)),
        *precision_recall(found.automatic, bad),
        *precision_recall(found.automatic | found.review, bad),
        *precision_recall(predicted, bad),
        seconds,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--vectors", nargs="+", default=["minilm", "tfidf"], choices=["minilm", "tfidf"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with arguments.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    texts = [row[0] for row in rows]
    names, codes = np.unique([row[1] for row in rows], return_inverse=True)

    started = time.process_time()
    embeddings = choose_vectorizer(LabelAuditConfig(embedding_model="minilm")).unit_vectors(texts)
    print(f"{len(texts)} rows, {len(names)} classes, embedded in {time.process_time() - started:.0f} CPU-s\n")
    neighbours = nearest_classes(embeddings, codes)
    print("                              average precision    automatic      both tiers     plain rule    CPU-s")
    print("vectors noise       share     value      target    prec  recall   prec  recall   prec  recall")
    for vectors in arguments.vectors:
        features = embeddings if vectors == "minilm" else TfidfVectorizer().features(texts)
        for kind in ("uniform", "confusable"):
            for share in SHARES:
                results = []
                for seed in range(arguments.seeds):
                    noisy = plant(codes, neighbours, kind, share, seed)
                    results.append(measure(features, names.tolist(), noisy, noisy != codes))
                mean = np.mean(results, axis=0)
                target = TARGETS[vectors][kind] if share == 0.1 else None
                verdict = "" if target is None else f">= {target:.2f} {'ok' if mean[0] >= target else 'MISSED'}"
                figures = "   ".join(f"{mean[at]:.3f}  {mean[at + 1]:.3f}" for at in (1, 3, 5))
                head = f"{vectors:7} {kind:11} {share:4.0%}     {mean[0]:.3f}  {verdict:>14}"
                print(f"{head}   {figures}   {mean[7]:5.1f}", flush=True)


if __name__ == "__main__":
    main()
