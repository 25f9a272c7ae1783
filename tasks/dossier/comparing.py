"""Two runs side by side, quarter against quarter, from their dossiers' JSON: for the terminal and as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.evaluation import ArmScores
from tasks.contracts.preparation import PreparedDataset, StageReport
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Cell, Page, Section, Table, Text, Tile
from tasks.dossier.formatting import (
    STAGE_NAMES,
    count,
    interval,
    measured,
    metric_name,
    metric_unit,
    minus,
    with_names,
    words,
)
from tasks.dossier.sections.business import figure_names, figure_text, title_of
from tasks.dossier.verdict import approval_line, verdict_of

_NONE = "\u2013"


@dataclass(frozen=True)
class Sheet:
    """One table of the comparison: what is compared, the first run, the second run, and perhaps the change.

    Attributes:
        id: Its anchor on the page.
        title: Its title.
        headers: Of the columns; the first names the rows.
        rows: As many cells each as there are headers.
        note: A sentence that qualifies the table.
        num_text_columns: Number of columns with text; the others hold figures.
    """

    id: str
    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    num_text_columns: int = 1


def compare(first: RunEvidence, second: RunEvidence) -> tuple[Sheet, ...]:
    """The tables of a comparison: decisions, scores, rows left after each stage, why rows left."""
    sheets = [_decisions(first, second), _scores(first, second), _fresh(first, second), _business(first, second)]
    for title, one, other in _sources(first, second):
        sheets += [_funnel(title, one, other, (first, second)), _reasons(title, one, other, (first, second))]
    return tuple(sheet for sheet in sheets if sheet.rows)


def terminal_lines(sheets: Sequence[Sheet]) -> list[tuple[str, list[tuple[str, ...]], int]]:
    """The tables as titled blocks of lines, headings first, each with the number of its columns that are text."""
    return [
        (f"{sheet.title}. {sheet.note}".rstrip(". "), [sheet.headers, *sheet.rows], sheet.num_text_columns)
        for sheet in sheets
    ]


def compose_comparison(first: RunEvidence, second: RunEvidence, written: str) -> Page:
    """The comparison as a page in the dossier's form.

    Args:
        first: The run on the left.
        second: The run on the right; the banner shows its verdict.
        written: The time of writing, as text.
    """
    sections = [
        Section(
            sheet.id,
            sheet.title,
            [
                *([Text(sheet.note)] if sheet.note else []),
                Table(
                    sheet.headers,
                    [[Cell(text) for text in row] for row in sheet.rows],
                    num_text_columns=sheet.num_text_columns,
                    stacks=sheet.num_text_columns > 1,
                ),
            ],
        )
        for sheet in compare(first, second)
    ]
    tiles = [
        Tile(run.run_name, verdict_of(run).label, f"{count(run.sft.num_rows)} rows trained on") for run in (first, second)
    ]
    return Page(
        model=second.model_name,
        run=f"{first.run_name} and {second.run_name}",
        written=written,
        verdict=verdict_of(second),
        tiles=tiles,
        sections=sections,
    )


# ------------------------------------------------------------------------------------------------------------ the tables


def _decisions(first: RunEvidence, second: RunEvidence) -> Sheet:
    runs = (first, second)

    rows = [
        ("Model", *(run.model_name for run in runs)),
        ("Outcome", *(verdict_of(run).label for run in runs)),
        ("Version", *(run.candidate.version for run in runs)),
        ("Champion afterwards", *(run.promotion.champion_version or "none" for run in runs)),
        ("Primary metric", *(metric_name(run.decision.primary_metric) for run in runs)),
        ("Why", *(" ".join(with_names(reason) for reason in run.decision.reasons) for run in runs)),
    ]
    if any(run.promotion.approval for run in runs):
        rows.append(
            ("Approval", *(approval_line(run.promotion.approval) if run.promotion.approval else _NONE for run in runs))
        )
    return Sheet("decision", "Decision", ("", *_names(runs)), tuple(rows), num_text_columns=3)


def _scores(first: RunEvidence, second: RunEvidence) -> Sheet:
    """Scores of base and candidate; no difference is shown, because runs are not compared example by example."""
    same = first.benchmark.dataset.sha256 == second.benchmark.dataset.sha256
    frozen = count(first.benchmark.dataset.num_rows)
    note = (
        f"Both were scored on the same {frozen} frozen examples"
        if same
        else "Their frozen sets differ: do not compare the scores"
    )
    arms = [
        (title, first.benchmark.arm(name), second.benchmark.arm(name))
        for name, title in (("candidate", "Candidate"), ("base", "Base"))
    ]
    rows = []
    primary = second.decision.primary_metric
    for title, one, other in arms:
        names = dict.fromkeys([primary, *(score.name for arm in (one, other) if arm for score in arm.scores)])
        for name in names:
            cells = (_score(one, name), _score(other, name))
            if cells != (_NONE, _NONE):
                rows.append((f"{title}: {metric_name(name)}", *cells))
    return Sheet("scores", "Scores", ("", *_names((first, second))), tuple(rows), note)


def _fresh(first: RunEvidence, second: RunEvidence) -> Sheet:
    """The scores of each run's models on its own newest rows."""
    sets, primary = [run.benchmark.fresh for run in (first, second)], second.decision.primary_metric
    rows = []
    for name in ("candidate", "champion", "base"):
        cells = tuple(_score(scores.arm(name) if scores else None, primary) for scores in sets)
        if cells != (_NONE, _NONE):
            rows.append((f"{words(name)}: {metric_name(primary)}", *cells))
    if rows:
        rows.insert(0, ("Newest rows", *(count(scores.dataset.num_rows) if scores else _NONE for scores in sets)))
    note = "Each run has its own newest rows: compare the models of a run, not the runs"
    return Sheet("fresh", "The newest rows", ("", *_names((first, second))), tuple(rows), note)


def _business(first: RunEvidence, second: RunEvidence) -> Sheet:
    """The last period in each run's figures."""
    last = [run.business[-1] if run.business else None for run in (first, second)]
    known = [period for period in last if period]
    rows = [(words(name), *(figure_text(period, name) for period in last)) for name in figure_names(known)]
    if rows:
        rows.insert(0, ("Last period", *(title_of(period) if period else _NONE for period in last)))
    note = "From the organisation's own files, as of each run"
    return Sheet("business", "Business figures", ("", *_names((first, second))), tuple(rows), note)


def _score(arm: ArmScores | None, name: str) -> str:
    score = arm.score(name) if arm else None
    if score is None or score.value is None:
        return _NONE
    unit = metric_unit(name)
    limits = interval(score.low, score.high, unit)
    return f"{measured(score, unit)} ({limits})" if limits else measured(score, unit)


def _funnel(title: str, one: PreparedDataset | None, other: PreparedDataset | None, runs: tuple[RunEvidence, ...]) -> Sheet:
    rows = [("Rows read", *_counts(*(prepared.snapshot.num_rows_in if prepared else None for prepared in (one, other))))]
    for number, name in enumerate(STAGE_NAMES):
        rows.append((f"after {name[0].lower()}{name[1:]}", *_counts(_left(one, number), _left(other, number))))
    if title == "Examples":
        rows.append(("to train on", *_counts(*(run.split.train.num_rows for run in runs))))
        rows.append(("trained on", *_counts(*(run.sft.num_rows for run in runs))))
    headers = ("", *_names(runs), "change")
    return Sheet(f"rows-{_slug(title)}", f"{title}: rows left after each stage", headers, tuple(rows))


def _reasons(title: str, one: PreparedDataset | None, other: PreparedDataset | None, runs: tuple[RunEvidence, ...]) -> Sheet:
    rows = []
    for number, name in enumerate(STAGE_NAMES):
        before, after = (_removed(prepared.stages[number]) if prepared else {} for prepared in (one, other))
        for reason in dict.fromkeys([*before, *after]):
            figures = (before.get(reason, 0) if one else None, after.get(reason, 0) if other else None)
            rows.append((f"{name}: {words(reason).lower()}", *_counts(*figures)))
    headers = ("", *_names(runs), "change")
    return Sheet(f"removed-{_slug(title)}", f"{title}: why rows left", headers, tuple(rows))


def _sources(first: RunEvidence, second: RunEvidence) -> list[tuple[str, PreparedDataset | None, PreparedDataset | None]]:
    sources: list[tuple[str, PreparedDataset | None, PreparedDataset | None]] = [
        ("Examples", first.examples, second.examples)
    ]
    if first.preferences or second.preferences:
        sources.append(("Preference pairs", first.preferences, second.preferences))
    return sources


def _left(prepared: PreparedDataset | None, number: int) -> int | None:
    return prepared.stages[number].dataset.num_rows if prepared else None


def _removed(stage: StageReport) -> Mapping[str, int]:
    return {
        **stage.quarantined,
        **{reason: stage.quarantined.get(reason, 0) + rows for reason, rows in stage.dropped.items()},
    }


def _counts(one: int | None, other: int | None) -> tuple[str, str, str]:
    change = (
        _NONE if one is None or other is None else minus(f"{other - one:+,}".replace(",", "\u202f")) if other != one else "="
    )
    return (_NONE if one is None else count(one), _NONE if other is None else count(other), change)


def _names(runs: Sequence[RunEvidence]) -> tuple[str, ...]:
    return tuple(run.run_name for run in runs)


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")
