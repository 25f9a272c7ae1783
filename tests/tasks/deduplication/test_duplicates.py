"""Repeated rows go, contradicting and merely similar ones stay, and the result is the same in any order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import QualityLimitError
from tasks.core.rows import rows_of, rows_to_table
from tasks.core.storage import open_store
from tasks.deduplication import DeduplicationConfig, deduplicate
from tasks.deduplication.duplicates import Deduplicated, deduplicate_table
from tasks.deduplication.equivalence import is_same_content
from tests.support.public_data import FOLDER


def row(name: str, ask: str, reply: str, label: str | None = None, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return {"id": name, "messages": messages, "label": label, **more}


def pair(name: str, ask: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))}
    return {"id": name, "prompt": [{"role": "user", "content": ask}], **sides}


def deduplicate_rows(rows: list[dict[str, Any]], **settings: Any) -> Deduplicated:
    kind = "preferences" if rows and "chosen" in rows[0] else "messages"
    return deduplicate_table(rows_to_table(rows, kind), **settings)


def kept_rows(result: Deduplicated) -> list[dict[str, Any]]:
    return rows_of(result.kept)


def ids(result: Deduplicated) -> set[str]:
    return {kept["id"] for kept in kept_rows(result)}


ASK, REPLY = "My new card has still not arrived, where is it?", "It takes five working days to reach you by post."


def test_the_smallest_id_of_exact_duplicates_stays() -> None:
    rows = [row("c", ASK, REPLY), row("a", ASK.upper(), REPLY), row("b", ASK.replace(" ", "  "), REPLY)]
    result = deduplicate_rows(rows, threshold=0.7)
    assert ids(result) == {"a"}
    assert result.num_exact == 2
    assert {dropped["reason"] for dropped in result.dropped} == {"exact_duplicate"}


def test_near_duplicates_go_or_are_grouped_by_policy() -> None:
    rows = [row("a", ASK, REPLY), row("b", ASK.replace("arrived", "arived") + " Thanks.", REPLY)]
    assert ids(deduplicate_rows(rows, threshold=0.7)) == {"a"}
    grouped = deduplicate_rows(rows, threshold=0.7, near="group")
    assert ids(grouped) == {"a", "b"}
    assert len({kept["split_group"] for kept in kept_rows(grouped)}) == 1
    assert grouped.num_clusters == 1


def test_rows_that_differ_only_in_personal_data_are_near_duplicates() -> None:
    rows = [
        row(
            "a",
            "I am Ada Lovelace (VX-123456, ada@example.com). Where is my parcel?",
            "Dear Ada Lovelace, soon.",
            known_values=["Ada Lovelace"],
        ),
        row(
            "b",
            "I am Bo Li (VX-654321, bo.li@mail.example). Where is my parcel?",
            "Dear Bo Li, soon.",
            known_values=["Bo Li"],
        ),
    ]
    assert ids(deduplicate_rows(rows, threshold=0.7)) == {"a"}


@pytest.mark.parametrize(
    "other",
    [
        row("b", ASK, REPLY, "lost"),
        row("b", ASK, "Please order a replacement in the app and destroy the old one.", "arrival"),
        row("b", ASK.replace("card", "cheque book"), REPLY, "arrival"),
        row("b", ASK, REPLY.replace("five", "5"), "arrival"),
        row("b", ASK, REPLY.replace("takes", "never takes"), "arrival"),
        row("b", ASK, REPLY, "arrival", context="Another context altogether, with other facts in it."),
        row("b", ASK, REPLY, "arrival", annotations=[{"annotator": "x", "label": "lost"}]),
    ],
)
def test_another_label_reply_quantity_negation_context_or_vote_is_kept(other: dict[str, Any]) -> None:
    assert ids(deduplicate_rows([row("a", ASK, REPLY, "arrival"), other], threshold=0.7)) == {"a", "b"}


def test_contradicting_labels_are_counted_and_share_a_group() -> None:
    result = deduplicate_rows([row("a", ASK, "arrival", "arrival"), row("b", ASK, "lost", "lost")], threshold=0.7)
    assert result.num_contradicting == 2
    assert len({kept["split_group"] for kept in kept_rows(result)}) == 1


def test_pairs_are_the_same_only_when_both_sides_are() -> None:
    rows = [
        pair("a", ASK, REPLY, "Wait."),
        pair("b", ASK, REPLY, "wait."),
        pair("c", ASK, REPLY, "I could not care less about it."),
    ]
    assert ids(deduplicate_rows(rows, threshold=0.7)) == {"a", "c"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("what is the melting point of gold in degrees", "what is the melting point of iron in degrees", False),
        ("how loong does the refund take? i see the same hing", "how long does the refund take? i see the same thing", True),
        ("which cards do you support in the shop today", "what cards do you support in the shop today", True),
        ("can i pay for it with a card from my bank", "can i not pay for it with a card from my bank", False),
        ("is it possible to cancel a transaction?", "is it possible to cancel transactions?", True),
        ("keep it in the fridge for 3 days at the most", "keep it in the fridge for 5 days at the most", False),
    ],
)
def test_which_texts_have_the_same_content(one: str, other: str, same: bool) -> None:
    assert is_same_content(one, other, 0.7) is same
    assert is_same_content(other, one, 0.7) is same


def _dates() -> list[tuple[str, str]]:
    return [
        (f"Convert the date {n:02}/{n % 12 + 1:02}/2024 to ISO 8601.", f"2024-{n % 12 + 1:02}-{n:02}") for n in range(1, 28)
    ]


def _sums() -> list[tuple[str, str]]:
    return [
        (f"What is {n} plus {2 * n}? Add the two numbers.", f"The sum is {3 * n}.") for n in range(10_001, 90_000, 2_711)
    ]


def _networks() -> list[tuple[str, str]]:
    return [(f"Which network has the address 10.{n}.7.9 in a /24?", f"10.{n}.7.0") for n in range(1, 40)]


def _primes() -> list[tuple[str, str]]:
    return [
        (f"Is {n} a prime number or not, please?", "Yes." if all(n % d for d in range(2, 110)) else "No.")
        for n in range(10_001, 10_061, 2)
    ]


def _signs() -> list[tuple[str, str]]:
    return [(f"Compute the value of 812 {sign} 35 for me now.", "That is it.") for sign in ("+", "-", "*", "/")]


def _hashes() -> list[tuple[str, str]]:
    return [(f"Write the number {n} in hexadecimal form.", f"{n:#x}") for n in range(70_001, 70_040)]


@pytest.mark.parametrize("rows", [_dates(), _sums(), _networks(), _primes(), _signs(), _hashes()])
def test_what_only_looks_like_an_id_is_content(rows: list[tuple[str, str]]) -> None:
    result = deduplicate_rows([row(f"r{n:02}", *texts) for n, texts in enumerate(rows)], threshold=0.7)
    assert result.dropped == []


@pytest.mark.parametrize(
    ("ask", "reply"),
    [
        ("Where is my order {0}? It has not come.", "Your order {0} is on its way."),
        ("The payment {0} of account {1} is missing.", "We look for {0} in the account {1}."),
        ("My mail is {0}@mail.example, where is my parcel?", "We have written to {0}@mail.example."),
    ],
)
def test_an_id_that_the_reply_takes_from_its_prompt_is_none(ask: str, reply: str) -> None:
    rows = [row(f"r{n}", ask.format(12_345 + n, 777_000 + n), reply.format(12_345 + n, 777_000 + n)) for n in range(5)]
    assert ids(deduplicate_rows(rows, threshold=0.7)) == {"r0"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("please turn on the notifications of my account today", "please turn off the notifications of my account today"),
        ("how do i convert twelve pounds to kilograms exactly", "how do i convert twelve kilograms to pounds exactly"),
        ("does the service increase the price in the second year", "does the service decrease the price in the second year"),
        ("is it possible to change the name of the account", "is it impossible to change the name of the account"),
        ("import all the contacts of the list into the phone", "export all the contacts of the list into the phone"),
        ("you may take the tablets with a glass of milk", "you may not take the tablets with a glass of milk"),
        ("wie kann ich mich bei dem neuen dienst anmelden", "wie kann ich mich bei dem neuen dienst abmelden"),
        ("das ist ein guter grund für eine kündigung", "das ist kein guter grund für eine kündigung"),
        ("je veux que vous annuliez ma commande de mardi", "je ne veux pas que vous annuliez ma commande de mardi"),
        ("quiero viajar con mi perro en el tren de hoy", "quiero viajar sin mi perro en el tren de hoy"),
        ("как мне включить уведомления на этом телефоне", "как мне выключить уведомления на этом телефоне"),
        ("bu hafta sonunda toplantıya geleceğim ve konuşacağım", "bu hafta sonunda toplantıya gelmeyeceğim ve konuşacağım"),
        ("このカードは海外でも使えますので安心してください", "このカードは海外では使えませんので安心してください"),
        ("这张卡可以在国外的商店和餐厅里使用吗请告诉我", "这张卡不可以在国外的商店和餐厅里使用吗请告诉我"),
        ("이 카드는 해외 상점에서 사용할 수 있습니다 고객님", "이 카드는 해외 상점에서 사용할 수 없습니다 고객님"),
        ("บัตรนี้ใช้ในต่างประเทศได้ที่ร้านค้าทุกแห่ง", "บัตรนี้ใช้ในต่างประเทศไม่ได้ที่ร้านค้าทุกแห่ง"),
        ("لماذا يمكن استخدام هذه البطاقة في الخارج اليوم", "لماذا لا يمكن استخدام هذه البطاقة في الخارج اليوم"),
    ],
)
def test_a_negated_or_reversed_word_is_content_in_any_language(one: str, other: str) -> None:
    assert not is_same_content(one, other, 0.5)
    assert not is_same_content(other, one, 0.5)
    assert ids(deduplicate_rows([row("a", one, "Yes."), row("b", other, "Yes.")], threshold=0.5)) == {"a", "b"}


def test_two_words_that_several_rows_have_are_no_spellings_of_each_other() -> None:
    one, other = "please write a text about the colour of gold", "please write a text about the colour of mold"
    assert is_same_content(one, other, 0.7)
    assert not is_same_content(one, other, 0.7, {"gold": 5, "mold": 4})
    assert is_same_content(one, other, 0.7, {"gold": 5_000, "mold": 4})


_WORD = st.sampled_from(
    ["card", "cash", "refund", "arrived", "never", "5", "60", "Ada", "lost,", "where", "is", "my", "the"]
)
_TEXT = st.lists(_WORD, min_size=0, max_size=14).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(_TEXT, st.sampled_from(["Yes.", "It takes five days.", ""]), st.sampled_from([None, "x", "y"])),
        max_size=25,
    ),
    st.randoms(),
)
def test_order_changes_nothing_and_nothing_is_lost(drawn: list[tuple[str, str, str | None]], rng: random.Random) -> None:
    rows = [row(f"r{number:02}", *values) for number, values in enumerate(drawn)]
    result = deduplicate_rows(rows, threshold=0.7)
    rng.shuffle(rows)
    again = deduplicate_rows(rows, threshold=0.7)
    assert {kept["id"]: kept["split_group"] for kept in kept_rows(result)} == {
        kept["id"]: kept["split_group"] for kept in kept_rows(again)
    }
    assert sorted(dropped["id"] for dropped in result.dropped) == sorted(dropped["id"] for dropped in again.dropped)
    assert result.kept.num_rows + len(result.dropped) == len(rows)
    once_more = deduplicate_rows(kept_rows(result), threshold=0.7)
    assert once_more.num_exact == 0


def test_a_group_keeps_its_name_in_the_next_quarter() -> None:
    first = deduplicate_rows([row("a", ASK, REPLY), row("b", "Something else that was asked.", "No.")], threshold=0.7)
    second = deduplicate_rows([row("z", ASK, REPLY), row("y", "A third thing, not asked before.", "No.")], threshold=0.7)
    name = {kept["id"]: kept["split_group"] for kept in (*kept_rows(first), *kept_rows(second))}
    assert name["a"] == name["z"]


def test_the_task_accounts_for_every_row(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = [row("a", ASK, REPLY), row("b", ASK, REPLY), row("c", "Where can I see the exchange rate?", "In the app.")]
    dataset = store.write_rows(rows, kind="messages", parents=["f" * 64], passed=["ingested", "validated"])
    report = deduplicate.fn(dataset, DeduplicationConfig())
    assert (report.num_rows_in, report.dataset.num_rows, dict(report.dropped)) == (3, 2, {"exact_duplicate": 1})
    assert report.dataset.passed == ("ingested", "validated", "deduplicated")
    assert report.dataset.parents == (dataset.sha256,)
    assert report.quarantine is not None
    assert [(r["id"], r["disposition"]) for r in store.read_rows(report.quarantine)] == [("b", "dropped")]


def test_too_many_duplicates_stop_the_run(tmp_path: Path) -> None:
    dataset = open_store(tmp_path).write_rows([row(f"r{n}", ASK, REPLY) for n in range(9)], kind="messages")
    with pytest.raises(QualityLimitError, match="8 exact and 0 near duplicates in 9 rows"):
        deduplicate.fn(dataset, DeduplicationConfig())


@pytest.mark.skipif(not FOLDER.is_dir(), reason="PERENNIAL_BENCH_DATA names no public data")
def test_real_questions_with_different_labels_survive() -> None:
    import csv

    with (FOLDER / "banking77" / "train.csv").open(encoding="utf-8") as file:
        drawn = random.Random(1).sample(list(csv.DictReader(file)), 3_000)
    rows = [
        row(f"r{n:04}", item["text"], item["category"].replace("_", " "), item["category"]) for n, item in enumerate(drawn)
    ]
    result = deduplicate_rows(rows, threshold=0.7)
    assert 1 <= len(result.dropped) <= 0.05 * len(rows)
    by_id = {item["id"]: item for item in rows}
    first = {item["split_group"]: item["label"] for item in reversed(kept_rows(result))}
    assert {by_id[item["id"]]["label"] for item in result.dropped} <= set(first.values())
