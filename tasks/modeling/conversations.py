"""Conversations as text and tokens: one rendering for training, generation, likelihoods and serving.

Every stage must show a model the same prompt for the same row, so every stage calls this module. The template is the
prepared one (:mod:`tasks.modeling.templates`). Contents are text alone: `<|im_end|>` in a message never becomes the token
that ends a turn.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from tasks.core.errors import ConfigError, InputError, ModelNotFoundError
from tasks.modeling.templates import PLACEHOLDER, prepared, reply_form
from tasks.modeling.tool_templates import for_template

Messages = Sequence[Mapping[str, Any]]
"""Canonical messages; one of role ``tools`` states what may be called."""

_MARK = "\ue0c7"
"""A private character that marks a control token's text inside a message while the template renders it."""
_ANCHOR = "\n"
"""What a piece of text is tokenised behind, so that no tokenizer takes it for the start of a text and adds a space."""
_MAX_SHOWN_TOKENS = 12

_added_tokens: weakref.WeakKeyDictionary[Any, tuple[tuple[str, bool], ...]] = weakref.WeakKeyDictionary()


def render_prompt(tokenizer: Any, messages: Messages) -> str:
    """The text that the model continues: the conversation through the chat template, then the start of its turn.

    Tokenise it with :func:`prompt_token_ids`, which keeps control tokens in a message apart from those of the template.

    Raises:
        ModelNotFoundError: The tokenizer has no chat template, or it refuses these roles.
    """
    return re.sub(f"{_MARK}({_MARK}?)", r"\1", _render(tokenizer, messages, add_generation_prompt=True))


def prompt_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """:func:`render_prompt` as tokens."""
    return _encode(tokenizer, _render(tokenizer, messages, add_generation_prompt=True))


def conversation_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """A whole conversation, reply included, as tokens."""
    return _encode(tokenizer, _render(tokenizer, messages, add_generation_prompt=False))


def plain_token_ids(tokenizer: Any, text: str) -> list[int]:
    """A reply's text by itself as tokens, its control tokens spelled out."""
    return _encode(tokenizer, _mark(tokenizer, "assistant", text))


def render_conversation(tokenizer: Any, messages: Messages) -> None:
    """Renders a conversation and its prompt, to see that the template accepts them; tokenises contents with control tokens.

    Raises:
        ModelNotFoundError: The template refuses the conversation.
        InputError: The tokenizer cannot spell out a control token that stands in a message.
    """
    for part, is_prompt in ((messages[:-1], True), (messages, False)):
        if _MARK in (text := _render(tokenizer, part, add_generation_prompt=is_prompt)):
            _encode(tokenizer, text)


def reply_token_ids(tokenizer: Any, prompt: Messages, given: str | Mapping[str, Any]) -> list[int]:
    """The tokens of a reply, a text or a message, as training learns them after this prompt, without the end of the turn."""
    message = {"role": "assistant", "content": given} if isinstance(given, str) else given
    if not message["content"] and not message.get("tool_calls"):
        return []
    _, [reply_ids] = split_replies(tokenizer, prompt, [message], stop_token_ids(tokenizer, None))
    return reply_ids[:-1]


def reply_as_written(tokenizer: Any, prompt: Messages, message: Mapping[str, Any]) -> str:
    """The text of a reply as a model that has learned it writes it: calls in the form of the chat template."""
    return str(tokenizer.decode(reply_token_ids(tokenizer, prompt, message), skip_special_tokens=True)).strip()


def stop_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """The tokens that end generation: end of sequence, those of the generation config, and the template's end of turn."""
    stops = getattr(generation_config, "eos_token_id", None)
    listed = stops if isinstance(stops, list) else [stops]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id, _end_of_turn(tokenizer)] if token is not None)


def split_replies(
    tokenizer: Any, prompt: Messages, replies: Sequence[Mapping[str, Any]], stops: Collection[int]
) -> tuple[list[int], list[list[int]]]:
    """The tokens of a prompt, and of each reply to it up to and with its first stop token.

    The prompt's tokens are those that generation starts from; the reply's are what the conversation adds. Where a template
    writes a given reply differently (it cuts a chain of thought, say), the reply is its own text and the end of the turn.
    What a template writes after the stop token (ChatML: a line break) is cut, because a model never generates it. A template
    that writes no stop token gets the end of sequence.

    Args:
        tokenizer: The base model's tokenizer.
        prompt: The conversation before the reply.
        replies: Messages of the assistant, each an alternative.
        stops: See :func:`stop_token_ids`.

    Raises:
        ModelNotFoundError: The tokenizer has no chat template, or the template refuses the roles.
        ConfigError: The template writes the conversation before a reply differently from the prompt.
    """
    prompt_text = _render(tokenizer, prompt, add_generation_prompt=True)
    prompt_ids = _encode(tokenizer, prompt_text)
    ends = {*stops, tokenizer.eos_token_id}
    split = []
    for reply in replies:
        message = {**reply, "content": str(reply["content"])}
        text = _render(tokenizer, [*prompt, message], add_generation_prompt=False)
        content = _mark(tokenizer, "assistant", message["content"]).strip()
        if not (text.startswith(prompt_text) and content in text[len(prompt_text) :]):
            if message.get("tool_calls"):
                raise _refusal([*prompt, message])
            text = _written_out(tokenizer, prompt, prompt_text, message)
        ids = _encode(tokenizer, text)
        if ids[: len(prompt_ids)] == prompt_ids:
            reply_ids = ids[len(prompt_ids) :]
        else:  # Text and prompt share a token at their border; generation starts behind the prompt's own tokens.
            reply_ids = _encode(tokenizer, text[len(prompt_text) :], follows=True)
        split.append(_end_at_stop(reply_ids, ends, tokenizer.eos_token_id))
    return prompt_ids, split


def _written_out(tokenizer: Any, prompt: Messages, prompt_text: str, message: Mapping[str, str]) -> str:
    """Prompt, reply and end of turn, put together here because the template changes this reply."""
    start, _, end = _render(
        tokenizer, [*prompt, {**message, "content": PLACEHOLDER}], add_generation_prompt=False
    ).rpartition(PLACEHOLDER)
    if not start.startswith(prompt_text):
        raise differing_starts(tokenizer, prompt)
    return f"{start}{_mark(tokenizer, 'assistant', message['content'])}{end}"


def differing_starts(tokenizer: Any, prompt: Messages) -> ConfigError:
    """The error for a template that starts a reply differently in training and in generation; it quotes no message."""
    plain = [{**message, "content": f"text {number}"} for number, message in enumerate(prompt)]
    reply = {"role": "assistant", "content": PLACEHOLDER}
    learned = _render(tokenizer, [*plain, reply], add_generation_prompt=False).rpartition(PLACEHOLDER)[0]
    prompted = _render(tokenizer, plain, add_generation_prompt=True)
    shown = [_shown(tokenizer, text, other) for text, other in ((prompted, learned), (learned, prompted))]
    return ConfigError(
        "training.base_model.chat_template",
        f"a template that starts a reply with {shown[0]} in generation and with {shown[1]} in a conversation",
        "the same tokens before a reply in training and in generation",
        "Set `base_model.chat_template` to one that writes both alike (for instance `chatml`).",
    )


def _shown(tokenizer: Any, text: str, other: str) -> str:
    """The tokens of a text, as ids and pieces, from the first one that differs from the other text's."""
    ids, others = _encode(tokenizer, text), _encode(tokenizer, other)
    first = next((n for n, (left, right) in enumerate(zip(ids, others, strict=False)) if left != right), len(others))
    part = ids[max(0, first - 1) : first + _MAX_SHOWN_TOKENS]
    return f"{part} {tokenizer.convert_ids_to_tokens(part)}"


def _end_at_stop(reply_ids: list[int], stops: Collection[int], eos: int) -> list[int]:
    """The reply up to and with its first stop token, or with the end of sequence added when it has none."""
    for index, token in enumerate(reply_ids):
        if token in stops:
            return reply_ids[: index + 1]
    return [*reply_ids, eos]


def _end_of_turn(tokenizer: Any) -> int | None:
    """The first control token that the template writes after a reply."""
    if not tokenizer.chat_template:
        return None
    form = reply_form(default_template_of(tokenizer))
    special = set(tokenizer.all_special_ids) | {
        tokenizer.convert_tokens_to_ids(text) for text, is_special in _added(tokenizer) if is_special
    }
    ids = _encode(tokenizer, form.end, follows=True) if form else []
    return next((token for token in ids if token in special), None)


# -------------------------------------------------------------------------------------------------------------- rendering


def _render(tokenizer: Any, messages: Messages, *, add_generation_prompt: bool) -> str:
    """The conversation's text, with :data:`_MARK` before each control token's text that a message holds."""
    turns, tools = for_template(messages)
    try:
        return str(
            tokenizer.apply_chat_template(
                [_mark(tokenizer, turn["role"], turn) for turn in turns],
                tools=_mark(tokenizer, "system", tools),
                chat_template=default_template_of(tokenizer),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )
    except TemplateError as error:
        raise _refusal(messages) from error


def _refusal(messages: Messages) -> ModelNotFoundError:
    roles = ", ".join(message["role"] + (" with calls" if message.get("tool_calls") else "") for message in messages)
    return ModelNotFoundError(
        "training.base_model",
        f"a chat template that refuses a conversation with the roles {roles}",
        "a template for system, user and assistant messages in the order of the data",
        "Set `base_model.chat_template`, or leave out the roles that the model does not know.",
    )


def default_template_of(tokenizer: Any) -> str:
    """The tokenizer's default template, prepared."""
    templates = tokenizer.chat_template
    if isinstance(templates, Mapping):
        templates = templates.get("default")
    if not templates:
        raise no_template()
    return prepared(templates)


def no_template() -> ModelNotFoundError:
    """The error for a base model that does not say how a conversation is written."""
    return ModelNotFoundError(
        "training.base_model",
        "a tokenizer without a chat template",
        "one that says how a conversation is written",
        "Use the model's instruction-tuned release, or set `base_model.chat_template` (for instance to `chatml`).",
    )


def _mark(tokenizer: Any, role: str, value: Any) -> Any:
    """A text, or each text in a message or a tool, with each control token's text marked.

    In a reply only special tokens are control tokens: a reply may hold `<think>` or a tool call on purpose. Elsewhere the
    other added tokens that the template writes are control tokens too.
    """
    if isinstance(value, str):
        pattern = _control_pattern(_added(tokenizer), "" if role == "assistant" else default_template_of(tokenizer))
        return pattern.sub(lambda found: _MARK + found[0], value)
    if isinstance(value, Mapping):
        return {key: item if key == "role" else _mark(tokenizer, role, item) for key, item in value.items()}
    return [_mark(tokenizer, role, item) for item in value] if isinstance(value, list) else value


def _added(tokenizer: Any) -> tuple[tuple[str, bool], ...]:
    """The tokens that a tokenizer finds in a text before it splits it, each with whether it is special."""
    if tokenizer not in _added_tokens:
        tokens = tokenizer.added_tokens_decoder.values()
        found = {str(token): bool(token.special) for token in tokens} | dict.fromkeys(tokenizer.all_special_tokens, True)
        _added_tokens[tokenizer] = tuple(found.items())
    return _added_tokens[tokenizer]


@functools.lru_cache(maxsize=64)
def _control_pattern(added: tuple[tuple[str, bool], ...], template: str) -> re.Pattern[str]:
    texts = [text for text, is_special in added if text.strip() and (is_special or text in template)]
    # The longest first: the one that a tokenizer would find.
    return re.compile("|".join(map(re.escape, [*sorted(texts, key=len, reverse=True), _MARK])))


# ------------------------------------------------------------------------------------------------------------ tokenisation


def _encode(tokenizer: Any, text: str, *, follows: bool = False) -> list[int]:
    """The tokens of rendered text; marked control tokens become the tokens of their letters.

    Args:
        tokenizer: The base model's tokenizer.
        text: From :func:`_render`.
        follows: Whether other text stands before it.
    """
    if _MARK not in text:
        return _plain_ids(tokenizer, text, follows=follows)
    pattern = _control_pattern(_added(tokenizer), default_template_of(tokenizer))
    ids: list[int] = []
    end = 0
    for found in re.finditer(f"{_MARK}({pattern.pattern})?", text):
        # A mark that the template has parted from its text (by splitting a reply at `</think>`) marks nothing any more.
        for part, is_control in ((text[end : found.start()], False), (found[1], found[1] != _MARK)):
            if part:
                encode = _letters_ids if is_control else _plain_ids
                ids += encode(tokenizer, part, follows=follows or bool(ids))
        end = found.end()
    return ids + (_plain_ids(tokenizer, text[end:], follows=True) if text[end:] else [])


def _letters_ids(tokenizer: Any, text: str, *, follows: bool) -> list[int]:
    """A control token's text as ordinary tokens: its first letter and the rest apart, neither of which is the token.

    `split_special_tokens` does the same for some kinds of tokenizer, and for special tokens alone.
    """
    pattern = _control_pattern(_added(tokenizer), default_template_of(tokenizer))
    rest = pattern.sub(lambda found: _MARK + found[0], text[1:])
    ids = _plain_ids(tokenizer, text[:1], follows=follows) + (_encode(tokenizer, rest, follows=True) if rest else [])
    if any(str(tokenizer.convert_ids_to_tokens(token)) == text for token in ids):
        raise InputError(
            "training.base_model",
            f"a text with the control token {text!r}, which the tokenizer cannot spell out",
            "texts without control tokens",
            "Leave out such rows, or use a tokenizer whose control tokens are longer than a character.",
        )
    return ids


def _plain_ids(tokenizer: Any, text: str, *, follows: bool) -> list[int]:
    if follows:
        anchor, anchored = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (_ANCHOR, _ANCHOR + text))
        if anchored[: len(anchor)] == anchor:
            return [int(token) for token in anchored[len(anchor) :]]
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
