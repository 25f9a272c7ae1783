"""Likelihoods and replies of every kind of cache are those of a full computation of each row alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.modeling.conversations import prompt_token_ids
from tasks.modeling.generation import (
    LoadedModel,
    continuation_likelihoods,
    generate_replies,
    load_model,
    reply_likelihoods,
)
from tasks.modeling.loading import load_base, load_tokenizer
from tests.support.tiny_bases import CONFIGS, build_tiny_base
from tests.support.tiny_model import desk_row

# These take padding for text, or compute every position of a batch.
OF_ONE_ROW = ("rwkv", "recurrent_gemma", "xlstm")
PROMPTS = [[desk_row(number)["messages"][0]] for number in range(6)]  # type: ignore[index]
PROMPTS[1] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    folder = build_tiny_base(request.param, tmp_path)
    model = load_base(folder, device="cpu", dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return LoadedModel(model, load_tokenizer(folder), 256)


def computed_whole(loaded: LoadedModel, prompt: list[dict[str, str]], prefix: str, text: str) -> float:
    plain = [loaded.tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in (prefix, text)]
    start = prompt_token_ids(loaded.tokenizer, prompt) + plain[0]
    with torch.inference_mode():
        scores = loaded.model(input_ids=torch.tensor([start + plain[1]])).logits[0].float().log_softmax(dim=-1)
    return -sum(float(scores[len(start) + place - 1, token]) for place, token in enumerate(plain[1]))


@pytest.mark.parametrize("loaded", [*CONFIGS, *OF_ONE_ROW], indirect=True)
def test_likelihoods_are_those_of_a_full_computation(loaded: LoadedModel) -> None:
    texts = ["the printer", "x", "reset the password now please", ""]
    ranked = continuation_likelihoods(loaded, PROMPTS[0], "Please ", texts, batch_size=3)
    expected = [computed_whole(loaded, PROMPTS[0], "Please ", text) for text in texts]
    assert [likelihood.nll for likelihood in ranked] == pytest.approx(expected, rel=1e-4)
    replies = [f"Please restart {number}" for number in range(6)]
    scored = reply_likelihoods(loaded, PROMPTS, replies, batch_size=6)
    expected = [computed_whole(loaded, prompt, "", reply) for prompt, reply in zip(PROMPTS, replies, strict=True)]
    assert [likelihood.nll for likelihood in scored] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loaded", [*CONFIGS, *OF_ONE_ROW], indirect=True)
def test_replies_in_a_batch_are_those_of_each_prompt_alone(loaded: LoadedModel) -> None:
    # A part of all tokens end a reply, so that rows end at different places and the rest continue without them.
    loaded.model.config.eos_token_id = list(range(0, 551, 3))
    together = generate_replies(loaded, PROMPTS, max_new_tokens=12, batch_size=6)
    alone = [generate_replies(loaded, [prompt], max_new_tokens=12, batch_size=1)[0] for prompt in PROMPTS]
    assert [(reply.text, reply.num_new_tokens) for reply in together] == [
        (reply.text, reply.num_new_tokens) for reply in alone
    ]


def test_the_context_is_that_of_the_text_configuration(tmp_path: Path) -> None:
    assert load_model(build_tiny_base("gemma3", tmp_path), None).max_tokens == 256
