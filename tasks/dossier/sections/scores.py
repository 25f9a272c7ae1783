"""Sections on the scores: of all models on the frozen and the newest examples, and a few answers side by side."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contracts.evaluation import ArmScores, PairwiseJudgeResult
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Answer, Answers, Block, Cell, Details, Plot, Row, Section, Table, Text
from tasks.dossier.formatting import ARM_NAMES, count, day, decimal, interval, measured, metric_name, metric_unit, words
from tasks.dossier.plots import Whisker, plot_scores
from tasks.dossier.report_data import AnsweredExample
from tasks.measures.metrics import METRICS

_SHOWN_FIRST = ("chrf", "rouge_l", "bleu", "exact_match", "label_accuracy", "label_macro_f1", "format_valid", "completed")
_MAX_PLOTTED = 8
_ANSWERS_OPEN = 2


def scores_section(evidence: RunEvidence) -> Section:
    """All scores of all models on the same frozen examples."""
    arms = [arm for name in ARM_NAMES if (arm := evidence.benchmark.arm(name))]
    names = _measured_names(arms)
    plotted = [name for name in names if metric_unit(name) == "share" and not _lower_is_better(name)][:_MAX_PLOTTED]
    frozen = evidence.benchmark.dataset
    gates = ", ".join(words(gate).lower() for gate in frozen.passed)
    intro = f"{count(frozen.num_rows)} frozen examples ({gates}) that no model was trained on, answered by every model."
    blocks: list[Block] = [Text(f"{intro}{_general_note(arms)}{_limit_note(arms)}")]
    table = _score_table(arms, names)
    if plotted:
        lines = [
            (metric_name(name), [_whisker(arm, name) for arm in arms if _value(arm, name) is not None]) for name in plotted
        ]
        caption = "Scores with 95\u202f% intervals. Higher is better on every line."
        blocks.append(Row([Plot(plot_scores(lines, "Scores of the models with intervals"), caption), table]))
    else:
        blocks.append(table)
    return Section("scores", "Scores", [*blocks, *_pairwise_results(evidence.benchmark.judgements)])


def fresh_section(evidence: RunEvidence) -> Section | None:
    """The scores on the newest rows, or why there are none; None where the run held none out."""
    report, held_out = evidence.benchmark, evidence.examples.fresh
    if report.fresh is None:
        blocks: list[Block] = (
            [Text(f"There is no test set of the newest rows: {report.holdout_unavailable_reason}.")]
            if report.holdout_unavailable_reason
            else []
        )
        return Section("fresh", "The newest rows", blocks, short="Newest") if blocks else None
    arms = [arm for name in ARM_NAMES if (arm := report.fresh.arm(name))]
    since = f" after {day(held_out.since)}" if held_out and held_out.since else ""
    intro = (
        f"{count(report.fresh.dataset.num_rows)} rows made{since}, newer than every frozen example and held out of this "
        "run's training: they measure new knowledge, the frozen examples measure what was kept."
    )
    table = _score_table(arms, _measured_names(arms))
    return Section("fresh", "The newest rows", [Text(intro), table], short="Newest")


def _measured_names(arms: Sequence[ArmScores]) -> list[str]:
    """The metrics that any model was measured on, the most important first."""
    named = {score.name: score for arm in arms for score in arm.scores}
    order = [name for name in _SHOWN_FIRST if name in named] + [name for name in named if name not in _SHOWN_FIRST]
    return [name for name in order if any(_value(arm, name) is not None for arm in arms)]


def _score_table(arms: Sequence[ArmScores], names: Sequence[str]) -> Table:
    rows = [[_score_name(name), *(_score_cell(arm.score(name), name) for arm in arms)] for name in names]
    return Table(("Metric", *(ARM_NAMES[arm.arm] for arm in arms)), rows)


def _score_name(name: str) -> Cell:
    """A metric's name; a metric by the clock has the note that the decision does not use it."""
    by_clock = name in METRICS and METRICS[name].role == "clock"
    return Cell(metric_name(name), "depends on the load, not part of the decision" if by_clock else "")


def _pairwise_results(results: Sequence[PairwiseJudgeResult]) -> list[Block]:
    """The preferences of a judge model, which the decision does not use."""
    if not results:
        return []
    rows = [
        [
            Cell(f"against {result.opponent}", result.win_rate.note),
            Cell(measured(result.win_rate), interval(result.win_rate.low, result.win_rate.high)),
            *(Cell(count(number)) for number in (result.num_wins, result.num_ties, result.num_losses, result.num_unjudged)),
        ]
        for result in results
    ]
    caption = (
        f"The candidate's replies as {results[0].judge} compared them, each pair in both orders; a verdict that "
        "changed with the order is a tie, a tie half a win. Not part of the decision."
    )
    return [Table(("Judge", "Win rate", "Won", "Tied", "Lost", "Unjudged"), rows, caption)]


def _general_note(arms: Sequence[ArmScores]) -> str:
    general = next((arm.general for arm in arms if arm.general), None)
    if general is None:
        return ""
    return (
        f" Retention is measured on {count(general.num_rows)} general questions: the share of probability on the right "
        "answer among those offered."
    )


def _lower_is_better(name: str) -> bool:
    return name in METRICS and METRICS[name].higher_is_better is False


def _limit_note(arms: Sequence[ArmScores]) -> str:
    """That replies ended before the configured limit, because the context is short."""
    notes = {score.note for arm in arms if (score := arm.score("completed")) and score.note}
    return "".join(f" {note}" for note in sorted(notes))


def _value(arm: ArmScores, name: str) -> float | None:
    score = arm.score(name)
    return score.value if score else None


def _whisker(arm: ArmScores, name: str) -> Whisker:
    score = arm.score(name)
    assert score is not None
    assert score.value is not None
    return Whisker(arm.arm, score.value, score.low, score.high)


def _score_cell(score: Measurement | None, name: str) -> Cell:
    unit = metric_unit(name)
    if score is None or score.value is None:
        return Cell("\u2013")
    return Cell(decimal(score.value, unit), interval(score.low, score.high, unit))


# --------------------------------------------------------------------------------------------------------------- answers


def answers_section(examples: Sequence[AnsweredExample], metric: str) -> Section | None:
    """A few held-out questions with the models' answers; None without examples."""
    if not examples:
        return None
    unit = metric_unit(metric)
    items = [
        Answer(
            question=example.question,
            reference=example.reference,
            replies=[
                (ARM_NAMES[arm], text, f"{metric_name(metric)} {decimal(score, unit)}" if score is not None else "")
                for arm, (text, score) in example.replies.items()
            ],
        )
        for example in examples
    ]
    intro = (
        "Spread evenly from the candidate's largest gain over the base model to its largest loss, not hand-picked. "
        "Questions come from the scrubbed frozen set."
    )
    blocks: list[Block] = [Text(intro), Answers(items[:_ANSWERS_OPEN])]
    if items[_ANSWERS_OPEN:]:
        blocks.append(Details(f"{len(items) - _ANSWERS_OPEN} more", [Answers(items[_ANSWERS_OPEN:])]))
    return Section("answers", "Before and after", blocks, short="Answers")
