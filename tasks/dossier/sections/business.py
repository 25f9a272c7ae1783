"""Section on business figures: the organisation's own measurements beside the benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contracts.run import BusinessPeriod, RunEvidence
from tasks.dossier.blocks import Cell, Section, Table, Text
from tasks.dossier.formatting import decimal, words

NOT_GIVEN = "\u2013"
_MAX_PERIODS = 6


def business_section(evidence: RunEvidence) -> Section | None:
    """The figures of the last periods, oldest first; None without a file of them."""
    periods = evidence.business[-_MAX_PERIODS:]
    if not periods:
        return None
    intro = (
        "From the organisation's own file: not measured by this run and not part of the decision. They change for many "
        "reasons beside the model."
    )
    rows = [[Cell(words(name)), *(Cell(figure_text(period, name)) for period in periods)] for name in figure_names(periods)]
    return Section(
        "business", "Business figures", [Text(intro), Table(("Figure", *(title_of(period) for period in periods)), rows)]
    )


def figure_names(periods: Sequence[BusinessPeriod]) -> list[str]:
    """Every figure that one of the periods has, in the order of the file."""
    return list(dict.fromkeys(name for period in periods for name in period.figures))


def figure_text(period: BusinessPeriod | None, name: str) -> str:
    """A figure as it is shown; a dash where it was not measured."""
    value = period.figures.get(name) if period else None
    return NOT_GIVEN if value is None else decimal(value, "figure")


def title_of(period: BusinessPeriod) -> str:
    """``2026-Q3, version 4``."""
    return f"{period.period}, version {period.model_version}" if period.model_version else period.period
