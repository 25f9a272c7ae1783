"""Conversations as text and tokens: one rendering for training, generation and likelihoods.

Every stage must show a model the same prompt for the same row, so every stage calls this module. The rendering is the same
on any day: some templates write today's date into the system prompt, which would make tokens and replies depend on the date.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from tasks.core.errors import ModelNotFoundError

Messages = Sequence[Mapping[str, str]]

_FIXED_DATE: Mapping[str, str] = {
    **{"%F": "2024-07-26", "%D": "07/26/24", "%T": "00:00:00", "%R": "00:00", "%x": "07/26/24", "%X": "00:00:00"},
    **{"%c": "Fri Jul 26 00:00:00 2024", "%-d": "26", "%-m": "7", "%-H": "0", "%-I": "12", "%e": "26", "%j": "208"},
    **{"%d": "26", "%m": "07", "%b": "Jul", "%h": "Jul", "%B": "July", "%y": "24", "%Y": "2024", "%a": "Fri"},
    **{"%A": "Friday", "%u": "5", "%w": "5", "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%f": "000000"},
    **{"%Z": "UTC", "%z": "+0000", "%s": "1721952000"},
}
"""26 July 2024 by ``strftime`` directive: the date that Llama's templates write when they receive none."""
_CLOCK = "strftime_now"
"""The function that gives a template the time (``transformers/utils/chat_template_utils.py``)."""
_STOPPED_CLOCK = (
    f"{{% macro {_CLOCK}(format) %}}{{{{ format"
    + "".join(f" | replace('{directive}', '{value}')" for directive, value in _FIXED_DATE.items())
    + " }}{% endmacro %}\n"
)


def on_a_fixed_date(template: str) -> str:
    """The chat template, changed to write the same date on any day; unchanged when it writes no date.

    A macro that shadows the clock is part of the template, so that a library that renders it gets the fixed date too.
    """
    return _STOPPED_CLOCK + template if _CLOCK in template and not template.startswith(_STOPPED_CLOCK) else template


def render_prompt(tokenizer: Any, messages: Messages) -> str:
    """The text that the model continues: the conversation through the chat template, then the start of its turn.

    Tokenise it with ``add_special_tokens=False``: the template writes the special tokens itself.

    Raises:
        ModelNotFoundError: The tokenizer has no chat template, or it refuses these roles.
    """
    return str(_apply(tokenizer, messages, tokenize=False, add_generation_prompt=True))


def prompt_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """:func:`render_prompt` as tokens."""
    return _ids(_apply(tokenizer, messages, tokenize=True, add_generation_prompt=True))


def conversation_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """A whole conversation, reply included, as tokens."""
    return _ids(_apply(tokenizer, messages, tokenize=True, add_generation_prompt=False))


def stop_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """The tokens that end generation: the tokenizer's end of sequence and those of the generation config."""
    stops = getattr(generation_config, "eos_token_id", None)
    listed = stops if isinstance(stops, list) else [stops]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


def split_replies(
    tokenizer: Any, prompt: Messages, replies: Sequence[Mapping[str, Any]], stops: Collection[int]
) -> tuple[list[int], list[list[int]]]:
    """The tokens of a prompt, and of each reply to it up to and with its last stop token.

    A reply's first token is where the tokens of the whole conversation part from those of the prompt. This works with every
    chat template, with or without generation markers. What a template writes after the stop token (ChatML: a line break) is
    cut, because a model never generates it. A template that writes no stop token gets the end of sequence.

    Args:
        tokenizer: The base model's tokenizer.
        prompt: The conversation before the reply.
        replies: Messages of the assistant, each an alternative.
        stops: See :func:`stop_token_ids`.

    Raises:
        ModelNotFoundError: The tokenizer has no chat template, the template refuses the roles, or prompt and conversation
            share no first token.
    """
    prompt_ids = prompt_token_ids(tokenizer, prompt)
    conversations = [
        conversation_token_ids(tokenizer, [*prompt, {str(key): str(value) for key, value in reply.items()}])
        for reply in replies
    ]
    shared = min(_common_length(prompt_ids, conversation) for conversation in conversations)
    if shared == 0:
        raise ModelNotFoundError(
            "training.base_model",
            "a chat template that writes a prompt and the same prompt with its reply differently from the first token on",
            "a template whose prompt is the start of the conversation",
            "Set `base_model.chat_template`.",
        )
    eos = tokenizer.eos_token_id
    return prompt_ids[:shared], [_end_at_stop(conversation[shared:], stops, eos) for conversation in conversations]


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return index
    return min(len(first), len(second))


def _end_at_stop(reply_ids: list[int], stops: Collection[int], eos: int) -> list[int]:
    """The reply up to and with its last stop token, or with the end of sequence added when it has none."""
    for index in range(len(reply_ids) - 1, -1, -1):
        if reply_ids[index] in stops:
            return reply_ids[: index + 1]
    return [*reply_ids, eos]


def _apply(tokenizer: Any, messages: Messages, **options: Any) -> Any:
    if not tokenizer.chat_template:
        raise ModelNotFoundError(
            "training.base_model",
            "a tokenizer without a chat template",
            "one that says how a conversation is written",
            "Use the model's instruction-tuned release, or set `base_model.chat_template` (for instance to `chatml`).",
        )
    try:
        template = on_a_fixed_date(tokenizer.get_chat_template())
        return tokenizer.apply_chat_template([dict(message) for message in messages], chat_template=template, **options)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ModelNotFoundError(
            "training.base_model",
            f"a chat template that refuses a conversation with the roles {roles}",
            "a template for system, user and assistant messages in the order of the data",
            "Set `base_model.chat_template`, or leave out the roles that the model does not know.",
        ) from error


def _ids(encoded: Any) -> list[int]:
    ids = encoded["input_ids"] if isinstance(encoded, Mapping) else encoded
    return [int(token) for token in ids]
