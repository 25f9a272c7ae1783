"""A snapshot out of raw records: canonical rows with unique ids, and every record that could not become one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import InputError
from tasks.ingest.config import InputFormat, SourceConfig
from tasks.ingest.formats import RowFaultError, find_format, id_of, is_disliked, to_row
from tasks.ingest.reading import Record, Source
from tasks.ingest.window import Window
from tasks.reporting import count_reasons, refusal
from tasks.storage import sha256_of_json

STAGE = "ingest"
_PLAIN_ID = re.compile(r"[\w.:/#+-]{1,80}", re.ASCII)
"""Ids are named in logs and reports: one that is no plain token (an e-mail address, a sentence) is replaced by its hash."""


@dataclass
class Ingested:
    """Rows in the order of the source, refused records as quarantine rows, and what is worth noting."""

    input_format: InputFormat
    rows: list[dict[str, Any]]
    refused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_snapshot(
    source: Source, config: SourceConfig, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Ingested:
    """The canonical rows of a source; each record that cannot become one is refused with a reason code.

    Raises:
        InputError: No record has the expected columns, or every record is faulty.
    """
    readable = [record.fields for record in source.records if record.fault is None]
    if not readable:
        raise _nothing_left(source, [refuse_record(record, config, record.fault or "") for record in source.records])
    result = Ingested(find_format(readable, config, source.name), [])
    places: list[Record] = []
    for number, record in enumerate(source.records, start=1):
        try:
            if record.fault:
                raise RowFaultError(record.fault)
            row = to_row(record.fields, result.input_format, config, source.name)
            if is_disliked(record.fields, config):
                content = record.raw if record.raw is not None else row
                name = _name_of(record, config)
                result.refused.append(refusal(STAGE, name, "negative_feedback", content, disposition="dropped"))
                continue
            result.rows.append(row)
            places.append(record)
        except RowFaultError as fault:
            result.refused.append(refuse_record(record, config, fault.reason, fault.field))
        if number % 10_000 == 0:
            on_progress(number, len(source.records))
    name_rows(result)
    refuse_repeated_ids(result, places)
    _keep_window(result, config)
    if config.max_rows is not None and len(result.rows) > config.max_rows:
        draw_sample(result, config.max_rows, config.seed)
    if not result.rows:
        raise _nothing_left(source, result.refused)
    if config.prompt_template != "{text}" and result.input_format != "classification":
        result.notes.append(f"prompt_template is for classification and was not applied to {result.input_format} rows")
    on_progress(len(source.records), len(source.records))
    return result


def name_rows(result: Ingested) -> None:
    """Gives rows without an id one made from their content; the nth row of equal content is told apart by its number."""
    occurrences: Counter[str] = Counter()
    replaced = 0
    for row in result.rows:
        if row["id"] is None:
            digest = sha256_of_json({name: value for name, value in row.items() if name not in ("id", "source")})[:16]
            occurrences[digest] += 1
            row["id"] = digest if occurrences[digest] == 1 else f"{digest}-{occurrences[digest]}"
        elif not _PLAIN_ID.fullmatch(row["id"]):
            row["id"] = _hashed_id(row["id"])
            replaced += 1
    if replaced:
        result.notes.append(f"{replaced} ids that are not plain tokens were replaced by their hashes")


def _hashed_id(row_id: str) -> str:
    return "id-" + hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def refuse_repeated_ids(result: Ingested, records: Sequence[Record]) -> None:
    """Drops the repetitions of a row under its own id, and quarantines all rows that share an id but differ.

    Which of several contents an id means cannot be known, and the order of a file is no argument.
    """
    contents: dict[str, set[str]] = defaultdict(set)
    occurrences = Counter(row["id"] for row in result.rows)
    for row in result.rows:
        if occurrences[row["id"]] > 1:
            contents[row["id"]].add(sha256_of_json(row))
    kept, seen = [], set()
    for row, record in zip(result.rows, records, strict=True):
        content = record.raw if record.raw is not None else row
        if len(contents.get(row["id"], ())) > 1:
            result.refused.append(refusal(STAGE, row["id"], "duplicate_id", content, field="id"))
        elif row["id"] in seen:
            result.refused.append(refusal(STAGE, row["id"], "repeated_row", content, disposition="dropped"))
        else:
            seen.add(row["id"])
            kept.append(row)
    result.rows = kept


def _keep_window(result: Ingested, config: SourceConfig) -> None:
    """Drops the rows made outside the configured window; a row whose time cannot be told goes to quarantine."""
    window = Window(config.created_after, config.created_before)
    if window.is_open:
        return
    kept = []
    for row in result.rows:
        try:
            inside = window.holds(row)
        except RowFaultError as fault:
            result.refused.append(refusal(STAGE, row["id"], fault.reason, row, field=fault.field))
            continue
        if inside:
            kept.append(row)
        else:
            result.refused.append(refusal(STAGE, row["id"], "outside_window", "", disposition="dropped"))
    result.rows = kept


def draw_sample(result: Ingested, max_rows: int, seed: int) -> None:
    """Keeps the rows whose ids have the smallest keyed hashes: a random sample that no order of rows changes."""
    key = f"sample:{seed}".encode()
    by_hash = sorted(result.rows, key=lambda row: hashlib.blake2b(row["id"].encode(), key=key, digest_size=16).digest())
    drawn = {row["id"] for row in by_hash[:max_rows]}
    result.refused += [
        refusal(STAGE, row["id"], "not_sampled", "", disposition="dropped") for row in result.rows if row["id"] not in drawn
    ]
    result.rows = [row for row in result.rows if row["id"] in drawn]


def refuse_record(record: Record, config: SourceConfig, reason: str, at: str | None = None) -> dict[str, Any]:
    """The quarantine row of a record that cannot become a row."""
    content: Any = record.raw if record.raw is not None else dict(record.fields)
    return refusal(STAGE, _name_of(record, config), reason, content, field=at)


def _name_of(record: Record, config: SourceConfig) -> str:
    try:
        given = id_of(record.fields, config)
    except RowFaultError:
        given = None
    if given is None:
        return record.place
    return given if _PLAIN_ID.fullmatch(given) else _hashed_id(given)


def _nothing_left(source: Source, refused: Sequence[dict[str, Any]]) -> InputError:
    counts = count_reasons(refused, "quarantined") | count_reasons(refused, "dropped")
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    places = ", ".join(row["id"] for row in refused[:3])
    return InputError(
        source.name,
        f"{len(refused)} records and none usable ({reasons or 'none at all'}; first: {places or '-'})",
        "at least one usable row",
        "Check `format`, `columns`, `created_after`, `created_before` and the export that wrote the file.",
    )
