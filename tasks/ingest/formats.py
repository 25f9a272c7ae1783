"""Converts a raw record: its format, and its canonical row or the reason why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from tasks.contracts.base import DatasetKind
from tasks.core.errors import InputError
from tasks.ingest.chats import is_dialogue, read_chat, read_turns, split_sides
from tasks.ingest.columns import LABEL_NAMES, Fields, is_shown, named_columns, plain_name, shown_columns
from tasks.ingest.config import InputFormat, SourceConfig
from tasks.ingest.faults import RowFaultError as RowFaultError
from tasks.ingest.times import iso_time
from tasks.ingest.tool_schemas import read_tools

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
    "chosen": ("chosen", "preferred_output"),
    "rejected": ("rejected", "non_preferred_output"),
    "tools": ("tools", "functions"),
    "label": LABEL_NAMES,
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
_OPTIONAL: Mapping[InputFormat, tuple[str, ...]] = {
    "alpaca": ("input",),
    "tickets": ("subject",),
    "preferences": ("prompt", "tools"),
    "chat": ("tools",),
    "prompt_completion": ("tools",),
}
_MEANINGFUL = ("context", "system", "system_prompt", "history", "documents", "passage", "weight")
"""Names of columns that change what a row means, so that it is said where one is not read."""
_TICKET_VALUES = (
    "customer_name",
    "customer_email",
    "customer_phone",
    "customer_id",
    "account_id",
    "requester",
    "requester_email",
)
_UP = {"up", "thumbs_up", "thumbs-up", "positive", "good", "like", "yes", "true", "1", "1.0", "+1"}
_DOWN = {"down", "thumbs_down", "thumbs-down", "negative", "bad", "dislike", "no", "false", "-1", "-1.0"}
_NO_VERDICT = {"none", "null", "neutral"}


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
    first: Fields = {}
    for fields in records:
        first = first or fields
        seen.update(name for name, value in fields.items() if value is not None)
        fitting = next((name for name in formats if all(_column(fields, role, config) for role in REQUIRED[name])), None)
        if fitting:
            votes[fitting] += 1
    if not votes:
        wanted = "; ".join(f"{name}: {_describe_columns(name, config)}" for name in formats)
        known = {alias for aliases in ALIASES.values() for alias in aliases} | {*config.columns.values()}
        raise InputError(
            where,
            shown_columns(seen, where, known | ({config.label_column} if config.label_column else set())),
            wanted,
            _suggestion(formats, seen)
            or _nested_rows(first)
            or "Set `format`, and map columns with other names in `columns` (and `label_column`). A table needs a header in "
            "line 1.",
        )
    return max(votes, key=lambda name: (votes[name], -formats.index(name)))


def column_roles(input_format: InputFormat, config: SourceConfig, filled: Mapping[str, int]) -> dict[str, str]:
    """Which column became what: the column of each role and of each setting, for the roles that have one.

    Args:
        input_format: The format of the rows.
        config: The source's settings.
        filled: Records with a value, by column.
    """
    roles: dict[str, str] = {}
    for role in ("id", *REQUIRED[input_format], *_OPTIONAL.get(input_format, ()), "label"):
        named = config.label_column if role == "label" else config.columns.get(role)  # type: ignore[call-overload]
        is_plain_label = role == "label" and input_format not in ("classification", "tickets")
        names = (named,) if named else ("label",) if is_plain_label else ALIASES[role]
        if column := next((name for name in names if filled.get(name)), None):
            roles[role] = column
    values = ((name, name) for name in _TICKET_VALUES) if input_format == "tickets" else ()
    for name, role in (("created_at", "created_at"), *values):
        if filled.get(name):
            roles[role] = name
    for column, settings in named_columns(config).items():
        roles |= {setting.removesuffix("_column"): column for setting in settings if not setting.startswith("columns.")}
    return roles


def unused_columns(input_format: InputFormat, config: SourceConfig, filled: Mapping[str, int]) -> list[str]:
    """Notes on what is not read though it means something: columns of other formats' roles, and texts beside the prompt."""
    roles = column_roles(input_format, config, filled)
    notes = [f"`columns.{role}` is not read in {input_format} rows" for role in config.columns if role not in roles]
    for name in _MEANINGFUL:
        if filled.get(name) and name not in roles.values():
            remedy = (
                "leave out the rows that must not count"
                if name == "weight"
                else "set `context_column` if the prompt refers to it, or write it into the prompt"
            )
            notes.append(f"the column `{name}` ({filled[name]} records) is not read: {remedy}")
    return notes


def to_row(
    fields: Fields, input_format: InputFormat, config: SourceConfig, source: str, notes: Counter[str] | None = None
) -> dict[str, Any]:
    """The canonical row of a record, without its id when the record has none (see ``tasks.ingest.snapshot``).

    Args:
        fields: The record.
        input_format: Its format.
        config: What its columns mean.
        source: Where it comes from.
        notes: Counts what was changed to read it.

    Raises:
        RowFaultError: A required value is missing or is not text, or the text cannot be stored.
    """
    row = _CONVERSATIONS[input_format](fields, config)
    changes = row.pop("notes", ())
    if config.system_prompt:
        first = "prompt" if input_format == "preferences" else "messages"
        if not any(message["role"] == "system" for message in row[first]):
            row[first] = [{"role": "system", "content": config.system_prompt}, *row[first]]
    row["id"] = id_of(fields, config)
    is_verdict = _verdict_label(fields, config) is not None
    row["label"] = None if is_verdict else _scalar(fields, _label_column(fields, input_format, config))
    row["annotations"] = [
        {"annotator": column, "label": label} for column in config.annotation_columns if (label := _scalar(fields, column))
    ]
    row["context"] = _text(fields, config.context_column, required=False)
    row["groups"] = [
        {"name": column, "value": value} for column in config.group_columns if (value := _scalar(fields, column))
    ]
    row["created_at"] = time_of(fields, config)
    customary = _TICKET_VALUES if input_format == "tickets" else ()
    columns = dict.fromkeys((*config.known_value_columns, *customary))
    row["known_values"] = [value for column in columns for value in _scalars(fields, column)]
    row["source"] = source
    _correct(row, fields, input_format, config)
    _check_storable(row)
    if notes is not None:
        notes.update(changes)
    return row


def is_disliked(fields: Fields, config: SourceConfig) -> bool:
    """Whether the user's verdict on the reply is negative and no correction exists."""
    return feedback_of(fields, config) == "down" and correction_of(fields, config) is None


def is_unconfirmed(fields: Fields) -> bool:
    """Whether it is a pair from a queue for people that nobody has decided to keep (see :mod:`tasks.monitoring.pairs`)."""
    return "row_sha256" in fields and "decision" in fields and fields["decision"] != "keep"


def feedback_of(fields: Fields, config: SourceConfig) -> Literal["up", "down"] | None:
    """The user's verdict on the reply, or None where there is none.

    Raises:
        RowFaultError: It is none that is known; what it means must not be guessed (0 may be a "no" or no answer at all).
    """
    if (desirable := _verdict_label(fields, config)) is not None:
        return "up" if desirable else "down"
    verdict = _scalar(fields, config.feedback_column)
    if verdict is None or verdict.lower() in _NO_VERDICT:
        return None
    if verdict.lower() in _UP:
        return "up"
    if verdict.lower() in _DOWN:
        return "down"
    raise RowFaultError("unknown_feedback", config.feedback_column)


def _verdict_label(fields: Fields, config: SourceConfig) -> bool | None:
    """The label of an unpaired preference (TRL's KTO rows: prompt, completion, and true or false), which is a verdict."""
    label = fields.get("label")
    is_verdict = (
        isinstance(label, bool) and not config.label_column and not config.feedback_column and "completion" in fields
    )
    return label if is_verdict else None


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
    values = [fields[column] for role in _SIDES if (column := _column(fields, role, config))]
    if not any(isinstance(value, list | tuple) or is_dialogue(value) for value in values):
        return _turn(_of(fields, "prompt", config), _of(fields, "completion", config))
    prompt, completion = (_turns(fields, role, config, whose) for role, whose in _SIDES.items())
    return read_chat([*prompt, *completion], _tools(fields), "tools").as_row()


def _chat(fields: Fields, config: SourceConfig) -> dict[str, Any]:
    column = _column(fields, "messages", config)
    if column is None:
        raise RowFaultError("missing_field", "messages")
    return read_chat(read_turns(fields[column], "messages"), _tools(fields), "tools").as_row()


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
    """A prompt and two replies. What whole conversations share is the prompt."""
    chosen, rejected = (_turns(fields, role, config, "assistant") for role in ("chosen", "rejected"))
    column = _column(fields, "prompt", config)
    given = fields[column] if column else None
    tools = read_tools(given.get("tools") if isinstance(given, Mapping) else _tools(fields), "tools")
    prompt = _turns(fields, "prompt", config, "user") if column else []
    return {**split_sides(prompt, chosen, rejected), **({"tools": tools} if tools else {})}


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


_SIDES = {"prompt": "user", "completion": "assistant"}


def _turns(fields: Fields, role: str, config: SourceConfig, whose: str) -> list[dict[str, Any]]:
    """The turns in a column, or the one turn that its text is."""
    column = _column(fields, role, config)
    if column is None:
        raise RowFaultError("missing_field", role)
    return read_turns(fields[column], role, whose)


def _tools(fields: Fields) -> Any:
    return next((fields[name] for name in ALIASES["tools"] if fields.get(name)), None)


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
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with a missing value writes its whole numbers with a fraction
    text = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.strip() or None


def _scalars(fields: Fields, column: str) -> list[str]:
    """The personal values of a column: its value, or each of a list."""
    values = fields.get(column)
    listed = values if isinstance(values, list | tuple) else [values]
    return [text for value in listed if (text := _scalar({column: value}, column))]


def time_of(fields: Fields, config: SourceConfig) -> str | None:
    """When the record was made, as ISO 8601; in a form that is not known, as it stands."""
    column = config.created_at_column or "created_at"
    value = fields.get(column)
    try:
        return iso_time(value, config.created_at_format)
    except ValueError:
        return _scalar(fields, column)


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


def _suggestion(formats: Iterable[InputFormat], seen: Iterable[str]) -> str | None:
    """What to set where columns are customary ones but for case, blanks and separators; None where a format lacks one."""
    plain = {plain_name(name): name for name in seen}
    for input_format in formats:
        roles = {role: next((plain[a] for a in ALIASES[role] if a in plain), None) for role in REQUIRED[input_format]}
        if all(roles.values()):
            columns = ", ".join(f'{role}: "{column}"' for role, column in roles.items() if role != "label")
            label = f' and `label_column: "{roles["label"]}"`' if "label" in roles else ""
            return f"Did you mean `columns: {{{columns}}}`{label} ({input_format})? Names of columns are read as they stand."
    return None


def _nested_rows(record: Fields) -> str | None:
    """What to set where the rows stand in a document, or their texts in nested values; None where nothing is nested."""
    lists = {path: len(value) for path, value in nested_paths(record) if isinstance(value, list | tuple)}
    rows = {path: count for path, count in lists.items() if count > 1}
    if rows:
        path = max(rows, key=lambda path: (rows[path], path))
        remedy = f"If `{path}` ({rows[path]} objects) holds the rows, set `records: {path}`. "
        leaf = f"{path}.0.NAME"
    elif leaf := next((f"{path}.NAME" for path, _ in nested_paths(record)), ""):
        remedy = ""
    else:
        return None
    return remedy + f"A path such as `{leaf}` in `columns` names a nested value; set `format` and the columns."


def nested_paths(value: Fields, prefix: str = "", depth: int = 3) -> Iterable[tuple[str, Any]]:
    """The objects and lists of objects in a record, each with its path."""
    for name, item in value.items():
        path = f"{prefix}{name}"
        if not is_shown(name) or depth == 0:
            continue
        if isinstance(item, list | tuple) and item and isinstance(item[0], Mapping):
            yield path, item
        elif isinstance(item, Mapping):
            yield path, item
            yield from nested_paths(item, f"{path}.", depth - 1)


def _describe_columns(input_format: InputFormat, config: SourceConfig) -> str:
    described = []
    for role in REQUIRED[input_format]:
        named = config.label_column if role == "label" else config.columns.get(role)  # type: ignore[call-overload]
        described.append(named or "|".join(ALIASES[role]))
    return " + ".join(described)
