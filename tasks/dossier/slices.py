"""The section on slices: the primary metric by label, group, length and script, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.contracts.evaluation import BenchmarkReport
from tasks.core.storage import Store
from tasks.dossier.blocks import Block, Cell, Details, Section, Table, Text
from tasks.dossier.notation import count, decimal, interval, metric_name, metric_unit, words

_ARMS = ("base", "champion", "candidate")
_SHOWN = 12


@dataclass(frozen=True)
class SliceScores:
    """One slice: how many examples, and each model's mean with its interval where there are enough."""

    dimension: str
    value: str
    num_examples: int
    means: dict[str, tuple[float, float | None, float | None]]


def read_slices(store: Store, benchmark: BenchmarkReport, metric: str) -> list[SliceScores]:
    """The slices that the candidate was measured on, by dimension, largest first."""
    found: dict[tuple[str, str], SliceScores] = {}
    for arm in benchmark.arms:
        if arm.arm not in _ARMS or arm.slices is None:
            continue
        for row in store.read_table(arm.slices).to_pylist():
            if row["metric"] == metric:
                key = (row["dimension"], row["value"])
                one = found.setdefault(key, SliceScores(*key, row["num_examples"], {}))
                one.means[arm.arm] = (row["mean"], row["low"], row["high"])
    measured = (one for one in found.values() if "candidate" in one.means)
    return sorted(measured, key=lambda one: (one.dimension, -one.num_examples, one.value))


def slices_section(slices: Sequence[SliceScores], metric: str) -> Section | None:
    """A compact table, the largest slices of each dimension open; None without slices."""
    if not slices:
        return None
    arms = [arm for arm in _ARMS if any(arm in one.means for one in slices)]
    largest = sorted(slices, key=lambda one: -one.num_examples)[:_SHOWN]
    first = [one for one in slices if one in largest]
    rest = [one for one in slices if one not in largest]
    intro = f"{metric_name(metric)} on parts of the frozen examples; an interval stands where there are enough of them."
    blocks: list[Block] = [Text(intro), _table(first, arms, metric)]
    if rest:
        blocks.append(Details(f"{len(rest)} smaller ones", [_table(rest, arms, metric)]))
    return Section("slices", "Slices", blocks)


def _table(slices: Sequence[SliceScores], arms: Sequence[str], metric: str) -> Table:
    unit = metric_unit(metric)
    rows = []
    for one in slices:
        means = (one.means.get(arm) for arm in arms)
        figures = [
            Cell("\u2013") if mean is None else Cell(decimal(mean[0], unit), interval(mean[1], mean[2], unit))
            for mean in means
        ]
        rows.append([Cell(one.value, words(one.dimension)), Cell(count(one.num_examples)), *figures])
    return Table(("Slice", "Examples", *(words(arm) for arm in arms)), rows, stacks=True)
