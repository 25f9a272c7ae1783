"""Old versions go; one with an alias, under rollout, asked about, or among the newest never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.contracts.pruning import PruneCandidate
from tasks.contracts.registry import Approval
from tasks.core.storage import Store
from tasks.registry.config import RolloutConfig
from tasks.registry.retention import old_versions, remove_versions
from tasks.registry.rollout import ROLLOUT, start
from tasks.registry.versions import register
from tests.support.candidates import make_candidate

LATER = datetime.now(UTC) + timedelta(days=500)


def test_only_old_versions_that_nobody_uses_may_go(client: Any, name: str, tmp_path: Path) -> None:
    client.create_registered_model(name)
    for number in range(1, 9):
        tags = {"perennial.train_sha256": str(number) * 64, "perennial.run_name": f"run-{number}"}
        client.create_model_version(name, f"file://{tmp_path}/{number}", tags=tags)
    for alias, version in (("champion", "2"), ("previous", "1"), ("challenger", "7")):
        client.set_registered_model_alias(name, alias, version)
    rollout = start(RolloutConfig(), "3", datetime.now(UTC).isoformat())
    client.set_model_version_tag(name, "2", ROLLOUT, rollout.model_dump_json())
    question = Approval(
        outcome="NEEDS_HUMAN",
        champion_version=None,
        requested_at="2026-11-01T00:00:00+00:00",
        expires_at=None,
        flow_run_id=None,
    )
    client.set_model_version_tag(name, "4", "perennial.approval", question.model_dump_json())
    found = old_versions(client, name, 1, 400, LATER)
    assert {one.name for one in found.removable} == {f"{name}/5", f"{name}/6"}
    assert {"run-1", "run-2", "run-3", "run-4", "run-7", "run-8"} <= set(found.runs)
    assert "5" * 64 not in found.needed
    assert "3" * 64 in found.needed
    assert old_versions(client, name, 4, 400, LATER).removable == ()
    assert old_versions(client, name, 1, 501, LATER).removable == ()
    other = old_versions(client, f"{name}-2", 1, 400, LATER)
    assert not {one.name for one in other.removable}
    assert "5" * 64 in other.needed, "a store may be shared: what another model's versions need stays"


def test_a_version_that_got_an_alias_meanwhile_stays_and_its_run_stays_as_the_record(
    client: Any, name: str, store: Store, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        register(client, name, make_candidate(store, tmp_path, number))
    first, second = (PruneCandidate(kind="model version", name=f"{name}/{n}", size_bytes=0, age_days=500) for n in (1, 2))
    client.set_registered_model_alias(name, "champion", "2")
    run_id = client.get_model_version(name, "1").run_id
    assert remove_versions(client, name, (second, first), 1, 400, LATER) == (first,)
    assert {str(one.version) for one in client.search_model_versions(f"name = '{name}'")} == {"2", "3"}
    assert client.get_run(run_id).data.metrics, "the scores are the record"
    assert client.list_artifacts(run_id, "model") == [], "the copy of the adapter is gone"
    assert remove_versions(client, name, (first,), 1, 400, LATER) == ()


class Watched:
    """A client that counts its searches, and in which an alias appears while versions are deleted."""

    def __init__(self, client: Any, name: str, alias_after_first: str) -> None:
        self._client, self._name, self._alias_after_first = client, name, alias_after_first
        self.searches: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("search_"):
            self.searches.append(name)
        return getattr(self._client, name)

    def delete_model_version(self, name: str, version: str) -> None:
        self._client.delete_model_version(name, version)
        self._client.set_registered_model_alias(self._name, "somebody-s", self._alias_after_first)


def test_the_registry_is_looked_through_once_for_all_and_an_alias_set_in_between_is_heeded(
    client: Any, name: str, tmp_path: Path
) -> None:
    client.create_registered_model(name)
    for number in range(1, 8):
        client.create_model_version(name, f"file://{tmp_path}/{number}")
    watched = Watched(client, name, alias_after_first="3")
    found = old_versions(client, name, 1, 400, LATER).removable
    assert len(found) == 6
    removed = remove_versions(watched, name, sorted(found, key=lambda one: one.name), 1, 400, LATER)
    assert [one.name for one in removed] == [f"{name}/{number}" for number in (1, 2, 4, 5, 6)]
    assert sorted(watched.searches) == ["search_model_versions", "search_registered_models"]
