"""Every run has a name that says what it does: none is left to Prefect's random words."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
from prefect import Flow, flow, runtime

import flows
from flows.support.config import RetrainConfig
from flows.support.run_names import name_of, scheduled_run_name
from tasks.registry import RegistryConfig


def test_every_flow_names_its_runs() -> None:
    modules = [importlib.import_module(f"flows.{module.name}") for module in pkgutil.iter_modules(flows.__path__)]
    found = {one.name: one for module in modules for one in vars(module).values() if isinstance(one, Flow)}
    assert {"retrain", "prompting-baselines", "rollback", "prune", "scrub-in-shards"} <= set(found)
    assert [name for name, one in found.items() if one.flow_run_name is None] == []


@pytest.mark.usefixtures("embedded_home")
def test_a_run_is_named_by_its_model_its_kind_and_its_time() -> None:
    @flow(flow_run_name=scheduled_run_name())
    def configured(config: RetrainConfig) -> str:
        return str(runtime.flow_run.name)

    @flow(flow_run_name=scheduled_run_name("rollback"))
    def registered(registration: RegistryConfig) -> str:
        return str(runtime.flow_run.name)

    config = RetrainConfig.model_validate({"name": "desk", "examples": {"path": "rows.jsonl"}})
    assert re.fullmatch(r"desk-\d{8}-\d{6}-[0-9a-f]{8}", configured(config))
    assert re.fullmatch(r"desk-rollback-\d{8}-\d{6}-[0-9a-f]{8}", registered(RegistryConfig(model_name="desk")))


@pytest.mark.usefixtures("embedded_home")
def test_runs_that_are_due_in_one_second_do_not_share_a_name_and_a_retry_keeps_its_own() -> None:
    attempts: list[str] = []

    @flow(flow_run_name=scheduled_run_name(), retries=1)
    def configured(config: RetrainConfig) -> None:
        attempts.append(str(runtime.flow_run.name))
        if len(attempts) == 1:
            raise ValueError

    @flow(flow_run_name=name_of("train-{config.name}"))
    def trained(config: RetrainConfig) -> str:
        return str(runtime.flow_run.name)

    config = RetrainConfig.model_validate({"name": "desk", "examples": {"path": "rows.jsonl"}})
    configured(config)
    assert attempts[0] == attempts[1]
    names = {trained(config) for _ in range(8)}  # within a second or two, like the begins of their ids
    assert len(names) == 8
