"""Conversations as the text and tokens a model is trained on and asked with: one rendering for every stage.

Training, the benchmark and the label audit must show a model the same prompt for the same row; they all call this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from tasks.errors import ModelNotFoundError

Messages = Sequence[Mapping[str, str]]


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


def _apply(tokenizer: Any, messages: Messages, **options: Any) -> Any:
    if not tokenizer.chat_template:
        raise ModelNotFoundError(
            "training.base_model",
            "a tokenizer without a chat template",
            "one that says how a conversation is written",
            "Use the model's instruction-tuned release, or set `base_model.chat_template` (for instance to `chatml`).",
        )
    try:
        return tokenizer.apply_chat_template([dict(message) for message in messages], **options)
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
