"""Conversations as the text and tokens a model is trained on and asked with: one rendering for every stage.

Training, the benchmark and the label audit must show a model the same prompt for the same row; they all call this module.
On any day, too: some templates write today's date into the system prompt, and then the tokens that are trained on and the
replies that are scored would depend on when they were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""26 July 2024, which Llama's templates name themselves where they are told no date, by the directive that asks for it."""
_CLOCK = "strftime_now"
"""The function by which transformers tells a template the time (``transformers/utils/chat_template_utils.py``)."""
_STOPPED_CLOCK = (
    f"{{% macro {_CLOCK}(format) %}}{{{{ format"
    + "".join(f" | replace('{directive}', '{value}')" for directive, value in _FIXED_DATE.items())
    + " }}{% endmacro %}\n"
)


def on_a_fixed_date(template: str) -> str:
    """A chat template that writes the same date on any day; as it is when it writes none.

    A macro of the clock's name goes before the others, so that whoever renders the template, a library too, gets the date.
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
