"""The outcome of a retrain as its final state: on the server, for its caller, and for what waits for a run's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.support.outcomes import OUTCOMES, message_of, name_of_outcome, shown_as_state
from perennial.operations.deployment import zombie_automation
from tasks.contracts.registry import Approval
from tasks.contracts.run import RetrainOutcome
from tasks.core.results import CONTRACTS
from tests.support.evidence import Outcome, make_evidence


def outcome_of(folder: Path, decided: Outcome, *, handed_over: bool = False, **record: Any) -> RetrainOutcome:
    evidence = make_evidence(folder, decided, champion=True)
    promotion = None if handed_over else evidence.promotion.model_copy(update=record)
    by = "promote-desk" if handed_over else None
    name = evidence.run_name
    return RetrainOutcome(run_name=name, decision=evidence.decision, promotion=promotion, dossier=None, promoted_by=by)


def answered(verdict: Any) -> Approval:
    return Approval(outcome="NEEDS_HUMAN", champion_version="2", requested_at="2026-07-01", verdict=verdict)


@pytest.mark.parametrize(
    ("decided", "record", "name"),
    [
        ("PROMOTE", {}, "Promoted"),
        ("PROMOTE", {"promoted": False, "rollout_share": 5}, "RollsOut"),
        ("PROMOTE", {"promoted": False}, "Held"),
        ("PROMOTE", {"handed_over": True}, "Passed"),
        ("HOLD", {}, "Held"),
        ("HOLD", {"handed_over": True}, "Held"),
        ("NEEDS_HUMAN", {"handed_over": True}, "Asked"),
        ("NEEDS_HUMAN", {"approval": answered(None)}, "Asked"),
        ("NEEDS_HUMAN", {"approval": answered("reject")}, "Rejected"),
        ("NEEDS_HUMAN", {"approval": answered("withdrawn")}, "Held"),
        ("NEEDS_HUMAN", {"approval": answered("approve"), "promoted": True}, "Promoted"),
        ("NEEDS_HUMAN", {}, "Held"),
    ],
)
def test_the_name_is_what_happened(tmp_path: Path, decided: Outcome, record: dict[str, Any], name: str) -> None:
    outcome = outcome_of(tmp_path, decided, **record)
    assert name_of_outcome(outcome) == name
    assert name in OUTCOMES
    message = message_of(outcome)
    assert "ROUGE-L against the champion (95\u00a0% interval" in message
    assert ("promote-desk" in message) == bool(record.get("handed_over"))


def test_an_outcome_without_a_comparison_has_its_reason(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "HOLD", handed_over=True)
    decision = outcome.decision.model_copy(update={"comparisons": (), "reasons": ("There are too few examples.",)})
    outcome = outcome.model_copy(update={"decision": decision})
    assert message_of(outcome) == "There are too few examples. The run promote-desk registers it."


def test_the_server_shows_the_state_and_callers_get_the_outcome(embedded_home: Path, tmp_path: Path) -> None:
    expected = outcome_of(tmp_path, "PROMOTE")

    @flow(name="named-child", persist_result=True, result_serializer=CONTRACTS, flow_run_name="named-child")
    def child() -> RetrainOutcome:
        return shown_as_state(expected)

    @flow(name="named-parent", persist_result=True, result_serializer=CONTRACTS, flow_run_name="named-parent")
    def parent() -> RetrainOutcome:
        outcome = child()
        assert isinstance(outcome, RetrainOutcome)
        return shown_as_state(outcome)

    assert parent() == expected
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.name in ("named-child", "named-parent")]
    assert len(runs) == 2
    for run in runs:
        assert run.state is not None
        assert (run.state.is_completed(), run.state.name) == (True, "Promoted")
        assert run.state.message == message_of(expected)
        assert run.state.result() == expected, "what reads the result later gets the outcome too"


def test_a_named_end_is_an_end_for_the_automation_of_dead_runs() -> None:
    expected = zombie_automation().trigger.expect  # type: ignore[union-attr]
    assert {f"prefect.flow-run.{name}" for name in OUTCOMES} <= expected
