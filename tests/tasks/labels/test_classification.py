"""Planted wrong labels come to the front; what cannot be judged is said to be so."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tasks.labels import classification
from tasks.labels.annotators import majority_label, score_annotations
from tasks.labels.classification import audit_classes
from tasks.modeling.embedding import tfidf_vectors


def findings(texts: list[str], labels: list[str], **settings: int) -> classification.LabelFindings:
    return audit_classes(tfidf_vectors(texts), labels, **{"num_folds": 5, "min_class_size": 5, "seed": 0, **settings})


def texts_and_labels(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [row["messages"][0]["content"] for row in rows], [row["label"] for row in rows]


def test_planted_wrong_labels_are_found_and_corrected(clean_rows: list[dict]) -> None:
    texts, labels = texts_and_labels(clean_rows)
    wrong = list(range(0, 240, 13))
    noisy = [labels[(i + 1) % 240] if i in wrong else label for i, label in enumerate(labels)]
    found = findings(texts, noisy)
    bad = np.isin(np.arange(240), wrong)
    assert found.informative
    assert average_precision_score(bad, found.suspicion) > 0.95
    flagged = found.automatic | found.review
    assert flagged[bad].mean() > 0.8
    assert bad[flagged].mean() > 0.8
    assert not (found.automatic & found.review).any()
    assert np.mean([found.suggested[i] == labels[i] for i in wrong]) > 0.9
    assert sum(count for _, _, count in found.confusions) == flagged.sum()


def test_clean_labels_are_left_alone(clean_rows: list[dict]) -> None:
    found = findings(*texts_and_labels(clean_rows))
    assert (found.automatic | found.review).sum() == 0


def test_rare_classes_are_named_and_never_flagged(clean_rows: list[dict]) -> None:
    texts, labels = texts_and_labels(clean_rows)
    labels = ["odd" if i < 3 else label for i, label in enumerate(labels)]
    found = findings(texts, labels)
    assert found.rare_classes == ("odd",)
    assert not found.audited[:3].any()
    assert not (found.automatic | found.review)[:3].any()
    assert found.suggested[:3] == ("odd", "odd", "odd")


def test_labels_that_texts_do_not_explain_are_not_judged(clean_rows: list[dict]) -> None:
    texts, _ = texts_and_labels(clean_rows)
    rng = random.Random(0)
    assert not findings(texts, [rng.choice("ab") for _ in texts]).informative


def test_a_classifier_that_does_not_converge_is_not_believed(
    clean_rows: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "MAX_ITERATIONS", 2)
    found = findings(*texts_and_labels(clean_rows))
    assert not found.converged
    assert not found.informative


@pytest.mark.parametrize("labels", [["one"] * 20, [str(i) for i in range(20)]])
def test_fewer_than_two_auditable_classes_are_not_informative(labels: list[str]) -> None:
    found = findings([f"text number {i}" for i in range(20)], labels)
    assert not found.informative
    assert not (found.automatic | found.review).any()


def test_consensus_is_better_than_any_annotator_and_ranks_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=150)
    probabilities = np.full((150, 3), 0.15)
    probabilities[np.arange(150), truth] = 0.7
    skill = {"good": 0.95, "fair": 0.8, "poor": 0.4}
    annotations = [
        [(who, "abc"[answer if rng.random() < p else rng.integers(3)]) for who, p in skill.items()] for answer in truth
    ]
    found = score_annotations(annotations, probabilities, "abc")
    assert found is not None
    consensus = np.mean([label == "abc"[answer] for label, answer in zip(found.consensus, truth, strict=True)])
    majority = np.mean([majority_label(votes) == "abc"[answer] for votes, answer in zip(annotations, truth, strict=True)])
    assert consensus >= max(0.9, majority)
    assert [who for who, _, _ in found.annotator_quality] == ["poor", "fair", "good"]
    assert 0 < found.agreement < 1


def test_one_annotator_a_row_is_no_consensus() -> None:
    assert score_annotations([[("a", "x")], [("b", "y")]], np.full((2, 2), 0.5), ["x", "y"]) is None
