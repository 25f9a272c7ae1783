"""Rows that meet the suite, rows that do not, and the suite's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.errors import QualityLimitError
from tasks.core.quarantine import count_reasons, quarantine_row
from tasks.core.rows import ROWS_AT_A_TIME, Row
from tasks.validation.config import ValidationConfig
from tasks.validation.features import row_features
from tasks.validation.rules import Rule, make_rules, shares
from tasks.validation.suite import Outcome, run_rules

STAGE = "validate"


@dataclass(frozen=True)
class Checked:
    """The positions of the ``kept`` rows, the ``quarantined_rows``, and every rule's outcome."""

    kept: list[int]
    quarantined_rows: list[dict[str, Any]]
    outcomes: list[Outcome]

    @property
    def failed_tables(self) -> list[Outcome]:
        """Rules about the whole table that failed and must not."""
        return [o for o in self.outcomes if o.rule.about == "table" and not o.success and o.rule.severity == "critical"]

    @property
    def warnings(self) -> list[Outcome]:
        """Rules that failed and are only noted."""
        return [outcome for outcome in self.outcomes if not outcome.success and outcome.rule.severity == "warning"]


def check_rows(rows: Sequence[Row], kind: str, config: ValidationConfig, previous: Sequence[Row] | None = None) -> Checked:
    """Validates every row by the suite of its kind.

    Args:
        rows: Canonical rows.
        kind: ``messages`` or ``preferences``.
        config: What rows must look like.
        previous: Rows of the previous snapshot, whose lengths and labels these should resemble.
    """
    expected = None
    if previous:
        before = _features(previous, config.model_copy(update={"languages": ()}))
        columns = ("length_band", "label")
        expected = {name: found for name in columns if (found := shares(before[name].tolist()))}
    outcomes = run_rules(_features(rows, config), make_rules(kind, config, expected))
    reasons: dict[int, str] = {}
    for outcome in outcomes:
        for position in outcome.positions if outcome.rule.about == "rows" else ():
            reasons.setdefault(position, outcome.rule.reason)
    return Checked(
        kept=[position for position in range(len(rows)) if position not in reasons],
        quarantined_rows=[
            quarantine_row(STAGE, str(rows[position]["id"]), reasons[position], rows[position])
            for position in sorted(reasons)
        ],
        outcomes=outcomes,
    )


def preview_rows(rows: Sequence[Row], kind: str, config: ValidationConfig) -> Checked:
    """What :func:`check_rows` would quarantine, found without the library of the suite, whose import takes seconds."""
    frame = _features(rows, config)
    reasons: dict[int, str] = {}
    for rule in make_rules(kind, config):
        for position in failing(rule, frame) if rule.about == "rows" else ():
            reasons.setdefault(position, rule.reason)
    return Checked(
        kept=[position for position in range(len(rows)) if position not in reasons],
        quarantined_rows=[
            quarantine_row(STAGE, str(rows[position]["id"]), reasons[position], None) for position in sorted(reasons)
        ],
        outcomes=[],
    )


def failing(rule: Rule, frame: pd.DataFrame) -> list[int]:
    """The positions of the rows that a rule about rows fails; nulls fail only the rules about nulls."""
    column, arguments = frame[rule.arguments["column"]], rule.arguments
    match rule.expectation:
        case "ExpectColumnValuesToNotBeNull":
            wrong = column.isna()
        case "ExpectColumnValuesToBeNull":
            wrong = column.notna()
        case "ExpectColumnValuesToBeUnique":
            wrong = column.duplicated(keep=False) & column.notna()
        case "ExpectColumnValuesToBeInSet":
            wrong = ~column.isin(arguments["value_set"]) & column.notna()
        case "ExpectColumnValuesToBeBetween":
            low, high = arguments["min_value"], arguments["max_value"]
            wrong = pd.Series(False, index=column.index)
            wrong |= (column < low) if low is not None else False
            wrong |= (column > high) if high is not None else False
        case _:
            raise AssertionError(f"unknown expectation {rule.expectation}")
    return [int(position) for position in wrong.to_numpy().nonzero()[0]]


def check_limits(checked: Checked, config: ValidationConfig, where: str, rows_uri: str) -> None:
    """Returns if few enough rows are quarantined and every critical expectation about the whole table holds.

    Args:
        checked: The outcome of :func:`check_rows`.
        config: The limits.
        where: What was validated, for the error.
        rows_uri: Where the quarantined rows lie, for the error.

    Raises:
        QualityLimitError: Too many rows are quarantined, too few are left, or an expectation about the table failed.
    """
    num_kept, num_quarantined = len(checked.kept), len(checked.quarantined_rows)
    failed = [f"{outcome.rule.reason} (observed {outcome.observed})" for outcome in checked.failed_tables]
    if num_kept < config.min_rows and not failed:
        failed = [f"{num_kept} rows left"]
    if not failed and num_quarantined <= config.max_quarantine_share * (num_kept + num_quarantined):
        return
    reasons = count_reasons(checked.quarantined_rows, "quarantined")
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "none"
    raise QualityLimitError(
        where,
        f"{num_quarantined} of {num_kept + num_quarantined} rows failing ({counts})"
        + (f", and failed expectations: {', '.join(failed)}" if failed else ""),
        f"at most {config.max_quarantine_share:.0%} failing, at least {config.min_rows} rows, and no failed expectation",
        f"Look at the rows in {rows_uri}; then correct the source, or relax the setting under `validation` that the reason "
        "names.",
    )


def _features(rows: Sequence[Row], config: ValidationConfig) -> pd.DataFrame:
    """The features of all rows, taken a few at a time."""
    blocks = [rows[first : first + ROWS_AT_A_TIME] for first in range(0, len(rows), ROWS_AT_A_TIME)] or [rows]
    languages = bool(config.languages)
    frames = [row_features(block, config.allowed_roles, languages=languages) for block in blocks]
    return pd.concat(frames, ignore_index=True)


def results_document(checked: Checked, kind: str) -> dict[str, Any]:
    """The suite's results as JSON: counts, limits and outcomes, no values and no ids."""
    return {
        "kind": kind,
        "num_rows": len(checked.kept) + len(checked.quarantined_rows),
        "num_failed_rows": len(checked.quarantined_rows),
        "num_failed_expectations": sum(not outcome.success for outcome in checked.outcomes),
        "expectations": [outcome.as_json() for outcome in checked.outcomes],
    }
