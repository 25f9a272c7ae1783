"""Section on the prompting baselines: whether training was needed, and the scores of the untrained base model."""

from __future__ import annotations

from tasks.contracts.evaluation import PromptingVerdict
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Facts, Section, Table
from tasks.dossier.formatting import count, decimal, interval, metric_name, metric_unit, signed, with_names

VERDICTS = {
    "FINE_TUNE": "Training was needed",
    "PROMPT_IS_ENOUGH": "A prompt is enough",
    "RAG_FIRST": "Retrieval first",
    "NOT_ENOUGH_DATA": "Not enough data",
}
_BASELINES = {
    "base": "Present prompt",
    "prompt": "Configured prompt",
    "few-shot": "Examples in the prompt",
    "retrieval": "Retrieved passages",
}


def prompting_section(evidence: RunEvidence) -> Section | None:
    """The scores of the base model without training, and the verdict; None where there is no verdict."""
    verdict = evidence.fit
    if verdict is None or verdict.verdict is None:
        return None
    blocks: list[Block] = [Bullets([with_names(reason) for reason in verdict.reasons], title=VERDICTS[verdict.verdict])]
    if verdict.remedies:
        blocks.append(Bullets([with_names(remedy) for remedy in verdict.remedies], title="What would change it"))
    if verdict.arms:
        blocks.append(_baselines(verdict))
    blocks.append(Facts(_facts(verdict)))
    return Section("prompting", "Was training needed?", blocks, short="Prompting")


def _baselines(verdict: PromptingVerdict) -> Table:
    unit = metric_unit(verdict.metric)
    rows = [
        (
            Cell(_BASELINES[arm.arm]),
            Cell(*_figure(arm.score, unit)),
            Cell(_gain(arm.gain)) if arm.gain else Cell("\u2013"),
            Cell("reached" if arm.reaches_target else "not reached", state="pass" if arm.reaches_target else None),
        )
        for arm in verdict.arms
    ]
    caption = "The base model, untrained, on the same frozen examples; intervals are corrected for the number of baselines."
    return Table(("Prompt", metric_name(verdict.metric), "Gain", "Target"), rows, caption)


def _figure(score: Measurement, unit: str) -> tuple[str, str]:
    return ("\u2013", "") if score.value is None else (decimal(score.value, unit), interval(score.low, score.high, unit))


def _gain(gain: Measurement) -> str:
    return "\u2013" if gain.value is None else signed(gain.value)


def _facts(verdict: PromptingVerdict) -> list[tuple[str, str]]:
    unit, facts = metric_unit(verdict.metric), [("Rows to train on", count(verdict.num_train_rows))]
    facts.append(("Frozen examples", count(verdict.num_examples)))
    if verdict.target is not None:
        facts.append(("Target", f"{decimal(verdict.target, unit)} in {metric_name(verdict.metric)}"))
    if verdict.minimum_detectable_effect is not None:
        effect = decimal(verdict.minimum_detectable_effect, unit)
        facts.append(("Smallest gain found 4 times in 5", f"{effect} in {metric_name(verdict.metric)}"))
    return facts
