"""One JSON document on standard output, for other programs; everything else then goes to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Any, TextIO

import typer

from tasks.core.addresses import without_secrets

_stdout: ContextVar[TextIO] = ContextVar("stdout")


def _divert(context: typer.Context, requested: bool) -> bool:
    """Sends to standard error, until the command ends, whatever would be printed beside the document."""
    if requested:
        token = _stdout.set(context.with_resource(_only_for_the_document()))
        context.call_on_close(lambda: _stdout.reset(token))
    return requested


@contextmanager
def _only_for_the_document() -> Iterator[TextIO]:
    """The standard output; what Python, a library or a child process writes to it goes to standard error meanwhile."""
    stdout = sys.stdout
    stdout.flush()
    try:
        number = stdout.fileno()
    except (OSError, ValueError):  # a stream in memory has no descriptor that a child could write to
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    kept = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    try:
        with redirect_stdout(sys.stderr), open(kept, "w", encoding="utf-8", closefd=False) as out:
            yield out
    finally:
        os.dup2(kept, number)
        os.close(kept)


JsonOption = Annotated[
    bool, typer.Option("--json", callback=_divert, help="Print one JSON document, and everything else on standard error.")
]


def print_json(document: object) -> None:
    """Prints one JSON document in UTF-8 on the standard output of a command with :data:`JsonOption`.

    Args:
        document: Records, data classes and plain values in any nesting. A number that JSON has no form of is null, and an
            address loses its password.
    """
    from pydantic_core import to_jsonable_python

    plain = _presentable(to_jsonable_python(document))
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    # A file's name may hold bytes that are no UTF-8; JSON writes them as it writes any lone surrogate.
    typer.echo(text.encode("utf-8", "backslashreplace"), file=_stdout.get())


def blocks_document(blocks: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Blocks as JSON has them: of each, the title and the lines, which stand first in it."""
    return [{"title": title, "lines": lines} for title, lines, *_ in blocks]


def _presentable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _presentable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_presentable(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return without_secrets(value) if isinstance(value, str) else value
