"""Section on the decision: its reasons, the comparisons behind it, and the registry's record."""

from __future__ import annotations

from tasks.contracts.evaluation import Comparison, PromotionDecision
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Facts, Section, Table
from tasks.dossier.formatting import count, decimal, metric_name, metric_unit, signed, with_names
from tasks.dossier.verdict import approval_line


def decision_section(evidence: RunEvidence) -> Section:
    """The reasons of the decision, its comparisons, and what would change it."""
    decision = evidence.decision
    blocks: list[Block] = [Bullets([with_names(reason) for reason in decision.reasons])]
    if decision.remedies:
        blocks.append(Bullets([with_names(remedy) for remedy in decision.remedies], title="What would change the answer"))
    if decision.comparisons:
        blocks.append(_comparisons(decision))
    facts = [("Registry", _registry_line(evidence))]
    if evidence.reason is not None:
        facts.append(("Reason of the run", evidence.reason))
    if evidence.promotion.approval is not None:
        facts.append(("Approval", approval_line(evidence.promotion.approval)))
    if evidence.promotion.late is not None:
        facts.append(("An answer that was not accepted", evidence.promotion.late))
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
