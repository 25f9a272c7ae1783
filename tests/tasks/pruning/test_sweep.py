"""What is in use stays whatever its age, with everything it was made from; old things that nobody names go."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.contracts import DatasetRef
from tasks.pruning import PruningConfig
from tasks.pruning.listing import totals_of
from tasks.pruning.sweep import reachable, roots, sweep
from tasks.storage import Store, open_store

NOW = datetime.now(UTC)
CONFIG = PruningConfig(keep_days=100, keep_work_days=14)


def chain(store: Store, name: str) -> list[DatasetRef]:
    """Snapshot, scrubbed and training rows, each made from the one before."""
    refs: list[DatasetRef] = []
    for step in ("snapshot", "scrubbed", "train"):
        row = {"id": f"{name}-{step}", "messages": [{"role": "user", "content": name}]}
        refs.append(store.write_rows([row], kind="messages", parents=refs[-1:], passed=[step]))
    return refs


def age(store: Store, days: float) -> None:
    """Makes everything in the store so old."""
    for path in Path(str(store.local_path)).rglob("*"):
        if path.is_file():
            moment = (NOW - timedelta(days=days)).timestamp()
            os.utime(path, (moment, moment))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def pruned(store: Store, versions: set[str] = frozenset(), runs: tuple[str, ...] = ()) -> set[str]:  # type: ignore[assignment]
    found = sweep(store, reachable(store, roots(store, versions, runs, CONFIG, NOW)), CONFIG, NOW)
    return {one.name.rpartition("/")[2] for one in found}


def test_what_a_version_a_pointer_or_a_dossier_needs_stays_with_its_whole_lineage(store: Store, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"1" * 1000)
    adapter = store.add_folder(tmp_path / "adapter")
    of_version, of_pointer, of_dossier, of_old_dossier, of_nobody = (
        chain(store, name) for name in ("version", "pointer", "dossier", "old", "nobody")
    )
    store.write_pointer("benchmarks/desk", of_pointer[-1])
    for run, refs in (("kept-run", of_dossier), ("old-run", of_old_dossier)):
        store.write_named(f"dossiers/{run}/dossier.json", refs[-1].model_dump_json().encode())
    age(store, 200)
    gone = pruned(store, versions={of_version[-1].sha256, adapter.sha256}, runs=("kept-run",))
    assert gone == {ref.sha256 for ref in (*of_old_dossier, *of_nobody)}
    assert pruned(store, runs=("kept-run",)) == gone | {ref.sha256 for ref in of_version} | {adapter.sha256}


def test_what_is_young_stays_and_recent_runs_keep_what_they_used_again(store: Store) -> None:
    used_again = chain(store, "used")
    age(store, 200)
    store.write_named("dossiers/recent-run/dossier.json", used_again[-1].model_dump_json().encode())
    chain(store, "young")
    assert pruned(store) == set()


def test_a_data_set_goes_with_its_manifest_and_a_work_folder_with_all_in_it(store: Store) -> None:
    (ref, *_) = chain(store, "nobody")
    store.write_named("work/sft-1/checkpoint/weights", b"2" * 5000)
    age(store, 200)
    store.write_named("work/sft-2/checkpoint/weights", b"3")
    found = sweep(store, set(), CONFIG, NOW)
    assert found[0].name == "work/sft-1"
    assert (found[0].size_bytes, found[0].age_days) == (5000, 200.0)
    assert totals_of(found)[0] == ("work folder", 1, 5000)
    for one in found:
        store.remove(one.name)
        store.remove(one.name)
    left = sorted(name for folder in ("objects", "work") for name, _, _ in store.walk(folder))
    assert left == ["work/sft-2/checkpoint/weights"]
    assert store.find_dataset(ref.sha256) is None
