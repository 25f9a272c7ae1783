"""A training above its ceiling asks, a person answers, and the same training goes on or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from perennial.cli.app import app
from tasks.core.errors import BudgetError, InputError
from tasks.core.storage import Store, open_store
from tasks.training.allowance import answer, ask, open_requests, with_allowance
from tasks.training.config import BudgetConfig
from tasks.training.planning import Spent, check_budget, with_price
from tests.tasks.training.test_planning import hour_long

BUDGET = BudgetConfig(price_per_device_hour={"cuda": 2.0}, max_device_hours=1.5, max_cost=3.0, on_exceeded="ask")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def asked(store: Store) -> BudgetError:
    """Two device-hours for 4 EUR, where 1.5 hours and 3 EUR are allowed."""
    plan = with_price(hour_long(), BUDGET)
    with pytest.raises(BudgetError) as refused:
        check_budget(plan, BUDGET, Spent())
    return ask(store, "desk", "sft-1", plan, refused.value)


def test_a_yes_raises_the_ceilings_by_what_was_asked_and_a_margin(store: Store, asked: BudgetError) -> None:
    assert "perennial budget allow sft-1" in str(asked)
    assert with_allowance(store, "desk", "sft-1", BUDGET, Spent()) == (BUDGET, None), "not answered yet"
    answer(store, "desk", "sft-1", "allow", "Ada", "quarter end")
    budget, word = with_allowance(store, "desk", "sft-1", BUDGET, Spent(0.5, 1.0))
    assert (budget.max_device_hours, budget.max_cost) == (0.5 + 2.5, 1.0 + 5.0)
    assert word == "2.00 device-hours, above the ceiling, allowed by Ada: quarter end"
    check_budget(with_price(hour_long(), BUDGET), budget, Spent(0.5, 1.0))
    assert with_allowance(store, "desk", "dpo-1", BUDGET, Spent()) == (BUDGET, None), "another training"
    stops = BUDGET.model_copy(update={"on_exceeded": "stop"})
    assert with_allowance(store, "desk", "sft-1", stops, Spent()) == (stops, None)


def test_a_no_refuses_the_training_until_the_answer_changes(store: Store, asked: BudgetError) -> None:
    answer(store, "desk", "sft-1", "refuse", "Ada", "too dear")
    with pytest.raises(BudgetError, match=r"the answer of Ada .* no \(too dear\)"):
        with_allowance(store, "desk", "sft-1", BUDGET, Spent())
    answer(store, "desk", "sft-1", "allow", "Ada", "after all")
    assert with_allowance(store, "desk", "sft-1", BUDGET, Spent())[1] is not None


def test_only_what_was_asked_can_be_answered_by_somebody_with_a_reason(store: Store, asked: BudgetError) -> None:
    assert [request.training for request in open_requests(store, "desk")] == ["sft-1"]
    with pytest.raises(InputError, match=r"no question about its budget; expected one that was asked \(sft-1\)"):
        answer(store, "desk", "sft-2", "allow", "Ada", "why not")
    with pytest.raises(InputError, match="who decides and why"):
        answer(store, "desk", "sft-1", "allow", " ", "why not")
    answer(store, "desk", "sft-1", "allow", "Ada", "why not")
    assert open_requests(store, "desk") == []


def test_the_command_shows_and_answers(
    store: Store, asked: BudgetError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"name": "desk", "store": "store", "examples": {"path": "a"}}))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["budget", *arguments, "--config", "config.yaml"])

    assert "sft-1" in run("show").output
    answered = run("allow", "sft-1", "--name", "Ada", "--reason", "quarter end")
    assert answered.exit_code == 0, answered.output
    assert "No training waits." in run("show").output
    assert run("refuse", "sft-9", "--name", "Ada", "--reason", "no").exit_code == 2
