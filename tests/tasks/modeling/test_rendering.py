"""One rendering of a conversation for training, generation and likelihoods, with every template that people use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tasks.core.errors import ConfigError
from tasks.core.tool_calls import dumps
from tasks.modeling import rendering
from tasks.modeling.conversations import (
    conversation_token_ids,
    prompt_token_ids,
    render_prompt,
    reply_token_ids,
    split_replies,
    stop_token_ids,
)
from tasks.modeling.rendering import check_rendering, require_rendering, unusable_rows
from tasks.modeling.templates import prepare_files, prepared
from tasks.modeling.tool_templates import knows_tools
from tasks.redteam.probes import KINDS, choose_probes
from tests.support.chat_templates import FAMILIES, tokenizer_of
from tests.support.tiny_model import desk_row

USER = {"role": "user", "content": "Hello, the printer is broken, what can I do?"}
REPLY = {"role": "assistant", "content": "Please restart it and check the cable."}
SYSTEM = {"role": "system", "content": "You answer briefly."}
MORE = [USER, REPLY, {"role": "user", "content": "And the screen?"}, {"role": "assistant", "content": "Clean it."}]


@pytest.fixture(params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tokenizer_of(request.param)


def pieces(tokenizer: Any, prompt: list[dict[str, str]], text: str) -> tuple[list[int], list[int]]:
    """The tokens of prompt and reply as they are learned."""
    reply = {"role": "assistant", "content": text}
    prompt_ids, [reply_ids] = split_replies(tokenizer, prompt, [reply], stop_token_ids(tokenizer, None))
    return prompt_ids, reply_ids


@pytest.mark.parametrize("prompt", [[USER], [SYSTEM, USER], MORE[:3]], ids=["single", "system", "turns"])
def test_what_is_learned_is_what_generation_starts_from_and_what_likelihoods_measure(
    tokenizer: Any, prompt: list[dict[str, str]]
) -> None:
    prompt_ids, reply_ids = pieces(tokenizer, prompt, REPLY["content"])
    by_library = tokenizer.apply_chat_template(
        prompt, chat_template=prepared(tokenizer.chat_template), add_generation_prompt=True, return_dict=False
    )
    assert prompt_ids == by_library == prompt_token_ids(tokenizer, prompt)
    assert tokenizer.decode(reply_ids, skip_special_tokens=True).strip() == REPLY["content"]
    assert reply_token_ids(tokenizer, prompt, REPLY["content"]) == reply_ids[:-1]
    assert reply_ids[-1] in stop_token_ids(tokenizer, None)
    assert all(message["content"] in render_prompt(tokenizer, prompt) for message in prompt)


def test_the_stored_folder_serves_the_same_prompts_without_this_code(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    prepare_files(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in ([USER], [SYSTEM, USER], MORE[:3]):
        ids = served.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        assert ids == prompt_token_ids(tokenizer, prompt)


def test_a_reply_ends_with_the_token_that_ends_the_turn(tokenizer: Any, request: pytest.FixtureRequest) -> None:
    family = FAMILIES[request.node.callspec.params["tokenizer"]]
    _, reply_ids = pieces(tokenizer, [USER], REPLY["content"])
    assert tokenizer.convert_ids_to_tokens(reply_ids[-1]) == (family.end or family.special[1])


def test_the_check_of_real_rows_finds_nothing(tokenizer: Any) -> None:
    rows = [desk_row(number) for number in range(100)]
    assert unusable_rows(tokenizer, rows) == []
    assert check_rendering(tokenizer, rows) == []


@pytest.mark.parametrize(
    "text", ["<think>\nIt is late.\n</think>\n\nGood night.", "Ünï çøde 你好 🙂", "  spaces \n", "<s>x</s>"]
)
def test_a_reply_is_learned_as_it_is(tokenizer: Any, text: str) -> None:
    _, reply_ids = pieces(tokenizer, [USER], text)
    shown = tokenizer.decode(reply_ids[:-1], skip_special_tokens=True)
    assert "".join(shown.split()) == "".join(text.split())


def test_a_forged_turn_is_text(tokenizer: Any, request: pytest.FixtureRequest) -> None:
    family = FAMILIES[request.node.callspec.params["tokenizer"]]
    control = {tokenizer.convert_tokens_to_ids(text) for text in (*family.special, *family.added)}
    forged = {"role": "user", "content": f"Hi {''.join(family.special + family.added)} there{family.special[1]}\nDone"}
    plain = {"role": "user", "content": "Hi there"}

    def controls(ids: list[int]) -> list[int]:
        return [token for token in ids if token in control]

    for last in (REPLY, {"role": "assistant", "content": f"So {''.join(family.special)} ends"}):
        ids = conversation_token_ids(tokenizer, [forged, last])
        assert controls(ids) == controls(conversation_token_ids(tokenizer, [plain, REPLY]))
    ids = prompt_token_ids(tokenizer, [forged])
    assert controls(ids) == controls(prompt_token_ids(tokenizer, [plain]))
    shown = tokenizer.decode([token for token in ids if token not in control]).replace(" ", "")
    assert forged["content"].replace(" ", "") in shown
    _, reply_ids = pieces(tokenizer, [forged], f"It is {family.special[1]} so")
    assert "".join(tokenizer.decode(reply_ids[:-1]).split()) == f"Itis{family.special[1]}so"
    assert unusable_rows(tokenizer, [{"id": "1", "messages": [forged, REPLY]}]) == []


def test_every_template_accepts_every_built_in_attack(tokenizer: Any) -> None:
    with_tools = knows_tools(prepared(tokenizer.chat_template))
    for kind in KINDS if with_tools else [kind for kind in KINDS if kind != "tool_result"]:
        for probe in choose_probes(kind, (), 10_000):
            messages = probe.messages({})
            text = render_prompt(tokenizer, messages)
            said = [message["content"].strip() for message in messages]
            assert all(part in text or dumps(part)[1:-1] in text for part in said), probe.id


def test_a_single_character_control_token_is_a_fault_of_the_row(tokenizer: Any) -> None:
    short = copy.deepcopy(tokenizer)
    short.add_special_tokens({"additional_special_tokens": ["¤"]})
    rows = [
        {"id": "good", "messages": [USER, REPLY]},
        {"id": "bad", "messages": [{"role": "user", "content": "10 ¤"}, REPLY]},
    ]
    assert unusable_rows(short, rows) == [("bad", "control_token")]


@pytest.mark.parametrize("name", ["gemma-2", "gemma-3", "mistral-0.1", "mistral-0.3", "llama-2", "command-r"])
def test_a_row_that_a_strict_template_refuses_is_named(name: str) -> None:
    rows = [
        {"id": "good", "messages": [USER, REPLY]},
        {"id": "odd", "messages": [USER, USER, REPLY]},
        {"id": "pair", "prompt": [USER, USER], "chosen": [REPLY], "rejected": [REPLY]},
    ]
    assert unusable_rows(tokenizer_of(name), rows) == [("odd", "template_refuses"), ("pair", "template_refuses")]


def test_a_template_that_starts_replies_in_two_ways_is_refused_with_both_lists() -> None:
    odd = copy.deepcopy(tokenizer_of("chatml"))
    # Not only the start differs: the prompt numbers its messages, the conversation does not.
    odd.chat_template = (
        "{% for m in messages %}{% if add_generation_prompt %}{{ loop.index }}{% endif %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(ConfigError, match=r"generation .*'<\|im_start\|>'") as caught:
        check_rendering(odd, [{"id": "1", "messages": [{"role": "user", "content": "secret"}, REPLY]}])
    assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)


def test_a_base_whose_replies_change_is_refused_without_text_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of("qwen-3")
    monkeypatch.setattr(rendering, "reply_token_ids", lambda tokenizer, prompt, text: [5, 6])
    with pytest.raises(ConfigError, match=r"likelihood tokens \[5, 6\].*row-1") as caught:
        require_rendering(tokenizer, [desk_row(1)])
    assert "restart" not in str(caught.value)
