"""Near duplicates are found and told apart, whatever their order, length or number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.similarity import (
    components,
    is_near,
    near_across,
    near_clusters,
    near_pairs,
    normalise,
    placeholder_view,
    prompt_views,
    strip_template,
    text_key,
)

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


def message_row(prompt: str, *, system: str | None = None, context: str | None = None) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "Yes."}]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages, "context": context}


# ------------------------------------------------------------------------------------------------------------- one text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my CARD?", "where is  my\ncard?"),
        ("ﬁle №5", "file no5"),
        ("STRASSE", "straße"),
        ("e\u0301", "é"),
    ],
)
def test_case_space_and_compatibility_forms_make_no_difference(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert text_key(one) == text_key(other)


def test_keys_tell_fields_apart() -> None:
    assert text_key("ab", "c") != text_key("a", "bc")


@given(st.text())
def test_normalising_twice_equals_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mail me at ada@example.com", "mail me at bob.k@test.org"),
        ("see https://a.example/x?y=1", "see http://b.example"),
        ("call +1 (212) 555-0199 now", "call 617-555-0123 now"),
        ("card 4111 1111 1111 1111.", "card 5500-0000-0000-0004."),
        ("account VX-123456 is closed", "account VX-998877 is closed"),
        ("born 1980-02-03", "born 03/04/1991"),
        ("order 123456", "order 98765432"),
        ("from 203.0.113.7", "from 192.0.2.55"),
    ],
)
def test_personal_looking_parts_are_masked(one: str, other: str) -> None:
    assert placeholder_view(one) == placeholder_view(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("convert 45 kilometers", "convert 60 kilometers"), ("in 3 days", "in 5 days"), ("gate B12", "gate C9")],
)
def test_quantities_stay(one: str, other: str) -> None:
    assert placeholder_view(one) != placeholder_view(other)


def test_known_values_are_masked_wherever_they_stand() -> None:
    assert placeholder_view("I am Ada Lovelace, ADA LOVELACE!", ["Ada Lovelace"]) == "i am #, #!"


# ------------------------------------------------------------------------------------------------------------ near or not


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
        for _ in range(edits):
            text = edited(text, rng)
        copies.append(text)
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


# ------------------------------------------------------------------------------------------------------------ row views


def test_an_instruction_template_does_not_make_everything_near() -> None:
    rng = random.Random(8)
    template = (
        "Sort the following customer question into one of seventy-seven intents and answer with its name only: {}\nIntent:"
    )
    rows = [message_row(template.format(sentence(rng, 6)), system="You are a careful clerk of a bank.") for _ in range(100)]
    clusters = near_clusters(prompt_views(rows), 0.7)
    assert len(set(clusters)) == len(rows)


def test_a_template_needs_many_texts_to_be_one() -> None:
    texts = ["please tell me where my card is", "please tell me where my cash is"]
    assert strip_template(texts) == texts


def test_the_context_is_part_of_what_is_asked() -> None:
    rows = [
        message_row("Summarise the text.", context="A tale of two cities."),
        message_row("Summarise the text.", context="Moby-Dick."),
    ]
    one, other = prompt_views(rows)
    assert one != other


def test_a_row_that_asks_nothing_is_seen_by_its_reply() -> None:
    rows = [{"messages": [{"role": "assistant", "content": text}]} for text in ("Once upon a time", "Long long ago")]
    assert prompt_views(rows) == ["once upon a time", "long long ago"]


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000 + "@", "1-" * 200_000, "(" * 100_000, "1" * 1_000_000, "x1" * 300_000, "-" * 500_000]
)
def test_a_regex_bomb_is_only_long(text: str) -> None:
    assert len(placeholder_view(text)) <= len(text)
