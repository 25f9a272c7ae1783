"""What the gate said of a version, each time: verdicts stay with it, and another question about it goes to a person.

A gate that gets other questions until it promotes proves nothing: with twenty metrics one of them favours an equal model by
chance. So each verdict is a tag of its version that nothing overwrites. Where one was not PROMOTE, and a later run of the
same model on the same examples decides by another metric or other settings, its PROMOTE becomes NEEDS_HUMAN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import Verdict
from tasks.core.storage import sha256_of_json
from tasks.core.typed_text import cut

VERDICT = "perennial.verdict."
_REASON_CHARACTERS = 1_000
_MAX_NAMED = 5
_DECIDES_NOTHING = frozenset({"price_per_device_hour", "currency", "judge", "lm_eval", "batch_size"})
"""Settings of the benchmark that no rule of the gate reads; ``latency`` is read where the gate limits latency."""


def question_of(settings: Mapping[str, Any]) -> str:
    """The digest of what decides: the gate's rules, and how benchmark and red team measure.

    Args:
        settings: The configuration of a retrain, as JSON.
    """
    is_timed = settings.get("promotion", {}).get("max_latency_increase") is not None
    ignored = _DECIDES_NOTHING if is_timed else _DECIDES_NOTHING | {"latency"}
    benchmark = {key: value for key, value in settings.get("benchmark", {}).items() if key not in ignored}
    return sha256_of_json({**{part: settings.get(part) for part in ("promotion", "redteam")}, "benchmark": benchmark})


def verdicts_in(tags: Mapping[str, str]) -> tuple[Verdict, ...]:
    """The verdicts in a version's tags, oldest first."""
    return tuple(Verdict.model_validate_json(tags[key]) for key in sorted(tags) if key.startswith(VERDICT))


def verdict_tag(tags: Mapping[str, str], run_name: str, question: str, decision: PromotionDecision) -> dict[str, str]:
    """The tag that adds a decision to a version's verdicts; empty where a repeated run has added it already."""
    verdict = Verdict(
        run_name=run_name,
        outcome=decision.outcome,
        primary_metric=decision.primary_metric,
        question=question,
        champion_version=decision.champion_version,
        reason=cut(" ".join(decision.reasons), _REASON_CHARACTERS),
        figures=figures_of(decision),
    )
    if verdict in verdicts_in(tags):
        return {}
    number = max((int(key.removeprefix(VERDICT)) for key in tags if key.startswith(VERDICT)), default=0) + 1
    return {f"{VERDICT}{number:06d}": verdict.model_dump_json()}


def figures_of(decision: PromotionDecision) -> dict[str, str]:
    """The gate's figures on the primary metric, by opponent and metric."""
    return {
        f"{row.opponent}.{row.metric}": f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}] n={row.num_examples}"
        for row in decision.comparisons
        if row.metric == decision.primary_metric
    }


def with_earlier_verdicts(decision: PromotionDecision, question: str, before: Sequence[Verdict]) -> PromotionDecision:
    """The decision with what was said before on other questions; a person decides where it would promote nevertheless.

    Args:
        decision: The gate's decision on this question.
        question: See :func:`question_of`.
        before: The verdicts on the same version so far.
    """
    others = [verdict for verdict in before if verdict.question != question and verdict.outcome != "PROMOTE"]
    if not others:
        return decision
    named = dict.fromkeys(f"{verdict.outcome} by {verdict.primary_metric} in {verdict.run_name}" for verdict in others)
    reason = (
        f"Earlier decisions on this version, by another metric or other settings: {', '.join(list(named)[-_MAX_NAMED:])}. "
        "Questions that change until one promotes prove nothing."
    )
    if decision.outcome != "PROMOTE":
        return decision.model_copy(update={"reasons": (*decision.reasons, reason)})
    remedy = (
        "A person approves it with a reason, or a newly trained version is evaluated by settings that were fixed before."
    )
    return decision.model_copy(
        update={
            "outcome": "NEEDS_HUMAN",
            "reasons": (*decision.reasons, f"{reason} A person decides."),
            "remedies": (*decision.remedies, remedy),
        }
    )
