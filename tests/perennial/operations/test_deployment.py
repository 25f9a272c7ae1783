"""What `perennial deploy` makes of a file, on a real server: alone, beside others, and after an operator's hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentUpdate,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.utilities.templating import apply_values
from typer.testing import CliRunner

from flows.support.config import RetrainConfig
from flows.support.gpu_pool import GPU_SLOTS
from perennial.cli.app import app
from perennial.operations.deployment import DEAD_AFTER, HEARTBEAT_SECONDS, deploy, zombie_automation
from perennial.operations.restart_automation import restart_automation
from tasks.core.errors import ConfigError, PerennialError
from tasks.registry.ownership import MARK
from tasks.tracking import connect

POOLS = Path(__file__).parents[3] / "deployments" / "pools"


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
    assert {one["name"] for one in given} == retrains | {"prune", "rollback", "watch-rollout"}
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


# ------------------------------------------------------------------------------------------------------ on a real server

AUTOMATION = zombie_automation().name
NOBODY = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}


def entry(name: str, **more: Any) -> dict[str, Any]:
    """A deployment of the stand-in parent on a pool of the tests."""
    return {
        "name": name,
        "entrypoint": f"{Path(__file__).parents[2] / 'support' / 'standin.py'}:parent",
        "work_pool": {"name": "deploying-tests"},
        **more,
    }


def hourly(active: bool = True) -> list[dict[str, Any]]:
    return [{"slug": "hourly", "cron": "20 * * * *", "timezone": "UTC", "active": active}]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of deployments."""

    def write_file(*entries: dict[str, Any], name: str = "desk.yaml") -> Path:
        (tmp_path / name).write_text(yaml.safe_dump({"deployments": list(entries)}))
        return tmp_path / name

    return write_file


@pytest.fixture
def client(embedded_home: Path) -> Iterator[SyncPrefectClient]:
    """The session's server, with nothing deployed before and after."""
    with get_client(sync_client=True) as client:
        clear(client)
        yield client
        clear(client)


def clear(client: SyncPrefectClient) -> None:
    for one in client.read_deployments():
        if one.work_pool_name == "deploying-tests":
            client.delete_deployment(one.id)
    for pool in client.read_work_pools():
        if pool.name == "deploying-tests":
            client.delete_work_pool(pool.name)
    for name in (AUTOMATION, restart_automation().name):
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)
    for limit in client.read_global_concurrency_limits(limit=200):
        if limit.name == GPU_SLOTS:
            client.delete_global_concurrency_limit_by_name(GPU_SLOTS)


def state(client: SyncPrefectClient) -> Any:
    """All that a deploy is to leave behind, without ids and times."""
    deployments = sorted(
        (one.name, one.version, one.entrypoint, one.parameters, [(s.slug, s.active) for s in one.schedules])
        for one in client.read_deployments()
        if one.work_pool_name == "deploying-tests"
    )
    pools = [pool.type for pool in client.read_work_pools() if pool.name == "deploying-tests"]
    limit = client.read_global_concurrency_limit_by_name(GPU_SLOTS).limit
    return deployments, pools, limit, len(client.read_automations_by_name(AUTOMATION))


def lines(path: Path, *arguments: Any, **options: Any) -> dict[str, str]:
    """What happened, by thing."""
    return {what: word for word, what in deploy(path, "local", *arguments, **options)}


@pytest.mark.parametrize("number", [2, 4])
def test_deploys_at_once_end_alike_and_none_fails(
    client: SyncPrefectClient, write: Callable[..., Path], number: int
) -> None:
    path = write(*(entry(f"at-once-{one}", schedules=hourly(), concurrency_limit={"limit": 1}) for one in range(3)))
    failed: list[BaseException] = []
    gate = threading.Barrier(number)

    def command() -> None:
        try:
            gate.wait()
            list(deploy(path, "local"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=command) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    deployments, pools, limit, automations = state(client)
    assert [one[0] for one in deployments] == ["at-once-0", "at-once-1", "at-once-2"]
    assert all(one[4] == [("hourly", True)] for one in deployments)
    assert (pools, limit, automations) == (["process"], 1, 1)
    assert set(lines(path).values()) == {"as it was"}


@pytest.mark.parametrize(
    ("look", "make"),
    [
        ("read_work_pool", lambda client: client.create_work_pool(WorkPoolCreate(name="deploying-tests", type="process"))),
        (
            "read_global_concurrency_limit_by_name",
            lambda client: client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=1)),
        ),
        ("read_automations_by_name", lambda client: client.create_automation(zombie_automation())),
        ("read_deployment_by_name", None),
    ],
)
def test_what_somebody_makes_between_the_look_and_the_making_is_taken_as_it_is(
    client: SyncPrefectClient, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, look: str, make: Any
) -> None:
    path = write(entry("raced", schedules=hourly()))
    real, seen = getattr(SyncPrefectClient, look), []

    def blind_at_first(self: SyncPrefectClient, name: str) -> Any:
        if not seen:
            seen.append(name)
            if make is None:
                list(deploy(path, "local"))
            else:
                make(client)
            if look == "read_automations_by_name":
                return []
            raise ObjectNotFound(http_exc=ValueError())
        return real(self, name)

    monkeypatch.setattr(SyncPrefectClient, look, blind_at_first)
    list(deploy(path, "local"))
    assert seen
    deployments, pools, limit, automations = state(client)
    assert (len(deployments), pools, limit, automations) == (1, ["process"], 1, 1)


def test_another_writer_at_the_same_moment_is_answered_by_another_look(
    client: SyncPrefectClient, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(entry("torn", schedules=hourly()))
    real, refused = SyncPrefectClient.request, []

    def conflict_once(self: SyncPrefectClient, method: Any, path: Any, *arguments: Any, **options: Any) -> Any:
        if method == "POST" and path == "/deployments/" and not refused:
            refused.append(path)
            # What the server says of a conflict of its own rows: a limit that another transaction made has this name.
            options["json"] = {"name": GPU_SLOTS, "limit": 1}
            return real(self, method, "/v2/concurrency_limits/", *arguments, **options)
        return real(self, method, path, *arguments, **options)

    monkeypatch.setattr(SyncPrefectClient, "request", conflict_once)
    assert lines(path)["deployment stand-in-parent/torn"] == "created"
    assert refused


def test_what_an_operator_turned_off_stays_off_and_is_said(client: SyncPrefectClient, write: Callable[..., Path]) -> None:
    path = write(entry("tended", schedules=hourly()))
    lines(path, 3)
    found = client.read_deployment_by_name("stand-in-parent/tended")
    client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    client.update_deployment(found.id, DeploymentUpdate(paused=True))
    client.update_global_concurrency_limit(GPU_SLOTS, GlobalConcurrencyLimitUpdate(active=False))
    client.update_work_pool("deploying-tests", WorkPoolUpdate(is_paused=True))
    client.pause_automation(client.read_automations_by_name(AUTOMATION)[0].id)
    for file in (path, write(entry("tended", schedules=hourly(), description="another"))):
        said = [what for word, what in deploy(file, "local") if word == "stays"]
        assert [what.split()[0] for what in said] == ["work", "concurrency", "automation", "deployment", "deployment"]
        found = client.read_deployment_by_name("stand-in-parent/tended")
        assert (found.paused, [one.active for one in found.schedules]) == (True, [False])
        assert not client.read_automations_by_name(AUTOMATION)[0].enabled
        limit = client.read_global_concurrency_limit_by_name(GPU_SLOTS)
        assert (limit.limit, limit.active) == (3, False), "no --gpus leaves the number as it is"
    assert found.description == "another"


def test_a_file_that_changed_its_mind_is_followed(client: SyncPrefectClient, write: Callable[..., Path]) -> None:
    def schedules() -> list[tuple[Any, bool]]:
        return [(one.slug, one.active) for one in client.read_deployment_by_name("stand-in-parent/minded").schedules]

    lines(write(entry("minded", schedules=hourly(active=False))))
    assert schedules() == [("hourly", False)]
    lines(write(entry("minded", schedules=hourly())))
    assert schedules() == [("hourly", True)]
    found = client.read_deployment_by_name("stand-in-parent/minded")
    client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    lines(write(entry("minded", schedules=hourly())))
    assert schedules() == [("hourly", False)], "an operator spoke last"
    lines(write(entry("minded", schedules=hourly(active=False))))
    lines(write(entry("minded", schedules=hourly())))
    assert schedules() == [("hourly", True)], "the file spoke last"
    found = client.read_deployment_by_name("stand-in-parent/minded")
    client.delete_deployment_schedule(found.id, found.schedules[0].id)
    lines(write(entry("minded", schedules=hourly(), description="a change elsewhere")))
    assert schedules() == [], "removed on the server, it does not come back by itself"


def test_a_second_file_leaves_the_first_ones_things_alone(client: SyncPrefectClient, write: Callable[..., Path]) -> None:
    shared = entry("shared")
    first = write(entry("of-desk", schedules=hourly(active=False)), shared, name="desk.yaml")
    second = write(entry("of-billing", schedules=hourly()), shared, name="billing.yaml")
    lines(first, 4)
    before = client.read_deployment_by_name("stand-in-parent/of-desk")
    assert "gone" not in lines(second).values()
    after = client.read_deployment_by_name("stand-in-parent/of-desk")
    assert (after.updated, after.labels) == (before.updated, before.labels)
    assert client.read_global_concurrency_limit_by_name(GPU_SLOTS).limit == 4
    for file in (first, second, first):
        assert set(lines(file).values()) == {"as it was"}


def test_a_second_file_cannot_replace_a_deployment_of_the_first_unless_it_is_to(
    client: SyncPrefectClient, write: Callable[..., Path]
) -> None:
    lines(write(entry("quarterly", parameters={"folder": "a", "mood": "calm"}), name="desk.yaml"))
    second = write(entry("new-one"), entry("quarterly", parameters={"folder": "b", "mood": "calm"}), name="billing.yaml")
    with pytest.raises(ConfigError, match=r"deployment stand-in-parent/quarterly: found one of that name from .*desk\.yaml"):
        lines(second)
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("stand-in-parent/new-one")
    lines(second, take_over=True)
    assert client.read_deployment_by_name("stand-in-parent/quarterly").parameters["folder"] == "b"


def test_what_is_no_longer_in_the_file_is_named_and_removed_when_told_to(
    client: SyncPrefectClient, write: Callable[..., Path]
) -> None:
    other = write(entry("shared"), name="billing.yaml")
    lines(write(entry("kept"), entry("dropped", schedules=hourly()), entry("shared")))
    lines(other)
    path = write(entry("kept"))
    named = {what.split()[1] for word, what in deploy(path, "local") if word == "gone"}
    assert named == {"stand-in-parent/dropped", "stand-in-parent/shared"}
    said = dict((what, word) for word, what in deploy(path, "local", prune=True))
    assert said["deployment stand-in-parent/dropped"] == "removed"
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("stand-in-parent/dropped")
    assert client.read_deployment_by_name("stand-in-parent/shared").paused is False
    for file in (path, other):
        assert set(lines(file).values()) == {"as it was"}
    assert (
        lines(write(entry("other-name"), name="billing.yaml"), prune=True)["deployment stand-in-parent/shared"] == "removed"
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"entrypoint": "flows/no_such.py:flow"}, "no flow at flows/no_such.py:flow"),
        ({"entrypoint": "flows/retrain.py:no_such"}, "no flow at flows/retrain.py:no_such"),
        ({"parameters": {"no_such": 1}}, "the parameter no_such"),
        ({"form": ["no_such"]}, "the parameter no_such"),
        ({"schedules": [{"slug": "odd", "cron": "every now and then"}]}, "cron"),
        ({"schedules": [*hourly(), *hourly()]}, "is duplicated"),
        ({"work_pool": "perennial-cpu"}, "work_pool"),
        ({"sheduls": []}, "sheduls: there is no such setting"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_a_fault_in_the_file_is_named_before_anything_is_written(
    write: Callable[..., Path], change: dict[str, Any], found: str
) -> None:
    with pytest.raises(ConfigError) as error:
        lines(write({**entry("faulty"), **change}))
    assert found in str(error.value)


def test_a_configuration_with_faults_is_refused_at_deploying(write: Callable[..., Path]) -> None:
    document = {"name": "desk", "examples": {"path": "rows.jsonl"}, "bencmark": {}}
    path = write({**entry("quarterly"), "entrypoint": "flows/retrain.py:retrain", "parameters": {"config": document}})
    with pytest.raises(ConfigError, match="did you mean `benchmark`"):
        lines(path)


@pytest.mark.parametrize(
    ("code", "body"), [(500, b"{}"), (401, b"{}"), (422, b'{"detail": [{"input": "a denied term"}]}'), (200, b"<html>")]
)
def test_a_server_that_refuses_or_talks_nonsense_is_one_explained_error(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, code: int, body: bytes
) -> None:
    def answer(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return httpx.Response(code, content=body, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    with temporary_settings(NOBODY), pytest.raises(PerennialError) as error:
        lines(write(entry("unheard")))
    assert "denied" not in str(error.value)
    assert error.value.todo


def test_a_server_that_is_away_is_one_explained_error(write: Callable[..., Path]) -> None:
    with temporary_settings(NOBODY), pytest.raises(PerennialError, match="Start the server"):
        lines(write(entry("unheard")))


def test_deploying_makes_the_models_experiment_and_registered_model(
    client: SyncPrefectClient, write: Callable[..., Path]
) -> None:
    document = {"name": "of-deploying", "examples": {"path": "rows.jsonl"}, "registry": {"model_name": "of-deploying-too"}}
    retrain = {"entrypoint": "flows/retrain.py:retrain", "parameters": {"config": document}}
    path = write({**entry("quarterly-of-deploying"), **retrain})
    made = "MLflow experiment 'of-deploying'", "registered model 'of-deploying-too'"
    for claims, words in ((False, {"not made"}), (True, {"created"}), (True, {"as it was"})):
        said = lines(path, claims=claims)
        assert {word for what, word in said.items() if "of-deploying" in what and "retrain/" not in what} == words
    assert connect().get_experiment_by_name("of-deploying").tags[MARK]
    assert set(made) <= set(said)


@pytest.mark.parametrize(
    "url", ["not-a-url", "http://[::1/api", "ftp://127.0.0.1/api", "http://host:port/api", "http:///api"]
)
def test_an_address_that_is_none_is_named_before_prefect_breaks_off_at_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    result = CliRunner().invoke(app, ["deploy"])
    assert result.exit_code == 2
    assert "environment variable PREFECT_API_URL: found no such address" in result.output
    assert "Traceback" not in result.output
