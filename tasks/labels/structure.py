"""Faults that show when texts are laid side by side: pairs whose sides are equal, replies that contradict each other."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.labels.config import IssueKind
from tasks.text.refusals import is_refusal

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:no|not|never|none|cannot|without|false|incorrect|wrong)\b|n't\b", re.IGNORECASE)
_NEAR_PROMPT = 0.95
_BLOCK = 1024

_EXTREME_RATIO = 8.0
"""One side of a pair so many times longer than the other, against the habit of the data, is worth a look."""


@dataclass(frozen=True)
class Fault:
    """One structural fault of row ``index``, with how sure it is (0 to 1) and whether it is sure enough to act on."""

    index: int
    kind: IssueKind
    score: float
    automatic: bool


def normal_form(text: str) -> str:
    """The words of a text, without case, punctuation, spacing and compatibility forms."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def pair_faults(prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> list[Fault]:
    """Structural faults of preference pairs.

    A side that is empty, sides that are equal, and pairs of which another says the reverse are certain. A chosen refusal
    beside a rejected answer, and a length far from what the other pairs have, are for a person: either may be meant.
    """
    faults = []
    keys = [(normal_form(p), normal_form(c), normal_form(r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]
    preferred = set(keys)
    ratios = np.asarray([np.log((1 + len(c)) / (1 + len(r))) for c, r in zip(chosen, rejected, strict=True)])
    usual = float(np.median(ratios)) if len(ratios) else 0.0
    for index, (prompt, better, worse) in enumerate(keys):
        if not chosen[index].strip() or not rejected[index].strip():
            faults.append(Fault(index, "empty_side", 1.0, True))
            continue
        if _spaced(chosen[index]) == _spaced(rejected[index]):
            faults.append(Fault(index, "identical_sides", 1.0, True))
            continue
        if better == worse and better:  # only case or punctuation differ: the point of a few pairs, a slip in most
            faults.append(Fault(index, "identical_sides", 0.8, False))
            continue
        if (prompt, worse, better) in preferred:
            faults.append(Fault(index, "contradicting_pair", 1.0, True))
        if is_refusal(chosen[index]) and not is_refusal(rejected[index]):
            faults.append(Fault(index, "refusal_chosen", 0.9, False))
        distance = abs(float(ratios[index]) - usual)
        if distance > np.log(_EXTREME_RATIO):
            faults.append(Fault(index, "extreme_length", float(1 - np.exp(-distance)), False))
    return faults


def contradicting_replies(
    prompts: Sequence[str], replies: Sequence[str], prompt_vectors: NDArray[np.float32], reply_vectors: NDArray[np.float32]
) -> list[Fault]:
    """Rows whose instruction nearly equals another's while the replies say different things.

    Instructions nearly equal when their words are the same, or all but one in ten and their meaning is (cosine). Replies
    contradict when one negates what the other says, or their numbers differ, or, for equal instructions with an otherwise
    agreed answer (two rows or more agree), when one reply goes elsewhere. Open-ended instructions ("write a story") have
    many right answers, so two replies that merely differ are no contradiction.
    """
    words = [frozenset(normal_form(prompt).split()) for prompt in prompts]
    neighbours: dict[int, set[int]] = defaultdict(set)
    for left, right in _near_pairs(prompt_vectors):
        union = words[left] | words[right]
        if (
            union
            and len(words[left] & words[right]) >= 0.9 * len(union)
            and _numbers(prompts[left]) == _numbers(prompts[right])
        ):
            neighbours[left].add(right)
            neighbours[right].add(left)
    faults = []
    for index in sorted(neighbours):
        likeness = {other: float(reply_vectors[index] @ reply_vectors[other]) for other in sorted(neighbours[index])}
        opposed = [other for other in likeness if _opposed(replies[index], replies[other])]
        agreed = _agree(sorted(neighbours[index]), reply_vectors)
        astray = agreed and max(likeness.values()) < 0.5
        if opposed or astray:
            score = max(likeness[other] for other in opposed) if opposed else 1 - max(likeness.values())
            faults.append(Fault(index, "contradicting_response", float(np.clip(score, 0.0, 1.0)), False))
    return faults


def _near_pairs(vectors: NDArray[np.float32]) -> list[tuple[int, int]]:
    pairs = []
    for start in range(0, len(vectors), _BLOCK):
        near = vectors[start : start + _BLOCK] @ vectors.T >= _NEAR_PROMPT
        for left, right in zip(*np.nonzero(near), strict=True):
            if start + left < right:
                pairs.append((start + int(left), int(right)))
    return pairs


def _opposed(left: str, right: str) -> bool:
    """Whether two replies use much the same words, but one negates or other numbers stand in it."""
    a, b = set(normal_form(left).split()), set(normal_form(right).split())
    if not a or not b or a == b:
        return False
    same_words = len(a & b) >= 0.5 * min(len(a), len(b))
    first = {normal_form(left).split()[0], normal_form(right).split()[0]}
    if first in ({"yes", "no"}, {"true", "false"}):
        return True
    negated = bool(_NEGATION.search(left)) != bool(_NEGATION.search(right))
    return same_words and (negated or _numbers(left) != _numbers(right))


def _agree(rows: list[int], vectors: NDArray[np.float32]) -> bool:
    """Whether some two of the rows' replies mean the same."""
    if len(rows) < 2:
        return False
    likeness = vectors[rows] @ vectors[rows].T
    np.fill_diagonal(likeness, -1.0)
    return bool(likeness.max() > 0.85)


def _numbers(text: str) -> frozenset[str]:
    return frozenset(_NUMBER.findall(text))


def _spaced(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
