"""ROUGE-L of a reply: how much of a reference's words it has in the same order.

Lin 2004 (ROUGE: A Package for Automatic Evaluation of Summaries). The package rouge-score gives the same figures with the
same words; it has had no release since 2022.
"""

from __future__ import annotations

import re
import unicodedata

from rapidfuzz.distance import LCSseq

_WORDS = re.compile(
    # Scripts written without spaces count by character: kana, Han, Thai, Lao, Khmer, Myanmar.
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W_]+"
)


def unicode_words(text: str) -> list[str]:
    """The words of a text in any script, in NFKC and case-folded."""
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def rouge_l(reply: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, from 0 to 1; 0 where either text has no word."""
    words, wanted = unicode_words(reply), unicode_words(reference)
    shared = LCSseq.similarity(words, wanted)
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
