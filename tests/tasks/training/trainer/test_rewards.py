"""Rewards are what the rules say, between 0 and 1, whatever a model writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.training.config import GrpoConfig
from tasks.training.examples import Prompt
from tasks.training.trainer.rewards import mean_rewards, rewards_of

LABELS = {"billing", "card arrival"}
ALL = GrpoConfig(exact_match=1.0, format=0.5, format_pattern=r"\w+: .+", label=2.0, label_pattern=r"^([\w ]+):")


def prompt(reference: str = "Billing: paid.", label: str | None = "billing") -> Prompt:
    return Prompt([1], [{"role": "user", "content": "?"}], reference, label, 8)


def rewards(config: GrpoConfig, reply: str, *, row: Prompt | None = None) -> dict[str, float]:
    return mean_rewards(rewards_of(config, LABELS), [row or prompt()], [reply])


def test_every_rule_scores_by_itself_and_the_total_is_weighted() -> None:
    assert rewards(ALL, "billing:  PAID.") == {"exact_match": 1.0, "format": 1.0, "label": 1.0, "total": 3.5}
    assert rewards(ALL, "Billing: open.") == {"exact_match": 0.0, "format": 1.0, "label": 1.0, "total": 2.5}
    assert rewards(ALL, "Card_arrival: paid.") == {"exact_match": 0.0, "format": 1.0, "label": 0.0, "total": 0.5}
    assert rewards(ALL, "no idea")["total"] == 0.0
    assert rewards(ALL, "Billing: paid.", row=prompt(label=None))["label"] == 0.0, "a row without a label rewards none"


def test_a_reply_with_a_placeholder_says_nothing_right() -> None:
    row = prompt("Billing: paid by <PERSON>.")
    assert rewards(ALL, "Billing: paid by <PERSON>.", row=row)["exact_match"] == 0.0
    assert rewards(ALL, "Billing: paid by <PERSON>.", row=row)["label"] == 1.0


def test_a_rule_without_a_weight_is_left_out() -> None:
    schema = {"type": "object", "required": ["team"]}
    config = GrpoConfig(format=1.0, json_schema=schema)
    assert [rule.name for rule in rewards_of(config, LABELS)] == ["format"]
    assert rewards(config, '{"team": "x"}')["total"] == 1.0
    assert rewards(config, "{}")["total"] == rewards(config, "team: x")["total"] == 0.0


def test_calls_are_rewarded_by_the_tools_of_the_row_and_nothing_without_them() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [json.dumps({"type": "function", "function": {"name": "forecast", "parameters": schema}})]
    call = '{"name": "forecast", "arguments": {"city": "Rome"}}'
    messages = [{"role": "tools", "content": "", "tools": tools}, {"role": "user", "content": "?"}]
    row = Prompt([1], messages, f"<tool_call>\n{call}\n</tool_call>", None, 8)
    config = GrpoConfig(calls=2.0)
    assert rewards(config, call, row=row) == {"calls": 1.0, "total": 2.0}
    assert rewards(config, call.replace("Rome", "Oslo"), row=row)["calls"] == pytest.approx(0.6)
    assert rewards(config, "Warm.", row=row)["calls"] == 0.0
    scrubbed = Prompt([1], messages, row.reference.replace("Rome", "<CITY>"), None, 8)
    assert rewards(config, call.replace("Rome", "<CITY>"), row=scrubbed)["calls"] == 0.0
    assert rewards(config, "Warm.")["calls"] == 0.0


@given(reply=st.text(), reference=st.text(), label=st.none() | st.sampled_from(sorted(LABELS)))
def test_a_reward_is_a_share_of_one_and_the_reference_itself_matches(reply: str, reference: str, label: str | None) -> None:
    for rule in rewards_of(ALL, LABELS):
        reward = rule.score(reply, reference, label, ())
        assert 0.0 <= reward <= 1.0
        assert reward == rule.score(reply, reference, label, ())
    assert rewards_of(ALL, LABELS)[0].score(reference, reference, label, ()) == 1.0


@given(replies=st.lists(st.sampled_from(["Billing: paid.", "Billing: open.", "no idea"]), min_size=1, max_size=9))
def test_the_order_of_the_replies_changes_no_mean(replies: list[str]) -> None:
    rules, prompts = rewards_of(ALL, LABELS), [prompt()] * len(replies)
    assert mean_rewards(rules, prompts, replies) == pytest.approx(mean_rewards(rules, prompts, replies[::-1]))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "no reward has a weight"),
        ({"format": 1}, "either format_pattern or json_schema"),
        ({"format": 1, "format_pattern": "a", "json_schema": {}}, "either format_pattern or json_schema"),
        ({"label": 1, "format_pattern": "a"}, "without a weight"),
        ({"format": 1, "format_pattern": "("}, "not a regular expression"),
        ({"format": 1, "json_schema": {"type": "unknown"}}, "not a JSON schema"),
        ({"label": 1, "num_generations": 3}, "num_generations 3 does not divide"),
        ({"label": 1, "per_device_train_batch_size": 5}, "per_device_train_batch_size 5 does not divide"),
        ({"label": 1, "max_completion_length": 1024}, "leaves no room for a prompt"),
        ({"label": 1, "num_processes": 2}, "num_processes"),
    ],
)
def test_settings_that_reward_nothing_or_do_not_fit_are_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        GrpoConfig(**settings)
