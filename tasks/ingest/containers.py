"""A source's bytes as a stream: opened once, read as often as wanted, unpacked, decoded and cut into lines piece by piece.

No more than a piece is in memory, whatever the file claims to be: each way through it counts what comes out and stops at the
ceilings of :class:`~tasks.ingest.config.Ceilings`.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec
import pyarrow as pa

from tasks.core.errors import InputError, MissingDependencyError
from tasks.core.scratch import unnamed_file
from tasks.ingest.config import Ceilings
from tasks.ingest.kinds import BYTE_ORDER_MARKS

_PIECE = 1 << 16
_BUCKET_CLIENTS = {"botocore", "aiobotocore", "s3fs", "gcsfs", "google", "adlfs", "azure", "aiohttp", "requests"}
_FREELY_UNPACKED = 64 << 20
_MAX_RATIO = 200
"""Text packs five to thirty times; what grows this much, and beyond 64 MiB, was made to fill a memory."""
_PACKINGS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)


class Container:
    """A local file, or a private copy of a remote one, whose bytes are those of its digest on every way through.

    Args:
        path: As configured; a URL is copied once, into a file without a name.
        ceilings: What may come out of it.

    Raises:
        InputError: It cannot be read, or is above a ceiling.
    """

    def __init__(self, path: str, ceilings: Ceilings) -> None:
        self.path, self.ceilings = path, ceilings
        self._file = _copied(path, ceilings.max_bytes) if "://" in path else _opened(path)
        self._state = self._stat()
        if self._size() > ceilings.max_bytes:
            raise _above(path, f"{self._size():,} bytes", ceilings.max_bytes, "max_bytes")
        with io.BufferedReader(_Reader(self._file.fileno())) as stream:
            self.sha256 = hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
            stream.seek(0)
            self._packing = packing_of(stream.read(8))
        self.name = path.removesuffix(PurePosixPath(path).suffix) if self._packing else path
        """The name of the unpacked file, whose suffix says what it is."""
        self.is_workbook, self._member = False, ""
        if self._packing == "zip":
            self._open_archive()

    def open(self) -> IO[bytes]:
        """The unpacked bytes from the start, as a stream that stops at the ceiling."""
        raw = io.BufferedReader(_Reader(self._file.fileno()), _PIECE)
        if self._packing is None or self.is_workbook:
            return raw
        with _unpacking_errors(self.path, self._packing):
            unpacked = cast(IO[bytes], _UNPACKERS[self._packing](raw, self._member))
        return io.BufferedReader(
            _Unpacked(unpacked, self._packing, self.path, self.ceilings.max_bytes, self._size()), _PIECE
        )

    def seekable(self) -> IO[bytes]:
        """The unpacked bytes as a file in which one can go back and forth; of a packed one, a copy without a name."""
        if self._packing is None or self.is_workbook:
            return self.open()
        copy = unnamed_file()
        with self.open() as stream:
            while piece := stream.read(_PIECE):
                copy.write(piece)
        copy.seek(0)
        return copy

    def check_unchanged(self) -> None:
        """Checks that nobody wrote to the source since it was opened.

        Raises:
            InputError: It was.
        """
        if self._stat() != self._state:
            raise InputError(
                self.path,
                "a file that was changed while it was read",
                "a file at rest",
                "Let the export finish, or write it under another name and rename it; then run again.",
            )

    def texts(self, encoding: str) -> Iterator[str]:
        """The decoded text in pieces, without a byte order mark.

        Raises:
            InputError: Bytes that are not of this encoding.
        """
        encoding = self._marked(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
        fed = lines = 0
        first = True
        with self.open() as stream:
            while True:
                piece = stream.read(_PIECE)
                try:
                    text = decoder.decode(piece, not piece)
                except UnicodeDecodeError as error:
                    place = fed - (len(error.object) - len(piece)) + error.start
                    line = lines + error.object.count(b"\n", 0, error.start) + 1
                    raise self._undecodable(encoding, max(0, place), line) from error
                fed += len(piece)
                lines += text.count("\n")
                if first and text:
                    text, first = text.removeprefix("\ufeff"), False
                if text:
                    yield text
                if not piece:
                    break
        self.check_unchanged()

    def lines(self, encoding: str, *, universal: bool = False) -> Iterator[str]:
        """The lines with their ends.

        Args:
            encoding: Of the text.
            universal: Whether a carriage return ends a line too, as in CSV; else line feeds alone do.

        Raises:
            InputError: A line is longer than a record may be.
        """
        rest, number = "", 0
        for text in self.texts(encoding):
            whole, rest = _cut(rest + text, universal)
            for line in whole:
                number += 1
                self.check_record(line, number)
                yield line
            self.check_record(rest, number + 1)
        if rest:
            yield rest

    def check_record(self, text: str, line: int) -> None:
        """Checks that a text is no longer than a record may be.

        Raises:
            InputError: It is.
        """
        if len(text) > self.ceilings.max_record_characters:
            raise too_long(f"{self.path}, line {line}", self.ceilings)

    def is_blank(self) -> bool:
        """Whether it holds white space alone."""
        with self.open() as stream:
            while piece := stream.read(_PIECE):
                if piece.strip():
                    return False
        return True

    def _marked(self, encoding: str) -> str:
        """The encoding that a byte order mark names, in place of UTF-8; else the configured one."""
        if not encoding.lower().startswith(("utf-8", "utf8")):
            return encoding
        with self.open() as stream:
            start = stream.read(4)
        return next((marked for mark, marked in BYTE_ORDER_MARKS if start.startswith(mark)), encoding)

    def _open_archive(self) -> None:
        """Finds the one file of a zip archive, or that it is a workbook."""
        with _unpacking_errors(self.path, "zip"), zipfile.ZipFile(cast(Any, _Reader(self._file.fileno()))) as archive:
            inside = [item for item in archive.infolist() if not item.is_dir()]
        names = [item.filename for item in inside]
        if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
            size = sum(item.file_size for item in inside)
            if size > self.ceilings.max_bytes or size > max(_FREELY_UNPACKED, _MAX_RATIO * self._size()):
                raise _above(self.path, f"{size:,} bytes when unpacked", self.ceilings.max_bytes, "max_bytes")
            self.is_workbook = True
            return
        if found := next((what for name, what in _DOCUMENTS.items() if name in names), None):
            raise InputError(self.path, found, "a data file", "Export the rows as CSV or JSONL.")
        data = [name for name in names if not PurePosixPath(name).name.startswith((".", "_")) and "__MACOSX" not in name]
        if len(data) != 1:
            raise InputError(
                self.path,
                f"a zip archive of {len(data)} files",
                "one data file in an archive",
                "Unpack it; name one of its files, or the folder if they are parts of one data set.",
            )
        (self._member,) = data
        self.name = self._member

    def _undecodable(self, encoding: str, place: int, line: int) -> InputError:
        return InputError(
            self.path,
            f"bytes that are not {encoding} at byte {place} (line {line})",
            f"{encoding} text",
            "Set `encoding` to the file's own; it may be cp1252 or latin-1.",
        )

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


def too_long(where: str, ceilings: Ceilings) -> InputError:
    """The error of a record that is longer than one may be."""
    return InputError(
        where,
        f"a record of more than {ceilings.max_record_characters:,} characters",
        "at most as many as `max_record_characters`",
        "Look for a line end or a closing quote that is missing there; or raise `max_record_characters` of the source.",
    )


def too_many(path: str, ceilings: Ceilings) -> InputError:
    """The error of a source with more records than one may have."""
    return _above(path, f"more than {ceilings.max_records:,} records", ceilings.max_records, "max_records")


def _above(path: str, found: str, ceiling: int, setting: str) -> InputError:
    return InputError(
        path,
        found,
        f"at most {ceiling:,} (`{setting}` of the source)",
        f"Name a smaller export; or raise `{setting}` where the machine has the memory: rows take up to their size twice.",
    )


def above_bytes(path: str, found: str, ceilings: Ceilings) -> InputError:
    """The error of a source with more bytes than one may have."""
    return _above(path, found, ceilings.max_bytes, "max_bytes")


_DOCUMENTS = {
    "word/document.xml": "a Word document",
    "ppt/presentation.xml": "a presentation",
    "content.xml": "an OpenDocument file",
}
_UNPACKING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pa.ArrowException,
)


class _Reader(io.RawIOBase):
    """One way through a file that others read too: it has its own place in it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place


def packing_of(start: bytes) -> str | None:
    """What a file is packed with, by its first bytes; None for one that is not."""
    return next((name for magic, name in _PACKINGS if start.startswith(magic)), None)


_UNPACKERS: Mapping[str, Callable[[IO[bytes], str], Any]] = {
    "gzip": lambda raw, member: gzip.GzipFile(fileobj=raw),
    "bzip2": lambda raw, member: bz2.BZ2File(raw),
    "xz": lambda raw, member: lzma.LZMAFile(raw),  # noqa: SIM115  # closed with the stream
    "zstd": lambda raw, member: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"),
    "zip": lambda raw, member: zipfile.ZipFile(raw).open(member),  # noqa: SIM115
}


@contextmanager
def _unpacking_errors(path: str, packing: str) -> Iterator[None]:
    """Turns what a library for packed files raises into one error of the source's."""
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        pa.ArrowException,
    ) as error:
        secret = " (a password protects it)" if "encrypted" in str(error) else ""
        raise InputError(
            path,
            f"a file that is not readable as {packing}{secret}",
            f"a complete {packing} file",
            "Copy or write it again.",
        ) from error


class _Unpacked(io.RawIOBase):
    """What comes out of a packed stream, counted."""

    def __init__(self, unpacked: IO[bytes], packing: str, path: str, max_bytes: int, size: int) -> None:
        self._stream, self._packing, self._path, self._max_bytes, self._size = unpacked, packing, path, max_bytes, size
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _unpacking_errors(self._path, self._packing):
            piece = self._stream.read(len(buffer))
        count = len(piece)
        buffer[:count] = piece
        self._count += count
        if self._count > self._max_bytes:
            raise _above(self._path, f"more than {self._max_bytes:,} bytes when unpacked", self._max_bytes, "max_bytes")
        if self._count > max(_FREELY_UNPACKED, _MAX_RATIO * self._size):
            raise InputError(
                self._path,
                f"{self._size:,} bytes that become more than {self._count:,}",
                f"data that packs at most {_MAX_RATIO} times",
                "Find out what it is; if it is meant so, unpack it yourself and name the unpacked file.",
            )
        return count


def _cut(text: str, universal: bool) -> tuple[list[str], str]:
    """The whole lines of a text with their ends, and what is left."""
    if universal and "\r" in text:
        # A carriage return at the very end may be the first half of a line end.
        parts = re.split(r"(\r\n|\n|\r(?!\Z))", text)
        rest = parts.pop()
        return [line + end for line, end in zip(parts[::2], parts[1::2], strict=True)], rest
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole], rest


def _opened(path: str) -> IO[bytes]:
    with reading_errors(path):
        return Path(path).expanduser().open("rb")


def _copied(path: str, max_bytes: int) -> IO[bytes]:
    copy, size = unnamed_file(), 0
    with reading_errors(path):
        filesystem, inside = fsspec.core.url_to_fs(path)
        with filesystem.open(inside, "rb") as stream:
            while piece := stream.read(1 << 20):
                size += len(piece)
                if size > max_bytes:
                    raise _above(path, f"more than {max_bytes:,} bytes", max_bytes, "max_bytes")
                copy.write(piece)
    copy.flush()
    return copy


@contextmanager
def reading_errors(path: str) -> Iterator[None]:
    """Turns what a file system raises into one error of the source's."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "a data file", "Correct the path.") from error
    except PermissionError as error:
        raise InputError(path, "a file that may not be read", "a readable file", "Check its permissions.") from error
    except OSError as error:
        raise InputError(
            path, f"a read error ({type(error).__name__})", "a readable file", "Check the disk or the connection."
        ) from error
    except ImportError as error:
        protocol = path.split("://", maxsplit=1)[0]
        raise MissingDependencyError(
            path,
            f"no package that reads {protocol}:// ({error.name or 'none is installed'})",
            "the one that fsspec names for it",
            "Run `pip install 'perennial-llm[s3]'`."
            if protocol in ("s3", "s3a")
            else f"Install fsspec's package for {protocol} (gcsfs for gs, adlfs for abfs), or copy the file here.",
        ) from error
    except ValueError as error:
        raise InputError(
            path, "an address of no known kind", "a path, or a URL such as s3://bucket/rows.jsonl", "Correct the path."
        ) from error
    except Exception as error:
        # The clients of buckets raise classes of their own, which are not there to be named without the package.
        if type(error).__module__.split(".")[0] not in _BUCKET_CLIENTS:
            raise
        raise InputError(
            path,
            f"a bucket that cannot be read ({type(error).__name__})",
            "a file that this machine's credentials may read",
            "Check the address, the credentials (such as AWS_PROFILE, or AWS_ACCESS_KEY_ID) and the connection.",
        ) from error
