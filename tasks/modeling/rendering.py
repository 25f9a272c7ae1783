"""Whether a base's conversations can be trained on: checked on the real rows before the first step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from tasks.core.errors import ConfigError, InputError, ModelNotFoundError
from tasks.core.rows import Row, prompt_messages, reply_messages
from tasks.modeling.conversations import (
    Messages,
    default_template_of,
    plain_token_ids,
    prompt_token_ids,
    render_conversation,
    reply_token_ids,
    split_replies,
    stop_token_ids,
)
from tasks.modeling.tool_templates import TemplateFault, template_fault, uses_tools

NUM_CHECKED_ROWS = 64
"""Rows whose tokens are compared, spread over all; every row is rendered."""
_MAX_NAMED_ROWS = 5
_MAX_SHOWN_TOKENS = 24

Reason = TemplateFault | Literal["control_token"]


class RowFault(NamedTuple):
    """A row that cannot be trained on, and why.

    See :func:`tasks.modeling.tool_templates.template_fault`. ``control_token``: the tokenizer cannot spell out a control
    token that stands in a text.
    """

    row_id: str
    reason: Reason


class RenderingFault(NamedTuple):
    """Tokens of one row that differ where they must be the same.

    ``prompt``: those before the reply in training, and those that generation starts from. ``reply``: those of the reply's
    text alone, and those that are learned. ``likelihood``: those that are learned, and those whose likelihood is measured.
    """

    row_id: str
    check: Literal["prompt", "reply", "likelihood"]
    expected: list[int]
    found: list[int]


def unusable_rows(tokenizer: Any, rows: Iterable[Row]) -> list[RowFault]:
    """The rows that cannot be rendered, in order.

    Raises:
        ModelNotFoundError: There is no chat template, or it refuses a single question.
    """
    prompt_token_ids(tokenizer, [{"role": "user", "content": "text"}])
    template, faults = default_template_of(tokenizer), []
    for row in rows:
        found = [template_fault(template, part) for part in _conversations(row) if uses_tools(part)]
        if reason := next((fault for fault in found if fault), None):
            faults.append(RowFault(str(row["id"]), reason))
            continue
        try:
            for conversation in _conversations(row):
                render_conversation(tokenizer, conversation)
        except ModelNotFoundError:
            faults.append(RowFault(str(row["id"]), "template_refuses"))
        except InputError:
            faults.append(RowFault(str(row["id"]), "control_token"))
    return faults


def require_evaluable(template: str, rows: Sequence[Row], where: str, max_share: float = 0.0) -> None:
    """Refuses rows of which the template refuses more than a share: later stages could not use them.

    It renders without a tokenizer, so that the run's own process stays light.

    Raises:
        InputError: Rows are refused; the message names the first ones.
    """
    faults = {
        str(row["id"]): fault for row in rows for part in _conversations(row) if (fault := template_fault(template, part))
    }
    if len(faults) > max_share * len(rows):
        reasons = ", ".join(sorted(set(faults.values())))
        raise InputError(
            where,
            f"{len(faults)} of {len(rows)} rows that the chat template refuses ({reasons}), such as "
            + ", ".join([*faults][:_MAX_NAMED_ROWS]),
            "rows that the base model can be prompted with",
            remedy(faults.values()),
        )


def remedy(reasons: Iterable[Reason]) -> str:
    """What to do about rows that a template cannot write."""
    if "template_has_no_tools" in reasons:
        return "Set `base_model.chat_template` to one that writes tools, such as `hermes`, or use a base model with one."
    return (
        "Correct the order of roles in these rows (strict templates alternate user and assistant), or set "
        "`base_model.chat_template`."
    )


def check_rendering(tokenizer: Any, rows: Sequence[Row], stops: Collection[int] | None = None) -> list[RenderingFault]:
    """What differs between training, generation and likelihoods, in a sample of usable rows.

    Args:
        tokenizer: The base model's tokenizer.
        rows: Rows without those of :func:`unusable_rows`.
        stops: See :func:`tasks.modeling.conversations.stop_token_ids`; None: those of the tokenizer.

    Raises:
        ConfigError: The template starts a reply differently in training and in generation.
    """
    stops = stop_token_ids(tokenizer, None) if stops is None else stops
    places = sorted({len(rows) * number // NUM_CHECKED_ROWS for number in range(NUM_CHECKED_ROWS)}) if rows else []
    chosen = [rows[place] for place in places]
    return [
        fault
        for row in chosen
        for conversation in _conversations(row)
        for fault in _faults(tokenizer, row, conversation, stops)
    ]


def require_rendering(tokenizer: Any, rows: Sequence[Row], stops: Collection[int] | None = None) -> None:
    """Refuses a base whose training, generation and likelihoods use other tokens for the same row.

    Raises:
        ConfigError: They differ; the message holds both lists, with the pieces of control tokens alone.
    """
    faults = check_rendering(tokenizer, rows, stops)
    if not faults:
        return
    first = faults[0]
    names = ", ".join(dict.fromkeys(fault.row_id for fault in faults[:_MAX_NAMED_ROWS]))
    start = next((n for n, (a, b) in enumerate(zip(first.expected, first.found, strict=False)) if a != b), 0)
    expected, found = (_shown(tokenizer, ids[max(0, start - 2) :]) for ids in (first.expected, first.found))
    raise ConfigError(
        "training.base_model.chat_template",
        f"{first.check} tokens {found} in {len({fault.row_id for fault in faults})} rows (such as {names})",
        f"{expected}, from token {start}",
        "Set `base_model.chat_template` to one that writes each message as it is (for instance `chatml`).",
    )


def _faults(tokenizer: Any, row: Row, conversation: Messages, stops: Collection[int]) -> list[RenderingFault]:
    prompt, last = conversation[:-1], conversation[-1]
    text = last["content"]
    prompt_ids, [learned] = split_replies(tokenizer, prompt, [last], stops)
    learned = learned[:-1]  # without the end of the turn
    row_id, faults = str(row["id"]), []
    if prompt_ids != (prompted := prompt_token_ids(tokenizer, prompt)):
        faults.append(RenderingFault(row_id, "prompt", prompted, prompt_ids))
    alone = plain_token_ids(tokenizer, text)
    # What a template writes around the calls of a reply is its own; that it writes them was checked with the row.
    if not last.get("tool_calls") and _letters(tokenizer, learned) != _letters(tokenizer, alone):
        faults.append(RenderingFault(row_id, "reply", alone, learned))
    spelled = reply_token_ids(tokenizer, prompt, last)
    if spelled != learned and (text or last.get("tool_calls")):
        faults.append(RenderingFault(row_id, "likelihood", learned, spelled))
    return faults


def _letters(tokenizer: Any, ids: Sequence[int]) -> str:
    """What a reply's tokens say, without spaces: a template may write one before a reply, and a tokenizer may add one."""
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).split())


def _conversations(row: Row) -> list[list[dict[str, Any]]]:
    """A row's conversation, or that of each reply of a preference row."""
    return [[*prompt_messages(row), message] for message in reply_messages(row)]


def _shown(tokenizer: Any, ids: Sequence[int]) -> str:
    """The first tokens as ids and pieces; pieces that may be text of a row are left out."""
    control = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    part = list(ids[:_MAX_SHOWN_TOKENS])
    return f"{part} {[tokenizer.convert_ids_to_tokens(token) if token in control else '…' for token in part]}"
