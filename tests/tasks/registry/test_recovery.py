"""A store that lacks the champion's adapter gets it back from the registry, or raises an explained error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.contracts.registry import Champion
from tasks.core.errors import IntegrityError
from tasks.core.storage import Store, open_store
from tasks.registry.recovery import recover_champion
from tasks.registry.versions import champion_of, needed_references, register
from tests.support.candidates import make_candidate


@pytest.fixture
def champion(client: Any, name: str, store: Store, tmp_path: Path) -> Champion:
    version = register(client, name, make_candidate(store, tmp_path))
    client.set_registered_model_alias(name, "champion", version.version)
    found = champion_of(client, name)
    assert found is not None
    return found


def new_store(tmp_path: Path, old: Store, champion: Champion) -> Store:
    """An empty store but for the base model, as the run's first stages leave it."""
    fresh = open_store(tmp_path / "fresh")
    assert fresh.add_folder(old.fetch_folder(champion.base.folder)) == champion.base.folder
    return fresh


def test_a_new_store_gets_the_adapter_that_was_benchmarked(
    client: Any, champion: Champion, store: Store, tmp_path: Path
) -> None:
    fresh = new_store(tmp_path, store, champion)
    assert recover_champion(client, champion, fresh)
    assert fresh.holds(champion.adapter)
    fresh.fetch_folder(champion.adapter)
    assert not recover_champion(client, champion, fresh), "the second time it is there"


def test_an_adapter_that_was_changed_in_the_registry_is_rejected(
    client: Any, champion: Champion, store: Store, tmp_path: Path
) -> None:
    files = Path(champion.version.source_uri.removeprefix("file://"))
    settings = next(files.rglob("adapter_config.json"))
    settings.chmod(0o600)
    settings.write_text(settings.read_text() + " ")
    with pytest.raises(IntegrityError, match="the adapter that was benchmarked"):
        recover_champion(client, champion, new_store(tmp_path, store, champion))


@pytest.mark.parametrize("leads", ["to an absolute path", "upwards"])
def test_an_adapter_outside_of_the_version_is_rejected_and_not_touched(
    client: Any, champion: Champion, store: Store, tmp_path: Path, leads: str
) -> None:
    kept = store.fetch_folder(champion.adapter)
    (mlmodel,) = Path(champion.version.source_uri.removeprefix("file://")).rglob("MLmodel")
    document = yaml.safe_load(mlmodel.read_text())
    outside = str(kept) if leads == "to an absolute path" else f"{'../' * 30}{str(kept).lstrip('/')}"
    document["flavors"]["python_function"]["artifacts"]["adapter"]["path"] = outside
    mlmodel.write_text(yaml.safe_dump(document))
    with pytest.raises(IntegrityError, match="outside of the version's files"):
        recover_champion(client, champion, new_store(tmp_path, store, champion))
    assert store.fetch_folder(champion.adapter) == kept


def test_a_store_without_the_base_model_is_an_explained_error(client: Any, champion: Champion, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="Copy that folder from the former store"):
        recover_champion(client, champion, open_store(tmp_path / "fresh"))


def test_what_the_versions_with_an_alias_need_is_listed(client: Any, name: str, champion: Champion) -> None:
    needed = needed_references(client, name)
    assert {(ref, carried) for _, ref, carried in needed} == {(champion.base.folder, False), (champion.adapter, True)}
    assert any("(champion)" in owner for owner, _, _ in needed)
    assert needed_references(client, "no-such-model") == []
