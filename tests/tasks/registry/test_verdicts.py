"""The gate remembers: each verdict stays with its version, and another question after a refusal needs a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial.operations import champion_history
from tasks.contracts.evaluation import PromotionDecision
from tasks.core.storage import Store
from tasks.registry import Answer
from tasks.registry.aliases import promote, record_answer, roll_back
from tasks.registry.approval import ApprovalTerms
from tasks.registry.champion_history import champion_tenures
from tasks.registry.verdicts import question_of, verdicts_in, with_earlier_verdicts
from tasks.registry.versions import Candidate, register, verdicts_on
from tests.support.candidates import decide, make_candidate

NOW = "2026-11-01T02:00:00+00:00"
SETTINGS: dict[str, Any] = {
    "promotion": {"primary_metric": "rouge_l", "confidence": 0.95},
    "benchmark": {"max_new_tokens": 64, "batch_size": 8, "judge": {"enabled": False}},
    "redteam": {"enabled": True},
    "training": {"sft": {"learning_rate": 1e-3}},
}


def in_run(candidate: Candidate, run_name: str, metric: str, outcome: str) -> Candidate:
    """The same model on the same examples, in another run that decides by another metric."""
    won = decide().comparisons[0].model_copy(update={"metric": metric})
    decision = decide(outcome).model_copy(update={"primary_metric": metric, "comparisons": (won,)})
    return replace(candidate, run_name=run_name, question=metric, decision=decision)


def run_gate(client: Any, name: str, candidate: Candidate) -> tuple[PromotionDecision, Any]:
    """What a run does after its gate: recall, register, promote."""
    decision = with_earlier_verdicts(candidate.decision, candidate.question, verdicts_on(client, name, candidate))
    version = register(client, name, replace(candidate, decision=decision))
    return decision, promote(client, name, version, decision, NOW, ApprovalTerms(when="when_unsure"))


@pytest.mark.parametrize("first", ["HOLD", "NEEDS_HUMAN"])
def test_another_metric_after_a_refusal_needs_a_person(
    client: Any, name: str, store: Store, tmp_path: Path, first: str
) -> None:
    candidate = make_candidate(store, tmp_path)
    assert not run_gate(client, name, in_run(candidate, "desk-1", "rouge_l", first))[1].promoted
    decision, record = run_gate(client, name, in_run(candidate, "desk-2", "nll", "PROMOTE"))
    assert decision.outcome == "NEEDS_HUMAN"
    assert f"{first} by rouge_l in desk-1" in decision.reasons[-1]
    assert not record.promoted
    third, _ = run_gate(client, name, in_run(candidate, "desk-3", "chrf", "PROMOTE"))
    assert third.outcome == "NEEDS_HUMAN"
    assert "NEEDS_HUMAN by nll in desk-2" in third.reasons[-1]
    verdicts = verdicts_in(client.get_model_version(name, "1").tags)
    assert [(one.run_name, one.outcome, one.primary_metric) for one in verdicts] == [
        ("desk-1", first, "rouge_l"),
        ("desk-2", "NEEDS_HUMAN", "nll"),
        ("desk-3", "NEEDS_HUMAN", "chrf"),
    ]


def test_history_names_the_run_that_promoted_and_every_verdict(client: Any, name: str, store: Store, tmp_path: Path) -> None:
    candidate = make_candidate(store, tmp_path)
    run_gate(client, name, in_run(candidate, "desk-1", "rouge_l", "HOLD"))
    _, record = run_gate(client, name, in_run(candidate, "desk-2", "chrf", "PROMOTE"))
    answer = Answer(verdict="approve", name="Ann Lee", reason="Checked by hand.")
    assert record_answer(client, name, record.candidate, None, answer, NOW).promoted
    [tenure] = champion_tenures(client, name)
    assert (tenure.run_name, tenure.by) == ("desk-2", "Ann Lee (typed)")
    assert tenure.scores == {"base.chrf": "+0.3000 [+0.2000, +0.4000] n=250"}
    _, lines = champion_history.history_block(tenure)
    assert ("run", "desk-2") in lines
    assert [line[1] for line in lines if line[0] == "verdict"] == [
        "HOLD by rouge_l in desk-1",
        "NEEDS_HUMAN by chrf in desk-2",
    ]
    other = in_run(make_candidate(store, tmp_path, number=2), "desk-3", "chrf", "PROMOTE")
    other = replace(other, decision=other.decision.model_copy(update={"champion_version": "1"}))
    assert run_gate(client, name, other)[1].promoted
    roll_back(client, name, "rude replies", NOW)
    assert [one.run_name for one in champion_tenures(client, name)] == ["desk-2", "desk-3", "desk-2"]


def test_the_same_question_is_no_other_one(client: Any, name: str, store: Store, tmp_path: Path) -> None:
    candidate = make_candidate(store, tmp_path)
    run_gate(client, name, in_run(candidate, "desk-1", "chrf", "HOLD"))
    for _ in range(2):  # a run that is repeated after a kill adds its verdict once
        decision, record = run_gate(client, name, in_run(candidate, "desk-2", "chrf", "PROMOTE"))
        assert (decision.outcome, record.promoted) == ("PROMOTE", True)
    assert len(verdicts_on(client, name, candidate)) == 2


def test_another_version_and_an_earlier_promotion_hold_nothing_back(
    client: Any, name: str, store: Store, tmp_path: Path
) -> None:
    run_gate(client, name, in_run(make_candidate(store, tmp_path), "desk-1", "rouge_l", "HOLD"))
    other = make_candidate(store, tmp_path, number=2)
    assert run_gate(client, name, in_run(other, "desk-2", "nll", "PROMOTE"))[1].promoted
    again, _ = run_gate(client, name, in_run(other, "desk-3", "rouge_l", "HOLD"))
    assert len(again.reasons) == 1


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("promotion", {"primary_metric": "nll"}),
        ("promotion", {"confidence": 0.8}),
        ("benchmark", {"max_new_tokens": 8}),
        ("redteam", {"enabled": False}),
    ],
)
def test_what_decides_is_part_of_the_question(part: str, change: dict[str, Any]) -> None:
    assert question_of(SETTINGS) != question_of({**SETTINGS, part: {**SETTINGS[part], **change}})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("benchmark", {"batch_size": 2}),
        ("benchmark", {"judge": {"enabled": True}}),
        ("benchmark", {"latency": {"opponent": "base"}}),
        ("training", {}),
    ],
)
def test_what_decides_nothing_is_not(part: str, change: dict[str, Any]) -> None:
    assert question_of(SETTINGS) == question_of({**SETTINGS, part: {**SETTINGS[part], **change}})


def test_how_latency_is_timed_decides_where_it_is_limited() -> None:
    limited = {**SETTINGS, "promotion": {**SETTINGS["promotion"], "max_latency_increase": 0.2}}
    against_base = {**limited["benchmark"], "latency": {"opponent": "base"}}
    assert question_of(limited) != question_of({**limited, "benchmark": against_base})
