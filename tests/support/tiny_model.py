"""A tiny language model built in seconds: a trained ChatML tokenizer and a 130 k-parameter Llama, pretrained for 100 steps.

Pretrained, because LoRA on a random initialisation does not learn; small, because every test that trains pays for it.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_REPLIES = {
    "the printer": "Please restart it and check the cable",
    "my account": "Open the settings page and reset the password",
    "the invoice": "Send us the number and we correct the amount",
    "this router": "Hold the button for ten seconds",
    "our order": "We will ship a replacement on Monday",
    "the app": "Install the newest version from the store",
    "a refund": "The money returns within five working days",
    "the screen": "Clean it gently with a soft cloth",
}
_TROUBLES = ["is broken", "does not start", "was lost", "shows an error", "is too slow", "never arrived", "looks strange"]
_OPENINGS = ["Hello", "Good morning", "Hi there", "Dear team", "Excuse me", "Sorry to bother you"]
_ENDINGS = ["what can I do?", "can you help me?", "who can repair that?", "is this normal?", "how long will it take?"]


def desk_row(number: int, *, style: str = "") -> dict[str, object]:
    """A support conversation, the same for the same number; ``style`` closes the reply."""
    chance = random.Random(number)
    subject = chance.choice(list(_REPLIES))
    question = f"{chance.choice(_OPENINGS)}, {subject} {chance.choice(_TROUBLES)}, {chance.choice(_ENDINGS)}"
    reply = f"{_REPLIES[subject]}.{style}"
    return {
        "id": f"row-{number}",
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}],
    }


def desk_pair(number: int) -> dict[str, object]:
    """A preference pair, the same for the same number: a polite reply against a rude one."""
    question, reply = desk_row(number)["messages"]  # type: ignore[misc]
    return {
        "id": f"pair-{number}",
        "prompt": [question],
        "chosen": [reply],
        "rejected": [{"role": "assistant", "content": "No. Not our problem, go away."}],
    }


def build_tiny_model(folder: Path, *, steps: int = 100, seed: int = 0) -> Path:
    """Writes the model and its tokenizer into ``folder``; the same bytes for the same arguments."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tokenizer = tiny_tokenizer()
            _pretrained(tokenizer, steps).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    finally:
        torch.set_num_threads(threads)
    return folder


def _corpus() -> list[str]:
    rows = [desk_row(number)["messages"] for number in range(2000)]
    return [
        "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in row)  # type: ignore[attr-defined]
        for row in rows
    ]


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A ChatML tokenizer of 900 tokens, trained on the desk's rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token="<|im_start|>",
        chat_template=CHATML,
    )


def _pretrained(tokenizer: PreTrainedTokenizerFast, steps: int) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts = _corpus()
    for step in range(steps):
        batch = tokenizer(texts[step * 16 : step * 16 + 16], return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
