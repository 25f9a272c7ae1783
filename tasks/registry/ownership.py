"""Ownership of the experiment and the registered model: this installation makes them, and no other account may change them.

In MLflow every account that may read may also create, and the creator owns what it created. An account that creates the
registered model before the first retrain could therefore move ``champion`` and put its own code under it. So both are made
early (`perennial deploy`), in one step with a mark that only this installation can write: a keyed digest of the name. What
exists without that mark, or may be edited by accounts that the configuration does not name, is rejected.

A bare database has no accounts: there both are made and not checked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.core.ensuring import ensure
from tasks.core.errors import RegistryError, RegistryOutageError
from tasks.registry.versions import make_registered_model, model_tags_of
from tasks.tracking import ensure_experiment, is_served, registry_errors, tracking_uri

MARK = "perennial.installation"
"""Tag of an experiment and of a registered model: the installation that made it."""
_EDITING = ("EDIT", "MANAGE")


@dataclass(frozen=True)
class Names:
    """The names of one retrained model in MLflow.

    Attributes:
        experiment: Receives the runs.
        model: The registered model.
        accounts: Accounts that may edit both, beside administrators and this one.
    """

    experiment: str
    model: str
    accounts: tuple[str, ...] = ()


def claim(client: Any, names: Names, key: str, *, adopt: bool = False) -> dict[str, bool]:
    """Makes what is absent, with the mark, and rejects what another installation or account made.

    Args:
        client: From :func:`tasks.tracking.connect`.
        names: The experiment and the registered model to claim.
        key: The installation's secret.
        adopt: Also mark what exists without a mark or with another one: an administrator confirms the ownership.

    Returns:
        Whether experiment and model were made now, by their names.

    Raises:
        RegistryError: One of them is not this installation's, or accounts that are not named may edit it; or MLflow refuses.
    """
    experiment, model = f"MLflow experiment {names.experiment!r}", f"registered model {names.model!r}"
    marks = {"experiment": mark_of(key, "experiment", names.experiment), "model": mark_of(key, "model", names.model)}
    with registry_errors(experiment):
        found, new_experiment = ensure_experiment(client, names.experiment, {MARK: marks["experiment"]})
    with registry_errors(model):
        tags, new_model = ensure(
            model,
            lambda: model_tags_of(client, names.model),
            lambda: make_registered_model(client, names.model, {MARK: marks["model"]}),
        )
    made = {experiment: new_experiment, model: new_model}
    if not is_served():
        return made
    _check_editors(names, str(found.experiment_id))
    if adopt:
        with registry_errors(experiment):
            client.set_experiment_tag(found.experiment_id, MARK, marks["experiment"])
        with registry_errors(model):
            client.set_registered_model_tag(names.model, MARK, marks["model"])
        return made
    _check_mark(experiment, found.tags, marks["experiment"])
    _check_mark(model, tags, marks["model"])
    return made


def check_model(client: Any, name: str, key: str) -> None:
    """Rejects a registered model that is not this installation's; one that does not exist yet passes.

    Raises:
        RegistryError: It is not this installation's, or MLflow refuses.
    """
    if not is_served():
        return
    with registry_errors(f"registered model {name!r}"):
        tags = model_tags_of(client, name)
    if tags is not None:
        _check_mark(f"registered model {name!r}", tags, mark_of(key, "model", name))


def mark_of(key: str, kind: str, name: str) -> str:
    """The mark of a name; without the key it cannot be derived from the marks of other names."""
    return hmac.new(key.encode(), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:32]


def _check_mark(what: str, tags: dict[str, str], mark: str) -> None:
    found = tags.get(MARK, "")
    if not hmac.compare_digest(found.encode(), mark.encode()):
        raise RegistryError(
            what,
            "one that another installation made" if found else "one that this installation did not make",
            "one with this installation's mark, which `perennial deploy` makes before the first retrain",
            "Choose another name; or find out who made it, then run `perennial deploy --adopt`.",
        )


def _check_editors(names: Names, experiment_id: str) -> None:
    """Rejects names that an account other than this one, an administrator or a named one may edit."""
    trusted = {*names.accounts}
    places = {("experiment", experiment_id), ("registered_model", names.model)}
    editors = sorted(
        {(user, place[0].replace("_", " ")) for user, place in _grants() if user not in trusted and place in places}
    )
    if editors:
        user, kind = editors[0]
        raise RegistryError(
            f"{kind} {names.model if kind == 'registered model' else names.experiment!r}",
            f"the account {user}, which may edit it" + (f" (and {len(editors) - 1} more)" if len(editors) > 1 else ""),
            "no account beside administrators and this one",
            "Take the permission away in MLflow, name the account in registry.accounts, or choose another name.",
        )


def _grants() -> Iterator[tuple[str, tuple[str, str]]]:
    """Accounts with their individual edit permissions, as far as this account may see them; none without accounts.

    An administrator sees all of them. A role over everything comes from an administrator and is not individual.
    """
    own = get_json("/api/2.0/mlflow/users/current").get("user", {}).get("username")
    if own is None:
        return
    for user in get_json("/api/2.0/mlflow/users/list").get("users", []):
        if user["is_admin"] or user["username"] == own:
            continue
        for role in user.get("roles", []):
            for grant in role.get("permissions", []):
                if grant["permission"] in _EDITING:
                    yield user["username"], (grant["resource_type"], str(grant["resource_pattern"]))


def get_json(path: str) -> dict[str, Any]:
    """The JSON object at a path of MLflow's server; empty where it has no accounts, or hides them from this one."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with registry_errors("MLflow's accounts"):
        response = http_request(get_default_host_creds(tracking_uri()), path, "GET", raise_on_status=False)
    if response.status_code in (403, 404):
        return {}
    if response.status_code in (502, 503, 504):
        todo = "Check that its server runs, then run again."
        raise RegistryOutageError("MLflow's accounts", f"status {response.status_code}", "MLflow to answer", todo)
    if response.status_code != 200:
        raise RegistryError(
            "MLflow's accounts", f"status {response.status_code}", "the list of who may edit what", "Run again."
        )
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):  # such as a proxy's page
        raise RegistryError(
            "MLflow's accounts",
            "an answer that is not a JSON object",
            "the list of who may edit what",
            "Ask MLflow directly.",
        )
    return answer
