"""Builds a snapshot from raw records: canonical rows with unique ids, and every record that has none."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from tasks.contracts.base import DatasetKind
from tasks.core.errors import InputError
from tasks.core.quarantine import quarantine_row
from tasks.core.reasons import remedy_for
from tasks.core.rows import Rows, TableRows
from tasks.core.storage import sha256_of_json
from tasks.ingest.columns import ColumnSurvey
from tasks.ingest.config import InputFormat, SourceConfig
from tasks.ingest.formats import (
    ALIASES,
    RowFaultError,
    column_roles,
    find_format,
    id_of,
    is_disliked,
    is_unconfirmed,
    kind_of,
    to_row,
    unused_columns,
)
from tasks.ingest.records import Record, Source
from tasks.ingest.row_names import RowNames
from tasks.ingest.times import TimeCheck
from tasks.ingest.window import Window

STAGE = "ingest"


@dataclass
class Ingested:
    """Rows in the order of the source, the other records as quarantine rows, and notes for the report."""

    input_format: InputFormat
    rows: TableRows
    quarantined_rows: Rows = field(default_factory=lambda: Rows("quarantine"))
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    """Which column became what, by role and setting."""
    header: list[str] = field(default_factory=list)
    """The columns of the records."""

    @property
    def ignored(self) -> list[str]:
        """Columns that nothing reads."""
        read = {column.partition(".")[0] for column in self.columns.values()} | {*self.columns.values()}
        return [column for column in self.header if column not in read]


def make_snapshot(
    source: Source, config: SourceConfig, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Ingested:
    """The canonical rows of a source; each record that cannot become one is quarantined with a reason code.

    Raises:
        InputError: No record has the expected columns, or every record is faulty.
    """
    names = names_of(source, config)
    if all(record.fault is not None for record in source.records):
        quarantined_rows = Rows("quarantine")
        for record in source.records:
            quarantined_rows.append(quarantine_record(record, config, names, record.fault or ""))
        raise _nothing_left(source, quarantined_rows, config)
    readable = (record.fields for record in source.records if record.fault is None)
    survey = ColumnSurvey(config)
    collected = Collected(find_format(survey.watching(readable), config, source.name), names)
    notes = [*source.notes, *survey.check(source.name), *unused_columns(collected.input_format, config, survey.filled)]
    times = TimeCheck(config)
    changes: Counter[str] = Counter()
    for number, given in enumerate(source.records):
        record = replace(given, fields=survey.prepared(given.fields))
        try:
            if record.fault:
                raise RowFaultError(record.fault)
            row = to_row(record.fields, collected.input_format, config, source.name, changes)
            times.see(row["created_at"])
            if collected.input_format == "preferences" and is_unconfirmed(record.fields):
                collected.drop(_name_of(record, config, names), "not_confirmed", row)
                continue
            if is_disliked(record.fields, config):
                content = record.raw if record.raw is not None else row
                name = _name_of(record, config, names)
                collected.quarantined_rows.append(
                    quarantine_row(STAGE, name, "negative_feedback", content, disposition="dropped")
                )
                continue
            collected.add(row, number)
        except RowFaultError as fault:
            collected.quarantined_rows.append(quarantine_record(record, config, names, fault.reason, fault.field))
        if (number + 1) % 10_000 == 0:
            on_progress(number + 1, len(source.records))
    notes += times.check(source.name)
    result = collected.finalize(source, config.max_rows, config.seed, Window(config.created_after, config.created_before))
    result.notes += notes
    result.columns = column_roles(collected.input_format, config, survey.filled)
    result.header = survey.columns
    if not len(result.rows):
        raise _nothing_left(source, result.quarantined_rows, config)
    if config.prompt_template != "{text}" and result.input_format != "classification":
        result.notes.append(f"prompt_template is for classification and was not applied to {result.input_format} rows")
    result.notes += _doubtful_labels(result, config)
    result.notes += [f"{count} conversations {change}" for change, count in sorted(changes.items())]
    on_progress(len(source.records), len(source.records))
    return result


def _doubtful_labels(result: Ingested, config: SourceConfig) -> list[str]:
    """A note where the labels beside replies are true and false, or 1 and 0: a verdict on the reply is written so too."""
    if result.input_format not in ("prompt_completion", "chat", "alpaca") or config.label_column:
        return []
    labels = {label for label in pc.unique(result.rows.table["label"]).to_pylist() if label is not None}
    if len(labels) < 2 or not {label.lower() for label in labels} <= {"true", "false", "1", "0", "-1"}:
        return []
    shown = " and ".join(f"`{label}`" for label in sorted(labels))
    return [
        f"the column `label` holds {shown} alone and is read as a class, so that every reply is learned: if it says whether "
        "the reply is good, write it as true and false and set `feedback_column: label`; if not, set `label_column: label`"
    ]


def require_kind(input_format: InputFormat, kind: DatasetKind, where: str) -> None:
    """Checks that a source holds rows of the kind that its section needs, before anything is paid for.

    Raises:
        InputError: It holds pairs where examples are needed, or the reverse.
    """
    if (found := kind_of(input_format)) != kind:
        names = {"messages": "examples (a prompt and its reply)", "preferences": "preference pairs (chosen and rejected)"}
        raise InputError(
            where,
            f"{names[found]}, format {input_format}",
            names[kind],
            "Name the file under `preferences`, and a file of examples under `examples`."
            if found == "preferences"
            else "Name a file of pairs under `preferences`, or leave `preferences` out.",
        )


class Collected:
    """Builder of a snapshot: rows in Arrow (but for the last few), each with its id and the record it came from."""

    def __init__(self, input_format: InputFormat, names: RowNames) -> None:
        self.input_format = input_format
        self._names = names
        self.quarantined_rows = Rows("quarantine")
        self._rows = Rows(kind_of(input_format))
        self._ids: list[str] = []
        self._given: list[str] = []
        self._records = array("q")
        self._occurrences: Counter[str] = Counter()
        self._num_replaced = 0

    def add(self, row: dict[str, Any], record: int) -> None:
        """Adds a row and gives it a name: its own id where that may be shown, else one made of the content.

        The nth row of equal content without such an id carries its number.
        """
        given = row["id"]
        if given is None or not self._names.is_plain(given):
            name = self._names.of_content(row)
            self._occurrences[name] += 1
            row["id"] = name if self._occurrences[name] == 1 else f"{name}-{self._occurrences[name]}"
            self._num_replaced += given is not None
        self._ids.append(row["id"])
        self._given.append(given or row["id"])
        self._records.append(record)
        self._rows.append(row)

    def drop(self, row_id: str, reason: str, content: Mapping[str, Any] | str = "") -> None:
        """Drops a row that a policy excludes."""
        self.quarantined_rows.append(quarantine_row(STAGE, row_id, reason, content, disposition="dropped"))

    def finalize(self, source: Source, max_rows: int | None, seed: int, window: Window | None = None) -> Ingested:
        """The rows under distinct ids, made inside the window, at most ``max_rows`` of them.

        Args:
            source: Where the rows came from, for the raw text of those that are quarantined.
            max_rows: A larger number of rows is drawn from; None keeps all.
            seed: Seed of the draw.
            window: Rows made outside are dropped; one without a readable time goes to quarantine. None keeps all.
        """
        rows = TableRows(self._rows.table())
        kept = self._without_repeated_ids(rows, source)
        if window is not None and not window.is_open:
            kept = self._inside(rows, kept, window)
        if max_rows is not None and len(kept) > max_rows:
            drawn = draw_sample([self._ids[place] for place in kept], max_rows, seed)
            for place in kept:
                if self._ids[place] not in drawn:
                    self.quarantined_rows.append(
                        quarantine_row(STAGE, self._ids[place], "not_sampled", "", disposition="dropped")
                    )
            kept = [place for place in kept if self._ids[place] in drawn]
        notes = []
        if self._num_replaced:
            notes.append(f"{self._num_replaced} ids may be names or numbers of people, and their rows are named by content")
        return Ingested(self.input_format, rows if len(kept) == len(rows) else rows.take(kept), self.quarantined_rows, notes)

    def _without_repeated_ids(self, rows: TableRows, source: Source) -> list[int]:
        """Drops the repetitions of a row under its own id, and quarantines all rows that share an id but differ.

        Which of several contents an id means is unknown, and the order of a file does not decide it.
        """
        occurrences = Counter(self._given)
        shared = [place for place, given in enumerate(self._given) if occurrences[given] > 1]
        if not shared:
            return list(range(len(rows)))
        contents: dict[str, set[str]] = defaultdict(set)
        for place, row in zip(shared, rows.take(shared), strict=True):
            contents[self._given[place]].add(sha256_of_json({**row, "id": None}))
        reasons: dict[int, str] = {}
        seen: set[str] = set()
        for place in shared:
            if len(contents[self._given[place]]) > 1:
                reasons[place] = "duplicate_id"
            elif self._given[place] in seen:
                reasons[place] = "repeated_row"
            seen.add(self._given[place])
        wanted = {self._records[place] for place in reasons}
        raw = {number: record.raw for number, record in enumerate(source.records) if number in wanted}
        for place, row in zip(reasons, rows.take(reasons), strict=True):
            content = raw[self._records[place]]
            given = content if content is not None else row
            if reasons[place] == "duplicate_id":
                self.quarantined_rows.append(quarantine_row(STAGE, row["id"], "duplicate_id", given, field="id"))
            else:
                self.drop(row["id"], "repeated_row", given)
        return [place for place in range(len(rows)) if place not in reasons]

    def _inside(self, rows: TableRows, places: list[int], window: Window) -> list[int]:
        times = rows.table.column("created_at").to_pylist()
        kept, faults = [], {}
        for place in places:
            try:
                inside = window.holds({"created_at": times[place]})
            except RowFaultError as fault:
                faults[place] = fault
                continue
            if inside:
                kept.append(place)
            else:
                self.quarantined_rows.append(
                    quarantine_row(STAGE, self._ids[place], "outside_window", "", disposition="dropped")
                )
        for (place, wrong), row in zip(faults.items(), rows.take(faults), strict=True):
            self.quarantined_rows.append(quarantine_row(STAGE, self._ids[place], wrong.reason, row, field=wrong.field))
        return kept


def draw_sample(ids: Iterable[str], max_rows: int, seed: int) -> set[str]:
    """The ids with the smallest keyed hashes: a random sample that no order of rows changes."""
    key = f"sample:{seed}".encode()
    by_hash = sorted(ids, key=lambda row_id: hashlib.blake2b(row_id.encode(), key=key, digest_size=16).digest())
    return set(by_hash[:max_rows])


def names_of(source: Source, config: SourceConfig) -> RowNames:
    """The names for the rows of a source."""
    return RowNames(_id_of(record, config) for record in source.records)


def quarantine_record(
    record: Record, config: SourceConfig, names: RowNames, reason: str, at: str | None = None
) -> dict[str, Any]:
    """The quarantine row of a record that cannot become a row."""
    content: Any = record.raw if record.raw is not None else dict(record.fields)
    return quarantine_row(STAGE, _name_of(record, config, names), reason, content, field=at)


def _name_of(record: Record, config: SourceConfig, names: RowNames) -> str:
    given = _id_of(record, config)
    return given if given is not None and names.is_plain(given) else record.place


def _id_of(record: Record, config: SourceConfig) -> str | None:
    try:
        return id_of(record.fields, config)
    except RowFaultError:
        return None


def _nothing_left(source: Source, quarantined_rows: Rows, config: SourceConfig) -> InputError:
    """The error of a source without a usable row, by reason and field; of a value that is no text, its type."""
    counts = Counter((row["reason"], row["field"]) for row in quarantined_rows)
    reasons = [f"{reason}{f' in `{place}`' if place else ''} {count}" for (reason, place), count in counts.most_common(5)]
    places = ", ".join(row["id"] for row in quarantined_rows[:3])
    (reason, place), _ = counts.most_common(1)[0] if counts else (("", None), 0)
    if reason == "not_text" and place:
        record = next(ColumnSurvey(config).watching(record.fields for record in source.records))
        names = (place, config.columns.get(place), *ALIASES.get(place, ()))
        column = next((name for name in names if record.get(name) is not None), None)
        reasons[0] += f" (column `{column}`, {type(record[column]).__name__})" if column else ""
    return InputError(
        source.name,
        f"{len(quarantined_rows)} records and none usable ({', '.join(reasons) or 'none at all'}; first: {places or '-'})",
        "at least one usable row",
        remedy_for(STAGE, reason)
        if reason
        else f"Correct `records: {config.records}`."
        if config.records
        else "Check the export that wrote the file.",
    )
