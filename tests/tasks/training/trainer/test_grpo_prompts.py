"""GRPO prompts for a reply with the tokens that every other stage prompts with: tools among them, forged turns as text."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from tasks.core.rows import prompt_messages
from tasks.modeling.conversations import prompt_token_ids
from tasks.modeling.generation import LoadedModel, prompt_batches, reply_limit
from tasks.modeling.tool_templates import HERMES_TEMPLATE
from tasks.training.examples import render_prompt
from tasks.training.trainer import grpo
from tasks.training.trainer.grpo import _GrpoTrainer
from tasks.training.trainer.rewards import Reward
from tests.support.chat_templates import tokenizer_of
from tests.support.tiny_model import desk_row, tiny_tokenizer
from tests.tasks.modeling.test_tool_templates import ROWS


@pytest.fixture
def tokenizer() -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = HERMES_TEMPLATE
    return tokenizer


def test_rows_with_and_without_tools_pass_through_trl_s_data_set(tokenizer: Any) -> None:
    rows = [desk_row(1), *ROWS.values()]
    expected = [prompt_token_ids(tokenizer, prompt_messages(row)) for row in rows]
    given = datasets.Dataset.from_list([{"prompt": prompt_messages(row)} for row in rows])
    trainer = _GrpoTrainer.__new__(_GrpoTrainer)
    trainer.processing_class = tokenizer
    ids, images, more = trainer._tokenize_prompts([row["prompt"] for row in given])
    assert (ids, images, more) == (expected, None, {})


def test_the_reference_of_a_call_is_what_the_template_writes(tokenizer: Any) -> None:
    prompt = render_prompt(tokenizer, ROWS["call"], max_length=4096, max_new_tokens=64)
    assert prompt.reference == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert (
        render_prompt(tokenizer, desk_row(1), max_length=4096, max_new_tokens=64).reference
        == (
            desk_row(1)["messages"][1]["content"]  # type: ignore[index]
        )
    )


@pytest.mark.parametrize("family", ["chatml", "llama-3.2", "gemma-2", "mistral-tekken", "gpt-oss"])
def test_a_forged_turn_stays_text(family: str) -> None:
    tokenizer = tokenizer_of(family)
    control = set(tokenizer.all_special_ids)
    prompts = [
        [{"role": "user", "content": f"Hello{end}"}]
        for end in ("", tokenizer.eos_token, "".join(tokenizer.all_special_tokens))
    ]
    ids, images, fields = _GrpoTrainer._tokenize_prompts(SimpleNamespace(processing_class=tokenizer), prompts)  # type: ignore[arg-type]
    assert (images, fields) == (None, {})
    assert ids == [prompt_token_ids(tokenizer, prompt) for prompt in prompts]
    assert len({tuple(token for token in row if token in control) for row in ids}) == 1


def test_held_out_replies_are_as_long_as_training_allows(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    max_new_tokens = 512
    prompts = [render_prompt(tokenizer, desk_row(1), max_length=1024, max_new_tokens=max_new_tokens)]
    assert len(prompts[0].input_ids) < max_new_tokens / 2

    def generate(loaded: LoadedModel, messages: list[Any], **settings: Any) -> list[SimpleNamespace]:
        assert reply_limit(loaded, settings["max_new_tokens"]) == max_new_tokens
        [[whole]] = prompt_batches(loaded, messages, max_new_tokens=max_new_tokens, batch_size=1)
        assert whole == prompts[0].input_ids
        return [SimpleNamespace(text="Reply.")]

    monkeypatch.setattr(grpo, "generate_replies", generate)
    model = SimpleNamespace(train=lambda mode: None, generation_config=None, training=True)
    model.eval = lambda: model
    trainer = SimpleNamespace(
        model=SimpleNamespace(get_base_model=lambda: model),
        accelerator=SimpleNamespace(unwrap_model=lambda wrapped: wrapped),
        processing_class=tokenizer,
        args=SimpleNamespace(per_device_train_batch_size=1),
    )
    rewards = grpo.held_out_rewards(trainer, [Reward("one", 1.0, lambda *_: 1.0)], prompts)
    assert rewards == {"one": 1.0, "total": 1.0}
