"""Reads raw records from a source: a file, a folder or pattern of parts, a database, a saved or a hub data set.

A source is never modified. It is streamed anew on each iteration. A line that cannot be read becomes a record with a fault
and keeps its raw text; a file that cannot be read as a whole is an error. What a file is, its bytes say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from tasks.core.errors import InputError, MissingDependencyError
from tasks.core.storage import sha256_of_files, sha256_of_json
from tasks.ingest.config import Ceilings, SourceConfig
from tasks.ingest.containers import Container, too_many
from tasks.ingest.exchanges import with_conversations
from tasks.ingest.json_text import read_json
from tasks.ingest.kinds import DATABASE_URL, START_BYTES, kind_of_file
from tasks.ingest.parts import DATA_SUFFIXES, Part, is_pattern, parts_of_folder, parts_of_pattern
from tasks.ingest.records import Record, Records, Source
from tasks.ingest.tables import batch_records, check_columns, read_arrow, read_csv, read_excel, read_parquet

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BATCH_ROWS = 1_024


@dataclass(frozen=True)
class Reading:
    """How files are read: see the settings of the same names in :class:`~tasks.ingest.config.SourceConfig`."""

    encoding: str = "utf-8"
    records: str | None = None
    sheet: str | None = None


def read_configured(source: SourceConfig) -> Source:
    """The raw records of a configured source, those of telemetry as conversations; see :func:`read_source`."""
    given = read_source(
        source.path,
        encoding=source.encoding,
        records=source.records,
        sheet=source.sheet,
        query=source.query,
        hub_split=source.hub_split,
        hub_revision=source.hub_revision,
        ceilings=source.ceilings,
    )
    return with_conversations(given, source)


def read_source(
    path: str,
    *,
    encoding: str = "utf-8",
    records: str | None = None,
    sheet: str | None = None,
    query: str | None = None,
    hub_split: str = "train",
    hub_revision: str | None = None,
    ceilings: Ceilings | None = None,
) -> Source:
    """The raw records of a file, folder, database or hub data set.

    Args:
        path: A file, a URL, a folder, a pattern such as ``part-*.jsonl``, the address of a database, or a hub id.
        encoding: Of text files.
        records: Where the rows stand in a JSON document; None: the file is the rows.
        sheet: The sheet of a workbook; None: the only one with rows.
        query: Of a database: a table, or a statement that selects; None: the only table.
        hub_split: The split of a saved or hub data set.
        hub_revision: The revision of a hub data set.
        ceilings: How much may be in it; the usual when None.

    Raises:
        ConfigError: The address of a database holds a password, or names a variable that is not set.
        InputError: There is no such source, it is empty, above a ceiling, or it cannot be read as a whole.
        MissingDependencyError: The package that reads a saved or hub data set or this database is not installed.
    """
    ceilings, reading = ceilings or Ceilings(), Reading(encoding, records, sheet)
    if DATABASE_URL.match(path):
        from tasks.ingest.databases import read_database

        return read_database(path, query, ceilings)
    local = Path(path).expanduser()
    if "://" not in path and local.is_dir():
        return _read_folder(local, hub_split, ceilings, reading)
    if is_pattern(path) and ("://" in path or not local.exists()):
        return _read_parts(path, parts_of_pattern(path), ceilings, reading)
    if "://" not in path and not local.exists():
        if _HUB_ID.fullmatch(path) and PurePosixPath(path).suffix.lower() not in DATA_SUFFIXES:
            return _read_hub(path, hub_split, hub_revision, ceilings)
        raise InputError(path, "no such file", "a data file", "Correct the path; it is relative to the current folder.")
    container, read = _open(path, ceilings, reading)
    return Source(PurePosixPath(path).name, container.sha256, Records(read, path, ceilings))


def _open(path: str, ceilings: Ceilings, reading: Reading) -> tuple[Container, Callable[[], Iterator[Record]]]:
    container = Container(path, ceilings)
    if container.is_blank():
        raise InputError(path, "an empty file", "at least one row", "Check the export that wrote it.")
    return container, _reader(container, reading)


def _reader(container: Container, reading: Reading) -> Callable[[], Iterator[Record]]:
    """What reads the records of a file, from the start each time it is called."""
    suffix, encoding = PurePosixPath(container.name).suffix.lower(), reading.encoding
    with container.open() as stream:
        start = stream.read(START_BYTES)
    kind = "excel" if container.is_workbook else kind_of_file(container.path, start, encoding)
    if kind == "parquet" or suffix == ".parquet":
        return partial(read_parquet, container, container.seekable())
    if kind == "arrow":
        return partial(read_arrow, container, container.seekable())
    if kind == "excel":
        return partial(read_excel, container, container.seekable(), reading.sheet)
    if suffix in (".csv", ".tsv", ".tab"):
        return partial(read_csv, container, encoding, None if suffix == ".csv" else "\t")
    first = next((text.lstrip() for text in container.texts(encoding) if text.strip()), "")[:1]
    if suffix in (".json", ".jsonl", ".ndjson") or first in ("{", "["):
        return read_json(container, encoding, reading.records)
    raise InputError(
        container.path,
        f"a text file of type `{suffix or 'none'}`",
        "JSONL, JSON, CSV, TSV, Parquet, Arrow or Excel (also packed)",
        "Give the file the suffix of its format (.csv for a table), or convert it.",
    )


def _read_parts(where: str, parts: list[Part], ceilings: Ceilings, reading: Reading) -> Source:
    """Several files as one source, in the order of their names."""
    opened = [(part, *_open(part.path, ceilings, reading)) for part in parts]

    def read() -> Iterator[Record]:
        for part, _, records in opened:
            for record in records():
                fields = {**part.values, **record.fields} if part.values and not record.fault else record.fields
                yield Record(f"{part.name}:{record.place}", fields, record.raw, record.fault)

    digest = sha256_of_json([[part.name, container.sha256] for part, container, _ in opened])
    return Source(PurePosixPath(where).name, digest, Records(read, where, ceilings))


def _read_folder(folder: Path, split: str, ceilings: Ceilings, reading: Reading) -> Source:
    if not ((folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists()):
        return _read_parts(str(folder), parts_of_folder(folder), ceilings, reading)
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
        for record in batch_records(where, batches, ceilings):
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
