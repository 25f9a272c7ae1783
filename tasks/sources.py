"""The code behind a stage as one hash, so that a result is found again only by the code that would make it.

A version number raised by hand is forgotten sooner or later, and a mended scrubber then goes on handing out the rows of the
faulty one. What counts is the stage's module and every module of the project that it imports, however late or indirectly,
with the data files in their packages. Comments count too: working once more is cheaper than working out what matters.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def sources_sha256(module_file: Path) -> str:
    """The hash of a module's file and of all that it imports from this project; hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(_closure(module_file)):
        name = path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _closure(module_file: Path) -> set[Path]:
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


def _imported(path: Path) -> Iterator[Path]:
    """The project's files that a file imports; ``from tasks.pii import rows`` may name a module or a thing in one."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            root, *parts = name.split(".")
            if root == _PACKAGE.name:
                yield from (file for file in _files_of(parts) if file.is_file())


def _files_of(parts: list[str]) -> Iterator[Path]:
    target = _PACKAGE.joinpath(*parts)
    yield target.with_suffix(".py")
    yield target / "__init__.py"


def _data_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc"))
