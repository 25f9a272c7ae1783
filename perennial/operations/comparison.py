"""`perennial compare`: the records of two runs side by side."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from tasks.contracts.run import RunEvidence
from tasks.core.errors import StoreError


def compare_runs(
    store_uri: str, first: str, second: str, html: Path | None = None
) -> list[tuple[str, list[tuple[str, ...]], int]]:
    """Titled blocks of lines, each with its number of text columns; ``html`` also writes a self-contained page.

    Raises:
        InputError: There is no such run in this store.
        StoreError: The page cannot be written.
    """
    from tasks.dossier.comparing import compare, compose_comparison, terminal_lines
    from tasks.dossier.summary import read_record

    one, other = (RunEvidence.model_validate(read_record(store_uri, run)) for run in (first, second))
    if html is not None:
        from tasks.dossier.rendering import render_page

        written = dt.datetime.now(dt.UTC).strftime("%-d %B %Y, %H:%M UTC")
        try:
            html.write_bytes(render_page(compose_comparison(one, other, written)))
        except OSError as error:
            raise StoreError(str(html), error.strerror or "an error", "a writable place", "Name another file.") from error
    return terminal_lines(compare(one, other))
