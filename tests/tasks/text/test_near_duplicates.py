"""Near duplicates are found and told apart, whatever their order, length or number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.near_duplicates import components, is_near, near_across, near_clusters, near_pairs, within_edits
from tasks.text.normalization import prompt_views

_WORD_LIST = """
account address amount arrive balance bank branch cancel card cash change charge check close code country currency customer
declined deliver deposit device email exchange failed fee freeze fund identity invoice limit lost merchant message mobile
monthly number order pending phone pin place please post receive refund replace request return reverse send service settle
statement stolen support swap transfer travel verify virtual wallet weekly withdraw wrong
"""
_WORDS = _WORD_LIST.split()


def sentence(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(num_words))


def edited(text: str, rng: random.Random) -> str:
    place, letter = rng.randrange(len(text)), rng.choice("abcdefghijklmnopqrstuvwxyz")
    return rng.choice(
        [text[:place] + letter + text[place + 1 :], text[:place] + letter + text[place:], text[:place] + text[place + 1 :]]
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do i verify the top up?", "how do i verify the top-up?"),
        ("i keep checking my statement but nothing shows up", "i keep cheking my statement but nothing show up"),
        ("reset my password", "reset my pasword"),
        ("where is my new card", "where is mynew card"),
        ("activate virtual card", "activte virtuall card"),
    ],
)
def test_typing_errors_are_near(one: str, other: str) -> None:
    assert is_near(one, other, 0.7)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lost card", "lost cord"),
        ("lost card", "card lost in post"),
        ("plan a", "plan b"),
        ("is it on", "is it off"),
        ("card stolen", "card lost"),
        ("cancel order 1", "cancel order 2"),
        ("yes please", "no please"),
        ("how old is he", "how tall is he"),
        ("thank you", "thank her"),
        ("please block my card", "please unblock my card"),
        ("is the app on today", "is the api off today"),
    ],
)
def test_texts_of_a_few_words_do_not_collapse(one: str, other: str) -> None:
    assert not is_near(one, other, 0.7)
    assert near_clusters([one, other], 0.7) == [0, 1]


def test_ten_thousand_short_texts_do_not_collapse() -> None:
    rng = random.Random(3)
    texts = sorted({sentence(rng, rng.randint(2, 5)) for _ in range(10_000)})
    clusters = near_clusters(texts, 0.7)
    assert sum(index != root for index, root in enumerate(clusters)) < 0.02 * len(texts)


@pytest.mark.parametrize(("edits", "recall"), [(1, 0.99), (2, 0.95)])
def test_edited_copies_are_found_among_many(edits: int, recall: float) -> None:
    rng = random.Random(edits)
    texts = [sentence(rng, rng.randint(6, 16)) for _ in range(3_000)]
    copies = []
    for text in texts[:1_000]:
        copy = text
        for _ in range(edits):
            copy = edited(copy, rng)
        copies.append(copy)
    clusters = near_clusters(texts + copies, 0.7)
    found = sum(clusters[index] == clusters[3_000 + index] for index in range(1_000))
    assert found >= recall * 1_000


@pytest.mark.parametrize("anchored", [False, True])
def test_short_texts_with_two_edits_are_found_however_few_shingles_are_left(anchored: bool) -> None:
    rng = random.Random(9)
    texts = sorted({sentence(rng, rng.randint(3, 6)) for _ in range(2_000)})
    copies = [edited(edited(text, rng), rng) for text in texts]
    expected = [index for index, (text, copy) in enumerate(zip(texts, copies, strict=True)) if is_near(text, copy, 0.7)]
    assert len(expected) > 0.7 * len(texts)
    if anchored:
        found = near_across(copies, texts, 0.7)
        hits = [index in found[index] for index in expected]
    else:
        clusters = near_clusters([*texts, *copies], 0.7)
        hits = [clusters[index] == clusters[index + len(texts)] for index in expected]
    assert sum(hits) >= 0.995 * len(expected)


def test_clusters_do_not_depend_on_order() -> None:
    rng = random.Random(5)
    texts = [sentence(rng, 8) for _ in range(300)]
    texts += [edited(text, rng) for text in texts[:150]] + texts[:20]
    shuffled = list(range(len(texts)))
    rng.shuffle(shuffled)
    before = near_clusters(texts, 0.7)
    after = near_clusters([texts[index] for index in shuffled], 0.7)
    grouped = {frozenset(i for i, root in enumerate(before) if root == r) for r in set(before)}
    regrouped = {frozenset(shuffled[i] for i, root in enumerate(after) if root == r) for r in set(after)}
    assert grouped == regrouped


def test_across_finds_the_same_pairs_as_comparing_all() -> None:
    rng = random.Random(6)
    ours = [sentence(rng, rng.randint(3, 12)) for _ in range(200)]
    theirs = [edited(edited(text, rng), rng) for text in ours[:60]] + [sentence(rng, 7) for _ in range(40)] + ours[:5]
    expected = [[j for j, other in enumerate(theirs) if is_near(text, other, 0.7)] for text in ours]
    found = near_across(ours, theirs, 0.7)
    assert sum(map(len, expected)) >= 45
    missed = sum(len(set(e) - set(f)) for e, f in zip(expected, found, strict=True))
    assert missed <= 2
    assert all(set(f) <= set(e) for e, f in zip(expected, found, strict=True))


def test_a_crowded_phrase_hides_no_pair_across() -> None:
    """Hundreds of texts share a bucket; each must still meet the few frozen ones."""
    rng = random.Random(7)
    crowd = [
        f"hello my name is {rng.choice(_WORDS)} {rng.choice(_WORDS)} and my parcel has not arrived yet" for _ in range(600)
    ]
    found = near_across(crowd, crowd[:3], 0.7)
    expected = [[j for j in range(3) if is_near(text, crowd[j], 0.7)] for text in crowd]
    assert found == expected


def test_pairs_are_verified_and_need_no_second_look() -> None:
    views = ["where is my new debit card today", "where is my new debit cards today", "something else altogether, friend"]
    assert list(near_pairs(views, 0.7)) == [(0, 1)]


def test_components_name_the_smallest_node() -> None:
    assert components(6, [(4, 2), (2, 1), (5, 3)]) == [0, 1, 1, 3, 1, 3]


@pytest.mark.parametrize("views", [[], [""], ["", ""], ["a", "a", "b"], ["\ud800", "x" * 10]])
def test_degenerate_views(views: list[str]) -> None:
    clusters = near_clusters(views, 0.7)
    assert [views[root] for root in clusters] == views


def test_an_instruction_template_does_not_make_everything_near() -> None:
    rng = random.Random(8)
    template = (
        "Sort the following customer question into one of seventy-seven intents and answer with its name only: {}\nIntent:"
    )
    system, answer = (
        {"role": "system", "content": "You are a careful clerk of a bank."},
        {"role": "assistant", "content": "Yes."},
    )
    questions = [{"role": "user", "content": template.format(sentence(rng, 6))} for _ in range(100)]
    rows = [{"messages": [system, question, answer]} for question in questions]
    clusters = near_clusters(prompt_views(rows), 0.7)
    assert len(set(clusters)) == len(rows)


_SHORT_TEXTS = st.text(alphabet="ab é\ud800", max_size=8)


@given(_SHORT_TEXTS, _SHORT_TEXTS)
def test_edits_are_counted_as_the_textbook_recurrence_counts_them(one: str, other: str) -> None:
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, start=1):
        before, row = row, [place]
        for column, letter_of_other in enumerate(other, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (letter != letter_of_other)))
    assert [within_edits(one, other, edits) for edits in range(10)] == [row[-1] <= edits for edits in range(10)]
