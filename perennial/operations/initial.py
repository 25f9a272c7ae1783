"""`perennial init`: looks at a file of rows and writes a configuration for it, with the reason for each guess beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from flows.support.config import RetrainConfig, load_config
from tasks.core.errors import InputError, StoreError
from tasks.ingest import SourceConfig

_SAMPLE = 2_000
_MAX_CLASSES, _MAX_CLASS_SHARE, _MAX_CLASS_CHARS = 60, 0.2, 60
_LABELS = re.compile(r"label|category|intent|class|topic|queue|qtype|tag")
_GROUPS = re.compile(r"region|country|language|lang|locale|gender|sex|age_group|channel|segment|tier|market|product_line")
_PERSONAL = re.compile(
    r"(customer|client|patient|user|requester|contact|employee|agent|author|account|first|last|full|e_?mail|phone|mobile|iban|"
    r"address|street|name|ssn|passport)(_(id|no|number|name|e?mail|phone|address))?"
)
_TIMES = re.compile(r"(^|_)(created|date|time|timestamp|updated|sent|at|on)(_|$)|createdat|datetime")
_FEEDBACK = re.compile(r"thumb|feedback|verdict|rating|liked|vote")
_VERDICTS = {
    "up",
    "down",
    "1",
    "-1",
    "1.0",
    "-1.0",
    "true",
    "false",
    "good",
    "bad",
    "like",
    "dislike",
    "positive",
    "negative",
}
_QUESTIONS = (
    "prompt",
    "question",
    "instruction",
    "query",
    "request",
    "user",
    "customer_message",
    "frage",
    "pregunta",
    "input",
)
_REPLIES = (
    "completion",
    "answer",
    "response",
    "reply",
    "output",
    "assistant",
    "agent_reply",
    "antwort",
    "respuesta",
    "target",
)


@dataclass
class Guess:
    """What a file seems to be: settings of ``examples`` with the reason of each, and what a person should look at."""

    settings: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, reason: str) -> None:
        """Sets one of the settings."""
        self.settings[name], self.reasons[name] = value, reason


def write_initial(data: str, out: Path, name: str | None = None, query: str | None = None) -> tuple[Guess, int, str]:
    """Writes a configuration for a source; returns the guess, the number of rows that it reads and their format.

    Args:
        data: The source: a file, a folder, a pattern, a URL or the address of a database.
        out: The YAML file, which must not exist.
        name: The model's name; None: made of the source's.
        query: Of a database: a table, or a statement that selects; None: the only table.

    Raises:
        InputError: The source cannot be read, or no format fits it; or ``out`` exists.
        StoreError: ``out`` cannot be written.
    """
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot

    guess = guess_settings(data, query)
    source = SourceConfig(**guess.settings)
    result = make_snapshot(read_configured(source), source)
    guess.settings["format"] = result.input_format
    guess.reasons.setdefault("format", f"{len(result.rows)} rows fit it, {len(result.quarantined_rows)} do not")
    texts = (message["content"] for row in islice(result.rows, 50) for message in row.get("messages") or row["chosen"])
    text = render(guess, name or _name_of(data), _languages(texts), is_pairs=result.input_format == "preferences")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(str(out), "a file that exists", "a new file", "Name another with --out.") from None
    except OSError as error:
        raise StoreError(str(out), error.strerror or "an error", "a writable place", "Name another with --out.") from error
    if result.input_format != "preferences":
        load_config(out)
    return guess, len(result.rows), result.input_format


def guess_settings(data: str, query: str | None = None) -> Guess:
    """The settings of a source, guessed from the names of its columns and from a sample of their values.

    Raises:
        InputError: The source cannot be read.
    """
    from tasks.ingest.formats import nested_paths
    from tasks.ingest.reading import read_source

    guess = Guess({"path": data} if query is None else {"path": data, "query": query})
    source = read_source(data, query=query)
    records = [record.fields for record in islice(source.records, _SAMPLE) if record.fault is None]
    if len(records) == 1 and (lists := {path: len(v) for path, v in nested_paths(records[0]) if isinstance(v, list)}):
        path = max(lists, key=lambda path: lists[path])
        if not path.startswith(("messages", "conversation")):
            guess.set("records", path, f"{lists[path]} objects stand there")
            records = [r.fields for r in islice(read_source(data, records=path).records, _SAMPLE) if r.fault is None]
    columns = _values_of(records)
    taken = _texts(guess, columns, records)
    _others(guess, {name: values for name, values in columns.items() if name not in taken}, len(records))
    return guess


def _values_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for fields in records:
        for name, value in fields.items():
            if value is not None and value != "":
                columns.setdefault(name, []).append(value)
    return columns


def _texts(guess: Guess, columns: Mapping[str, list[Any]], records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Guesses the columns of question and reply where no format has them by name; returns the columns of the texts."""
    from tasks.ingest.columns import plain_name
    from tasks.ingest.formats import ALIASES, REQUIRED, nested_paths

    for names in REQUIRED.values():
        found = [next((alias for alias in ALIASES[role] if alias in columns), None) for role in names]
        if all(found):
            return {name for name in found if name}
    plain = {plain_name(name): name for name in columns}
    for input_format, names in REQUIRED.items():
        found = [next((plain[alias] for alias in ALIASES[role] if alias in plain), None) for role in names]
        if all(found):
            roles = {role: name for role, name in zip(names, found, strict=True) if name}
            if label := roles.pop("label", None):
                guess.set("label_column", label, "its name, but for case and blanks")
            guess.set("columns", roles, f"the names of {input_format}, but for case and blanks")
            return {name for name in found if name}
    texts = {name: values for name, values in columns.items() if all(isinstance(value, str) for value in values)}
    if turns := _turns(records):
        guess.set("columns", turns, "GUESSED: first and last text of the list. Look at `perennial plan`")
        return {path.partition(".")[0] for path in turns.values()}
    question, reply = (
        next((plain[name] for name in names if plain.get(name) in texts), None) for names in (_QUESTIONS, _REPLIES)
    )
    rest = sorted(texts, key=lambda name: -sum(map(len, texts[name])) / len(texts[name]))
    rest = [name for name in rest if len(set(texts[name])) > len(texts[name]) / 2]
    question = question or next((name for name in sorted(rest[:2], key=list(columns).index) if name != reply), None)
    reply = reply or next((name for name in rest[:2] if name != question), None)
    if question and reply:
        guess.set(
            "columns", {"prompt": question, "completion": reply}, "GUESSED from names and lengths: look at `perennial plan`"
        )
        return {question, reply}
    if records and (paths := [path for path, _ in nested_paths(records[0])]):
        guess.hints.append(f"A path such as `{paths[0]}.NAME` in `columns` names a nested value.")
    return set()


def _turns(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The paths of question and reply in a list of comments, where every record has one of two or more."""
    from tasks.ingest.formats import nested_paths

    for path, items in nested_paths(records[0]) if records else ():
        if "." in path or not isinstance(items, list) or len(items) < 2:
            continue
        if all(isinstance(record.get(path), list) and len(record[path]) > 1 for record in records):
            lengths = {name: len(value) for name, value in items[-1].items() if isinstance(value, str)}
            if lengths:
                name = max(lengths, key=lambda name: lengths[name])
                return {"prompt": f"{path}.0.{name}", "completion": f"{path}.-1.{name}"}
    return {}


def _others(guess: Guess, columns: Mapping[str, list[Any]], num_records: int) -> None:
    """Guesses label, groups, time, known values and verdicts among the columns that are no texts."""
    from tasks.ingest.columns import plain_name

    chosen: dict[str, list[str]] = {"group_columns": [], "known_value_columns": []}
    for name, values in columns.items():
        plain, scalars = plain_name(name), [value for value in values if not isinstance(value, list | dict)]
        if len(scalars) < len(values) or not scalars:
            continue
        texts = [str(value).strip() for value in scalars]
        if _TIMES.search(plain) and "created_at_column" not in guess.settings and _set_time(guess, name, scalars):
            continue
        if _FEEDBACK.search(plain) and {text.lower() for text in texts} <= _VERDICTS:
            guess.set("feedback_column", name, "its name and its values: rows with a negative one are not learned")
        elif _PERSONAL.fullmatch(plain):
            chosen["known_value_columns"].append(name)
        elif _is_class(texts, num_records) and _GROUPS.fullmatch(plain):
            chosen["group_columns"].append(name)
        elif (
            _is_class(texts, num_records)
            and _LABELS.search(plain)
            and "label_column" not in guess.settings
            and plain != "label"
        ):
            guess.set("label_column", name, f"{len(set(texts))} different values")
    for setting, reason in (
        ("group_columns", "few different values: the bias audit compares them"),
        ("known_value_columns", "names of personal values: scrubbed from the row's texts"),
    ):
        if chosen[setting]:
            guess.set(setting, chosen[setting], reason)


def _set_time(guess: Guess, name: str, values: Sequence[Any]) -> bool:
    from tasks.ingest.times import iso_time

    forms: tuple[str | None, ...] = (None, "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S")
    readable = [form for form in forms if _all_readable(lambda value, form=form: iso_time(value, form), values)]  # type: ignore[misc]
    if not readable:
        return False
    if name != "created_at":
        guess.set("created_at_column", name, "its name, and its values are times")
    if readable[0] is not None:
        guess.set(
            "created_at_format",
            readable[0],
            "the only form that fits" if len(readable) == 1 else "AMBIGUOUS: day or month first?",
        )
    return True


def _all_readable(read: Callable[[Any], Any], values: Iterable[Any]) -> bool:
    try:
        return all(read(value) is not None for value in values)
    except ValueError:
        return False


def _is_class(texts: Sequence[str], num_records: int) -> bool:
    kinds = set(texts)
    return (
        1 < len(kinds) <= min(_MAX_CLASSES, max(2, _MAX_CLASS_SHARE * num_records))
        and max(map(len, kinds)) <= _MAX_CLASS_CHARS
    )


def _languages(texts: Iterable[str]) -> list[str]:
    from collections import Counter

    from tasks.core.errors import MissingDependencyError
    from tasks.text.languages import language_of

    try:
        found = Counter(language for text in texts if (language := language_of(text)))
    except MissingDependencyError:
        return []
    return [language for language, count in found.most_common(4) if count >= 0.1 * found.total()]


def _name_of(data: str) -> str:
    stem = re.split(r"[/\\]", data.rstrip("/"))[-1].split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "my-model"


def render(guess: Guess, name: str, languages: Sequence[str], *, is_pairs: bool) -> str:
    """The configuration as YAML with comments."""
    order = ["path", "format", *(key for key in guess.settings if key not in ("path", "format"))]
    section = [
        f"  {key}: {json.dumps(guess.settings[key], ensure_ascii=False)}"
        + (f"  # {guess.reasons[key]}" if key in guess.reasons else "")
        for key in order
    ]
    lines = [
        "# yaml-language-server: $schema=perennial.schema.json",
        "# `perennial init --schema > perennial.schema.json` writes that schema, with which editors check and complete.",
        "# Each comment says why a setting was guessed. `perennial plan --config THIS` shows what it makes of the data.",
        f"name: {name}",
        "",
        *(
            [
                "# These are preference pairs. SFT needs examples too: name a file of prompts with their replies.",
                "examples:",
                "  path: PATH/TO/EXAMPLES.jsonl",
                "preferences:",
            ]
            if is_pairs
            else ["examples:"]
        ),
        *section,
        *(f"  # {hint}" for hint in guess.hints),
        "",
        *(["training:", "  dpo: {}", ""] if is_pairs else []),
        "# prepare:",
        "#   pii: {mode: balanced}  # strict finds more and masks more; see docs/configuration.md",
        f"#   validation: {{languages: {json.dumps(languages or ['en'])}}}  # as found; a run in others stops",
        "# promotion:",
        "#   primary_metric: chrf  # what must improve; label_accuracy for labels",
        "#   min_examples: 200     # frozen examples that the gate requires",
    ]
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RetrainConfig.model_json_schema()}
