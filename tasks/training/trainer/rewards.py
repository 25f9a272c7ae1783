"""Verifiable rewards: the score that a rule gives a generated reply, by the rules of the benchmark's metrics. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tasks.core.tool_calls import tools_in
from tasks.measures.placeholders import has_placeholder
from tasks.measures.reply_checks import exact_match, format_valid, json_valid, named_label
from tasks.measures.tool_calls import call_reward, calls_in, schemas_of
from tasks.training.config import GrpoConfig
from tasks.training.examples import Prompt


@dataclass(frozen=True)
class Reward:
    """One rule: its weight, and its score of a reply, given the row's own reply, label and tools; from 0 to 1."""

    name: str
    weight: float
    score: Callable[[str, str, str | None, Sequence[str]], float]


def rewards_of(config: GrpoConfig, labels: Collection[str]) -> tuple[Reward, ...]:
    """The rules that have a weight.

    Args:
        config: Weights and forms.
        labels: Every label that the rows have.
    """

    def form(reply: str, reference: str, label: str | None, tools: Sequence[str]) -> float:
        if config.format_pattern is not None:
            return format_valid(reply, config.format_pattern)
        return json_valid(reply, config.json_schema or {})

    def names_label(reply: str, reference: str, label: str | None, tools: Sequence[str]) -> float:
        return float(label is not None and named_label(reply, labels, config.label_pattern) == label)

    def says_the_same(reply: str, reference: str, label: str | None, tools: Sequence[str]) -> float:
        return 0.0 if has_placeholder(reply) else exact_match(reply, reference)

    def calls(reply: str, reference: str, label: str | None, tools: Sequence[str]) -> float:
        expected = calls_in(reference, schemas_of(tools)) if tools else []
        return 0.0 if has_placeholder(reply) else call_reward(reply, expected, tools)

    rules = (
        Reward("exact_match", config.exact_match, says_the_same),
        Reward("format", config.format, form),
        Reward("label", config.label, names_label),
        Reward("calls", config.calls, calls),
    )
    return tuple(rule for rule in rules if rule.weight)


def mean_rewards(rewards: Sequence[Reward], prompts: Sequence[Prompt], replies: Sequence[str]) -> dict[str, float]:
    """Each rule's mean over the replies to prompts, and ``total``: their weighted sum, as training adds them up."""
    rows = list(zip(prompts, replies, strict=True))
    means = {
        rule.name: sum(
            rule.score(reply, prompt.reference, prompt.label, tools_in(prompt.messages)) for prompt, reply in rows
        )
        / len(rows)
        for rule in rewards
    }
    return {**means, "total": sum(rule.weight * means[rule.name] for rule in rewards)}
