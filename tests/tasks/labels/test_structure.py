"""Preference pairs and near-identical instructions: what contradicts is found, what merely differs is not."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.labels.structure import contradicting_replies, normal_form, pair_faults
from tasks.modeling.embedding import tfidf_vectors


def kinds(pairs: list[tuple[str, str, str]]) -> list[tuple[int, str, bool]]:
    found = pair_faults(*(list(side) for side in zip(*pairs, strict=True)))
    return [(fault.index, fault.kind, fault.automatic) for fault in found]


GOOD = ("Where is my parcel?", "It is on its way and comes tomorrow.", "No idea, look for it yourself, please.")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (GOOD, []),
        (("q", "the same  answer", "the same answer"), [(1, "identical_sides", True)]),
        (("q", "Let's eat, Ann.", "lets eat ann"), []),
        (("q", "Yes, it is.", "yes it is"), [(1, "identical_sides", False)]),
        (("q", "", "something"), [(1, "empty_side", True)]),
        (("q", "something", " \n"), [(1, "empty_side", True)]),
        (("q", "I'm sorry, but I can't help with that.", "Open the menu and tap Save."), [(1, "refusal_chosen", False)]),
        (("q", "no", "a very long answer " * 20), [(1, "extreme_length", False)]),
    ],
)
def test_one_pair(pair: tuple[str, str, str], expected: list) -> None:
    assert kinds([GOOD, pair, ("another", "one good answer here", "one bad answer here")]) == expected


def test_two_pairs_that_say_the_reverse_are_both_named() -> None:
    reverse = (GOOD[0].upper(), GOOD[2], GOOD[1])
    assert kinds([GOOD, reverse]) == [(0, "contradicting_pair", True), (1, "contradicting_pair", True)]


def contradictions(rows: list[tuple[str, str]]) -> list[int]:
    prompts, replies = [p for p, _ in rows], [r for _, r in rows]
    vectors = tfidf_vectors([*prompts, *replies], 50)
    found = contradicting_replies(prompts, replies, vectors[: len(rows)], vectors[len(rows) :])
    return [fault.index for fault in found]


OTHERS = [(f"Tell me about topic {n} of chapter {n}", f"Topic {n} is treated in chapter {n}") for n in range(12)]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("Water boils at 100 degrees.", "Water boils at 90 degrees.", True),
        ("Yes, you may return it.", "No, you may not return it.", True),
        ("The warranty covers water.", "The warranty does not cover water.", True),
        ("The warranty covers water.", "The warranty covers water!", False),
        ("Once a fox met a crow.", "A lonely lighthouse burned every night.", False),
    ],
)
def test_equal_instructions_with_opposed_replies(left: str, right: str, expected: bool) -> None:
    rows = [*OTHERS, ("What about water?", left), ("what about water", right)]
    assert contradictions(rows) == ([12, 13] if expected else [])


def test_instructions_that_differ_in_a_number_are_not_the_same() -> None:
    assert contradictions([*OTHERS, ("What is 12 times 2?", "It is 24."), ("What is 12 times 3?", "It is 36.")]) == []


def test_a_reply_that_goes_elsewhere_where_the_others_agree() -> None:
    question, answer = "How do I reset it?", "Hold the button down for long."
    assert contradictions([*OTHERS, (question, answer), (question, answer), (question, "Rain falls in May.")]) == [14]


def test_normal_form_ignores_case_punctuation_and_width() -> None:
    assert normal_form("Ｈｅｌｌｏ,  World!") == normal_form("hello world") == "hello world"


def test_no_rows_are_no_fault() -> None:
    assert pair_faults([], [], []) == []
    assert contradicting_replies([], [], np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)) == []
