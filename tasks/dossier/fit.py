"""The section on the fit verdict: whether training was the right means, and what the other ways of asking scored."""

from __future__ import annotations

from tasks.contracts.evaluation import PromptingVerdict
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Facts, Section, Table
from tasks.dossier.notation import count, decimal, interval, metric_name, metric_unit, signed, with_names

VERDICTS = {
    "FINE_TUNE": "Training is the right means",
    "PROMPT_IS_ENOUGH": "A prompt is enough",
    "RAG_FIRST": "Retrieval first",
    "NOT_ENOUGH_DATA": "Not enough data to tell",
}
_WAYS = {
    "base": "As asked today",
    "prompt": "Configured prompt",
    "few-shot": "Examples in the prompt",
    "retrieval": "Passages",
}


def fit_section(evidence: RunEvidence) -> Section | None:
    """What the base model scores without training, and the verdict; None where nothing was measured or lacking."""
    fit = evidence.fit
    if fit is None or fit.verdict is None:
        return None
    blocks: list[Block] = [Bullets([with_names(reason) for reason in fit.reasons], title=VERDICTS[fit.verdict])]
    if fit.remedies:
        blocks.append(Bullets([with_names(remedy) for remedy in fit.remedies], title="What would change it"))
    if fit.arms:
        blocks.append(_ways(fit))
    blocks.append(Facts(_facts(fit)))
    return Section("fit", "Was training needed?", blocks, short="Fit")


def _ways(fit: PromptingVerdict) -> Table:
    unit = metric_unit(fit.metric)
    rows = [
        (
            Cell(_WAYS[arm.arm]),
            Cell(*_figure(arm.score, unit)),
            Cell(_gain(arm.gain)) if arm.gain else Cell("\u2013"),
            Cell("reached" if arm.reaches_target else "not reached", state="pass" if arm.reaches_target else None),
        )
        for arm in fit.arms
    ]
    caption = "The base model, untrained, on the same frozen examples; intervals are widened by the number of ways tried."
    return Table(("Way of asking", metric_name(fit.metric), "Against today", "Target"), rows, caption)


def _figure(score: Measurement, unit: str) -> tuple[str, str]:
    return ("\u2013", "") if score.value is None else (decimal(score.value, unit), interval(score.low, score.high, unit))


def _gain(gain: Measurement) -> str:
    return "\u2013" if gain.value is None else signed(gain.value)


def _facts(fit: PromptingVerdict) -> list[tuple[str, str]]:
    unit, facts = metric_unit(fit.metric), [("Rows to train on", count(fit.num_train_rows))]
    facts.append(("Frozen examples", count(fit.num_examples)))
    if fit.target is not None:
        facts.append(("Target", f"{decimal(fit.target, unit)} in {metric_name(fit.metric)}"))
    if fit.minimum_detectable_effect is not None:
        effect = decimal(fit.minimum_detectable_effect, unit)
        facts.append(("Smallest gain found 4 times in 5", f"{effect} in {metric_name(fit.metric)}"))
    return facts
