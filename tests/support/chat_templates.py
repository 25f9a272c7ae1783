"""Chat templates that people fine-tune with, each with a small tokenizer that knows its control tokens.

The texts are those that the models were published with, without their tool calls; TRL ships nine of them whole.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_model import CHATML, desk_row


def _of_trl(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
_LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    + _ALTERNATE
    + "{% if loop.index0 == 0 and "
    "system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL_1 = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
_MISTRAL_3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}" + _ALTERNATE + "{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + eos_token }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported') }}{%- endif %}{%- endfor %}"
)
_TEKKEN = (
    "{{- bos_token }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{- '[INST]' + message['content'] + '[/INST]' }}{%- elif message['role'] == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' }}{%- elif message['role'] == 'assistant' %}"
    "{{- message['content'] + eos_token }}{%- else %}"
    "{{- raise_exception('Only user, system and assistant roles are supported!') }}{%- endif %}{%- endfor %}"
)
_PHI_4 = (
    "{% for message in messages %}{% if (message['role'] == 'system') %}"
    "{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}"
    "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
    "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_GRANITE_3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}"
    "{%- set system_message = \"Knowledge Cutoff Date: April 2024.\nToday's Date: \" + strftime_now('%B %d, %Y') + "
    '".\nYou are Granite, developed by IBM. You are a helpful AI assistant." %}{%- set loop_messages = messages %}'
    "{%- endif %}{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}"
    "{%- for message in loop_messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}"
    "{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{{- '<|end_of_role|>' }}{%- endif %}"
    "{%- endfor %}"
)
_ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
_VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}{% set loop_messages = messages[1:] %}"
    "{% else %}{{ 'A chat between a curious user and an artificial intelligence assistant. ' }}"
    "{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + message['content'].strip() + ' ' }}{% else %}"
    "{{ 'ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A chat template and what its tokenizer is like.

    Attributes:
        template: The text as published.
        special: Control tokens; the first two are the beginning and the end of a sequence.
        added: Tokens that are not special, such as ``<think>``.
        sentencepiece: Whether words carry their space as ``▁``, with one before the text's first word.
        learns_all: Whether every reply of a conversation can be learned.
        end: What ends a turn, when that is another token than the end of a sequence.
    """

    template: str
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    sentencepiece: bool = False
    learns_all: bool = True
    end: str | None = None


_IM = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
_INST = ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
_GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_HEADERS = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
_COHERE = ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
_HARMONY = ("<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>")
FAMILIES = {
    "chatml": Family(CHATML, _IM),
    "llama-2": Family(_LLAMA_2, ("<s>", "</s>"), sentencepiece=True),
    "llama-3.2": Family(_of_trl("llama3_2"), _HEADERS),
    "mistral-0.1": Family(_MISTRAL_1, ("<s>", "</s>"), sentencepiece=True),
    "mistral-0.3": Family(_MISTRAL_3, _INST[:4], sentencepiece=True),
    "mistral-tekken": Family(_TEKKEN, _INST),
    "gemma-2": Family(_of_trl("gemma"), _GEMMA, sentencepiece=True, end="<end_of_turn>"),
    "gemma-3": Family(_of_trl("gemma3"), _GEMMA, sentencepiece=True, end="<end_of_turn>"),
    "phi-3": Family(
        _of_trl("phi3"), ("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), end="<|end|>"
    ),
    "phi-4": Family(_PHI_4, (*_IM, "<|im_sep|>")),
    "qwen-2.5": Family(_of_trl("qwen2_5"), _IM, ("<tool_call>", "</tool_call>")),
    "qwen-3": Family(_of_trl("qwen3"), _IM, ("<think>", "</think>", "<tool_call>", "</tool_call>"), learns_all=False),
    "deepseek-r1": Family(
        _of_trl("deepseek_r1_distill"),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        ("<think>", "</think>"),
    ),
    "granite-3": Family(_GRANITE_3, ("<fim>", "<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")),
    "gpt-oss": Family(_of_trl("gptoss"), _HARMONY, learns_all=False),
    "zephyr": Family(_ZEPHYR, ("<s>", "</s>"), sentencepiece=True),
    "vicuna": Family(_VICUNA, ("<s>", "</s>"), sentencepiece=True),
    "command-r": Family(_of_trl("cohere"), (*_COHERE, "<|SYSTEM_TOKEN|>")),
}


@functools.cache
def tokenizer_of(name: str) -> Any:
    """The family's tokenizer with its template as published; the same object for the same name, so do not change it."""
    family = FAMILIES[name]
    texts = [str(message["content"]) for number in range(300) for message in desk_row(number)["messages"]]  # type: ignore[attr-defined]
    if family.sentencepiece:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        first = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        alphabet = [chr(code) for code in range(33, 127)]
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        first, alphabet = [], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if first:  # Bytes are tokens of the vocabulary, not added ones, or a text could spell them.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] == "<unk>"]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in family.special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.added])
    bos, eos = family.special[:2]
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos)
    wrapped.chat_template = family.template
    return wrapped
