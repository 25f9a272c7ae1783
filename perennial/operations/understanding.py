"""How a source is understood, for `perennial plan`: columns, refusals by field, the cheap gates, the first row's tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.support.config import PrepareConfig, RetrainConfig
from tasks.core.errors import InputError, PerennialError
from tasks.core.rows import Row, rows_to_table
from tasks.ingest import SourceConfig

if TYPE_CHECKING:
    from tasks.contracts.base import DatasetKind
    from tasks.contracts.training import TrainingPlan
    from tasks.ingest.snapshot import Ingested
    from tasks.training.plan.hardware import Hardware

Block = tuple[str, list[tuple[str, ...]]]

REFUSED = "Would be refused"
"""Title of the block that says why the run would stop."""
_SAMPLE_ROWS = 2_000
_SHOWN_NAMES = 12


def read_source_block(name: str, source: SourceConfig, kind: DatasetKind) -> tuple[list[Row], Block]:
    """The rows of a source, and how they were understood.

    Raises:
        InputError: As `retrain` would raise it; also where the rows are of another kind than their section needs.
    """
    from tasks.ingest.reading import read_configured
    from tasks.ingest.snapshot import make_snapshot, require_kind

    result = make_snapshot(read_configured(source), source, on_progress=lambda done, total: None)
    require_kind(result.input_format, kind, source.path)
    lines = [
        ("source", source.path),
        ("format", result.input_format),
        *_column_lines(result),
        ("rows", str(len(result.rows))),
        *_reason_lines("refused", result.quarantined_rows),
        *(("note", note) for note in result.notes),
    ]
    return list(result.rows), (name.capitalize(), [tuple(line) for line in lines])


def _column_lines(result: Ingested) -> list[tuple[str, str]]:
    columns = ", ".join(role if role == column else f"{role} from {column}" for role, column in result.columns.items())
    lines = [("columns", columns)]
    if result.ignored:
        rest = len(result.ignored) - _SHOWN_NAMES
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(("not read", ", ".join(name[:40] for name in result.ignored[:_SHOWN_NAMES]) + more))
    return lines


def _reason_lines(title: str, rows: Iterable[Row]) -> list[tuple[str, str]]:
    counts = Counter((str(row["reason"]), row["field"]) for row in rows)
    described = (f"{count} {reason}{f' in {place}' if place else ''}" for (reason, place), count in counts.most_common())
    return [(title, f"{counts.total()} ({', '.join(described)})" if counts else "0")]


def gates_block(rows: Sequence[Row], kind: DatasetKind, config: PrepareConfig) -> tuple[Block, list[str]]:
    """What the cheap stages would take out of the first rows, and why they would stop the run."""
    from tasks.deduplication.duplicates import deduplicate_table
    from tasks.validation.checking import check_limits, preview_rows

    sample = rows[:_SAMPLE_ROWS]
    checked = preview_rows(sample, kind, config.validation)
    refusals = refusals_of([lambda: check_limits(checked, config.validation, "validation", "the source")])
    kept = [dict(sample[position]) for position in checked.kept]
    settings = config.deduplication
    found = deduplicate_table(
        rows_to_table(kept, kind), threshold=settings.near_duplicate_threshold, exact=settings.exact, near=settings.near
    )
    num_dropped = len(found.dropped)
    if num_dropped > settings.max_dropped_share * len(kept):
        refusals.append(
            f"deduplication: {num_dropped} of {len(kept)} rows are duplicates; expected at most "
            f"{settings.max_dropped_share:.0%}. Look for repeated pages, or raise deduplication.max_dropped_share."
        )
    lines = [
        ("rows", f"{len(sample)} of {len(rows)}"),
        *_reason_lines("validation", checked.quarantined_rows),
        ("duplicates", f"{found.num_exact} exact, {found.num_near} near"),
    ]
    return ("Cheap checks", [tuple(line) for line in lines]), refusals


def training_refusals(plan: TrainingPlan, hardware: Hardware, max_truncated_share: float) -> list[str]:
    """Why the trainer would stop before its first step."""
    from tasks.training.plan.preflight import check_device, check_truncation

    return refusals_of(
        [
            lambda: check_device(plan, hardware),
            lambda: check_truncation(plan, max_truncated_share, plan.num_rows),
        ]
    )


def refusals_of(checks: Iterable[Callable[[], None]]) -> list[str]:
    """The messages of the checks that fail."""
    messages = []
    for check in checks:
        try:
            check()
        except PerennialError as error:
            messages.append(str(error))
    return messages


def refusal_block(refusals: Iterable[str]) -> Block:
    """Why the run would stop, each reason once."""
    return REFUSED, [("because", refusal) for refusal in dict.fromkeys(refusals)]


def gate_line(settings: RetrainConfig, num_test: int) -> tuple[str, str]:
    """How many examples the gate requires, and how many it would have."""
    config = settings.promotion
    figures = f"{num_test} frozen examples; {config.min_examples} are required (promotion.min_examples)"
    short = " - the decision would be HOLD whatever the scores are" if num_test < config.min_examples else ""
    return "examples", figures + short


def row_block(folder: Path, rows: Sequence[Row], settings: RetrainConfig, *, with_text: bool) -> Block:
    """The first row as the model sees it: its tokens in turns, learned or not, with their text only on request.

    Args:
        folder: Folder of the base model.
        rows: Rows for training.
        settings: The configuration.
        with_text: Whether the text is shown.
    """
    from tasks.modeling.conversations import stop_token_ids
    from tasks.modeling.loading import load_tokenizer
    from tasks.training.examples import IGNORED, render_example

    sft = settings.training.sft
    tokenizer = load_tokenizer(folder)
    example = render_example(
        tokenizer, rows[0], stops=stop_token_ids(tokenizer, None), max_length=sft.max_length, learn=sft.learn
    )
    lines: list[tuple[str, ...]] = []
    ids, learned = example.input_ids, [label != IGNORED for label in example.labels]
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or learned[end] != learned[start]:
            text = f": {tokenizer.decode(ids[start:end])!r}" if with_text else ""
            lines.append(("learned" if learned[start] else "given", f"{end - start} tokens{text}"))
            start = end
    return "First row, as the model sees it", lines


def require_train_rows(num_train: int, num_rows: int) -> None:
    """Checks that the split leaves rows to train on.

    Raises:
        InputError: It leaves none.
    """
    if num_train < 1:
        raise InputError(
            "prepare.splitting",
            f"{num_rows} rows, none of which is left for training",
            "rows for training, validation and test",
            "Bring more rows, or lower `test_share` and `validation_share`.",
        )
