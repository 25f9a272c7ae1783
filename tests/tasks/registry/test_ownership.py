"""On a real MLflow server, with accounts where its extra is installed: what somebody else made first is refused by name."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking import MlflowClient

from perennial.operations.embedded import free_port, wait_until_healthy
from tasks.core.errors import RegistryError
from tasks.core.processes import start_guarded, stop_group
from tasks.registry.ownership import MARK, Names, check_model, claim, get_json, mark_of
from tasks.tracking import connect, ensure_experiment

KEY = "the-key-of-the-tests"
HAS_ACCOUNTS = importlib.util.find_spec("flask_wtf") is not None
needs_accounts = pytest.mark.skipif(not HAS_ACCOUNTS, reason="MLflow's accounts need the extra `servers` (Flask-WTF)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server whose accounts may read everything by default, as those of deployments/make_secrets.sh."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        "admin_username = admin\nadmin_password = password-of-admin\n"
    )
    environment = {
        **os.environ,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    arguments = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--host", "127.0.0.1", "--workers", "1"]
    arguments += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    arguments += ["--app-name", "basic-auth"] if HAS_ACCOUNTS else []
    with (folder / "server.log").open("wb") as log:
        process = start_guarded("mlflow", arguments, environment=environment, with_children=True, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(f"{url}/health", process, 300)
        yield url
    finally:
        stop_group(process)


@pytest.fixture
def become(server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A client of an account, which is made where it is new; on a server without accounts everybody is the same."""

    def become(user: str) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"password-of-{user}")
        if HAS_ACCOUNTS and user != "admin":
            body = {"username": user, "password": f"password-of-{user}"}
            url = f"{server}/api/2.0/mlflow/users/create"
            assert requests.post(url, json=body, auth=("admin", "password-of-admin"), timeout=60).status_code in (200, 400)
        return MlflowClient(server, server)

    return become


def test_what_is_claimed_first_stays_this_installation_s(become: Callable[[str], Any], name: str) -> None:
    names = Names(name, name)
    assert set(claim(become("admin"), names, KEY).values()) == {True}
    assert set(claim(become("admin"), names, KEY).values()) == {False}
    check_model(become("admin"), name, KEY)


def test_concurrent_commands_claim_the_same_names(become: Callable[[str], Any], name: str) -> None:
    become("admin")
    made: list[Any] = []
    gate = threading.Barrier(4)

    def command() -> None:
        client = connect()
        gate.wait()
        try:
            made.append(claim(client, Names(name, name), KEY))
        except BaseException as error:
            made.append(error)

    threads = [threading.Thread(target=command) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one for one in made if not isinstance(one, dict)] == []
    for what in made[0]:
        assert sum(one[what] for one in made) == 1, what


@pytest.mark.parametrize("what", ["get_experiment_by_name", "get_registered_model"])
def test_what_another_process_makes_between_read_and_create_is_used(
    become: Callable[[str], Any], name: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    client, other = become("admin"), become("admin")
    real, seen = getattr(client, what), []

    def blind_at_first(asked: str) -> Any:
        if not seen:
            seen.append(asked)
            claim(other, Names(name, name), KEY)
            if what == "get_experiment_by_name":
                return None
            raise MlflowException("not found", error_code=RESOURCE_DOES_NOT_EXIST)
        return real(asked)

    monkeypatch.setattr(client, what, blind_at_first)
    made = claim(client, Names(name, name), KEY)
    assert made[f"registered model {name!r}"] is False
    assert made[f"MLflow experiment {name!r}"] is (what == "get_registered_model"), (
        "what was looked for before was made here"
    )


@pytest.mark.parametrize("kind", ["experiment", "model"])
def test_what_another_account_made_first_is_rejected_by_name(become: Callable[[str], Any], name: str, kind: str) -> None:
    mallory = become("mallory")
    if kind == "experiment":
        mallory.create_experiment(name)
    else:
        mallory.create_registered_model(name)
    with pytest.raises(RegistryError, match=name):
        claim(become("admin"), Names(name, name), KEY)
    if kind == "model":
        with pytest.raises(RegistryError, match="this installation did not make"):
            check_model(become("admin"), name, KEY)


def test_a_mark_of_another_name_or_installation_is_invalid(become: Callable[[str], Any], name: str) -> None:
    client = become("admin")
    claim(client, Names(f"{name}-ours", f"{name}-ours"), KEY)
    seen = client.get_registered_model(f"{name}-ours").tags[MARK]
    client.create_registered_model(name, tags={MARK: seen})
    with pytest.raises(RegistryError, match="another installation made"):
        check_model(client, name, KEY)
    claim(client, Names(f"{name}-theirs", f"{name}-theirs"), "the-key-of-another-installation")
    with pytest.raises(RegistryError, match="another installation made"):
        claim(client, Names(f"{name}-theirs", f"{name}-theirs"), KEY)
    assert len({mark_of(KEY, kind, one) for kind in ("experiment", "model") for one in ("a", "b")}) == 4


def test_an_operator_may_adopt_existing_names(become: Callable[[str], Any], name: str) -> None:
    client = become("admin")
    client.create_experiment(name)
    client.create_registered_model(name)
    claim(client, Names(name, name), KEY, adopt=True)
    assert set(claim(client, Names(name, name), KEY).values()) == {False}


@needs_accounts
def test_the_creator_s_permission_is_an_error_even_when_adopted(become: Callable[[str], Any], name: str) -> None:
    become("mallory").create_registered_model(name)
    admin = become("admin")
    for options in ({}, {"adopt": True}):
        with pytest.raises(RegistryError, match="the account mallory, which may edit it"):
            claim(admin, Names(name, name), KEY, **options)
    claim(admin, Names(name, name, accounts=("mallory",)), KEY, adopt=True)


@needs_accounts
def test_after_the_claim_a_reader_changes_nothing(become: Callable[[str], Any], name: str) -> None:
    claim(become("admin"), Names(name, name), KEY)
    reader = become("reader")
    for act in (
        lambda: reader.set_registered_model_tag(name, MARK, "x"),
        lambda: reader.create_model_version(name, "somewhere"),
        lambda: reader.set_registered_model_alias(name, "champion", "1"),
        lambda: reader.create_run(reader.get_experiment_by_name(name).experiment_id),
    ):
        with pytest.raises(MlflowException):
            act()
    assert reader.get_registered_model(name).name == name


def test_a_bare_database_has_no_accounts_and_is_not_checked(client: Any, name: str) -> None:
    client.create_registered_model(name)
    ensure_experiment(client, name)
    assert set(claim(client, Names(name, name), KEY).values()) == {False}


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"[]", b"", b"{"])
def test_a_page_in_place_of_the_accounts_is_one_explained_error(page: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(RegistryError, match="not a JSON object"):
            get_json("/api/2.0/mlflow/users/current")
        server.shutdown()
