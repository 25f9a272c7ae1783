"""Exactly the reply's tokens are learned, whatever the chat template."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from tasks.core.errors import ModelNotFoundError, QualityLimitError
from tasks.modeling.conversations import render_prompt, stop_token_ids
from tasks.modeling.loading import load_tokenizer
from tasks.training.examples import IGNORED, render_example, render_pair, render_replies, unlearned_notes, usable_rows
from tests.support.chat_templates import FAMILIES, tokenizer_of
from tests.support.tiny_model import desk_pair, desk_row

ROLES_FIRST = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Any:
    return load_tokenizer(tiny_model_dir)


def test_the_learned_tokens_are_the_reply_and_its_end(tokenizer: Any) -> None:
    row = desk_row(1)
    example = render_example(tokenizer, row, stops={tokenizer.eos_token_id}, max_length=512)
    reply = row["messages"][-1]["content"]  # type: ignore[index]
    learned = [label for label in example.labels if label != IGNORED]
    assert learned == [*tokenizer(reply)["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.decode(example.prompt_ids) == render_prompt(tokenizer, row["messages"][:-1])  # type: ignore[index]
    assert example.input_ids == example.prompt_ids + learned


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(question=st.text(min_size=1, max_size=60), reply=st.text(min_size=1, max_size=60))
def test_any_text_is_split_where_the_reply_begins(tokenizer: Any, question: str, reply: str) -> None:
    row = {"id": "1", "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]}
    example = render_example(tokenizer, row, stops={tokenizer.eos_token_id}, max_length=4096)
    assert tokenizer.decode(example.reply_ids, clean_up_tokenization_spaces=False) == reply + tokenizer.eos_token


def test_a_template_without_an_end_token_gets_one(tokenizer: Any) -> None:
    plain = load_tokenizer(Path(tokenizer.name_or_path))
    plain.chat_template = ROLES_FIRST
    example = render_example(plain, desk_row(2), stops={plain.eos_token_id}, max_length=512)
    assert example.reply_ids[-1] == plain.eos_token_id
    assert example.reply_ids.count(plain.eos_token_id) == 1
    assert "[assistant]" in plain.decode(example.prompt_ids)
    assert "[assistant]" not in plain.decode(example.reply_ids)


def test_a_long_row_loses_its_end_and_says_so(tokenizer: Any) -> None:
    whole = render_example(tokenizer, desk_row(3), stops={tokenizer.eos_token_id}, max_length=512)
    cut = render_example(tokenizer, desk_row(3), stops={tokenizer.eos_token_id}, max_length=len(whole) - 2)
    assert not whole.truncated
    assert cut.truncated
    assert cut.input_ids == whole.input_ids[:-2]


def test_both_replies_of_a_pair_follow_the_same_prompt(tokenizer: Any) -> None:
    row = desk_pair(4)
    pair = render_pair(tokenizer, row, stops={tokenizer.eos_token_id}, max_length=512)
    assert tokenizer.decode(pair.chosen_ids) == row["chosen"][0]["content"] + tokenizer.eos_token  # type: ignore[index]
    assert tokenizer.decode(pair.rejected_ids) == row["rejected"][0]["content"] + tokenizer.eos_token  # type: ignore[index]
    assert tokenizer.decode(pair.prompt_ids) == render_prompt(tokenizer, row["prompt"])


def test_a_pair_taken_apart_keeps_its_tokens_and_each_reply_is_cut_by_itself(tokenizer: Any) -> None:
    stops = {tokenizer.eos_token_id}
    pair = render_pair(tokenizer, desk_pair(4), stops=stops, max_length=512)
    chosen, rejected = render_replies(tokenizer, desk_pair(4), stops=stops, max_length=512)
    assert (chosen.prompt_ids, chosen.reply_ids) == (pair.prompt_ids, pair.chosen_ids)
    assert (rejected.prompt_ids, rejected.reply_ids) == (pair.prompt_ids, pair.rejected_ids)
    assert (chosen.desirable, rejected.desirable) == (True, False)
    assert (chosen.row_id, rejected.row_id) == ("pair-4:chosen", "pair-4:rejected")
    shorter, longer = sorted((chosen, rejected), key=len)
    cut = {reply.row_id: reply for reply in render_replies(tokenizer, desk_pair(4), stops=stops, max_length=len(shorter))}
    assert len(longer) > len(shorter)
    assert cut[shorter.row_id] == shorter
    assert cut[longer.row_id].truncated
    assert cut[longer.row_id].input_ids == longer.input_ids[: len(shorter)]


def test_a_tokenizer_without_a_template_is_refused(tokenizer: Any) -> None:
    bare = load_tokenizer(Path(tokenizer.name_or_path))
    bare.chat_template = None
    with pytest.raises(ModelNotFoundError, match="chat_template"):
        render_example(bare, desk_row(5), stops=set(), max_length=512)


def test_a_template_that_refuses_a_role_is_one_clear_error(tokenizer: Any) -> None:
    strict = load_tokenizer(Path(tokenizer.name_or_path))
    strict.chat_template = "{{ raise_exception('secret text') }}"
    with pytest.raises(ModelNotFoundError, match="roles user") as caught:
        render_example(strict, desk_row(6), stops=set(), max_length=512)
    assert "secret" not in str(caught.value)


def test_stop_tokens_come_from_both_places(tokenizer: Any) -> None:
    both = GenerationConfig(eos_token_id=[5, 7])
    assert stop_token_ids(tokenizer, both) == {5, 7, tokenizer.eos_token_id}
    assert stop_token_ids(tokenizer, None) == {tokenizer.eos_token_id}


TURNS = {
    "id": "turns",
    "messages": [
        {"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": "The printer is broken."},
        {"role": "assistant", "content": "Please restart it."},
        {"role": "user", "content": "And the screen?"},
        {"role": "assistant", "content": "Clean it gently."},
        {"role": "user", "content": "Thanks!"},
        {"role": "assistant", "content": "Good day."},
    ],
}


def learned_parts(tokenizer: Any, labels: list[int]) -> list[str]:
    """The texts of the learned stretches, without control tokens."""
    stretches = [
        list(part) for is_ignored, part in itertools.groupby(labels, lambda label: label == IGNORED) if not is_ignored
    ]
    return [tokenizer.decode(part, skip_special_tokens=True).strip() for part in stretches]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_reply_of_a_conversation_is_learned_where_the_template_allows_it(name: str) -> None:
    tokenizer = tokenizer_of(name)
    stops = stop_token_ids(tokenizer, None)
    example = render_example(tokenizer, TURNS, stops=stops, max_length=4096, learn="all")
    replies = [message["content"] for message in TURNS["messages"] if message["role"] == "assistant"]  # type: ignore[index]
    assert learned_parts(tokenizer, example.labels) == (replies if FAMILIES[name].learns_all else replies[-1:])
    assert example.num_learned_tokens == sum(label != IGNORED for label in example.labels)
    assert len(example.labels) == len(example.input_ids) == len(example)
    assert unlearned_notes([example]) == (
        ()
        if FAMILIES[name].learns_all
        else ("2 earlier replies are not learned: the chat template writes them differently from the last",)
    )
    last = render_example(tokenizer, TURNS, stops=stops, max_length=4096, learn="last")
    assert last.input_ids == example.input_ids
    assert learned_parts(tokenizer, last.labels) == replies[-1:]
    # Each learned stretch ends with a token that ends generation.
    ends = [
        place for place, (label, after) in enumerate(itertools.pairwise([*example.labels, IGNORED])) if label >= 0 > after
    ]
    assert all(example.labels[place] in stops for place in ends)


@pytest.mark.parametrize("learn", ["all", "last"])
def test_a_row_with_one_reply_is_the_same_whichever_replies_are_learned(tokenizer: Any, learn: Any) -> None:
    stops = {tokenizer.eos_token_id}
    assert render_example(tokenizer, desk_row(3), stops=stops, max_length=512, learn=learn) == render_example(
        tokenizer, desk_row(3), stops=stops, max_length=512
    )


def test_a_long_conversation_keeps_the_replies_within_the_length(tokenizer: Any) -> None:
    stops = {tokenizer.eos_token_id}
    whole = render_example(tokenizer, TURNS, stops=stops, max_length=512, learn="all")
    for length in range(1, len(whole)):
        cut = render_example(tokenizer, TURNS, stops=stops, max_length=length, learn="all")
        assert cut.labels == whole.labels[:length]
        assert cut.input_ids == whole.input_ids[:length]
        assert cut.num_learned_tokens == sum(label != IGNORED for label in cut.labels)
        assert cut.truncated


def test_rows_that_a_template_refuses_are_left_out_and_named_up_to_the_limit() -> None:
    strict = tokenizer_of("gemma-2")
    user, reply = desk_row(0)["messages"]  # type: ignore[misc]
    rows: list[Any] = [desk_row(number) for number in range(1, 100)]
    odd = {"id": "odd", "messages": [user, user, reply]}
    kept, notes = usable_rows(strict, [*rows, odd], 0.05)
    assert list(kept) == rows
    assert notes == ("1 rows quarantined (template_refuses): odd",)
    assert usable_rows(strict, rows, 0.0) == (rows, ())
    with pytest.raises(QualityLimitError, match=r"1 of 100 rows .* odd \(template_refuses\)"):
        usable_rows(strict, [*rows, odd], 0.0)
