"""Runs the rules as a Great Expectations suite (the only importer) and reads its results without any value in them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the package is imported

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult

from tasks.core.errors import PerennialError
from tasks.validation.rules import Rule

# It announces each context's temporary folder at a level that it sets for itself.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
_LOCK = threading.Lock()
"""Great Expectations keeps its context for the whole process."""


@dataclass(frozen=True)
class Outcome:
    """What one rule found: ``positions`` are those of the failing rows, in order; counts and shares, never a value."""

    rule: Rule
    success: bool
    positions: tuple[int, ...]
    observed: float | None

    def as_json(self) -> dict[str, Any]:
        """The outcome for ``results``, without the rows."""
        return {**asdict(self.rule), "success": self.success, "num_failed": len(self.positions), "observed": self.observed}


def run_rules(frame: pd.DataFrame, rules: Sequence[Rule]) -> list[Outcome]:
    """The outcome of each rule, in the order of the rules.

    Raises:
        PerennialError: An expectation itself failed to run; that says nothing about the data.
    """
    expectations = [
        getattr(gx.expectations, rule.expectation)(**rule.arguments, severity=rule.severity, meta={"rule": number})
        for number, rule in enumerate(rules)
    ]
    with _LOCK:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        suite = gx.ExpectationSuite("rows", expectations=expectations)
        result = batch.validate(suite, result_format={"result_format": "COMPLETE", "exclude_unexpected_values": True})
    outcomes = {item.expectation_config.meta["rule"]: item for item in result.results}  # not in the suite's order
    return [_outcome(rule, outcomes[number]) for number, rule in enumerate(rules)]


def _outcome(rule: Rule, item: ExpectationValidationResult) -> Outcome:
    if _raised(item.exception_info):
        raise PerennialError(
            f"expectation {rule.reason} ({rule.expectation})",
            "an exception while it was evaluated",
            "a verdict",
            "The data were not validated; this is a defect of the suite, please report it.",
        )
    observed = item.result.get("observed_value")
    return Outcome(
        rule,
        bool(item.success),
        tuple(sorted(int(position) for position in item.result.get("unexpected_index_list") or ())),
        float(observed) if isinstance(observed, int | float) else None,
    )


def _raised(information: Any) -> bool:
    """Whether an expectation, or any of the metrics it needs, raised."""
    if not isinstance(information, dict):
        return False
    return bool(information.get("raised_exception")) or any(_raised(part) for part in information.values())
