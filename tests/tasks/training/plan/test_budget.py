"""A training above its ceiling requests approval; after a person's answer it continues, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from perennial.cli.app import app
from tasks.core.errors import BudgetError, InputError
from tasks.core.storage import Store, open_store
from tasks.training.config import BudgetConfig
from tasks.training.plan.budget import (
    BudgetUsed,
    answer,
    apply_approved_ceiling,
    check_budget,
    open_requests,
    request_approval,
    with_price,
)
from tests.tasks.training.plans import hour_long

BUDGET = BudgetConfig(price_per_device_hour={"cuda": 2.0}, max_device_hours=1.5, max_cost=3.0, on_exceeded="ask")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def requested(store: Store) -> BudgetError:
    """Two device-hours for 4 EUR, where 1.5 hours and 3 EUR are allowed."""
    plan = with_price(hour_long(), BUDGET)
    with pytest.raises(BudgetError) as exceeded:
        check_budget(plan, BUDGET, BudgetUsed())
    return request_approval(store, "desk", "sft-1", plan, exceeded.value)


def test_an_approval_raises_the_ceilings_by_the_request_and_a_margin(store: Store, requested: BudgetError) -> None:
    assert "perennial budget approve sft-1" in str(requested)
    assert apply_approved_ceiling(store, "desk", "sft-1", BUDGET, BudgetUsed()) == (BUDGET, None), "not answered yet"
    answer(store, "desk", "sft-1", "allow", "Ada", "quarter end")
    budget, event = apply_approved_ceiling(store, "desk", "sft-1", BUDGET, BudgetUsed(0.5, 1.0))
    assert (budget.max_device_hours, budget.max_cost) == (0.5 + 2.5, 1.0 + 5.0)
    assert event is not None
    assert "Ada: quarter end" in event
    check_budget(with_price(hour_long(), BUDGET), budget, BudgetUsed(0.5, 1.0))
    assert apply_approved_ceiling(store, "desk", "dpo-1", BUDGET, BudgetUsed()) == (BUDGET, None), "another training"
    stops = BUDGET.model_copy(update={"on_exceeded": "stop"})
    assert apply_approved_ceiling(store, "desk", "sft-1", stops, BudgetUsed()) == (stops, None)


def test_a_refusal_holds_until_the_answer_changes(store: Store, requested: BudgetError) -> None:
    answer(store, "desk", "sft-1", "refuse", "Ada", "too dear")
    with pytest.raises(BudgetError, match=r"Ada \(too dear\)"):
        apply_approved_ceiling(store, "desk", "sft-1", BUDGET, BudgetUsed())
    answer(store, "desk", "sft-1", "allow", "Ada", "after all")
    assert apply_approved_ceiling(store, "desk", "sft-1", BUDGET, BudgetUsed())[1] is not None


def test_only_an_open_request_is_answered_by_a_person_with_a_reason(store: Store, requested: BudgetError) -> None:
    assert [request.training for request in open_requests(store, "desk")] == ["sft-1"]
    with pytest.raises(InputError, match="sft-1"):
        answer(store, "desk", "sft-2", "allow", "Ada", "why not")
    with pytest.raises(InputError, match="--name and --reason"):
        answer(store, "desk", "sft-1", "allow", " ", "why not")
    answer(store, "desk", "sft-1", "allow", "Ada", "why not")
    assert open_requests(store, "desk") == []


def test_the_command_shows_and_answers(
    store: Store, requested: BudgetError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"name": "desk", "store": "store", "examples": {"path": "a"}}))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["budget", *arguments, "--config", "config.yaml"])

    assert "sft-1" in run("show").output
    answered = run("approve", "sft-1", "--name", "Ada", "--reason", "quarter end")
    assert answered.exit_code == 0, answered.output
    assert "sft-1" not in run("show").output
    assert run("reject", "sft-9", "--name", "Ada", "--reason", "no").exit_code == 2
