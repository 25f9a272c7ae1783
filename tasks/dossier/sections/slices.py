"""Section on slices: the primary metric of each model by label, group, length and script."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.dossier.blocks import Block, Cell, Details, Section, Table, Text
from tasks.dossier.formatting import ARM_NAMES, count, decimal, interval, metric_name, metric_unit, words
from tasks.dossier.report_data import SliceScores

_SHOWN = 12


def slices_section(slices: Sequence[SliceScores], metric: str) -> Section | None:
    """A table of the largest slices, and the others behind a click; None without slices."""
    if not slices:
        return None
    arms = [arm for arm in ARM_NAMES if any(arm in part.means for part in slices)]
    largest = sorted(slices, key=lambda part: -part.num_examples)[:_SHOWN]
    first = [part for part in slices if part in largest]
    rest = [part for part in slices if part not in largest]
    intro = f"{metric_name(metric)} on parts of the frozen examples; with an interval where there are enough of them."
    blocks: list[Block] = [Text(intro), _table(first, arms, metric)]
    if rest:
        blocks.append(Details(f"{len(rest)} smaller ones", [_table(rest, arms, metric)]))
    return Section("slices", "Slices", blocks)


def _table(slices: Sequence[SliceScores], arms: Sequence[str], metric: str) -> Table:
    unit = metric_unit(metric)
    rows = []
    for part in slices:
        means = (part.means.get(arm) for arm in arms)
        figures = [
            Cell("\u2013") if mean is None else Cell(decimal(mean[0], unit), interval(mean[1], mean[2], unit))
            for mean in means
        ]
        rows.append([Cell(part.value, words(part.dimension)), Cell(count(part.num_examples)), *figures])
    return Table(("Slice", "Examples", *(words(arm) for arm in arms)), rows, stacks=True)
