"""The hash of the code of a stage, so that only the same code reuses a result.

A manual version number is forgotten sooner or later, and a corrected scrubber then reuses the rows of the faulty one. The
hash covers the stage's module and every module of the project that it imports, at any time and indirectly, or starts as a
program, with the data files in their packages; and the versions of the libraries that they import
(:mod:`tasks.core.library_versions`). It is a hash of the syntax tree, without comments and docstrings. It excludes modules
that do not affect a result, see :data:`CARRIES_NO_RESULT`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.core.library_versions import versions_behind

_PACKAGE = Path(__file__).resolve().parents[1]
CARRIES_NO_RESULT: Mapping[str, str] = {
    "tasks.core.addresses": "hides passwords in messages",
    "tasks.core.cache_key": "decides when a stage runs, not its result",
    "tasks.core.ensuring": "creates objects on servers",
    "tasks.core.errors": "names what went wrong",
    "tasks.core.library_versions": "is part of the key itself",
    "tasks.core.pages": "writes Markdown for people",
    "tasks.core.paging": "reads lists from servers",
    "tasks.core.progress": "shows how far a stage is",
    "tasks.core.results": "stores results, whose contracts are validated when they are read",
    "tasks.core.scratch": "creates temporary folders",
    "tasks.core.source_hash": "is part of the key itself",
    "tasks.core.stage": "starts a stage and describes it",
    "tasks.core.storage": "moves bytes, which are known by their hash",
    "tasks.core.typed_text": "checks names and reasons that people type",
    "tasks.tracking": "receives results",
}
"""Modules and packages of this project that no cache key includes, and why. Nothing here affects a row or a figure."""
_BY_SETTING = "LIBRARIES_BY_SETTING"
"""A module's constant with the libraries that it imports only for certain settings. They are not part of the code's hash:
these settings include their versions themselves (``external_fingerprints``, see :mod:`tasks.core.cache_key`)."""
_PROGRAM = re.compile(r"tasks(\.[a-z_]+)+")


class SourceCode(NamedTuple):
    """What counts of a module's source: the ``names`` that it imports or starts as programs, and the tree's ``sha256``."""

    names: frozenset[str]
    sha256: str


def read_source(source: bytes) -> SourceCode:
    """What counts of the source of a module: its imports for all settings, and its syntax tree without docstrings.

    ``from tasks.pii import rows`` may name a module or an object in one, so both names are among the imports.
    """
    tree = ast.parse(source)
    names: set[str] = set()
    by_setting: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                names.update((module, *(f"{module}.{alias.name}" for alias in node.names)))
            case ast.Constant(value=str(text)) if _PROGRAM.fullmatch(text):
                names.add(text)
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == _BY_SETTING:
                by_setting.update(ast.literal_eval(value))
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, [statement for statement in statements if not _is_text(statement)])
    return SourceCode(
        frozenset(name for name in names if name.split(".")[0] not in by_setting),
        hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
    )


def carries_no_result(module: str) -> bool:
    """Whether a module, or a package that it is in, is listed in :data:`CARRIES_NO_RESULT`."""
    parts = module.split(".")
    return any(".".join(parts[:length]) in CARRIES_NO_RESULT for length in range(2, len(parts) + 1))


@cache
def code_sha256(module_file: Path) -> str:
    """The hexadecimal hash of the sources of a module and of the versions of the libraries that they import."""
    code = [sources_sha256(module_file), libraries_of(module_file)]
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()


@cache
def libraries_of(module_file: Path) -> Mapping[str, str]:
    """The version of each library that affects the results of a module, by distribution."""
    return versions_behind(
        {name for path in source_files(module_file) if path.suffix == ".py" for name in libraries_in(path)}
    )


@cache
def sources_sha256(module_file: Path) -> str:
    """The hexadecimal hash of a module's file and of all that it imports from this project."""
    digest = hashlib.sha256()
    for path in sorted(source_files(module_file)):
        name = path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name
        digest.update(f"{name}\0{_sha256_of(path)}\n".encode())
    return digest.hexdigest()


def file_of(module: str) -> Path:
    """The file of one of the project's modules (``tasks.modeling.generation``), found without an import."""
    return _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def source_files(module_file: Path) -> set[Path]:
    """The files that the hash of a module covers: its own, those it imports from this project, and their data files."""
    found: set[Path] = set()
    waiting = [module_file.resolve()]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting.extend(_imported(path))
            if path.parent != _PACKAGE and path.is_relative_to(_PACKAGE):
                waiting.extend(_data_files(path.parent))
    return found


@cache
def _read(path: Path) -> SourceCode:
    return read_source(path.read_bytes())


def _sha256_of(path: Path) -> str:
    """The hash of what counts of a file: a module's syntax tree, the bytes of any other file."""
    return _read(path).sha256 if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a bare string: the docstring of a definition or of a constant."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imported(path: Path) -> Iterator[Path]:
    """The project's files that a file imports, or starts as programs by module name."""
    for name in _read(path).names:
        root, *parts = name.split(".")
        if root == _PACKAGE.name:
            yield from (file for file in _files_of(parts) if file.is_file() and not carries_no_result(name))


def libraries_in(path: Path) -> set[str]:
    """The top-level names of the libraries that a file imports, except those for certain settings."""
    roots = {name.split(".")[0] for name in _read(path).names}
    return {root for root in roots if root not in sys.stdlib_module_names} - {
        _PACKAGE.name,
        "flows",
        "perennial",
        "__future__",
    }


def _files_of(parts: list[str]) -> Iterator[Path]:
    target = _PACKAGE.joinpath(*parts)
    yield target.with_suffix(".py")
    yield target / "__init__.py"


def _data_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc"))
