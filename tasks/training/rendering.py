"""Rows as the token sequences a trainer learns from, and which of those tokens count.

Only the reply is learned. Its first token is where the whole conversation's tokens part from the prompt's own, so this
works with every chat template, with or without generation markers. What a template writes after the end-of-turn token
(ChatML: a line break) is cut: a model never gets to generate it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import ModelNotFoundError
from tasks.core.rows import Row, prompt_messages, reply
from tasks.modeling.prompts import conversation_token_ids, prompt_token_ids

IGNORED = -100
"""The label of a token that does not count (PyTorch's cross-entropy default)."""

# Rows are drawn in an order that depends on their lengths before they are cut (``uncut_length``), so that a training that
# goes on with a shorter length, for want of memory, goes on in the same order.


@dataclass(frozen=True)
class Example:
    """One SFT row: prompt tokens, then reply tokens."""

    prompt_ids: list[int]
    reply_ids: list[int]
    truncated: bool = False
    row_id: str = ""
    uncut_length: int = 0

    @property
    def input_ids(self) -> list[int]:
        """The whole sequence."""
        return self.prompt_ids + self.reply_ids

    @property
    def labels(self) -> list[int]:
        """The sequence with every prompt token ignored."""
        return [IGNORED] * len(self.prompt_ids) + self.reply_ids

    def __len__(self) -> int:
        """Tokens in the sequence."""
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True)
class Pair:
    """One preference row: a prompt and two replies."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    truncated: bool = False
    row_id: str = ""
    uncut_length: int = 0

    def __len__(self) -> int:
        """Tokens of both sequences, the prompt twice, as they are computed."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class RatedReply:
    """One reply of a preference row by itself: a prompt, a reply, and whether it is wanted."""

    prompt_ids: list[int]
    reply_ids: list[int]
    wanted: bool
    truncated: bool = False
    row_id: str = ""
    uncut_length: int = 0

    @property
    def input_ids(self) -> list[int]:
        """The whole sequence."""
        return self.prompt_ids + self.reply_ids

    def __len__(self) -> int:
        """Tokens in the sequence."""
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True)
class Prompt:
    """A prompt whose reply is still to be drawn, with what the reply is judged by."""

    input_ids: list[int]
    messages: list[dict[str, str]]
    reference: str
    label: str | None
    num_new_tokens: int
    truncated: bool = False
    row_id: str = ""
    uncut_length: int = 0

    def __len__(self) -> int:
        """Tokens of the longest sequence that it may become."""
        return len(self.input_ids) + self.num_new_tokens


Rendered = Example | Pair | RatedReply


def render_rows(
    method: str,
    tokenizer: Any,
    rows: Iterable[Row],
    *,
    stops: Collection[int],
    max_length: int,
    max_new_tokens: int = 0,
) -> list[Rendered | Prompt]:
    """Rows as what a method learns from.

    ``sft`` learns from examples, ``dpo`` from pairs, ``kto`` from both replies of a pair, ``grpo`` from prompts and what is
    drawn to them, up to ``max_new_tokens``.
    """
    rendered: list[Rendered | Prompt] = []
    for row in rows:
        if method == "sft":
            rendered.append(render_example(tokenizer, row, stops=stops, max_length=max_length))
        elif method == "dpo":
            rendered.append(render_pair(tokenizer, row, stops=stops, max_length=max_length))
        elif method == "grpo":
            rendered.append(render_prompt(tokenizer, row, max_length=max_length, max_new_tokens=max_new_tokens))
        else:
            rendered.extend(render_replies(tokenizer, row, stops=stops, max_length=max_length))
    return rendered


def stop_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """The tokens at which generation stops: the tokenizer's end of sequence and those of the generation settings."""
    stops = getattr(generation_config, "eos_token_id", None)
    listed = stops if isinstance(stops, list) else [stops]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


def render_example(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> Example:
    """An SFT row as tokens, cut at ``max_length`` (the reply loses its end, and with it the stop token)."""
    prompt_ids, (reply_ids,) = _render(tokenizer, prompt_messages(row), [row["messages"][-1]], stops)
    room = max(0, max_length - len(prompt_ids))
    uncut = len(prompt_ids) + len(reply_ids)
    return Example(
        prompt_ids[:max_length], reply_ids[:room], truncated=uncut > max_length, row_id=str(row["id"]), uncut_length=uncut
    )


def render_pair(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> Pair:
    """A preference row as tokens, each reply cut where prompt and reply exceed ``max_length``."""
    prompt_ids, (chosen_ids, rejected_ids) = _render(
        tokenizer, prompt_messages(row), [row["chosen"][-1], row["rejected"][-1]], stops
    )
    room = max(0, max_length - len(prompt_ids))
    longest = len(prompt_ids) + max(len(chosen_ids), len(rejected_ids))
    return Pair(
        prompt_ids[:max_length],
        chosen_ids[:room],
        rejected_ids[:room],
        truncated=longest > max_length,
        row_id=str(row["id"]),
        uncut_length=2 * len(prompt_ids) + len(chosen_ids) + len(rejected_ids),
    )


def render_replies(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> tuple[RatedReply, RatedReply]:
    """Both replies of a preference row by themselves, each cut at ``max_length``; their ids end in the column's name."""
    names = ("chosen", "rejected")
    prompt_ids, replies = _render(tokenizer, prompt_messages(row), [row[name][-1] for name in names], stops)
    room = max(0, max_length - len(prompt_ids))
    chosen, rejected = (
        RatedReply(
            prompt_ids[:max_length],
            reply_ids[:room],
            wanted=name == "chosen",
            truncated=len(prompt_ids) + len(reply_ids) > max_length,
            row_id=f"{row['id']}:{name}",
            uncut_length=len(prompt_ids) + len(reply_ids),
        )
        for name, reply_ids in zip(names, replies, strict=True)
    )
    return chosen, rejected


def render_prompt(tokenizer: Any, row: Row, *, max_length: int, max_new_tokens: int) -> Prompt:
    """A row's prompt; one that leaves no room for the longest reply within ``max_length`` gets no new tokens."""
    ids = prompt_token_ids(tokenizer, prompt_messages(row))
    fits = len(ids) + max_new_tokens <= max_length
    return Prompt(
        ids, prompt_messages(row), reply(row), row.get("label"), max_new_tokens if fits else 0, row_id=str(row["id"])
    )


def _render(
    tokenizer: Any, prompt: list[dict[str, str]], replies: Sequence[Row], stops: Collection[int]
) -> tuple[list[int], list[list[int]]]:
    prompt_ids = prompt_token_ids(tokenizer, prompt)
    wholes = [conversation_token_ids(tokenizer, [*prompt, {str(k): str(v) for k, v in reply.items()}]) for reply in replies]
    shared = min(_common_length(prompt_ids, whole) for whole in wholes)
    if shared == 0:
        raise ModelNotFoundError(
            "training.base_model",
            "a chat template that writes a prompt and the same prompt with its reply differently from the first token on",
            "a template whose prompt is the start of the conversation",
            "Set `base_model.chat_template`.",
        )
    return prompt_ids[:shared], [_end_at_stop(whole[shared:], stops, tokenizer.eos_token_id) for whole in wholes]


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))


def _end_at_stop(ids: list[int], stops: Collection[int], eos: int) -> list[int]:
    """The reply up to and with its last stop token; the end-of-sequence token is added when the template writes none."""
    for index in range(len(ids) - 1, -1, -1):
        if ids[index] in stops:
            return ids[: index + 1]
    return [*ids, eos]
