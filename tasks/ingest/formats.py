"""Converts a raw record: its format, and its canonical row or the reason why it has none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from tasks.contracts.base import DatasetKind
from tasks.core.errors import InputError
from tasks.ingest.config import InputFormat, SourceConfig

Fields = Mapping[str, Any]
Message = dict[str, str]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "ticket_id", "example_id", "uuid"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response"),
    "prompt": ("prompt", "question", "request", "input", "query"),
    "completion": ("completion", "answer", "response", "output"),
    "messages": ("messages", "conversations", "conversation"),
    "text": ("text", "sentence", "utterance", "query"),
    "subject": ("subject", "title"),
    "body": ("body", "description", "customer_message", "message"),
    "reply": ("reply", "agent_reply", "resolution", "response", "answer"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "label": ("label", "category", "intent"),
}
"""Customary column names, most customary first."""
REQUIRED: Mapping[InputFormat, tuple[str, ...]] = {
    "preferences": ("chosen", "rejected"),
    "chat": ("messages",),
    "alpaca": ("instruction", "output"),
    "tickets": ("body", "reply"),
    "prompt_completion": ("prompt", "completion"),
    "classification": ("text", "label"),
}
"""The columns without which a record is not of the format, in the order in which formats are tried."""
_TICKET_VALUES = (
    "customer_name",
    "customer_email",
    "customer_phone",
    "customer_id",
    "account_id",
    "requester",
    "requester_email",
)
_TABLE = re.compile(r"\.[ct]sv\b", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[^\W\d][\w .:/-]*")
_PROGRAM_NAME = re.compile(r"[a-z][a-z_]*\d{0,3}")
_MAX_DIGITS = 6
"""A name with as many digits may be a number of a person or a card."""
_UP = {"up", "thumbs_up", "thumbs-up", "positive", "good", "like", "yes", "true", "1", "1.0", "+1"}
_DOWN = {"down", "thumbs_down", "thumbs-down", "negative", "bad", "dislike", "no", "false", "-1", "-1.0"}
_NO_VERDICT = {"none", "null", "neutral"}
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class RowFaultError(Exception):
    """A record that cannot become a row; caught where rows are made, never seen outside ingestion."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


def kind_of(input_format: InputFormat) -> DatasetKind:
    """The kind of canonical rows that a format gives."""
    return "preferences" if input_format == "preferences" else "messages"


def find_format(records: Iterable[Fields], config: SourceConfig, where: str) -> InputFormat:
    """The configured format, or the one that most records have the columns of.

    Raises:
        InputError: No record has the columns of the configured format, or of any.
    """
    formats: tuple[InputFormat, ...] = (config.format,) if config.format != "auto" else tuple(REQUIRED)
    votes: Counter[InputFormat] = Counter()
    seen: Counter[str] = Counter()
    for fields in records:
        seen.update(name for name, value in fields.items() if value is not None)
        fitting = next((name for name in formats if all(_column(fields, role, config) for role in REQUIRED[name])), None)
        if fitting:
            votes[fitting] += 1
    if not votes:
        wanted = "; ".join(f"{name}: {_describe_columns(name, config)}" for name in formats)
        raise InputError(
            where,
            _seen_columns(seen, config, where),
            wanted,
            "Set `format`, and map columns with other names in `columns` (and `label_column`). A table needs a header in "
            "line 1.",
        )
    return max(votes, key=lambda name: (votes[name], -formats.index(name)))


def to_row(fields: Fields, input_format: InputFormat, config: SourceConfig, source: str) -> dict[str, Any]:
    """The canonical row of a record, without its id when the record has none (see ``tasks.ingest.snapshot``).

    Raises:
        RowFaultError: A required value is missing or is not text, or the text cannot be stored.
    """
    row = _CONVERSATIONS[input_format](fields, config)
    if config.system_prompt:
        first = "prompt" if input_format == "preferences" else "messages"
        if not any(message["role"] == "system" for message in row[first]):
            row[first] = [{"role": "system", "content": config.system_prompt}, *row[first]]
    row["id"] = id_of(fields, config)
    row["label"] = _scalar(fields, _label_column(fields, input_format, config))
    row["annotations"] = [
        {"annotator": column, "label": label} for column in config.annotation_columns if (label := _scalar(fields, column))
    ]
    row["context"] = _text(fields, config.context_column, required=False)
    row["groups"] = [
        {"name": column, "value": value} for column in config.group_columns if (value := _scalar(fields, column))
    ]
    row["created_at"] = _scalar(fields, config.created_at_column or "created_at")
    customary = _TICKET_VALUES if input_format == "tickets" else ()
    columns = dict.fromkeys((*config.known_value_columns, *customary))
    row["known_values"] = [value for column in columns if (value := _scalar(fields, column))]
    row["source"] = source
    _correct(row, fields, input_format, config)
    _check_storable(row)
    return row


def is_disliked(fields: Fields, config: SourceConfig) -> bool:
    """Whether the user's verdict on the reply is negative and no correction exists."""
    return feedback_of(fields, config) == "down" and correction_of(fields, config) is None


def feedback_of(fields: Fields, config: SourceConfig) -> Literal["up", "down"] | None:
    """The user's verdict on the reply, or None where there is none.

    Raises:
        RowFaultError: It is none that is known; what it means must not be guessed (0 may be a "no" or no answer at all).
    """
    verdict = _scalar(fields, config.feedback_column)
    if verdict is None or verdict.lower() in _NO_VERDICT:
        return None
    if verdict.lower() in _UP:
        return "up"
    if verdict.lower() in _DOWN:
        return "down"
    raise RowFaultError("unknown_feedback", config.feedback_column)


def correction_of(fields: Fields, config: SourceConfig) -> str | None:
    """The reply that a person wrote instead, if any."""
    text = _text(fields, config.correction_column, required=False)
    return text if text and text.strip() else None


def _correct(row: dict[str, Any], fields: Fields, input_format: InputFormat, config: SourceConfig) -> None:
    """Puts the reply that a person wrote in the place of the one that was given."""
    correction = correction_of(fields, config)
    if correction is not None and input_format != "preferences":
        row["messages"] = [*row["messages"][:-1], {"role": "assistant", "content": correction}]


# -------------------------------------------------------------------------------------------------- one function a format


def _alpaca(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    given = _of(fields, "input", config, required=False)
    prompt = _of(fields, "instruction", config) + (f"\n\n{given}" if given.strip() else "")
    return _turn(prompt, _of(fields, "output", config))


def _prompt_completion(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    return _turn(_of(fields, "prompt", config), _of(fields, "completion", config))


def _chat(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    return {"messages": _messages(fields, "messages", config)}


def _classification(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    label = _scalar(fields, _label_column(fields, "classification", config))
    if label is None:
        raise RowFaultError("missing_field", "label")
    reply = " ".join(label.replace("_", " ").split()) if config.reply_from_label == "readable" else label
    return _turn(config.prompt_template.replace("{text}", _of(fields, "text", config)), reply)


def _tickets(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    subject = _of(fields, "subject", config, required=False).strip()
    body = _of(fields, "body", config)
    return _turn(f"{subject}\n\n{body}" if subject else body, _of(fields, "reply", config))


def _preferences(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    """A prompt and two replies. Sides that repeat the prompt (whole conversations) are cut down to what they add."""
    chosen, rejected = (_side(fields, role, config) for role in ("chosen", "rejected"))
    column = _column(fields, "prompt", config)
    if column is None:
        shared = next((n for n, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), 0)
        prompt = chosen[:shared]
        if not prompt:
            raise RowFaultError("missing_field", "prompt")
    else:
        prompt = _as_messages(fields[column], "user", "prompt")
    return {"prompt": prompt, "chosen": _after(prompt, chosen), "rejected": _after(prompt, rejected)}


_CONVERSATIONS: Mapping[InputFormat, Callable[[Fields, SourceConfig], dict[str, Any]]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "chat": _chat,
    "classification": _classification,
    "tickets": _tickets,
    "preferences": _preferences,
}
assert set(_CONVERSATIONS) == set(get_args(InputFormat)) == set(REQUIRED)


def _turn(prompt: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


def _after(prompt: Sequence[Message], side: Sequence[Message]) -> list[Message]:
    repeated = len(side) > len(prompt) and list(side[: len(prompt)]) == list(prompt)
    return list(side[len(prompt) :] if repeated else side)


def _side(fields: Fields, role: str, config: SourceConfig) -> list[Message]:
    column = _column(fields, role, config)
    if column is None:
        raise RowFaultError("missing_field", role)
    return _as_messages(fields[column], "assistant", role)


def _messages(fields: Fields, role: str, config: SourceConfig) -> list[Message]:
    column = _column(fields, role, config)
    if column is None:
        raise RowFaultError("missing_field", role)
    value = fields[column]
    if isinstance(value, str):  # a CSV cell can hold a conversation only as JSON
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFaultError("not_a_conversation", role) from None
    if not isinstance(value, list | tuple):
        raise RowFaultError("not_a_conversation", role)
    return [_message(item, f"{role}.{index}") for index, item in enumerate(value)]


def _as_messages(value: Any, role_of_text: str, field: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role_of_text, "content": value}]
    if isinstance(value, list | tuple):
        return [_message(item, f"{field}.{index}") for index, item in enumerate(value)]
    raise RowFaultError("not_text", field)


def _message(item: Any, field: str) -> Message:
    if not isinstance(item, Mapping):
        raise RowFaultError("not_a_conversation", field)
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str):
        raise RowFaultError("missing_field" if role is None else "not_text", f"{field}.role")
    if not isinstance(content, str):
        raise RowFaultError("missing_field" if content is None else "not_text", f"{field}.content")
    return {"role": _ROLES.get(role, role), "content": content}


# ---------------------------------------------------------------------------------------------------------------- values


def _column(fields: Fields, role: str, config: SourceConfig) -> str | None:
    """The column of a role in this record, or None when the record has no value there."""
    if role == "label" and config.label_column:
        names: tuple[str, ...] = (config.label_column,)
    else:
        named = config.columns.get(role)  # type: ignore[call-overload]  # "label" has its own setting
        names = (named,) if named else ALIASES[role]
    return next((name for name in names if fields.get(name) is not None), None)


def _of(fields: Fields, role: str, config: SourceConfig, *, required: bool = True) -> str:
    column = _column(fields, role, config)
    if column is None and required:
        raise RowFaultError("missing_field", role)
    return _text(fields, column, required=required) or ""


def _text(fields: Fields, column: str | None, *, required: bool) -> str | None:
    value = fields.get(column) if column else None
    if value is None and not required:
        return None
    if not isinstance(value, str):
        raise RowFaultError("not_text", column)
    return value


def _scalar(fields: Fields, column: str | None) -> str | None:
    """A label, group or personal value as text; numbers and times are written out, nothing and blanks are None."""
    value = fields.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, list | tuple | dict | bytes):
        raise RowFaultError("not_text", column)
    text = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.strip() or None


def _label_column(fields: Fields, input_format: InputFormat, config: SourceConfig) -> str | None:
    if config.label_column or input_format in ("classification", "tickets"):
        return _column(fields, "label", config)
    return "label"


def id_of(fields: Fields, config: SourceConfig) -> str | None:
    """The record's own id, or None; raises :class:`RowFaultError` for one that is no plain value."""
    return _scalar(fields, _column(fields, "id", config))


def _check_storable(row: Mapping[str, Any]) -> None:
    """Rejects text that UTF-8 cannot encode, and NULs, at which databases and C libraries cut texts."""
    for field, text in _strings(row, ""):
        if "\x00" in text:
            raise RowFaultError("nul_character", field)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RowFaultError("lone_surrogate", field) from None


def _strings(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}.{index}")


def _seen_columns(names: Iterable[str], config: SourceConfig, where: str) -> str:
    """The names of columns for an error. A table without a header has a row in place of names, and no error quotes a row.

    The names of a table are shown where one of them is known, or where all have the form of a name in a program.
    """
    known = {alias for aliases in ALIASES.values() for alias in aliases} | {*config.columns.values(), config.label_column}
    ordered = sorted(names)
    is_header = bool(known.intersection(ordered)) or all(map(_PROGRAM_NAME.fullmatch, ordered))
    if _TABLE.search(where) and not is_header:
        return f"{len(ordered)} columns, none with a known name; their names are not shown, because line 1 may be a row"
    shown = [name for name in ordered if _PLAIN_NAME.fullmatch(name) and sum(map(str.isdigit, name)) < _MAX_DIGITS]
    rest = f" and {len(ordered) - len(shown)} whose names may be values" if len(shown) < len(ordered) else ""
    return f"columns {', '.join(name[:40] for name in shown[:20]) or 'none'}{rest}"


def _describe_columns(input_format: InputFormat, config: SourceConfig) -> str:
    described = []
    for role in REQUIRED[input_format]:
        named = config.label_column if role == "label" else config.columns.get(role)  # type: ignore[call-overload]
        described.append(named or "|".join(ALIASES[role]))
    return " + ".join(described)
