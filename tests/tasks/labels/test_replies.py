"""Replies broken on purpose are found and named; the features say what they claim to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tasks.labels.corruption import (
    CONTROL_REFUSALS,
    CONTROL_SENTENCES,
    FOREIGN_SENTENCES,
    REFUSALS,
    REPLY_FAULTS,
    corrupt_reply,
)
from tasks.labels.replies import detect_reply_faults
from tasks.labels.reply_features import FEATURES, FoldModel, ReplyCorpus
from tasks.modeling.embedding import tfidf_vectors
from tasks.text.refusals import is_refusal


def embed(texts: list[str]) -> np.ndarray:
    return tfidf_vectors(texts, 100)


def judge(prompts: list[str], replies: list[str]) -> np.ndarray:
    return detect_reply_faults(prompts, replies, embed, num_folds=5, seed=0).probabilities


@pytest.fixture(scope="module")
def broken(clean_rows: list[dict]) -> tuple[list[str], list[str], np.ndarray]:
    prompts = [row["messages"][0]["content"] for row in clean_rows]
    clean = [row["messages"][1]["content"] for row in clean_rows]
    replies, kinds, rng = list(clean), np.full(len(clean), -1), np.random.default_rng(9)
    for number, row in enumerate(range(0, 240, 12)):
        fault = number % len(REPLY_FAULTS)
        replies[row] = corrupt_reply(REPLY_FAULTS[fault], row, clean, rng)
        kinds[row] = fault
    return prompts, replies, kinds


def test_planted_faults_come_first_and_under_their_name(broken: tuple[list[str], list[str], np.ndarray]) -> None:
    prompts, replies, kinds = broken
    probabilities = judge(prompts, replies)
    assert average_precision_score(kinds >= 0, probabilities.sum(axis=1)) > 0.9
    named = probabilities.argmax(axis=1)[kinds >= 0] == kinds[kinds >= 0]
    assert named.mean() >= 0.8


def test_probabilities_are_probabilities(broken: tuple[list[str], list[str], np.ndarray]) -> None:
    probabilities = judge(*broken[:2])
    assert (probabilities >= 0).all()
    assert (probabilities.sum(axis=1) < 1).all()


def test_a_corpus_without_full_stops_does_not_make_them_suspicious_by_their_absence(clean_rows: list[dict]) -> None:
    prompts = [row["messages"][0]["content"] for row in clean_rows]
    replies = [row["messages"][1]["content"].rstrip(".") for row in clean_rows]
    truncated = judge(prompts, replies)[:, REPLY_FAULTS.index("truncated_response")]
    assert (truncated > 0.5).mean() < 0.01


@pytest.mark.parametrize("fault", REPLY_FAULTS)
def test_a_broken_copy_differs_and_is_reproducible(fault: str, clean_rows: list[dict]) -> None:
    replies = [row["messages"][1]["content"] for row in clean_rows]
    one = corrupt_reply(fault, 5, replies, np.random.default_rng(1))
    assert one
    assert one != replies[5]
    assert one == corrupt_reply(fault, 5, replies, np.random.default_rng(1))
    if fault == "truncated_response":
        assert replies[5].startswith(one)
    if fault == "garbled_response":
        assert sorted(one.split()) == sorted(replies[5].split())


def test_what_is_too_short_is_not_cut_or_shuffled() -> None:
    rng = np.random.default_rng(0)
    assert corrupt_reply("truncated_response", 0, ["Yes, it is."], rng) is None
    assert corrupt_reply("garbled_response", 0, ["Yes, it is."], rng) is None
    assert corrupt_reply("mismatched_response", 0, ["same", "same", "Same"], rng) is None


def features_of(prompts: list[str], replies: list[str], extra: list[str]) -> np.ndarray:
    """Features of ``extra`` (as replies to the first instruction) by what all rows are like."""
    texts = [*replies, *extra]
    rows = np.asarray([*range(len(replies)), *([0] * len(extra))])
    vectors = embed([*prompts, *texts])
    corpus = ReplyCorpus(prompts, texts, rows)
    train = np.ones(len(prompts), dtype=bool)
    model = FoldModel(corpus, train, vectors[: len(prompts)], vectors[len(prompts) :], np.zeros(len(texts)))
    chosen = np.arange(len(texts)) >= len(replies)
    return model.features(chosen)


def test_features_tell_what_they_name(clean_rows: list[dict]) -> None:
    prompts = [row["messages"][0]["content"] for row in clean_rows]
    replies = [row["messages"][1]["content"] for row in clean_rows]
    good = replies[0]
    shuffled = " ".join(np.random.default_rng(0).permutation(good.split()))
    german = FOREIGN_SENTENCES[0][0]
    features = features_of(prompts, replies, [good, shuffled, good[: len(good) // 2], german, replies[1]])
    feature = {name: features[:, index] for index, name in enumerate(FEATURES)}
    assert feature["order"][0] > feature["order"][1] + 2
    assert feature["full_stop"].tolist()[0] == 1.0
    assert feature["full_stop"].tolist()[2] == 0.0
    assert feature["length"][2] < feature["length"][0]
    assert feature["known_words"][3] < feature["known_words"][0]
    assert feature["characters"][3] < feature["characters"][0]
    assert feature["shared_words"][4] < feature["shared_words"][0]
    assert np.isfinite(features).all()


def test_empty_and_odd_replies_have_finite_features(clean_rows: list[dict]) -> None:
    prompts = [row["messages"][0]["content"] for row in clean_rows[:60]]
    replies = [row["messages"][1]["content"] for row in clean_rows[:60]]
    odd = ["", " ", ".", "\u202e\x00", "猫" * 3000, "a" * 5000, "\n\n\n", "1 2 3"]
    assert np.isfinite(features_of(prompts, replies, odd)).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I cannot provide that information.", True),
        ("As an AI language model, I do not have feelings.", True),
        ("N/A", True),
        ("Sorry for the delay! Your order ships today.", False),
        ("I can't wait to help you with the garden.", False),
        ("I am sorry to hear that your card was stolen. Please call us.", False),
        ("", False),
    ],
)
def test_refusals_are_told_from_apologies(text: str, expected: bool) -> None:
    assert is_refusal(text) is expected


def test_controls_take_no_phrase_that_is_learnt_from() -> None:
    learnt = {*REFUSALS, *(sentence for language in FOREIGN_SENTENCES for sentence in language)}
    controls = {*CONTROL_REFUSALS, *(sentence for language in CONTROL_SENTENCES for sentence in language)}
    assert not learnt & controls
    replies = [f"Reply number {number} has a few words." for number in range(9)]
    for fault, phrases in (("refusal_response", controls), ("wrong_language_response", controls)):
        for seed in range(20):
            planted = corrupt_reply(fault, 3, replies, np.random.default_rng(seed), is_control=True)  # type: ignore[arg-type]
            assert planted is not None
            assert any(phrase in planted for phrase in phrases)
            assert not any(phrase in planted for phrase in learnt)
