"""ROUGE-L of a reply: how much of a reference's words it has in the same order.

Lin 2004 (ROUGE: A Package for Automatic Evaluation of Summaries). The package rouge-score gives the same figures with the
same words; it has had no release since 2022.
"""

from __future__ import annotations

from rapidfuzz.distance import LCSseq

from tasks.measures.words import unicode_words


def rouge_l(reply: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, from 0 to 1; 0 where either text has no word."""
    words, wanted = unicode_words(reply), unicode_words(reference)
    shared = LCSseq.similarity(words, wanted)
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
