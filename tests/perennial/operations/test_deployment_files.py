"""docker/ and deployments/: checked by the tools' own schemas, and against each other, since no engine runs here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "deployments" / "compose.yaml"
KUBERNETES = ROOT / "deployments" / "kubernetes"
KUSTOMIZATION = KUBERNETES / "kustomization.yaml"


def tool(name: str) -> str:
    """The tool that came with the `dev` extra into this environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed: pip install -c constraints.txt -e '.[all,dev]'"
    return found


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path != KUSTOMIZATION:
            for document in yaml.safe_load_all(path.read_text()):
                yield f"{path.stem}/{document['kind']}/{document['metadata']['name']}", document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in documents():
        if "template" in document.get("spec", {}):
            yield name, document["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installation") / "secrets"
    subprocess.run([str(ROOT / "deployments" / "make_secrets.sh"), str(folder)], check=True)
    return folder


def test_the_dockerfiles_are_clean(tmp_path: Path) -> None:
    files = sorted((ROOT / "docker").glob("*.Dockerfile"))
    assert len(files) == 2
    done = subprocess.run([tool("hadolint"), *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get install curl\n")
    assert subprocess.run([tool("hadolint"), str(bad)], capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ["cpu.Dockerfile", "gpu.Dockerfile"])
def test_images_are_pinned_run_as_nobody_special_and_copy_only_code(name: str) -> None:
    text = (ROOT / "docker" / name).read_text()
    base = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert base
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm", base.group(1))
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= allowed | {"docker/entrypoint.sh"}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = text.partition("docker/install.sh")[0]
    assert {f"COPY {package} {package}" for package in wheel["packages"]} <= set(installed.splitlines())


def test_the_entrypoint_reads_secrets_from_files_and_names_one_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("perennial:word\n")
    script = str(ROOT / "docker" / "entrypoint.sh")

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PREFECT_API_AUTH_STRING_FILE": str(file)}
        command = ["sh", script, "sh", "-c", 'echo "<$PREFECT_API_AUTH_STRING>"']
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert run(tmp_path / "auth").stdout == "<perennial:word>\n"
    refused = run(tmp_path / "absent")
    assert refused.returncode == 2
    assert "PREFECT_API_AUTH_STRING_FILE" in refused.stderr


def test_compose_fits_its_schema() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_services_are_hardened_and_every_secret_is_one_that_is_made(secrets: Path) -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    made = {path.name for path in secrets.iterdir()}
    assert set(compose["secrets"]) <= made
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        named = re.findall(r"/run/secrets/([\w.-]+)", yaml.safe_dump(service))
        assert set(named) == set(service.get("secrets", [])), name
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: {service['image']} is not pinned"
        assert service["cap_drop"] == ["ALL"], name
        if name != "volumes-owner":
            assert service["user"] == "10001:10001", name
            assert service["read_only"] is True, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_secrets_are_private_fit_together_and_are_made_once(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets.iterdir())
    assert before["postgres-password"] in before["prefect-database-url"]
    subprocess.run([str(ROOT / "deployments" / "make_secrets.sh"), str(secrets)], check=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before


def test_manifests_fit_kubernetes_schemas() -> None:
    names = []
    for name, document in documents():
        kubernetes_validate.validate(document, "1.33", strict=True)
        names.append(name)
    assert len(names) == len(set(names)) == 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Service", "spec": {"prots": []}}, "1.33", strict=True)


def test_the_kustomization_lists_every_manifest_and_every_own_image() -> None:
    kustomization = yaml.safe_load(KUSTOMIZATION.read_text())
    assert set(kustomization["resources"]) == {path.name for path in KUBERNETES.glob("*.yaml")} - {KUSTOMIZATION.name}
    unpinned = {c["image"] for _, pod in pods() for c in pod["containers"] if ":" not in c["image"]}
    assert unpinned == {image["name"] for image in kustomization["images"]}


def test_pods_are_unprivileged_read_only_and_sized() -> None:
    found = list(pods())
    assert len(found) == 8
    for name, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod.get("automountServiceAccountToken") is False or pod["serviceAccountName"] == "perennial-worker", name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} == set(container["resources"]), name


def test_pods_name_settings_volumes_and_secrets_that_exist(secrets: Path) -> None:
    maps = {document["metadata"]["name"] for _, document in documents() if document["kind"] == "ConfigMap"}
    made = {path.name for path in secrets.iterdir()}
    for name, pod in pods():
        keys = [item["key"] for volume in pod.get("volumes", []) for item in volume.get("secret", {}).get("items", [])]
        named_maps = [volume["configMap"]["name"] for volume in pod.get("volumes", []) if "configMap" in volume]
        for container in pod["containers"]:
            named_maps += [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
            references = [entry["valueFrom"]["secretKeyRef"] for entry in container.get("env", []) if "valueFrom" in entry]
            assert {reference["name"] for reference in references} <= {"perennial"}, name
            keys += [reference["key"] for reference in references]
        assert set(keys) <= made, name
        assert set(named_maps) <= maps, name


def test_both_installations_make_the_same_databases() -> None:
    settings = {document["metadata"]["name"]: document for _, document in documents() if document["kind"] == "ConfigMap"}
    statements = [line for line in (ROOT / "deployments" / "databases.sql").read_text().splitlines() if line[:2] != "--"]
    assert settings["postgres-init"]["data"]["databases.sql"].splitlines() == statements


def test_every_service_that_is_called_has_a_policy_that_lets_somebody_in() -> None:
    services = {document["metadata"]["name"] for _, document in documents() if document["kind"] == "Service"}
    policies = {d["metadata"]["name"]: d["spec"] for _, d in documents() if d["kind"] == "NetworkPolicy"}
    assert policies.pop("default-deny")["podSelector"] == {}
    assert set(policies) == services
    for name, policy in policies.items():
        assert policy["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}


# ------------------------------------------------------------------------- what must outlive a container, and who is reached


def networks_of(compose: dict[str, Any], name: str) -> set[str]:
    """The networks on which a service is reached; one that shares another's interfaces is where that one is."""
    service = compose["services"][name]
    mode = str(service.get("network_mode", ""))
    if mode.startswith("service:"):
        return networks_of(compose, mode.removeprefix("service:"))
    return set() if mode == "none" else set(service.get("networks", ["default"]))


def test_who_asks_nobody_who_he_is_is_reached_by_those_who_need_him_alone() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    places = {name: networks_of(compose, name) for name in compose["services"]}
    assert "default" not in set().union(*places.values())
    for guarded, friends in (
        ("postgres", {"prefect", "prefect-services", "mlflow", "redis"}),
        ("redis", {"prefect", "prefect-services", "mlflow", "postgres"}),
        ("objects", {"objects-data", "mlflow", "bucket"}),
    ):
        assert {name for name, nets in places.items() if nets & places[guarded]} - {guarded} == friends
        assert all(compose["networks"][net]["internal"] for net in places[guarded])


def test_the_object_store_answers_others_only_where_it_asks_for_a_key() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    data, gateway = services["objects-data"]["command"], services["objects"]["command"]
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1"} <= set(data)
    assert not any(part.startswith(("-s3", "-iam", "-webdav")) for part in data)
    assert gateway[0] == "s3"
    assert "-config=/run/secrets/bucket.json" in gateway
    for name in ("objects", "objects-data"):
        assert "ports" not in services[name]


def is_below(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def test_nothing_that_must_outlive_a_worker_lies_in_its_memory() -> None:
    image = dict(re.findall(r"(\w+)=(\S+)", (ROOT / "docker" / "cpu.Dockerfile").read_text()))
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name in ("worker-cpu", "worker-gpu"):
        service = services[name]
        assert service["tmpfs"] == []
        named = {volume.split(":")[1] for volume in service["volumes"] if ":" in volume}
        assert is_below(image["PERENNIAL_HOME"], named)  # checkpoints, fetched models, what MLflow did not take
        assert is_below(service["environment"]["PREFECT_LOCAL_STORAGE_PATH"], named)
    for pool in sorted((ROOT / "deployments" / "pools").glob("*.json")):
        pod = json.loads(pool.read_text())["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        claimed = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
        mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"] if one["name"] in claimed}
        assert is_below(image["PERENNIAL_HOME"], mounts)
        memory = {volume["name"] for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"}
        assert memory == {"shared-memory"}


# ------------------------------------------------------------------------------------------------------- servers of systemd

UNITS = sorted((ROOT / "deployments" / "systemd").glob("*.service"))


def settings_in(unit: Path) -> list[tuple[str, str]]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_one_that_systemd_takes_and_has_few_rights(unit: Path, tmp_path: Path) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not installed")
    # The commands are where an installation has them, not here.
    (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/perennial/app/docker/entrypoint.sh", "/bin/sh"))
    name = unit.name.replace("@.", "@perennial-cpu.")
    if name != unit.name:
        (tmp_path / name).symlink_to(tmp_path / unit.name)
    checked = subprocess.run([analyze, "verify", str(tmp_path / name)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    command = [analyze, "security", "--offline=yes", "--threshold=25", str(tmp_path / name)]
    rated = subprocess.run(command, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout[-200:]


def test_units_run_what_there_is_and_name_secrets_that_are_made(secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    assert {unit.name for unit in UNITS} == {
        "perennial-prefect.service",
        "perennial-mlflow.service",
        "perennial-worker@.service",
        "perennial-alert-bridge.service",
        "perennial-notify.service",
    }
    for unit in UNITS:
        settings = settings_in(unit)
        loaded = dict(value.split(":", 1) for name, value in settings if name == "LoadCredential")
        assert {key for key in loaded if key != "bridge.yaml"} <= made, unit.name
        text = unit.read_text()
        assert set(re.findall(r"%d/([\w.-]+)|CREDENTIALS_DIRECTORY}/([\w.-]+)", text)) == {
            (key, "") if key != "bridge.yaml" else ("", key) for key in loaded
        }, unit.name
        (start,) = [value for name, value in settings if name == "ExecStart"]
        entrypoint, program = start.split()[:2]
        assert (ROOT / entrypoint.removeprefix("/opt/perennial/app/")).stat().st_mode & 0o111
        assert Path(program).name in ("prefect", "mlflow", "perennial")
        assert "0.0.0.0" not in start
        users = {name: value for name, value in settings if name in ("User", "DynamicUser")}
        opens_store = ("StateDirectory", "perennial") in settings
        assert users == ({"User": "perennial"} if opens_store else {"DynamicUser": "yes"})
    shared = (ROOT / "deployments" / "systemd" / "perennial.env").read_text()
    assert not re.search(r"PASSWORD=|TOKEN=|SECRET|AUTH_STRING=|://[^/\s]*@", shared)
