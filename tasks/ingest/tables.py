"""Tables: CSV, Parquet, Arrow and Excel files as records, a batch at a time."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import InputError, MissingDependencyError
from tasks.ingest.config import Ceilings
from tasks.ingest.containers import Container, above_bytes, too_long, too_many
from tasks.ingest.records import Record

_BATCH_ROWS = 1_024
_MAX_COLUMNS = 10_000
_MAX_VALUES = 50_000_000
"""Of one column in one row group of Parquet, which may say of millions of values in a few bytes that all are alike."""
_VALUE_BYTES = 8


def read_csv(container: Container, encoding: str, delimiter: str | None) -> Iterator[Record]:
    """The rows of a table as text, whose first line names the columns; without a delimiter, the likeliest of four."""
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


def read_parquet(container: Container, file: IO[bytes]) -> Iterator[Record]:
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
        yield from batch_records(path, batches, ceilings)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            path, f"a file that is not readable as Parquet ({type(error).__name__})", "a Parquet file", "Write it again."
        ) from error
    container.check_unchanged()


def read_arrow(container: Container, file: IO[bytes]) -> Iterator[Record]:
    """The rows of an Arrow file (Feather) or stream."""
    path = container.path
    try:
        file.seek(0)
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        check_columns(path, len(reader.schema))
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader
        yield from batch_records(path, batches, container.ceilings)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            path, f"a file that is not readable as Arrow ({type(error).__name__})", "a Feather file", "Write it again."
        ) from error
    container.check_unchanged()


def read_excel(container: Container, file: IO[bytes], sheet: str | None) -> Iterator[Record]:
    """The rows of a workbook's sheet, whose first row names the columns.

    Raises:
        InputError: It cannot be read, or has several sheets with rows and none is named.
        MissingDependencyError: The package that reads workbooks is not installed.
    """
    path = container.path
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise MissingDependencyError(
            path,
            "an Excel workbook, and no package `python-calamine`",
            "it, to read workbooks",
            "Run `pip install 'perennial-llm[excel]'`, or save the sheet as CSV (UTF-8).",
        ) from error
    file.seek(0)
    try:
        book = calamine.CalamineWorkbook.from_filelike(file)
        names = [sheet] if sheet in book.sheet_names else book.sheet_names
        tables = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=True) for name in names}
    except (calamine.CalamineError, ValueError, OSError) as error:
        raise InputError(
            path,
            f"a workbook that cannot be read ({type(error).__name__})",
            "an Excel file",
            "Save the sheet as CSV (UTF-8).",
        ) from error
    filled = {name: rows for name, rows in tables.items() if len(rows) > 1}
    if (sheet is not None and sheet not in tables) or len(filled) != 1:
        raise InputError(
            path,
            f"{len(filled)} sheets with rows" + (f", and none named `{sheet}`" if sheet is not None else ""),
            "one sheet whose first row names the columns",
            "Set `sheet` of the source to its name, or save the sheet as CSV (UTF-8).",
        )
    (rows,) = filled.values()
    header = [str(name).strip() for name in rows[0]]
    check_columns(path, len(header))
    columns = [name for name in header if name]
    if len(set(columns)) < len(columns) or not columns:
        raise InputError(path, "a first row with empty or repeated names", "distinct column names", "Correct row 1.")
    for number, values in enumerate(rows[1:], start=2):
        fields = {name: value if value != "" else None for name, value in zip(header, values, strict=False) if name}
        if any(value is not None for value in fields.values()):
            yield Record(f"row-{number}", fields)
    container.check_unchanged()


def batch_records(path: str, batches: Iterable[pa.RecordBatch], ceilings: Ceilings) -> Iterator[Record]:
    """The rows of batches, each unpacked only as far as its size allows."""
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
