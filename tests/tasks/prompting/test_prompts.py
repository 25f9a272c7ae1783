"""Prompting baselines change the prompt and nothing else; BM25 agrees with its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import InputError
from tasks.core.rows import prompt_messages, reply
from tasks.core.tool_calls import tools_in
from tasks.prompting.config import FitConfig
from tasks.prompting.prompts import with_passages, with_prompt, with_shots
from tasks.prompting.retrieval import Bm25, document_digests, passages_of, read_passages, terms_of

THINGS = ("invoice", "router", "parcel", "password", "refund", "charger", "contract", "booking")


def row(number: int, question: str, *, system: str | None = "You help.") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": f"Reply {number}."}]
    return {
        "id": f"r{number}",
        "label": "A",
        "messages": [*([{"role": "system", "content": system}] if system else []), *turns],
    }


TRAIN = [row(number, f"Where is my {thing}?") for number, thing in enumerate(THINGS)]
ROWS = [row(100, "The router is red."), row(101, "I lost the parcel.", system=None)]
PAIRS = [
    {
        "id": "p1",
        "prompt": [{"role": "user", "content": "The router is red."}],
        "chosen": [{"role": "assistant", "content": "Please wait."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
]
CONFIG = FitConfig(num_shots=2)


def baselines(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [
        with_prompt(rows, "Be brief."),
        with_shots(rows, TRAIN, CONFIG),
        with_passages(rows, ["A red router is starting.", "Parcels take two days."], CONFIG),
    ]


@pytest.mark.parametrize("rows", [ROWS, PAIRS], ids=["conversations", "pairs"])
def test_ids_references_and_the_last_question_stay(rows: list[dict[str, Any]]) -> None:
    before = [dict(row) for row in rows]
    for prompted in baselines(rows):
        for row, changed in zip(rows, prompted, strict=True):
            assert (row["id"], row.get("label"), reply(row)) == (changed["id"], changed.get("label"), reply(changed))
            assert set(row) == set(changed)
            assert prompt_messages(changed)[-1]["content"].endswith(prompt_messages(row)[-1]["content"])
            assert prompt_messages(changed)[-1]["role"] == "user"
    assert rows == before


def test_a_prompt_replaces_the_rows_own() -> None:
    for prompted in with_prompt(ROWS, "Be brief."):
        assert [message["role"] for message in prompted["messages"]] == ["system", "user", "assistant"]
        assert prompted["messages"][0]["content"] == "Be brief."


def test_the_nearest_example_stands_last_and_the_system_prompt_first() -> None:
    trained = [*TRAIN, row(50, "The router is red again.")]
    [prompted, other] = with_shots(ROWS, trained, CONFIG)
    assert [message["content"] for message in prompted["messages"]] == [
        "You help.", "Where is my router?", "Reply 1.", "The router is red again.", "Reply 50.", "The router is red.",
        "Reply 100.",
    ]  # fmt: skip
    assert other["messages"][0]["role"] == "user", "no system prompt was made up"


def test_seeded_examples_are_the_same_for_every_question_and_for_any_order_of_rows() -> None:
    config = CONFIG.model_copy(update={"shots": "seeded", "num_shots": 3})
    first, second = with_shots(ROWS, TRAIN, config)
    assert first["messages"][1:7] == second["messages"][:6]
    assert with_shots(ROWS, TRAIN[::-1], config) == [first, second]
    assert with_shots(ROWS, TRAIN, config.model_copy(update={"seed": 1})) != [first, second]


def test_examples_and_passages_beyond_the_limit_are_left_out() -> None:
    config = CONFIG.model_copy(update={"max_added_chars": 100})
    long = [row(60, "The router is red " * 20), *TRAIN]
    [prompted, _] = with_shots(ROWS, long, config)
    assert [message["content"] for message in prompted["messages"]][1:-2] == ["Where is my router?", "Reply 1."]
    [prompted, _] = with_passages(ROWS, ["router red " * 40, "A red router is starting."], config)
    assert prompted["messages"][1]["content"].count("router") == 2


def test_a_question_without_passages_is_unchanged() -> None:
    assert with_passages(ROWS, ["Unrelated text"], CONFIG) == ROWS


def test_relevance_agrees_with_the_formula() -> None:
    index = Bm25(["red red router", "red parcel", "blue"], k1=1.2, b=0.75)
    # idf of "router": ln(1 + 2.5 / 1.5); first occurrence in a text of 3 terms, where 2 are usual.
    expected = 0.980829 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / 2))
    assert index.scores("Router!") == pytest.approx([expected, 0, 0], rel=1e-5)
    assert index.best("red parcel", 2) == [1, 0]
    assert Bm25([]).best("red", 3) == []


@given(st.permutations(range(8)))
def test_the_order_of_texts_changes_no_score(order: list[int]) -> None:
    texts = [f"my {thing} and my {THINGS[number // 2]}" for number, thing in enumerate(THINGS)]
    straight = Bm25(texts).scores("my router and refund")
    mixed = Bm25([texts[number] for number in order]).scores("my router and refund")
    assert mixed == pytest.approx(straight[order])


def test_words_of_any_script_are_terms() -> None:
    assert terms_of("Grüße, Straße 5!") == ["grüsse", "strasse", "5"]
    assert terms_of("東京 hotel") == ["東", "京", "hotel"]


@given(st.text(alphabet="ab \n", max_size=300), st.integers(5, 60))
def test_passages_keep_every_word_and_their_limit(text: str, limit: int) -> None:
    passages = passages_of(text, limit)
    assert all(0 < len(passage) <= limit for passage in passages)
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_a_folder_of_texts_is_read_in_order_and_watched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("Second.")
    (tmp_path / "a.txt").write_text("First.")
    (tmp_path / "sub" / "c.txt").write_text("Third.")
    (tmp_path / "d.png").write_bytes(b"\xff")
    assert read_passages(str(tmp_path)) == ["First.", "Second.", "Third."]
    config = FitConfig(enabled=True, target=0.5, documents=str(tmp_path))
    before = config.external_fingerprints()
    assert set(before) == {"a.txt", "b.md", "sub/c.txt"}
    (tmp_path / "a.txt").write_text("Changed.")
    assert config.external_fingerprints() != before
    assert FitConfig(documents=str(tmp_path)).external_fingerprints() == {}
    assert document_digests(str(tmp_path)) == config.external_fingerprints()


def test_a_folder_without_texts_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        read_passages(str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        read_passages(str(tmp_path / "absent"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="not UTF-8 at 3"):
        read_passages(str(tmp_path))


def test_calls_stay_calls_in_examples_and_passages_stand_in_the_question() -> None:
    tools = ['{"type": "function", "function": {"name": "find", "description": "", "parameters": {}}}']
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00000", "name": "find", "arguments": "{}"}]}
    turns = [{"role": "user", "content": "Where is my router?"}, call]
    result = [*turns, {"role": "tool", "content": "red router", "tool_call_id": "call00000"}, call]
    train = [{"id": f"t{number}", "messages": turns, "tools": ["{}"]} for number in range(2)]
    row = {"id": "r1", "messages": result, "tools": tools}
    [shot] = with_shots([row], train, CONFIG)
    assert sum(message.get("tool_calls") == call["tool_calls"] for message in shot["messages"]) == 4
    assert tools_in(prompt_messages(shot)) == tools
    for changed in (shot, *with_prompt([row], "Be brief."), *with_passages([row], ["A red router is starting."], CONFIG)):
        assert "tools" not in [message["role"] for message in changed["messages"]]
        assert changed["tools"] == tools
    [informed] = with_passages([row], ["A red router is starting."], CONFIG)
    said = [(message["role"], message["content"]) for message in informed["messages"]]
    assert "starting" in next(text for role, text in said if role == "user")
    assert ("tool", "red router") in said
