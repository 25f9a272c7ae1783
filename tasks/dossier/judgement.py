"""Sections on the decision: reasons, comparisons, scores, and a few answers side by side."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contracts.evaluation import ArmScores, Comparison, PairwiseJudgeResult, PromotionDecision
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Answer, Answers, Block, Bullets, Cell, Details, Facts, Plot, Row, Section, Table, Text
from tasks.dossier.gathering import AnsweredExample
from tasks.dossier.notation import (
    count,
    day,
    decimal,
    interval,
    measured,
    metric_name,
    metric_unit,
    signed,
    with_names,
    words,
)
from tasks.dossier.plots import Whisker, plot_scores
from tasks.dossier.verdict import approval_line
from tasks.measures.metrics import METRICS

ARM_NAMES = {"base": "Base", "champion": "Champion", "candidate": "Candidate"}
_SHOWN_FIRST = ("chrf", "rouge_l", "bleu", "exact_match", "label_accuracy", "label_macro_f1", "format_valid", "completed")
_MAX_PLOTTED = 8
_ANSWERS_OPEN = 2


def decision_section(evidence: RunEvidence) -> Section:
    """Why it was decided so, and what would change the answer."""
    decision = evidence.decision
    blocks: list[Block] = [Bullets([with_names(reason) for reason in decision.reasons])]
    if decision.remedies:
        blocks.append(Bullets([with_names(remedy) for remedy in decision.remedies], title="What would change the answer"))
    if decision.comparisons:
        blocks.append(_comparisons(decision))
    facts = [("Registry", _registry_line(evidence))]
    if evidence.reason is not None:
        facts.append(("Why it was started", evidence.reason))
    if evidence.promotion.approval is not None:
        facts.append(("Approval", approval_line(evidence.promotion.approval)))
    if evidence.promotion.late is not None:
        facts.append(("An answer that was not taken", evidence.promotion.late))
    if decision.minimum_detectable_effect is not None:
        unit = metric_unit(decision.primary_metric)
        effect = decimal(decision.minimum_detectable_effect, unit)
        facts.append(("Smallest difference found 4 times in 5", f"{effect} in {metric_name(decision.primary_metric)}"))
    blocks.append(Facts(facts))
    return Section("decision", "Decision", blocks)


def _comparisons(decision: PromotionDecision) -> Table:
    rows = [
        (
            Cell(f"{metric_name(comparison.metric)}", f"against {comparison.opponent.replace('_', ' ')}"),
            Cell(comparison.rule),
            Cell(signed(comparison.difference), _comparison_interval(comparison)),
            Cell(count(comparison.num_examples)),
            Cell("holds" if comparison.passed else "fails", state="pass" if comparison.passed else "fail"),
        )
        for comparison in decision.comparisons
    ]
    headers = ("Metric", "Rule", "Difference", "Examples", "Result")
    return Table(headers, rows, "Candidate minus opponent on the same examples, with paired intervals.", 2, stacks=True)


def _comparison_interval(comparison: Comparison) -> str:
    return f"{signed(comparison.low)} to {signed(comparison.high)}"


def _registry_line(evidence: RunEvidence) -> str:
    promotion = evidence.promotion
    candidate = f"version {evidence.candidate.version}"
    if promotion.promoted:
        replaced = f", replacing version {promotion.previous_version}" if promotion.previous_version else ""
        return f"{candidate} is champion{replaced}"
    if promotion.rollout_share is not None:
        share = f"{promotion.rollout_share}\u202f% of the traffic"
        return f"{candidate} is under rollout with {share}; version {promotion.champion_version} is champion"
    champion = f"version {promotion.champion_version} is champion" if promotion.champion_version else "no champion"
    return f"{candidate} is registered; {champion}"


# ---------------------------------------------------------------------------------------------------------------- scores


def scores_section(evidence: RunEvidence) -> Section:
    """All scores of all models on the same frozen examples."""
    arms = [arm for name in ARM_NAMES if (arm := evidence.benchmark.arm(name))]
    measured = _measured_names(arms)
    plotted = [name for name in measured if metric_unit(name) == "share"][:_MAX_PLOTTED]
    frozen = evidence.benchmark.dataset
    gates = ", ".join(words(gate).lower() for gate in frozen.passed)
    intro = f"{count(frozen.num_rows)} frozen examples ({gates}) that no model was trained on, answered by every model."
    blocks: list[Block] = [Text(f"{intro}{_general_note(arms)}")]
    table = _score_table(arms, measured)
    if plotted:
        lines = [
            (metric_name(name), [_whisker(arm, name) for arm in arms if _value(arm, name) is not None]) for name in plotted
        ]
        caption = "Scores with 95\u202f% intervals. Higher is better on every line."
        blocks.append(Row([Plot(plot_scores(lines, "Scores of the models with intervals"), caption), table]))
    else:
        blocks.append(table)
    return Section("scores", "Scores", [*blocks, *_judgements(evidence.benchmark.judgements)])


def fresh_section(evidence: RunEvidence) -> Section | None:
    """The scores on the newest rows, or why there are none; None for a run that did not look for any."""
    report, held_out = evidence.benchmark, evidence.examples.fresh
    if report.fresh is None:
        blocks: list[Block] = (
            [Text(f"There is no fresh set: {report.holdout_unavailable_reason}.")]
            if report.holdout_unavailable_reason
            else []
        )
        return Section("fresh", "The newest rows", blocks, short="Newest") if blocks else None
    arms = [arm for name in ARM_NAMES if (arm := report.fresh.arm(name))]
    since = f" after {day(held_out.since)}" if held_out and held_out.since else ""
    intro = (
        f"{count(report.fresh.dataset.num_rows)} rows made{since}, newer than every frozen example and held out of this "
        "run's training: they show what a model learned of the present, the frozen ones that it lost nothing of the past."
    )
    table = _score_table(arms, _measured_names(arms))
    return Section("fresh", "The newest rows", [Text(intro), table], short="Newest")


def _measured_names(arms: Sequence[ArmScores]) -> list[str]:
    """The metrics that any model was measured on, those that matter most first."""
    named = {score.name: score for arm in arms for score in arm.scores}
    order = [name for name in _SHOWN_FIRST if name in named] + [name for name in named if name not in _SHOWN_FIRST]
    return [name for name in order if any(_value(arm, name) is not None for arm in arms)]


def _score_table(arms: Sequence[ArmScores], names: Sequence[str]) -> Table:
    rows = [[_score_name(name), *(_score_cell(arm.score(name), name) for arm in arms)] for name in names]
    return Table(("Metric", *(ARM_NAMES[arm.arm] for arm in arms)), rows)


def _score_name(name: str) -> Cell:
    """A metric's name, and of a clock's that it decides nothing."""
    by_clock = name in METRICS and METRICS[name].role == "clock"
    return Cell(metric_name(name), "measured beside whatever load, no part of the decision" if by_clock else "")


def _judgements(judgements: Sequence[PairwiseJudgeResult]) -> list[Block]:
    """What a language model preferred; it stands beside the scores and decides nothing."""
    if not judgements:
        return []
    rows = [
        [
            Cell(f"against {one.opponent}", one.win_rate.note),
            Cell(measured(one.win_rate), interval(one.win_rate.low, one.win_rate.high)),
            *(Cell(count(number)) for number in (one.num_wins, one.num_ties, one.num_losses, one.num_unjudged)),
        ]
        for one in judgements
    ]
    caption = (
        f"The candidate's replies as {judgements[0].judge} judged them, each pair in both orders; a verdict that "
        "changed with the order is a tie, a tie half a win. No part of the decision."
    )
    return [Table(("Judge", "Win rate", "Won", "Tied", "Lost", "Unjudged"), rows, caption)]


def _general_note(arms: Sequence[ArmScores]) -> str:
    general = next((arm.general for arm in arms if arm.general), None)
    if general is None:
        return ""
    return (
        f" Retention is weighed on {count(general.num_rows)} general questions: the share of probability on the right "
        "answer among those offered."
    )


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
    """A few held-out questions with what base and candidate answered; None without examples."""
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
