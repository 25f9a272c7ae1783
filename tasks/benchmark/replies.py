"""The scores of one reply against its reference: the per-example metrics that need no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from sacrebleu.metrics import BLEU, CHRF

from tasks.measures.reply_checks import exact_match
from tasks.measures.rouge import rouge_l
from tasks.measures.words import unicode_words, with_spaces

MIN_BLEU_WORDS = 4
"""BLEU multiplies the precisions of 1- to 4-grams; a shorter reference has no 4-gram to match."""


class _NoSynonyms:
    """Replaces WordNet in METEOR, which would have to be downloaded."""

    def synsets(self, word: str) -> tuple[()]:
        """No word has a synonym."""
        return ()


_STEMMER = PorterStemmer()
_CHRF = CHRF()
_BLEU = BLEU(effective_order=True)


def text_scores(reply: str, reference: str) -> dict[str, float | None]:
    """The scores of one reply by metric; all but ``length_ratio`` and ``length_error`` are shares of 1."""
    ratio = len(reply) / len(reference) if reference else None
    return {
        "chrf": _CHRF.sentence_score(reply, [reference]).score / 100,
        "rouge_l": rouge_l(reply, reference),
        "bleu": _sentence_bleu(reply, reference) if _has_bleu(reference) else None,
        "meteor_exact_stem": _meteor(reply, reference),
        "exact_match": exact_match(reply, reference),
        "length_ratio": ratio,
        "length_error": abs(math.log(max(len(reply), 1) / len(reference))) if reference else None,
    }


def corpus_scores(replies: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """``corpus_chrf`` and ``corpus_bleu`` of all replies at once; BLEU over the references of four words or more."""
    long = [index for index, reference in enumerate(references) if _has_bleu(reference)]
    texts = [[with_spaces(text[index]) for index in long] for text in (replies, references)]
    bleu: Any = BLEU().corpus_score(texts[0], [texts[1]]) if long else None
    return {
        "corpus_chrf": CHRF().corpus_score(list(replies), [list(references)]).score / 100 if replies else None,
        "corpus_bleu": min(1.0, bleu.score / 100) if bleu else None,
    }


def _meteor(reply: str, reference: str) -> float:
    """METEOR (Banerjee and Lavie 2005) with exact and stem matches only; stems are English, by Porter."""
    words = [unicode_words(text) for text in (reference, reply)]
    if not all(words):
        return float(words[0] == words[1])
    # Words are folded already, so the library's own preprocessing is not needed.
    return float(single_meteor_score(*words, preprocess=str, stemmer=_STEMMER, wordnet=_NoSynonyms()))


def _sentence_bleu(reply: str, reference: str) -> float:
    return min(1.0, float(_BLEU.sentence_score(with_spaces(reply), [with_spaces(reference)]).score) / 100)


def _has_bleu(reference: str) -> bool:
    """Whether a reference has enough words, as people and as BLEU's tokenizer count them."""
    return min(len(unicode_words(reference)), len(_BLEU.tokenizer(with_spaces(reference)).split())) >= MIN_BLEU_WORDS
