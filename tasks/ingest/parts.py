"""A source in parts: the data files of a folder, as Spark, dbt and warehouses write them, or those of a pattern."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import fsspec

from tasks.core.errors import InputError
from tasks.ingest.containers import reading_errors

DATA_SUFFIXES = frozenset(
    (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".txt", ".feather", ".arrow", ".xlsx")
)
_PACKED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".zip"}
_PATTERN = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"([A-Za-z_]\w*)=([^/]*)")
_SPLIT_NAMES = {"train", "test", "valid", "validation", "val", "dev", "eval", "holdout"}
_MAX_PARTS = 500
"""Each part is a file that stays open while the source is read."""


@dataclass(frozen=True)
class Part:
    """One file of a source.

    ``values`` are what the folders above it say of its rows, such as ``country=de``.
    """

    path: str
    name: str
    values: Mapping[str, str] = field(default_factory=dict)


def is_pattern(path: str) -> bool:
    """Whether a path has a wildcard."""
    return bool(_PATTERN.search(path))


def parts_of_folder(folder: Path) -> list[Part]:
    """The data files in a folder and below it, by name; hidden ones and marks such as ``_SUCCESS`` are none.

    Raises:
        InputError: There is none, they are of several formats, or they are splits (train, test) and not parts.
    """
    where = str(folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    data = [path for path in paths if _suffix(path) in DATA_SUFFIXES]
    if not data:
        raise InputError(
            where,
            f"a folder of {len(paths)} files, none of them data",
            "data files, or a folder written by `datasets.save_to_disk`",
            f"Name a data file; the known suffixes are {', '.join(sorted(DATA_SUFFIXES))}, also packed.",
        )
    suffixes = Counter(map(_suffix, data))
    splits = {token for path in data for token in re.split(r"[\W\d_]+", path.name.lower()) if token in _SPLIT_NAMES}
    found = f"files of several formats ({', '.join(sorted(suffixes))})" if len(suffixes) > 1 else ""
    if splits and (len(data) > 1 or splits != {"train"}):
        found = f"splits ({', '.join(sorted(splits))})"
    if found:
        raise InputError(
            where,
            f"a folder with {found}",
            "the parts of one data set, alike in format",
            "Name one file, or a pattern such as `folder/train-*.parquet`.",
        )
    return _checked(where, [Part(str(path), _safe(path.relative_to(folder).as_posix()), _partition(path)) for path in data])


def parts_of_pattern(pattern: str) -> list[Part]:
    """The files that a pattern names, by name.

    Raises:
        InputError: There is none.
        MissingDependencyError: The package for the bucket is not installed.
    """
    if "://" in pattern:
        with reading_errors(pattern):
            filesystem, inside = fsspec.core.url_to_fs(pattern)
            found = [filesystem.unstrip_protocol(path) for path in sorted(filesystem.glob(inside))]
    else:
        matching = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
        found = [path for path in matching if Path(path).is_file()]
    return _checked(
        pattern, [Part(path, _safe(PurePosixPath(path).name), _partition(PurePosixPath(path))) for path in found]
    )


def _checked(where: str, parts: list[Part]) -> list[Part]:
    if not parts:
        raise InputError(
            where, "no file that the pattern names", "at least one", "Correct the pattern; quote it in a shell."
        )
    if len(parts) > _MAX_PARTS:
        raise InputError(
            where,
            f"{len(parts):,} files",
            f"at most {_MAX_PARTS} parts",
            "Write fewer parts (Spark: `coalesce(100)`), or name some of them by a pattern.",
        )
    return parts


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _PACKED_SUFFIXES else suffix


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _partition(path: Path | PurePosixPath) -> dict[str, str]:
    found = (_PARTITION.fullmatch(part) for part in path.parts[:-1])
    return {match[1]: match[2] for match in found if match}


def _safe(name: str) -> str:
    return re.sub(r"[^\w./=-]", "_", name)
