"""Models as files: what `perennial deploy models/` reads, refuses and makes on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from typer.testing import CliRunner

from flows.support.config import load_config
from perennial.cli.app import app
from perennial.operations.deployment import deploy
from perennial.operations.deployment_file import FileSet, read_deployments
from perennial.operations.model_files import deployments_of, read_models
from tasks.core.errors import ConfigError
from tasks.tracking import connect

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "deployments" / "model.yaml"
QUARTERLY = {"slug": "quarterly", "cron": "0 2 1 1,4,7,10 *", "timezone": "Europe/Berlin"}
STANDIN = f"{ROOT / 'tests' / 'support' / 'standin.py'}:parent"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a model's file into the folder ``models`` and returns the folder."""
    folder = tmp_path / "models"
    folder.mkdir()

    def write_file(name: str, file: str | None = None, **more: Any) -> Path:
        document = {"name": name, "examples": {"path": "rows.jsonl"}, **more}
        (folder / f"{file or name}.yaml").write_text(yaml.safe_dump(document))
        return folder

    return write_file


def made_of(folder: Path, template: Path = TEMPLATE) -> dict[str, dict[str, Any]]:
    """What is deployed for each model, by file and by ``function/name``."""
    return {
        source.path.stem: {f"{one.entrypoint.rpartition(':')[2]}/{one.name}": one for one in source.deployments}
        for source in deployments_of([folder], template).sources
    }


def test_a_file_is_a_configuration_and_every_model_has_deployments_tags_and_routes_of_its_own(write: Write) -> None:
    log = {"path": "log.jsonl", "format": "prompt_completion"}
    write("billing", operate={"schedules": [QUARTERLY]})
    folder = write(
        "legal",
        registry={"model_name": "legal-de"},
        monitoring={"log": log},
        operate={
            "owner": "counsel",
            "tags": ["tier-1"],
            "schedules": [QUARTERLY],
            "checks": [{"slug": "hourly", "cron": "20 * * * *"}],
            "policy": {"cooldown_days": 30},
            "priority": "high",
        },
    )
    assert load_config(folder / "legal.yaml").operate.owner == "counsel"
    made = made_of(folder)
    kinds = {"retrain", "retrain_on_alert", "prune", "rollback"}
    assert {name.partition("/")[0] for name in made["billing"]} == kinds
    assert {name.partition("/")[0] for name in made["legal"]} == kinds | {"check_production"}
    legal = made["legal"]
    assert all({"perennial", "model:legal", "owner:counsel", "tier-1"} == set(one.tags) for one in legal.values())
    assert [(one.slug, one.timezone) for one in legal["retrain/legal"].schedules] == [("quarterly", "Europe/Berlin")]
    assert [one.slug for one in legal["check_production/legal"].schedules] == ["hourly"]
    assert legal["retrain_on_alert/legal"].parameters["policy"] == {"cooldown_days": 30}
    assert legal["rollback/legal"].parameters["registration"] == {"model_name": "legal-de"}
    assert legal["retrain/legal"].work_pool.work_queue_name == "high"
    route = legal["check_production/legal"].parameters["config"]["monitoring"]["alert"]["deployment"]
    assert route == "retrain-on-alert/legal"
    assert made["billing"]["retrain/billing"].parameters["config"]["name"] == "billing"


def test_a_route_that_the_file_names_stays(write: Write) -> None:
    monitoring = {"log": {"path": "log.jsonl", "format": "prompt_completion"}, "alert": {"deployment": None}}
    made = made_of(write("legal", monitoring=monitoring))["legal"]["check_production/legal"]
    assert made.parameters["config"]["monitoring"]["alert"]["deployment"] is None


def test_the_shared_deployments_are_those_of_the_file_for_one_model() -> None:
    of_one = {(one.entrypoint, one.name): one for one in read_deployments(ROOT / "deployments" / "prefect.yaml")}
    shared = yaml.safe_load(TEMPLATE.read_text())["shared"]
    assert len(shared) == 5
    for entry in shared:
        one = of_one[entry["entrypoint"], entry["name"]]
        assert (entry["description"], tuple(entry["tags"])) == (one.description, one.tags)
        assert entry["work_pool"]["name"] == one.work_pool.name


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"name": "desk"}, {"name": "desk"}, "the name 'desk', which"),
        ({"name": "desk"}, {"name": "other", "registry": {"model_name": "desk"}}, "the registered model 'desk', which"),
        ({"name": "desk-a"}, {"name": "desk--a"}, "the key of pages in Prefect"),
        (
            {"name": "a", "registry": {"model_name": "Desk.v2"}},
            {"name": "b", "registry": {"model_name": "desk_v2"}},
            "the key of pages in Prefect",
        ),
    ],
)
def test_two_files_that_would_write_one_name_are_refused(
    write: Write, first: dict[str, Any], second: dict[str, Any], found: str
) -> None:
    write(**first, file="first")
    folder = write(**second, file="second")
    with pytest.raises(ConfigError) as error:
        read_models([folder])
    assert found in str(error.value)
    assert "first.yaml" in str(error.value)


def test_a_model_whose_deployment_has_the_name_of_another_models_is_refused(write: Write) -> None:
    write("desk")
    with pytest.raises(ConfigError, match="two deployments of one flow"):
        deployments_of([write("desk-on-demand")], TEMPLATE)


def test_the_faults_of_all_files_are_reported_at_once(write: Write) -> None:
    write("good")
    write("first", operate={"scedules": []})
    write("second", operate={"checks": [QUARTERLY]})
    folder = write("third", operate={"schedules": [QUARTERLY, QUARTERLY]})
    with pytest.raises(ConfigError) as error:
        read_models([folder])
    message = str(error.value)
    for part in ("3 files of models", "did you mean `schedules`", "no section monitoring", "quarterly is duplicated"):
        assert part in message


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"name": "{nme}"}, "an unknown mark"),
        ({"name": "of-{config}"}, "the mark config inside a text"),
        ({"name": "{name}", "needs": "monitorng"}, "no such section"),
        ({"name": "{name}", "entry": "x"}, "entry: there is no such setting"),
    ],
)
def test_a_fault_in_the_template_is_named(write: Write, tmp_path: Path, entry: dict[str, Any], found: str) -> None:
    template = tmp_path / "model.yaml"
    given = {"entrypoint": STANDIN, "work_pool": {"name": "fleet-tests"}, **entry}
    template.write_text(yaml.safe_dump({"each_model": [given]}))
    with pytest.raises(ConfigError) as error:
        deployments_of([write("desk")], template)
    assert found in str(error.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigError, match="one file for each model"):
        read_models([tmp_path / "models"])


# ------------------------------------------------------------------------------------------------------ on a real server


@pytest.fixture
def client(embedded_home: Path) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        clear(client)
        yield client
        clear(client)


def clear(client: SyncPrefectClient) -> None:
    for one in client.read_deployments():
        if one.work_pool_name == "fleet-tests":
            client.delete_deployment(one.id)
    for pool in client.read_work_pools():
        if pool.name == "fleet-tests":
            client.delete_work_pool(pool.name)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template of one cheap deployment, which names its model."""
    parameters = {"folder": "{name}", "mood": "calm"}
    one = {"name": "{name}", "entrypoint": STANDIN, "schedules": "{schedules}", "parameters": parameters}
    one["work_pool"] = {"name": "fleet-tests", "work_queue_name": "{queue}"}
    (tmp_path / "template.yaml").write_text(yaml.safe_dump({"each_model": [one]}))
    return tmp_path / "template.yaml"


def lines(files: FileSet, **options: Any) -> dict[str, str]:
    """What happened to the deployments and queues of these tests, by name."""
    said = {what: word for word, what in deploy(files, "local", claims=False, **options)}
    return {what: word for what, word in said.items() if "stand-in-parent" in what or "fleet-tests" in what}


def test_deploying_says_first_repeats_nothing_and_follows_what_is_gone(
    client: SyncPrefectClient, write: Write, template: Path
) -> None:
    operate = {"owner": "counsel", "schedules": [QUARTERLY], "priority": "high"}
    write("desk", operate={"schedules": [QUARTERLY]})
    folder = write("legal", operate=operate)

    said = lines(deployments_of([folder], template), dry_run=True)
    assert set(said.values()) == {"created"}
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("stand-in-parent/legal")
    with pytest.raises(ObjectNotFound):
        client.read_work_pool("fleet-tests")

    assert lines(deployments_of([folder], template)) == said
    found = client.read_deployment_by_name("stand-in-parent/legal")
    assert (found.work_queue_name, set(found.tags)) == ("high", {"model:legal", "owner:counsel"})
    priorities = {one.name: one.priority for one in client.read_work_queues(work_pool_name="fleet-tests")}
    assert priorities["high"] < priorities["default"]
    assert set(lines(deployments_of([folder], template)).values()) == {"as it was"}

    client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    write("legal", operate={**operate, "owner": "law"})
    said = lines(deployments_of([folder], template), dry_run=True)
    assert said["deployment stand-in-parent/legal (tags)"] == "changed"
    assert said["deployment stand-in-parent/legal: schedule quarterly off, as on the server"] == "stays"
    assert "owner:counsel" in client.read_deployment_by_name("stand-in-parent/legal").tags
    lines(deployments_of([folder], template))
    found = client.read_deployment_by_name("stand-in-parent/legal")
    assert ("owner:law" in found.tags, found.schedules[0].active) == (True, False)

    (folder / "legal.yaml").rename(folder / "law.yaml")  # the same model in a file of another name
    said = lines(deployments_of([folder], template))
    assert said["deployment stand-in-parent/legal (files)"] == "changed"
    assert "gone" not in said.values()

    (folder / "desk.yaml").unlink()
    (gone,) = [what for what, word in lines(deployments_of([folder], template)).items() if word == "gone"]
    assert "stand-in-parent/desk" in gone
    one_file = deployments_of([folder / "law.yaml"], template)
    assert "gone" not in lines(one_file, prune=True).values(), "a file alone does not say what its folder lost"
    said = lines(deployments_of([folder], template), prune=True, dry_run=True)
    assert "removed" not in said.values()
    assert lines(deployments_of([folder], template), prune=True)["deployment stand-in-parent/desk"] == "removed"
    assert client.read_deployment_by_name("stand-in-parent/legal")


def test_a_model_that_another_file_writes_is_refused_before_anything_is_written(
    client: SyncPrefectClient, write: Write, template: Path, tmp_path: Path
) -> None:
    folder = write("desk")
    config = {"name": "another", "examples": {"path": "rows.jsonl"}, "registry": {"model_name": "desk"}}
    entry = {"name": "of-fleet", "entrypoint": "flows/retrain.py:retrain", "work_pool": {"name": "fleet-tests"}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"deployments": [{**entry, "parameters": {"config": config}}]}))
    list(deploy(tmp_path / "one.yaml", "local", claims=False))
    with pytest.raises(ConfigError, match="registered model desk: found deployment retrain/of-fleet of"):
        lines(deployments_of([folder], template))
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("stand-in-parent/desk")
    assert lines(deployments_of([folder], template), take_over=True)["deployment stand-in-parent/desk"] == "created"


def test_a_dry_run_makes_no_names_in_mlflow(client: SyncPrefectClient, write: Write, tmp_path: Path) -> None:
    entry = {"name": "{name}", "entrypoint": "flows/retrain.py:retrain", "parameters": {"config": "{config}"}}
    template = tmp_path / "template.yaml"
    template.write_text(yaml.safe_dump({"each_model": [{**entry, "work_pool": {"name": "fleet-tests"}}]}))
    files = deployments_of([write("of-a-dry-run")], template)
    for dry_run, word in ((True, "created"), (False, "created"), (True, "as it was")):
        said = {what: word for word, what in deploy(files, "local", dry_run=dry_run)}
        assert said["MLflow experiment 'of-a-dry-run'"] == said["registered model 'of-a-dry-run'"] == word
        assert (connect().get_experiment_by_name("of-a-dry-run") is None) == (dry_run and word == "created")


def test_models_and_a_file_are_not_deployed_by_one_command(workplace: Path) -> None:
    result = CliRunner().invoke(app, ["deploy", "models", "--file", "deployments/prefect.yaml"])
    assert result.exit_code == 2
    assert "models and --file" in result.output
