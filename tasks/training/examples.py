"""Rows as the token sequences that a method learns from, and which of those tokens are learned: those of replies alone."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.errors import QualityLimitError
from tasks.core.rows import Row, prompt_messages, reply, reply_messages
from tasks.core.tool_calls import tools_message
from tasks.modeling.conversations import prompt_token_ids, reply_as_written, split_replies
from tasks.modeling.rendering import remedy, require_rendering, unusable_rows

Learned = Literal["all", "last"]
"""Which replies of a conversation are learned."""
IGNORED = -100
"""The label of a token that is not learned (PyTorch's cross-entropy default)."""
_MAX_NAMED_ROWS = 20


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
    """One SFT row: prompt tokens, then reply tokens.

    Attributes:
        prompt_ids: Tokens before the first learned reply.
        reply_ids: Tokens from there to the end of the last reply.
        between: Where, among ``reply_ids``, tokens between two learned replies begin and end.
        num_unlearned_replies: Earlier replies that the template writes differently, so that they cannot be learned.
    """

    prompt_ids: list[int]
    reply_ids: list[int]
    between: tuple[tuple[int, int], ...] = field(default=(), kw_only=True)
    num_unlearned_replies: int = field(default=0, kw_only=True)

    @property
    def input_ids(self) -> list[int]:
        """The whole sequence."""
        return self.prompt_ids + self.reply_ids

    @property
    def labels(self) -> list[int]:
        """The sequence with every token ignored that no learned reply holds."""
        learned = list(self.reply_ids)
        for start, end in self.between:
            learned[start:end] = [IGNORED] * len(learned[start:end])
        return [IGNORED] * len(self.prompt_ids) + learned

    @property
    def num_learned_tokens(self) -> int:
        """Tokens that are learned."""
        return len(self.reply_ids) - sum(len(self.reply_ids[start:end]) for start, end in self.between)

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
    """A prompt whose reply is generated during training, with what rewards the reply; the row's own has ``num_calls``."""

    input_ids: list[int]
    messages: list[dict[str, Any]]
    reference: str
    label: str | None
    num_new_tokens: int
    num_calls: int = field(default=0, kw_only=True)

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
    learn: Learned = "last",
) -> list[Rendered | Prompt]:
    """Rows as what a method learns from.

    ``sft`` learns from examples, ``dpo`` from pairs, ``kto`` from both replies of a pair, and ``grpo`` from prompts and the
    replies that it generates to them, of up to ``max_new_tokens``. ``learn`` says which replies of an example are learned.
    """
    match method:
        case "sft":
            return [render_example(tokenizer, row, stops=stops, max_length=max_length, learn=learn) for row in rows]
        case "dpo":
            return [render_pair(tokenizer, row, stops=stops, max_length=max_length) for row in rows]
        case "kto":
            return [rated for row in rows for rated in render_replies(tokenizer, row, stops=stops, max_length=max_length)]
        case "grpo":
            return [render_prompt(tokenizer, row, max_length=max_length, max_new_tokens=max_new_tokens) for row in rows]
    raise AssertionError(f"unknown method {method}")


def usable_rows(
    tokenizer: Any, rows: Sequence[Row], max_share: float, stops: Collection[int] | None = None
) -> tuple[Sequence[Row], tuple[str, ...]]:
    """The rows that can be rendered, after their tokens were compared, and notes that name the others by reason.

    Args:
        tokenizer: The base model's tokenizer.
        rows: Canonical rows.
        max_share: The largest share of rows to leave out.
        stops: See :func:`tasks.modeling.conversations.stop_token_ids`.

    Raises:
        QualityLimitError: More rows cannot be rendered.
        ConfigError: Training, generation and likelihoods would see other tokens for the same row.
    """
    faults = unusable_rows(tokenizer, rows)
    if len(faults) > max_share * len(rows):
        named = ", ".join(f"{fault.row_id} ({fault.reason})" for fault in faults[:_MAX_NAMED_ROWS])
        raise QualityLimitError(
            "training.base_model.chat_template",
            f"{len(faults)} of {len(rows)} rows that it cannot write, such as {named}",
            f"at most {max_share:.1%}",
            f"{remedy([fault.reason for fault in faults])} `max_refused_share` allows more of them.",
        )
    if faults:
        refused = {fault.row_id for fault in faults}
        rows = [row for row in rows if str(row["id"]) not in refused]
    require_rendering(tokenizer, rows, stops)
    by_reason = {reason: [fault.row_id for fault in faults if fault.reason == reason] for _, reason in sorted(faults)}
    return rows, tuple(
        f"{len(ids)} rows quarantined ({reason}): {', '.join(ids[:_MAX_NAMED_ROWS])}"
        + (f" and {len(ids) - _MAX_NAMED_ROWS} more" if len(ids) > _MAX_NAMED_ROWS else "")
        for reason, ids in by_reason.items()
    )


def unlearned_notes(examples: Iterable[Rendered | Prompt]) -> tuple[str, ...]:
    """A note where earlier replies are not learned; none where every reply is."""
    number = sum(example.num_unlearned_replies for example in examples if isinstance(example, Example))
    note = f"{number} earlier replies are not learned: the chat template writes them differently from the last"
    return (note,) if number else ()


def render_example(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int, learn: Learned = "last") -> Example:
    """An SFT row as tokens, cut at ``max_length``: the last reply loses its end, and with it the stop token.

    An earlier reply is learned only where the whole conversation begins with exactly the tokens that generating it would
    have started from and produced. Qwen3 and gpt-oss write earlier replies differently, so that their last reply alone is
    learned.
    """
    prompt_ids, [reply_ids] = split_replies(tokenizer, prompt_messages(row), reply_messages(row), stops)
    ids = prompt_ids + reply_ids
    spans, num_unlearned = _earlier_replies(tokenizer, row, ids, stops) if learn == "all" else ([], 0)
    spans.append((len(prompt_ids), len(ids)))
    first = spans[0][0]
    return Example(
        ids[: min(first, max_length)],
        ids[first:max_length],
        between=tuple((end - first, start - first) for (_, end), (start, _) in itertools.pairwise(spans)),
        num_unlearned_replies=num_unlearned,
        truncated=len(ids) > max_length,
        row_id=str(row["id"]),
        uncut_length=len(ids),
    )


def _earlier_replies(tokenizer: Any, row: Row, ids: list[int], stops: Collection[int]) -> tuple[list[tuple[int, int]], int]:
    """Where the replies before the last one begin and end, and how many more there are that cannot be learned."""
    start = tools_message(row)
    messages = [*start, *row["messages"]]
    earlier = [
        place
        for place, message in enumerate(messages[:-1])
        if place > len(start) and message["role"] == "assistant" and message.get("learned") is not False
    ]
    spans = []
    for place in earlier:
        prompt_ids, [reply_ids] = split_replies(tokenizer, messages[:place], [messages[place]], stops)
        end = len(prompt_ids) + len(reply_ids)
        if ids[:end] == prompt_ids + reply_ids:
            spans.append((len(prompt_ids), end))
    return spans, len(earlier) - len(spans)


def render_pair(tokenizer: Any, row: Row, *, stops: Collection[int], max_length: int) -> Pair:
    """A preference row as tokens; each reply is cut where prompt and reply exceed ``max_length``."""
    prompt_ids, [chosen_ids, rejected_ids] = split_replies(tokenizer, prompt_messages(row), reply_messages(row), stops)
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
    prompt_ids, replies = split_replies(tokenizer, prompt_messages(row), reply_messages(row), stops)
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
    messages, expected = prompt_messages(row), reply_messages(row)[0]
    ids = prompt_token_ids(tokenizer, messages)
    fits = len(ids) + max_new_tokens <= max_length
    calls = expected.get("tool_calls") or ()
    reference = reply_as_written(tokenizer, messages, expected) if calls else reply(row)
    num_new_tokens = max_new_tokens if fits else 0
    return Prompt(ids, messages, reference, row.get("label"), num_new_tokens, row_id=str(row["id"]), num_calls=len(calls))
