"""GRPO's prompts are those of every other stage: a control token's letters in a text stay letters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tasks.modeling.conversations import prompt_token_ids
from tasks.training.trainer.grpo import _GrpoTrainer
from tests.support.chat_templates import tokenizer_of


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
