"""Reads raw records from a source: JSON lines, a JSON array, CSV, Parquet, a saved or a hub data set.

A source is never modified. It is streamed anew on each iteration. A line that cannot be read becomes a record with a fault
and keeps its raw text; a file that cannot be read as a whole is an error.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import InputError, MissingDependencyError
from tasks.core.storage import sha256_of_files, sha256_of_json
from tasks.ingest.config import Ceilings, SourceConfig
from tasks.ingest.containers import Container, above_bytes, too_long, too_many

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BATCH_ROWS = 1_024
_MAX_COLUMNS = 10_000
_MAX_VALUES = 50_000_000
"""Of one column in one row group of Parquet, which may say of millions of values in a few bytes that all are alike."""
_VALUE_BYTES = 8
_LONGEST_ESCAPE = 16
_DATA_SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"}


@dataclass(frozen=True)
class Record:
    """One raw record: its ``place`` (``line-12``), its ``fields``, or the ``fault`` that kept it from being read.

    ``raw`` is the text it came from, when it came from text.
    """

    place: str
    fields: Mapping[str, Any]
    raw: str | None = None
    fault: str | None = None


class Records(Collection[Record]):
    """The records of a source, read anew on each iteration, so that they are never all in memory.

    Args:
        read: Reads them from the start.
        source: The source's name, for the error.
        ceilings: How many there may be.

    Raises:
        InputError: There are more.
    """

    def __init__(self, read: Callable[[], Iterator[Record]], source: str, ceilings: Ceilings) -> None:
        self._read = read
        self._count = 0
        for _ in self:
            self._count += 1
            if self._count > ceilings.max_records:
                raise too_many(source, ceilings)

    def __iter__(self) -> Iterator[Record]:
        return self._read()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, record: object) -> bool:
        return any(record == other for other in self)


@dataclass(frozen=True)
class Source:
    """All raw records of a source, with the SHA-256 of its bytes."""

    name: str
    sha256: str
    records: Collection[Record]


def read_configured(source: SourceConfig) -> Source:
    """The raw records of a configured source; see :func:`read_source`."""
    return read_source(
        source.path,
        encoding=source.encoding,
        hub_split=source.hub_split,
        hub_revision=source.hub_revision,
        ceilings=source.ceilings,
    )


def read_source(
    path: str,
    *,
    encoding: str = "utf-8",
    hub_split: str = "train",
    hub_revision: str | None = None,
    ceilings: Ceilings | None = None,
) -> Source:
    """The raw records of a file, folder or hub data set.

    Args:
        path: A file, a URL, a folder or a hub id.
        encoding: Of text files.
        hub_split: The split of a saved or hub data set.
        hub_revision: The revision of a hub data set.
        ceilings: How much may be in it; the usual when None.

    Raises:
        InputError: There is no such source, it is empty, above a ceiling, or it cannot be read as a whole.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    ceilings = ceilings or Ceilings()
    local = Path(path).expanduser()
    if "://" not in path and local.is_dir():
        return _read_folder(local, hub_split, ceilings)
    if "://" not in path and not local.exists():
        if _HUB_ID.fullmatch(path) and PurePosixPath(path).suffix.lower() not in _DATA_SUFFIXES:
            return _read_hub(path, hub_split, hub_revision, ceilings)
        raise InputError(path, "no such file", "a data file", "Correct the path; it is relative to the current folder.")
    container = Container(path, ceilings)
    if container.is_blank():
        raise InputError(path, "an empty file", "at least one row", "Check the export that wrote it.")
    read = _reader(container, encoding)
    return Source(PurePosixPath(path).name, container.sha256, Records(read, path, ceilings))


def _reader(container: Container, encoding: str) -> Callable[[], Iterator[Record]]:
    """What reads the records of a file, from the start each time it is called."""
    suffix = PurePosixPath(container.path.removesuffix(".gz")).suffix.lower()
    with container.open() as stream:
        start = stream.read(4)
    if start == b"PAR1" or suffix == ".parquet":
        return partial(_read_parquet, container, container.seekable())
    first = next((text.lstrip() for text in container.texts(encoding) if text.strip()), "")[:1]
    if suffix in (".csv", ".tsv"):
        return partial(_read_csv, container, encoding, "\t" if suffix == ".tsv" else None)
    if first == "[" and suffix == ".json":
        return partial(_read_json_array, container, encoding)
    if suffix in (".json", ".jsonl", ".ndjson") or first == "{":
        return partial(_read_json_lines, container, encoding)
    raise InputError(
        container.path,
        f"a file of type `{suffix or 'none'}`",
        "JSONL, JSON, CSV, TSV or Parquet",
        "Give the file the suffix of its format, or convert it.",
    )


def _read_json_lines(container: Container, encoding: str) -> Iterator[Record]:
    for number, line in enumerate(container.lines(encoding), start=1):
        if line.strip():
            yield _parse_object(f"line-{number}", line.removesuffix("\n").rstrip("\r"))


def _parse_object(place: str, line: str) -> Record:
    try:
        value = json.loads(line)
    except RecursionError:
        return Record(place, {}, line, "nested_too_deeply")
    except ValueError:
        return Record(place, {}, line, "malformed_json")
    return Record(place, value, line) if isinstance(value, dict) else Record(place, {}, line, "not_an_object")


def _read_json_array(container: Container, encoding: str) -> Iterator[Record]:
    array = ArrayText(container, encoding)
    try:
        for number, item in enumerate(array.items(), start=1):
            if isinstance(item, dict):
                yield Record(f"item-{number}", item)
            else:
                yield Record(f"item-{number}", {}, json.dumps(item), "not_an_object")
    except json.JSONDecodeError as error:
        line, column = array.place_of(error)
        raise InputError(
            f"{container.path}, line {line}, column {column}",
            error.msg,
            "a JSON array of objects",
            "Correct the file there, or write one object per line (JSONL), where a bad line costs one row.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            container.path,
            f"JSON that cannot be read ({type(error).__name__})",
            "an array of objects",
            "Write one object per line.",
        ) from error


class ArrayText:
    """A JSON array read item by item: no more of its text is kept than the item that is being read.

    Args:
        container: The file.
        encoding: Its encoding.
    """

    def __init__(self, container: Container, encoding: str) -> None:
        self._container = container
        self._texts = container.texts(encoding)
        self._decoder = json.JSONDecoder()
        self._text, self._place = "", 0
        self._lines = self._columns = 0  # of what was read and is no longer kept

    def items(self) -> Iterator[Any]:
        """The items in order.

        Raises:
            json.JSONDecodeError: The text is no array; see :meth:`place_of`.
            InputError: An item is longer than a record may be.
        """
        self._take("[")
        if self._next() == "]":
            self._take("]")
        else:
            while True:
                yield self._value()
                if self._next() == "]":
                    self._take("]")
                    break
                self._take(",")
        if self._next():
            raise json.JSONDecodeError("Extra data", self._text, self._place)

    def place_of(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """Line and column in the file of an error in what is kept of it."""
        return self._lines + error.lineno, error.colno + (self._columns if error.lineno == 1 else 0)

    def _next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\n\r":
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise json.JSONDecodeError(f"Expecting '{wanted}' delimiter", self._text, self._place)
        self._place += 1

    def _value(self) -> Any:
        self._next()
        while True:
            length = len(self._text) - self._place
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_ESCAPE
                if not is_cut or not self._more(length):
                    raise
            else:
                if end < len(self._text) or not self._more():  # else a number may go on
                    self._place = end
                    return value
            self._container.check_record(self._text[self._place :], self._lines + 1)

    def _more(self, at_least: int = 1) -> bool:
        """Reads on, at least so many characters where there are so many; what lies before the place is forgotten."""
        parts, length = [], 0
        while length < at_least and (text := next(self._texts, "")):
            parts.append(text)
            length += len(text)
        if parts:
            passed = self._text[: self._place]
            newlines = passed.count("\n")
            self._lines += newlines
            self._columns = len(passed) - passed.rindex("\n") - 1 if newlines else self._columns + len(passed)
            self._text, self._place = "".join((self._text[self._place :], *parts)), 0
        return bool(parts)


def _read_csv(container: Container, encoding: str, delimiter: str | None) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 kB turns a long reply into an error
    path, consumed = container.path, []
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in container.lines(encoding, universal=True):
            consumed.append(line)
            taken += len(line)
            if taken > container.ceilings.max_record_characters:
                raise too_long(f"{path}, line {start}", container.ceilings)
            yield line

    first, start = next(container.lines(encoding), ""), 1
    reader = csv.reader(lines(), delimiter=delimiter or max(",;\t|", key=first.count), strict=True)
    header: list[str] | None = None
    while True:
        consumed.clear()
        taken = 0
        start = reader.line_num + 1
        fault = None
        try:
            values = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise InputError(
                    f"{path}, line {start}",
                    "a quote that is never closed",
                    'a closing quote (a quote inside a quoted value is written "")',
                    "Correct that line.",
                ) from error
            values, fault = [], "malformed_csv"
        if values is None:
            return
        if header is None:
            header = [name.strip() for name in values]
            check_columns(path, len(header))
            if fault or len(set(header)) < len(header):
                raise InputError(
                    path, "a header with unreadable or repeated names", "distinct column names", "Correct line 1."
                )
        elif fault or values:
            raw = "".join(consumed).rstrip("\r\n")
            if not fault and len(values) != len(header):
                fault = "wrong_number_of_fields"
            fields = {} if fault else dict(zip(header, values, strict=True))
            yield Record(f"line-{start}", fields, raw, fault)


def _read_parquet(container: Container, file: IO[bytes]) -> Iterator[Record]:
    """Rows batch by batch. Texts stay in the file's own dictionaries until their size is known, which may be any."""
    path, ceilings = container.path, container.ceilings
    try:
        file.seek(0)
        about = pq.read_metadata(file)
        columns = [about.schema.column(number) for number in range(about.num_columns)]
        check_columns(path, len(columns))
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        if about.num_rows > ceilings.max_records:
            raise too_many(path, ceilings)
        if (size := sum(group.total_byte_size for group in groups)) > ceilings.max_bytes:
            raise above_bytes(path, f"{size:,} bytes when unpacked", ceilings)
        for group in groups:
            if any(group.column(number).num_values > _MAX_VALUES for number in range(group.num_columns)):
                raise too_long(f"{path}, a column of {_MAX_VALUES:,} values in one row group", ceilings)
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        file.seek(0)
        parquet = pq.ParquetFile(file, read_dictionary=texts)
        batches = parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
        yield from _batch_records(path, batches, ceilings)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            path, f"a file that is not readable as Parquet ({type(error).__name__})", "a Parquet file", "Write it again."
        ) from error
    container.check_unchanged()


def _batch_records(path: str, batches: Iterable[pa.RecordBatch], ceilings: Ceilings) -> Iterator[Record]:
    number = size = 0
    for batch in batches:
        for piece in _pieces(batch, ceilings.max_record_characters):
            size += _unpacked_size(piece)
            if size > ceilings.max_bytes:
                raise above_bytes(path, f"more than {ceilings.max_bytes:,} bytes when unpacked", ceilings)
            if piece.num_rows == 1 and _unpacked_size(piece) > ceilings.max_record_characters:
                raise too_long(f"{path}, row {number + 1}", ceilings)
            for fields in piece.to_pylist():
                number += 1
                yield Record(f"row-{number}", fields)


def _pieces(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """A batch in parts that are small once they are unpacked, or of one row."""
    if batch.num_rows <= 1 or _unpacked_size(batch) <= max_bytes:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half), max_bytes)
    yield from _pieces(batch.slice(half), max_bytes)


def _unpacked_size(values: Any) -> int:
    """The bytes of a batch or an array as Python will hold them: each use of a dictionary's value counts."""
    if isinstance(values, pa.RecordBatch):
        return sum(_unpacked_size(column) for column in values.columns)
    kind = values.type
    if pa.types.is_dictionary(kind):
        if not (pa.types.is_string(kind.value_type) or pa.types.is_binary(kind.value_type)):
            return int(_VALUE_BYTES * len(values))
        lengths = pc.binary_length(values.dictionary)
        return int(pc.sum(pc.take(lengths, values.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_unpacked_size(field) for field in values.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        items = pa.ListArray.flatten(values) if pa.types.is_map(kind) else values.flatten()
        return _unpacked_size(items) + _VALUE_BYTES * len(items)
    return int(values.nbytes)


def check_columns(path: str, count: int) -> None:
    """Checks that a table is no wider than any record is.

    Raises:
        InputError: It is wider.
    """
    if count > _MAX_COLUMNS:
        raise InputError(
            path,
            f"{count:,} columns",
            f"at most {_MAX_COLUMNS:,}",
            "Export only the columns that you need; check the delimiter.",
        )


def _read_folder(folder: Path, split: str, ceilings: Ceilings) -> Source:
    if not ((folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists()):
        raise InputError(
            str(folder),
            "a folder",
            "a data file, or a folder written by `datasets.save_to_disk`",
            "Name one file in it.",
        )
    datasets = _import_datasets(str(folder))
    digests = sha256_of_files(folder)
    try:
        dataset = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            str(folder),
            f"a saved data set that cannot be read ({type(error).__name__})",
            "a complete folder",
            "Save it again.",
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise InputError(str(folder), f"splits {', '.join(sorted(dataset))}", f"`{split}`", "Set `hub_split`.")
        dataset = dataset[split]
    return Source(folder.name, sha256_of_json(digests), _dataset_records(str(folder), dataset, ceilings))


def _read_hub(hub_id: str, split: str, revision: str | None, ceilings: Ceilings) -> Source:
    datasets = _import_datasets(hub_id)
    import httpx

    try:
        dataset = datasets.load_dataset(hub_id, split=split, revision=revision)
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            hub_id,
            f"neither a local file nor a hub data set within reach ({type(error).__name__})",
            "a file, a saved data set, or a hub id with internet access",
            "Correct the path; or, without internet, download the data set elsewhere and give its path.",
        ) from error
    records = _dataset_records(hub_id, dataset, ceilings)
    return Source(hub_id, _sha256_of_records(records), records)


def _sha256_of_records(records: Records) -> str:
    """The hash of the records as one JSON array, written piece by piece."""
    digest = hashlib.sha256(b"[")
    for number, record in enumerate(records):
        item = json.dumps(dict(record.fields), sort_keys=True, separators=(",", ":"), default=str)
        digest.update(f"{',' if number else ''}{item}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def _dataset_records(where: str, dataset: Any, ceilings: Ceilings) -> Records:
    """The rows of a `datasets` data set, class numbers replaced by class names."""
    if len(dataset) > ceilings.max_records:
        raise too_many(where, ceilings)
    check_columns(where, len(dataset.features))
    names = {name: feature.names for name, feature in dataset.features.items() if hasattr(feature, "int2str")}
    tables = dataset.with_format("arrow")

    def read() -> Iterator[Record]:
        batches = (batch for table in tables.iter(_BATCH_ROWS) for batch in table.to_batches())
        for record in _batch_records(where, batches, ceilings):
            fields = dict(record.fields)
            for column, classes in names.items():
                number = fields[column]
                fields[column] = classes[number] if isinstance(number, int) and 0 <= number < len(classes) else None
            yield Record(record.place, fields)

    return Records(read, where, ceilings)


def _import_datasets(where: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            where,
            "no package `datasets`",
            "it, to read saved and hub data sets",
            "Run `pip install 'perennial-llm[ingest]'`, or export the rows as JSONL.",
        ) from error
    return datasets
