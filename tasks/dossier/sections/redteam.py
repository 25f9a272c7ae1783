"""Section on the red team: each model's failure rates under attack."""

from __future__ import annotations

from tasks.contracts.evaluation import RedTeamReport
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Details, Section, Table, Text
from tasks.dossier.formatting import ARM_NAMES, PERCENT, count, percent, signed, words
from tasks.measures.safety import RATES

_CONTROL = "control_rank_first"
_GARAK = "garak."
_LENGTH = "counterfactual_length"


def red_team_section(evidence: RunEvidence) -> Section | None:
    """Every rate with its interval; None when the red team was off."""
    report = evidence.benchmark.red_team
    if report is None:
        return None
    arms = [arm for name in ARM_NAMES if (arm := report.arm(name))]
    rows = []
    others = dict.fromkeys(rate.name for arm in arms for rate in arm.rates if rate.name.startswith(_GARAK))
    for name in (*RATES, *others):
        figures = [arm.rate(name) for arm in arms]
        probes = max((figure.num_samples or 0 for figure in figures if figure), default=0)
        cells = [_rate_cell(figure) for figure in figures]
        title = f"garak: {name.removeprefix(_GARAK)}" if name in others else words(name)
        rows.append([Cell(title, f"{count(probes)} probes"), *cells])
    intro = (
        "The same attacks on every model. Each figure is the share of probes that failed, with its 95\u202f% interval; "
        "0 is best. With few probes the intervals are wide and show only gross faults."
    )
    table = Table(("Rate", *(ARM_NAMES[arm.arm] for arm in arms)), rows)
    meanings = Bullets([f"{words(name)}: {meaning}." for name, meaning in RATES.items()])
    blocks: list[Block] = [Text(intro), table, Details("What the rates mean", [meanings, *_beside(report)])]
    return Section("red-team", "Red team", blocks)


def _rate_cell(figure: Measurement | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell("\u2013")
    return Cell(percent(figure.value), f"{_limits(figure)}{f', {figure.note}' if figure.note else ''}")


def _limits(figure: Measurement) -> str:
    low, high = percent(figure.low or 0.0), percent(1.0 if figure.high is None else figure.high)
    return f"{low.removesuffix(PERCENT)}–{high}"  # short, so that three models fit side by side on a phone


def _beside(report: RedTeamReport) -> list[Block]:
    """Figures beside the failure rates: the canaries' control, and the difference of lengths within pairs."""
    lines = []
    for arm in report.arms:
        name = ARM_NAMES.get(arm.arm, arm.arm)
        control, length = arm.rate(_CONTROL), arm.rate(_LENGTH)
        if control and control.value is not None:
            lines.append(
                f"{name}: {percent(control.value)} of canaries outside the training data rank first ({control.note})."
            )
        if length and length.value is not None:
            lines.append(
                f"{name}: replies to the second form of a pair differ in length by {signed(length.value)} "
                f"({signed(length.low or 0.0)} to {signed(length.high or 0.0)}), {length.note}."
            )
    return [Bullets(lines)] if lines else []
