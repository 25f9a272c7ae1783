"""What a file is, by its first bytes: which reader takes it, or why none does and what to do."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from tasks.core.errors import ConfigError, InputError

Kind = Literal["parquet", "arrow", "excel", "text"]

START_BYTES = 4_096
"""As many bytes suffices to tell what a file is."""
_READ: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),  # a stream of messages
)
_EXPORT = "Export the rows as JSONL, CSV or Parquet."
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Office document (.xls or .doc)",
        "Save the sheet as .xlsx or CSV (UTF-8).",
    ),
    (b"SQLite format 3\0", "an SQLite database", "Name it as sqlite:///FILE, and the table as `query`."),
    (b"FEA1", "a Feather file of version 1", "Write it again with `pyarrow.feather.write_feather(..., version=2)`."),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"ORC", "an ORC file", "Write it as Parquet."),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and name the file or the folder in it."),
    (b"Rar!", "a RAR archive", "Unpack it and name the file or the folder in it."),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"{\\rtf", "an RTF document", _EXPORT),
    (b"\x80\x02", "a Python pickle", "It runs code when it is read. Write it as Parquet: `frame.to_parquet(...)`."),
    (b"\x80\x03", "a Python pickle", "It runs code when it is read. Write it as Parquet: `frame.to_parquet(...)`."),
    (b"\x80\x04", "a Python pickle", "It runs code when it is read. Write it as Parquet: `frame.to_parquet(...)`."),
    (b"\x80\x05", "a Python pickle", "It runs code when it is read. Write it as Parquet: `frame.to_parquet(...)`."),
    (b"version https://git-lfs", "the pointer of a Git LFS file, without its content", "Run `git lfs pull`."),
    (b"\x04\x22\x4d\x18", "a file packed with LZ4", "Unpack it: `lz4 -d FILE`."),
    (b"\x1f\x9d", "a file packed with compress (.Z)", "Unpack it: `uncompress FILE`."),
    (b"\x89PNG", "an image", _EXPORT),
    (b"\xff\xd8\xff", "an image", _EXPORT),
    (b"GIF8", "an image", _EXPORT),
)
_MARKUP = re.compile(rb"\s*<(\?xml|!doctype|html|[a-z][\w:-]*[\s>])", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_TAR_PLACE = 257
DATABASE_URL = re.compile(
    r"(postgres(ql)?|mysql|mariadb|sqlite|mssql|oracle|snowflake|bigquery|duckdb|redshift|trino|presto|clickhouse|databricks|"
    r"mongodb)(\+\w+)*://",
    re.IGNORECASE,
)
"""Addresses of databases, as SQLAlchemy writes them."""
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
"""An environment variable in the address of a database."""
_SECRET_OPTION = re.compile(
    r"(?:password|passwd|pwd|secret|token|api_?key|access_?key|credential)[^=&]*=([^&]*)", re.IGNORECASE
)
BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def kind_of_file(path: str, start: bytes, encoding: str) -> Kind:
    """What a file is.

    Args:
        path: The file's name, for the error.
        start: Its first :data:`START_BYTES`, unpacked.
        encoding: The configured encoding of texts.

    Raises:
        InputError: It is nothing that can be read; the error says what it is.
    """
    for magic, kind in _READ:
        if start.startswith(magic):
            return kind
    for magic, found, remedy in _FOREIGN:
        if start.startswith(magic):
            raise _foreign(path, found, remedy)
    if start[_TAR_PLACE:].startswith(b"ustar"):
        raise _foreign(path, "a tar archive", "Unpack it and name the file or the folder in it.")
    if _MARKUP.match(start):
        raise _foreign(
            path, "XML or HTML", "Export the rows as JSONL or CSV; a page with an error in place of data looks so too."
        )
    if any(start.startswith(mark) for mark, _ in BYTE_ORDER_MARKS) or not encoding.lower().startswith(
        ("utf-8", "utf8", "ascii")
    ):
        return "text"
    if b"\0" in start:
        guess = "utf-16-le" if start[1:2] == b"\0" else "utf-16-be" if start[:1] == b"\0" else None
        if guess and start.count(b"\0") > len(start) // 4:
            raise _foreign(path, "text in UTF-16 without a byte order mark", f"Set `encoding: {guess}`.")
        raise _foreign(path, "a file that is no text (it holds NUL bytes)", _EXPORT)
    if len(_CONTROL.findall(start)) > len(start) // 50:
        raise _foreign(path, "a file that is no text, of no known kind", _EXPORT)
    return "text"


def _foreign(path: str, found: str, remedy: str) -> InputError:
    return InputError(path, found, "JSONL, JSON, CSV, TSV, Parquet, Arrow or Excel (also packed)", remedy)


def check_no_password(url: str) -> None:
    """Checks that the address of a database holds no password: settings are kept in records, which others read.

    Raises:
        ConfigError: It does; the error does not repeat it.
    """
    kind, _, rest = url.partition("://")
    address, _, options = rest.partition("?")
    password = "" if kind.startswith("sqlite") else address.rpartition("@")[0].partition(":")[2]
    values = [password, *(match[1] for match in _SECRET_OPTION.finditer(unquote(options)))]
    if any(value and not PLACEHOLDER.fullmatch(value) for value in values):
        raise ConfigError(
            url,
            "a password",
            "the name of an environment variable in its place",
            "Write `${DB_PASSWORD}` in its place, and set the variable DB_PASSWORD where the run executes.",
        )
