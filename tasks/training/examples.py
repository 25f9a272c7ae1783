"""Rows as the token sequences that a method learns from, and which of those tokens are learned: the reply's alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from tasks.core.rows import Row, prompt_messages, reply
from tasks.modeling.conversations import prompt_token_ids, split_replies

IGNORED = -100
"""The label of a token that is not learned (PyTorch's cross-entropy default)."""


@dataclass(frozen=True, kw_only=True)
class _FromRow:
    """Where tokens come from.

    Attributes:
        truncated: Whether tokens were cut at the longest allowed length.
        row_id: The row's id.
        uncut_length: Tokens before the cut. Row order depends on it, so that a training that resumes with a shorter length
            keeps its order.
    """

    truncated: bool = False
    row_id: str = ""
    uncut_length: int = 0


@dataclass(frozen=True)
class Example(_FromRow):
    """One SFT row: prompt tokens, then reply tokens."""

    prompt_ids: list[int]
    reply_ids: list[int]

    @property
    def input_ids(self) -> list[int]:
        """The whole sequence."""
        return self.prompt_ids + self.reply_ids

    @property
    def labels(self) -> list[int]:
        """The sequence with every prompt token ignored."""
        return [IGNORED] * len(self.prompt_ids) + self.reply_ids

    @property
    def num_learned_tokens(self) -> int:
        """Tokens that are learned."""
        return len(self.reply_ids)

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence that the model sees."""
        return len(self)

    def __len__(self) -> int:
        """Tokens that are computed."""
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True)
class RatedReply(Example):
    """One reply of a preference row by itself; ``desirable`` when it is the chosen one."""

    desirable: bool


@dataclass(frozen=True)
class Pair(_FromRow):
    """One preference row: a prompt and two replies."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def input_ids(self) -> list[int]:
        """All tokens, the prompt's once."""
        return self.prompt_ids + self.chosen_ids + self.rejected_ids

    @property
    def num_learned_tokens(self) -> int:
        """Tokens that are learned; none where one of the replies is empty."""
        return len(self.chosen_ids) + len(self.rejected_ids) if self.chosen_ids and self.rejected_ids else 0

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence that the model sees."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def __len__(self) -> int:
        """Tokens that are computed: the prompt twice, once with each reply."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class Prompt(_FromRow):
    """A prompt whose reply is generated during training, with what rewards the reply."""

    input_ids: list[int]
    messages: list[dict[str, str]]
    reference: str
    label: str | None
    num_new_tokens: int

    @property
    def num_learned_tokens(self) -> int:
        """Tokens that are learned when the reply is as long as it may be."""
        return self.num_new_tokens

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence that the model sees."""
        return len(self)

    def __len__(self) -> int:
        """Tokens of prompt and longest reply."""
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

    ``sft`` learns from examples, ``dpo`` from pairs, ``kto`` from both replies of a pair, and ``grpo`` from prompts and the
    replies that it generates to them, of up to ``max_new_tokens``.
    """
    match method:
        case "sft":
            return [render_example(tokenizer, row, stops=stops, max_length=max_length) for row in rows]
        case "dpo":
            return [render_pair(tokenizer, row, stops=stops, max_length=max_length) for row in rows]
        case "kto":
            return [rated for row in rows for rated in render_replies(tokenizer, row, stops=stops, max_length=max_length)]
        case "grpo":
            return [render_prompt(tokenizer, row, max_length=max_length, max_new_tokens=max_new_tokens) for row in rows]
    raise AssertionError(f"unknown method {method}")


def render_example(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> Example:
    """An SFT row as tokens, cut at ``max_length``: the reply loses its end, and with it the stop token."""
    prompt_ids, [reply_ids] = split_replies(tokenizer, prompt_messages(row), [row["messages"][-1]], stops)
    room = max(0, max_length - len(prompt_ids))
    uncut = len(prompt_ids) + len(reply_ids)
    return Example(
        prompt_ids[:max_length], reply_ids[:room], truncated=uncut > max_length, row_id=str(row["id"]), uncut_length=uncut
    )


def render_pair(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> Pair:
    """A preference row as tokens; each reply is cut where prompt and reply exceed ``max_length``."""
    last_turns = [row["chosen"][-1], row["rejected"][-1]]
    prompt_ids, [chosen_ids, rejected_ids] = split_replies(tokenizer, prompt_messages(row), last_turns, stops)
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


def render_replies(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> list[RatedReply]:
    """The chosen and the rejected reply of a preference row, each cut at ``max_length``; their ids end in the column."""
    columns = ("chosen", "rejected")
    prompt_ids, replies = split_replies(tokenizer, prompt_messages(row), [row[name][-1] for name in columns], stops)
    room = max(0, max_length - len(prompt_ids))
    return [
        RatedReply(
            prompt_ids[:max_length],
            reply_ids[:room],
            desirable=column == "chosen",
            truncated=len(prompt_ids) + len(reply_ids) > max_length,
            row_id=f"{row['id']}:{column}",
            uncut_length=len(prompt_ids) + len(reply_ids),
        )
        for column, reply_ids in zip(columns, replies, strict=True)
    ]


def render_prompt(tokenizer: Any, row: Row, *, max_length: int, max_new_tokens: int) -> Prompt:
    """A row's prompt; it gets no new tokens when the longest reply has no room within ``max_length``."""
    ids = prompt_token_ids(tokenizer, prompt_messages(row))
    fits = len(ids) + max_new_tokens <= max_length
    return Prompt(
        ids, prompt_messages(row), reply(row), row.get("label"), max_new_tokens if fits else 0, row_id=str(row["id"])
    )
