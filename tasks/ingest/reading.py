"""Raw records out of a source, whatever its container: JSON lines, a JSON array, CSV, Parquet, a saved or hub data set.

A source is read once and never modified. A line that cannot be read becomes a record with a fault, kept with its raw text;
a file that cannot be read as a whole is an error.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError, MissingDependencyError
from tasks.rows import TableRows
from tasks.storage import sha256_of, sha256_of_files, sha256_of_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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
    """The records of a source, read anew each time they are gone through, so that they are never all in memory.

    Args:
        read: Reads them from the start.
    """

    def __init__(self, read: Callable[[], Iterator[Record]]) -> None:
        self._read = read
        self._count = sum(1 for _ in self)

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


def read_source(path: str, *, encoding: str = "utf-8", hub_split: str = "train", hub_revision: str | None = None) -> Source:
    """The raw records of a file, folder or hub data set.

    Raises:
        InputError: There is no such source, it is empty, or it cannot be read as a whole.
        MissingDependencyError: A saved or hub data set is named and `datasets` is not installed.
    """
    local = Path(path).expanduser()
    if "://" not in path and local.is_dir():
        return _read_folder(local, hub_split)
    if "://" not in path and not local.exists():
        if _HUB_ID.fullmatch(path) and PurePosixPath(path).suffix.lower() not in _DATA_SUFFIXES:
            return _read_hub(path, hub_split, hub_revision)
        raise InputError(path, "no such file", "a data file", "Correct the path; it is relative to the current folder.")
    data = _read_file(path if "://" in path else str(local))
    content = _decompress(path, data) if data[:2] == b"\x1f\x8b" else data
    if not content.strip():
        raise InputError(path, "an empty file", "at least one row", "Check the export that wrote it.")
    return Source(PurePosixPath(path).name, sha256_of(data), _read_records(path, content, encoding))


def _read_file(path: str) -> bytes:
    try:
        filesystem, inside = fsspec.core.url_to_fs(path)
        data: bytes = filesystem.cat_file(inside)
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "a data file", "Correct the path.") from error
    except PermissionError as error:
        raise InputError(path, "a file that may not be read", "a readable file", "Check its permissions.") from error
    except OSError as error:
        raise InputError(
            path, f"a read error ({type(error).__name__})", "a readable file", "Check the disk or the connection."
        ) from error
    return data


def _decompress(path: str, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            path, "a file that is not readable as gzip", "a complete .gz file", "Copy or write it again."
        ) from error


def _read_records(path: str, data: bytes, encoding: str) -> Records:
    suffix = PurePosixPath(path.removesuffix(".gz")).suffix.lower()
    if data[:4] == b"PAR1" or suffix == ".parquet":
        return _table_records(_read_parquet(path, data))
    text = _decode(path, data, encoding)
    if suffix in (".csv", ".tsv"):
        return Records(lambda: _read_csv(path, text, "\t" if suffix == ".tsv" else None))
    if text.lstrip()[:1] == "[" and suffix == ".json":
        items = _read_json_array(path, text)
        return Records(lambda: _array_records(items))
    if suffix in (".json", ".jsonl", ".ndjson") or text.lstrip()[:1] == "{":
        return Records(lambda: _read_json_lines(text))
    raise InputError(
        path,
        f"a file of type `{suffix or 'none'}`",
        "JSONL, JSON, CSV, TSV or Parquet",
        "Give the file the suffix of its format, or convert it.",
    )


def _decode(path: str, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        looks_like = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252 or latin-1"
        raise InputError(
            path,
            f"bytes that are not {encoding} at byte {error.start} (line {line})",
            f"{encoding} text",
            f"Set `encoding` to the file's own; it may be {looks_like}.",
        ) from error
    return text.removeprefix("\ufeff")


def _read_json_lines(text: str) -> Iterator[Record]:
    start, number = 0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = end if end >= 0 else len(text)
        line, start, number = text[start:end], end + 1, number + 1
        if line.strip():
            yield _parse_object(f"line-{number}", line.rstrip("\r"))


def _parse_object(place: str, line: str) -> Record:
    try:
        value = json.loads(line)
    except RecursionError:
        return Record(place, {}, line, "nested_too_deeply")
    except ValueError:
        return Record(place, {}, line, "malformed_json")
    return Record(place, value, line) if isinstance(value, dict) else Record(place, {}, line, "not_an_object")


def _read_json_array(path: str, text: str) -> list[Any]:
    try:
        items: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}",
            error.msg,
            "a JSON array of objects",
            "Mend the file there, or write one object per line (JSONL), where a bad line costs one row.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            path, f"JSON that cannot be read ({type(error).__name__})", "an array of objects", "Write one object per line."
        ) from error
    return items


def _array_records(items: list[Any]) -> Iterator[Record]:
    for number, item in enumerate(items, start=1):
        if isinstance(item, dict):
            yield Record(f"item-{number}", item)
        else:
            yield Record(f"item-{number}", {}, json.dumps(item), "not_an_object")


def _read_csv(path: str, text: str, delimiter: str | None) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 kB turns a long reply into an error
    consumed: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            consumed.append(line)
            yield line

    first = text.split("\n", 1)[0]
    reader = csv.reader(lines(), delimiter=delimiter or max(",;\t|", key=first.count), strict=True)
    header: list[str] | None = None
    while True:
        consumed.clear()
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
                    "Mend that line.",
                ) from error
            values, fault = [], "malformed_csv"
        if values is None:
            return
        if header is None:
            header = [name.strip() for name in values]
            if fault or len(set(header)) < len(header):
                raise InputError(path, "a header with unreadable or repeated names", "distinct column names", "Mend line 1.")
        elif fault or values:
            raw = "".join(consumed).rstrip("\r\n")
            if not fault and len(values) != len(header):
                fault = "wrong_number_of_fields"
            fields = {} if fault else dict(zip(header, values, strict=True))
            yield Record(f"line-{start}", fields, raw, fault)


def _read_parquet(path: str, data: bytes) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            path, f"a file that is not readable as Parquet ({type(error).__name__})", "a Parquet file", "Write it again."
        ) from error


def _table_records(table: pa.Table) -> Records:
    return Records(lambda: (Record(f"row-{number}", fields) for number, fields in enumerate(TableRows(table), start=1)))


def _read_folder(folder: Path, split: str) -> Source:
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
    return Source(folder.name, sha256_of_json(digests), _dataset_records(dataset))


def _read_hub(hub_id: str, split: str, revision: str | None) -> Source:
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
    records = _dataset_records(dataset)
    return Source(hub_id, sha256_of_json([dict(record.fields) for record in records]), records)


def _dataset_records(dataset: Any) -> Records:
    """The rows of a `datasets` data set, class numbers replaced by class names."""
    names = {name: feature.names for name, feature in dataset.features.items() if hasattr(feature, "int2str")}
    numbered = _table_records(dataset.with_format("arrow")[:])

    def read() -> Iterator[Record]:
        for record in numbered:
            fields = dict(record.fields)
            for column, classes in names.items():
                number = fields[column]
                fields[column] = classes[number] if isinstance(number, int) and 0 <= number < len(classes) else None
            yield Record(record.place, fields)

    return Records(read)


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
