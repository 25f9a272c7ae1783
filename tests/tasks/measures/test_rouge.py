"""ROUGE-L counts words in any script, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.rouge import rouge_l, unicode_words


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("the cat sat", "The cat sat.", 1.0),
        ("the cat sat on the mat", "the cat", 0.5),
        ("mat the on", "on the mat", 1 / 3),
        ("猫が好き", "猫は好き", 0.75),
        ("für", "fär", 0.0),
        ("", "a word", 0.0),
        ("?!", "?!", 0.0),
    ],
)
def test_known_values(reply: str, reference: str, expected: float) -> None:
    assert rouge_l(reply, reference) == pytest.approx(expected)


@given(st.text(alphabet="aBß é猫犬_1", max_size=40), st.text(alphabet="aBß é猫犬_1", max_size=40))
def test_it_equals_what_rouge_score_says(reply: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    tokenizers = pytest.importorskip("rouge_score.tokenizers")

    class Words(tokenizers.Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return unicode_words(text)

    theirs = scorer.RougeScorer(["rougeL"], tokenizer=Words()).score(reference, reply)["rougeL"].fmeasure
    assert rouge_l(reply, reference) == theirs
