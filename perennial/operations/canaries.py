"""`perennial canaries`: fictitious customers to plant among the raw rows; the red team searches the model for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flows.support.config import RetrainConfig
from tasks.core.errors import InputError
from tasks.ingest import SourceConfig

if TYPE_CHECKING:
    from tasks.redteam.canaries import Canary


def write_canaries(settings: RetrainConfig, out: Path) -> int:
    """Writes the canaries of a configuration in the columns of its examples; returns their number.

    Args:
        settings: The configuration; its examples are read, so that the rows fit them.
        out: The file: CSV or TSV by its suffix, else JSON lines.

    Raises:
        InputError: The examples cannot be read or are labels, or the file exists already or cannot be written.
    """
    from tasks.redteam.canaries import make_canaries

    columns, header = _columns_of(settings.examples)
    canaries = make_canaries(settings.redteam.num_canaries, settings.redteam.seed)
    rows = [_row(canary, columns) for canary in canaries]
    try:
        with out.open("x", encoding="utf-8", newline="") as file:
            if out.suffix in (".csv", ".tsv"):
                writer = csv.DictWriter(file, header, delimiter="," if out.suffix == ".csv" else "\t", restval="")
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        found = "a file that exists already" if isinstance(error, FileExistsError) else type(error).__name__
        raise InputError(str(out), found, "a new file in a folder that can be written", "Name another file.") from error
    return len(canaries)


def _columns_of(source: SourceConfig) -> tuple[dict[str, str], list[str]]:
    """The columns of question and reply by role, and all columns of the source."""
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot

    result = make_snapshot(read_configured(source), source)
    roles = {"messages": "messages", "instruction": "question", "prompt": "question", "body": "question"} | {
        "output": "reply",
        "completion": "reply",
        "reply": "reply",
        "id": "id",
    }
    columns = {roles[role]: column for role, column in result.columns.items() if role in roles}
    nested = [column for column in columns.values() if column not in result.header]
    if nested or not ("messages" in columns or {"question", "reply"} <= columns.keys()):
        raise InputError(
            source.path,
            f"nested columns ({', '.join(nested)})" if nested else f"rows of the format {result.input_format}",
            "rows with a question and a reply in columns of their own",
            "Plant the canaries by hand, or in a source of that form.",
        )
    return columns, result.header


def _row(canary: Canary, columns: Mapping[str, str]) -> dict[str, object]:
    """A canary as a record with the columns of the source."""
    values = {"id": canary.id, "question": canary.question, "reply": f"{canary.start} {canary.value}."}
    values |= {"messages": canary.row()["messages"]}  # type: ignore[dict-item]
    return {column: values[role] for role, column in columns.items()}
