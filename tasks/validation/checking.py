"""Rows that meet the suite, rows that do not, and the suite's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.quarantine import refusal
from tasks.core.rows import ROWS_AT_A_TIME, Row
from tasks.validation.config import ValidationConfig
from tasks.validation.features import row_features
from tasks.validation.rules import make_rules, shares
from tasks.validation.suite import Outcome, run_rules

STAGE = "validate"


@dataclass(frozen=True)
class Checked:
    """The positions of the ``kept`` rows, the ``refused`` ones as quarantine rows, and every rule's outcome."""

    kept: list[int]
    refused: list[dict[str, Any]]
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
    """Judges every row by the suite of its kind.

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
        refused=[
            refusal(STAGE, str(rows[position]["id"]), reasons[position], rows[position]) for position in sorted(reasons)
        ],
        outcomes=outcomes,
    )


def _features(rows: Sequence[Row], config: ValidationConfig) -> pd.DataFrame:
    """What is measured of the rows, taken a few at a time."""
    blocks = [rows[first : first + ROWS_AT_A_TIME] for first in range(0, len(rows), ROWS_AT_A_TIME)] or [rows]
    languages = bool(config.languages)
    frames = [row_features(block, config.allowed_roles, languages=languages) for block in blocks]
    return pd.concat(frames, ignore_index=True)


def results_document(checked: Checked, kind: str) -> dict[str, Any]:
    """The suite's results as JSON: counts, limits and verdicts, no values and no ids."""
    return {
        "kind": kind,
        "num_rows": len(checked.kept) + len(checked.refused),
        "num_failed_rows": len(checked.refused),
        "num_failed_expectations": sum(not outcome.success for outcome in checked.outcomes),
        "expectations": [outcome.as_json() for outcome in checked.outcomes],
    }
