"""What is in use stays whatever its age, with everything it was made from; old things that nobody names go."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.contracts.references import DatasetRef
from tasks.core.errors import StoreError
from tasks.core.storage import Store, open_store
from tasks.pruning import PruningConfig
from tasks.pruning.listing import totals_of
from tasks.pruning.sweep import reachable, roots, sweep

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


def test_young_data_stays_and_recent_runs_keep_what_they_reused(store: Store) -> None:
    used_again = chain(store, "used")
    age(store, 200)
    store.write_named("dossiers/recent-run/dossier.json", used_again[-1].model_dump_json().encode())
    chain(store, "young")
    assert pruned(store) == set()


@pytest.mark.parametrize("left", [".writing-0a1b2c3d", ".DS_Store", ".nfs0000000000000001", "backup~", "lost+found/x"])
@pytest.mark.parametrize("folder", ["objects", "objects/{shard}", "files", "folders", "folders/{shard}", "work", "pointers"])
def test_foreign_files_make_nothing_else_a_candidate(store: Store, folder: str, left: str) -> None:
    """A file of that kind in a shard made the whole shard one thing without a digest, frozen set included."""
    frozen = store.write_rows([], kind="messages", parents=["a" * 64])
    store.write_pointer("benchmarks/desk", frozen)
    place = Path(str(store.local_path), folder.format(shard=frozen.sha256[:2]), left)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"1234")
    age(store, 400)
    found = sweep(store, reachable(store, roots(store, (), (), CONFIG, NOW)), CONFIG, NOW)
    is_unfinished = left.startswith(".writing-") and folder != "work"
    assert [(one.kind, one.size_bytes) for one in found] == ([("unfinished write", 4)] if is_unfinished else [])
    for one in found:
        store.remove(one.name)
    assert store.holds(frozen)
    assert place.exists() is not is_unfinished


@pytest.mark.parametrize(
    "name",
    [
        *(
            "objects",
            "objects/",
            "objects/{shard}",
            "objects/{shard}/",
            "objects/{shard}/{sha256}.parquet",
            "pointers/x.json",
        ),
        *("objects/{shard}/{short}", "objects/00/{sha256}", "objects/{shard}/{sha256}/..", "objects/*/{sha256}", "", "."),
        *("files/{shard}/", "folders/{shard}", "work", "work/", "work/..", "work/sft-", "work/sft-1/..", "dossiers/run"),
        *("../.writing-0a1b2c3d", "work/sft-1/.writing-0a1b2c3d", ".writing-", "objects/{shard}/.writing-0a1b2c3d.parquet"),
    ],
)
def test_removal_rejects_prefixes_and_foreign_names(store: Store, name: str) -> None:
    ref = store.write_rows([], kind="messages")
    name = name.format(shard=ref.sha256[:2], sha256=ref.sha256, short=ref.sha256[:63])
    before = sorted(Path(str(store.local_path)).rglob("*"))
    with pytest.raises(StoreError, match="a name that the store does not write"):
        store.remove(name)
    assert sorted(Path(str(store.local_path)).rglob("*")) == before


def test_a_forged_manifest_does_not_make_an_ancestor_a_candidate(store: Store) -> None:
    refs = chain(store, "kept")
    store.write_pointer("benchmarks/desk", refs[-1])
    manifest = next(Path(str(store.local_path)).rglob(f"{refs[-1].sha256}.json"))
    manifest.chmod(0o600)
    manifest.write_text(refs[-1].model_copy(update={"parents": ()}).model_dump_json())
    age(store, 200)
    assert pruned(store) == set()


def test_an_unfinished_folder_is_one_item_and_a_young_one_stays(store: Store) -> None:
    root = Path(str(store.local_path))
    for name in (".writing-00000000", ".writing-11111111"):
        (root / "folders" / "ab" / name / "deep").mkdir(parents=True)
        (root / "folders" / "ab" / name / "deep" / "weights").write_bytes(b"12345")
    for path in (root / "folders" / "ab" / ".writing-00000000", *(root / "folders" / "ab" / ".writing-00000000").rglob("*")):
        moment = (NOW - timedelta(days=2)).timestamp()
        os.utime(path, (moment, moment))
    (one,) = sweep(store, set(), CONFIG, NOW)
    assert (one.kind, one.name, one.size_bytes) == ("unfinished write", "folders/ab/.writing-00000000", 5)
    store.remove(one.name)
    assert [path.name for path in (root / "folders" / "ab").iterdir()] == [".writing-11111111"]


def test_what_is_written_again_is_young_again(store: Store) -> None:
    """A run that comes to rows which an old one had relies on them, before any dossier names them."""
    store.write_rows([{"id": "a", "messages": []}], kind="messages")
    age(store, 200)
    store.write_rows([{"id": "a", "messages": []}], kind="messages")
    assert pruned(store) == set()


def test_a_data_set_goes_with_its_manifest_and_a_work_folder_with_all_in_it(store: Store) -> None:
    (ref, *_) = chain(store, "nobody")
    store.write_named("work/sft-1/checkpoint/weights", b"2" * 50_000)
    age(store, 200)
    store.write_named("work/sft-2/checkpoint/weights", b"3")
    found = sweep(store, set(), CONFIG, NOW)
    assert found[0].name == "work/sft-1"
    assert (found[0].size_bytes, found[0].age_days) == (50_000, 200.0)
    assert totals_of(found)[0] == ("work folder", 1, 50_000)
    for one in found:
        store.remove(one.name)
        store.remove(one.name)
    left = sorted(name for folder in ("objects", "work") for name, _, _ in store.walk(folder))
    assert left == ["work/sft-2/checkpoint/weights"]
    assert store.find_dataset(ref.sha256) is None
