"""What `perennial deploy` would make of the files, without a server; on a real one it is tested in test_schedule.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.templating import apply_values

from flows.config import RetrainConfig
from flows.deploying import DEAD_AFTER, HEARTBEAT_SECONDS, deploy, zombie_automation
from tasks.errors import ConfigError

POOLS = Path(__file__).parents[2] / "deployments" / "pools"


def job_of(pool: str) -> Any:
    """The Job that a pool's template makes of a run, as its worker fills it in."""
    template = json.loads((POOLS / f"{pool}.json").read_text())
    values = {key: one["default"] for key, one in template["variables"]["properties"].items() if one.get("default")}
    values |= {"name": "a-run", "labels": {"run": "a-run"}, "env": [], "command": ["prefect", "flow-run", "execute"]}
    return apply_values(template["job_configuration"], values, remove_notset=True)["job_manifest"]


@pytest.mark.parametrize(("pool", "gpus"), [("kubernetes-cpu", None), ("kubernetes-gpu", 1)])
def test_a_pool_makes_a_job_that_the_cluster_accepts(pool: str, gpus: int | None) -> None:
    job = job_of(pool)
    kubernetes_validate.validate(job, "1.33", strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert ("nodeSelector" in pod, "tolerations" in pod) == (bool(gpus), bool(gpus))
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"/dev/shm", "/srv/perennial", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}


def test_the_parameters_of_every_deployment_are_ones_its_flow_takes() -> None:
    deployments = yaml.safe_load((POOLS.parent / "prefect.yaml").read_text())["deployments"]
    given = [one for one in deployments if one.get("parameters")]
    retrains = {"quarterly", "on-demand", "retrain-on-alert", "check-production"}
    assert {one["name"] for one in given} == retrains | {"prune", "rollback"}
    for one in given:
        taken = load_flow_from_entrypoint(one["entrypoint"]).parameters.properties
        assert set(one["parameters"]) <= set(taken)
        if "config" not in one["parameters"]:
            continue
        config = one["parameters"]["config"]
        assert RetrainConfig.model_validate(config).name == "support-desk"


def test_a_run_may_miss_heartbeats_and_a_run_that_waits_sends_none() -> None:
    trigger = zombie_automation().trigger
    assert DEAD_AFTER.total_seconds() >= 3 * HEARTBEAT_SECONDS
    assert {"prefect.flow-run.Suspended", "prefect.flow-run.Paused"} <= trigger.expect  # type: ignore[union-attr]


def test_a_file_that_holds_no_deployments_is_named(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("[]")
    with pytest.raises(ConfigError, match="a file of Prefect deployments"):
        list(deploy(tmp_path / "prefect.yaml", "local", 1))
