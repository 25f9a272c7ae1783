"""The operator's form: short, described, bounded; Prefect refuses a wrong answer before anything starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from pydantic import ValidationError

from flows.retrain import retrain
from flows.support.config import RetrainConfig
from flows.support.requests import RunRequest, as_requested, reason_of
from perennial.operations.deployment import DeploymentPlan, ensure_deployment, form_of
from perennial.operations.deployment_file import Deployment, FileSet, read_deployments
from tasks.core.errors import ConfigError

ROOT = Path(__file__).parents[3]


def config_of(**training: Any) -> RetrainConfig:
    pairs = {"path": "pairs.jsonl", "format": "preferences"}
    base = {"name": "desk", "examples": {"path": "rows.jsonl"}, "preferences": pairs}
    return RetrainConfig.model_validate({**base, "training": training})


DEPLOYMENTS = ROOT / "deployments" / "prefect.yaml"


def wanted(name: str) -> Deployment:
    return next(one for one in read_deployments(DEPLOYMENTS) if one.name == name)


@pytest.fixture(scope="module")
def client(embedded_home: Path) -> Iterator[SyncPrefectClient]:
    """Prefect with the two deployments that people start; both are gone afterwards."""
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="perennial-cpu", type="process"))
        files = FileSet.of(DEPLOYMENTS)
        for name in ("on-demand", "rollback"):
            plan = DeploymentPlan.of(wanted(name), "local", files.sources[0])
            list(ensure_deployment(client, plan, files, None, client.create_flow_from_name))
        yield client
        for name in ("retrain/on-demand", "rollback/rollback"):
            client.delete_deployment(client.read_deployment_by_name(name).id)
        client.delete_work_pool("perennial-cpu")


def status_of(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any]) -> int:
    """201, or the code with which the API refused to make a run."""
    found = client.read_deployment_by_name(deployment)
    try:
        run = client.create_flow_run_from_deployment(found.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        return error.response.status_code
    client.delete_flow_run(run.id)
    return 201


def test_the_form_is_short_and_every_field_says_what_it_is() -> None:
    form = form_of(retrain, ("request",))
    assert list(form["properties"]) == form["required"] == ["request"]
    assert set(form["definitions"]) == {"RunRequest"}
    fields = form["definitions"]["RunRequest"]["properties"]
    assert set(fields) == set(RunRequest.model_fields)
    assert all(len(field["description"]) > 10 for field in fields.values())
    assert "config" in form_of(retrain, None)["properties"]


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"reason": "x"},
        {"reason": "x" * 501},
        {"reason": "a new product", "max_device_hours": 0},
        {"reason": "a new product", "max_device_hours": 10_001},
        {"reason": "a new product", "max_cost": -1},
        {"reason": "a new product", "max_cost": "cheap"},
        {"reason": "a new product", "leave_out": ["scrubbing"]},
        {"reason": "a new product", "approval": "never"},
        {"reason": "a new product", "rows_until": 7},
        {"reason": "a new product", "skip_the_gate": True},
    ],
)
def test_prefect_refuses_a_wrong_answer_before_a_run_exists(client: SyncPrefectClient, answers: dict[str, Any]) -> None:
    assert status_of(client, "retrain/on-demand", {"request": answers}) in (409, 422)


def test_prefect_takes_right_answers_and_the_configuration_stays_the_deployment_s(client: SyncPrefectClient) -> None:
    answers = {"reason": "a new product", "rows_until": "2026-11-01T00:00:00Z", "leave_out": ["red_team"], "max_cost": 3}
    assert status_of(client, "retrain/on-demand", {}) in (409, 422), "a reason is asked for"
    found = client.read_deployment_by_name("retrain/on-demand")
    run = client.create_flow_run_from_deployment(found.id, parameters={"request": answers})
    assert run.parameters["config"]["name"] == "support-desk"
    client.delete_flow_run(run.id)


def test_a_rollback_asks_who_and_why(client: SyncPrefectClient) -> None:
    for answers in (
        {"reason": "", "name": "Ann"},
        {"reason": "rude replies"},
        {"name": "Ann"},
        {"reason": "rude", "name": ""},
    ):
        assert status_of(client, "rollback/rollback", answers) in (409, 422)
    assert status_of(client, "rollback/rollback", {"reason": "rude replies", "name": "Ann"}) == 201


def test_a_wish_lowers_ceilings_and_never_raises_them() -> None:
    config = config_of(budget={"max_device_hours": 2.0, "price_per_device_hour": {"cpu": 1.0}})
    budget = as_requested(config, RunRequest(reason="why not", max_device_hours=5, max_cost=3)).training.budget
    assert (budget.max_device_hours, budget.max_cost) == (2.0, 3.0)
    budget = as_requested(config, RunRequest(reason="why not", max_device_hours=1)).training.budget
    assert (budget.max_device_hours, budget.max_cost) == (1.0, None)
    with pytest.raises(ConfigError, match="price_per_device_hour"):
        as_requested(config_of(), RunRequest(reason="why not", max_cost=3))


def test_what_is_not_attacked_is_not_promoted_without_a_person() -> None:
    request = RunRequest(reason="in a hurry", leave_out=("red_team", "preference_training"))
    asked = as_requested(config_of(), request)
    assert (asked.redteam.enabled, asked.preferences, asked.registry.approval) == (False, None, "always")
    assert RetrainConfig.model_validate(asked.model_dump()) == asked
    assert as_requested(config_of(), RunRequest(reason="careful", approval="always")).registry.approval == "always"


def test_a_window_is_laid_over_the_source_s_and_has_a_length() -> None:
    until = datetime(2026, 11, 1, tzinfo=UTC)
    asked = as_requested(config_of(), RunRequest(reason="one quarter", rows_until=until))
    assert (asked.examples.created_after, asked.examples.created_before) == (None, until)
    with pytest.raises(ValidationError, match="rows_from must lie before"):
        RunRequest(reason="backwards", rows_from=until, rows_until=until.replace(tzinfo=None))


def test_a_run_that_nobody_started_is_as_configured() -> None:
    assert as_requested(config_of(), None) == config_of()
    assert (reason_of(None), reason_of(RunRequest(reason="a new product"))) == (None, "a new product")
