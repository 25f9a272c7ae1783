"""Quality and speed of the label audit on planted label noise, next to the plain rule "predicted differs from given".

Wrong labels are planted in 5, 10 and 20 % of the rows: any other class (uniform), or one of the three classes whose mean
embedding is nearest (confusable). Printed per kind and share, as means over the seeds: average precision of the ranking
against its target at 10 %, precision and recall of the automatic tier, of both tiers together, and of the plain rule.
The data's own wrong labels count as false alarms, so every precision is a lower bound. First the whole stage runs once
over the rows as they are, loading of the model, embedding and planted controls included, against its limit in wall time.

Usage::

    python benchmarks/label_audit_quality.py [--data FILE.csv] [--vectors minilm tfidf] [--seeds 3]

Leave OMP_NUM_THREADS unset, so that every core is used.

The default data is BANKING77 (``text,category``) beside the repository, where the targets were set.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.labels.audit import audit_rows
from tasks.labels.classification import audit_classes
from tasks.labels.config import LabelAuditConfig
from tasks.labels.vectors import TfidfVectorizer, Vectorizer, choose_vectorizer
from tests.support.public_data import BANKING, public_data

TARGETS = {
    "minilm": {"uniform": 0.98, "confusable": 0.91},
    "tfidf": {"uniform": 0.95, "confusable": 0.85},
}
SHARES = (0.05, 0.1, 0.2)
LIMIT_SECONDS, LIMIT_ROWS = 60.0, 10_000
"""What the stage may take for so many short rows on two idle cores."""


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
    started = time.monotonic()
    found = audit_classes(features, [names[code] for code in noisy], num_folds=5, min_class_size=5, seed=0)
    seconds = time.monotonic() - started
    predicted = np.asarray(found.suggested, dtype=object) != np.asarray([names[code] for code in noisy], dtype=object)
    return [
        float(average_precision_score(bad, found.suspicion)),
        *precision_recall(found.automatic, bad),
        *precision_recall(found.automatic | found.review, bad),
        *precision_recall(predicted, bad),
        seconds,
    ]


def time_stage(texts: Sequence[str], labels: Sequence[str]) -> Vectorizer:
    """Prints the wall time of the whole audit; returns the vectorizer, which remembers the embeddings."""
    rows = [
        {
            "id": f"{number:06}",
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}],
            "label": label,
        }
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    config = LabelAuditConfig(embedding_model="minilm")
    started, cpu, phases = time.monotonic(), time.process_time(), []
    vectorizer = choose_vectorizer(config)
    phases.append(("loading", time.monotonic()))
    outcome = audit_rows(rows, "messages", config, vectorizer, {}, lambda _, name: phases.append((name, time.monotonic())))
    ended = time.monotonic()
    starts = [started, *(at for _, at in phases[1:])]
    ends = [phases[1][1], *(at for _, at in phases[2:]), ended]
    parts = ", ".join(f"{name} {end - start:.1f}" for (name, _), start, end in zip(phases, starts, ends, strict=True))
    limit = LIMIT_SECONDS * len(rows) / LIMIT_ROWS
    verdict = "ok" if ended - started <= limit else "MISSED"
    print(f"stage: {len(rows)} rows in {ended - started:.1f} s (limit {limit:.0f}, {verdict}), {parts};")
    print(
        f"       {time.process_time() - cpu:.1f} CPU-s, load average {os.getloadavg()[0]:.1f}, {len(outcome.issues)} issues"
    )
    return vectorizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Columns `text` and `category`. None: BANKING77.")
    parser.add_argument("--vectors", nargs="+", default=["minilm", "tfidf"], choices=["minilm", "tfidf"])
    parser.add_argument("--noise", nargs="+", default=["uniform", "confusable"], choices=["uniform", "confusable"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with (arguments.data or public_data(BANKING)).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    texts = [row[0] for row in rows]
    names, codes = np.unique([row[1] for row in rows], return_inverse=True)

    embeddings = time_stage(texts, [row[1] for row in rows]).unit_vectors(texts)
    print(f"\n{len(texts)} rows, {len(names)} classes\n")
    neighbours = nearest_classes(embeddings, codes)
    print("                              average precision    automatic      both tiers     plain rule        s")
    print("vectors noise       share     value      target    prec  recall   prec  recall   prec  recall")
    for vectors in arguments.vectors:
        features = embeddings if vectors == "minilm" else TfidfVectorizer().features(texts)
        for kind in arguments.noise:
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
