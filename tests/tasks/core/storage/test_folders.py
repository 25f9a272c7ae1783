"""What is verified is what is used: files beside the manifest, links, devices and forged names are refused by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.references import FolderRef
from tasks.core.errors import IntegrityError, StoreError
from tasks.core.storage import Store, sha256_of_json
from tasks.core.storage.folders import manifest_of


def make_adapter(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(b"1" * 100)
    (folder / "deep" / "settings.json").write_text("{}")
    return folder


def stored(store: Store, tmp_path: Path) -> tuple[FolderRef, Path]:
    """A folder in a local store, and where it lies there, open to whoever tampers with it."""
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    path = store.fetch_folder(ref)
    for file in path.rglob("*"):
        file.chmod(0o700)
    return ref, path


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_folder_comes_back_from_every_kind_of_store(store: Store, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "adapter")
    ref = store.add_folder(source)
    assert store.add_folder(source) == ref
    assert (ref.num_files, ref.size_bytes) == (2, 102)
    fetched = store.fetch_folder(ref)
    assert sorted(path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file()) == [
        "MANIFEST.json",
        "deep/settings.json",
        "weights",
    ]
    assert store.fetch_folder(ref) == fetched
    assert store.add_folder(fetched) == ref, "a folder from a store is the same folder"


@pytest.mark.parametrize("name", ["chat_template.jinja", "adapter_config.json", ".hidden", "deep/tokenizer.json", "new/x"])
def test_a_file_that_was_added_is_refused_by_its_name(store: Store, tmp_path: Path, name: str) -> None:
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    store.write_named(f"folders/{ref.sha256[:2]}/{ref.sha256}/{name}", b"{{ evil }}")
    with pytest.raises(IntegrityError, match=f"{name}: found"):
        store.fetch_folder(ref)


@pytest.mark.parametrize("kind", ["link to the same bytes", "link to a folder", "hard link", "pipe", "folder", "file gone"])
def test_what_is_no_file_of_its_own_is_refused_by_its_name(local: Store, tmp_path: Path, kind: str) -> None:
    ref, folder = stored(local, tmp_path)
    if kind == "link to the same bytes":
        shutil.copy(folder / "weights", tmp_path / "same")
        (folder / "weights").unlink()
        (folder / "weights").symlink_to(tmp_path / "same")
    elif kind == "link to a folder":
        shutil.copytree(folder / "deep", tmp_path / "same")
        shutil.rmtree(folder / "deep")
        (folder / "deep").symlink_to(tmp_path / "same")
    elif kind == "hard link":
        os.link(folder / "weights", tmp_path / "second-name")
    elif kind == "pipe":
        os.mkfifo(folder / "pipe")
    elif kind == "folder":
        (folder / "checkpoint-1").mkdir()
    else:
        (folder / "weights").unlink()
    with pytest.raises(IntegrityError, match=r"(weights|deep|pipe|checkpoint-1): found"):
        local.fetch_folder(ref)


def test_a_link_in_place_of_the_whole_folder_is_refused(local: Store, tmp_path: Path) -> None:
    ref, folder = stored(local, tmp_path)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError, match="a symbolic link"):
        local.fetch_folder(ref)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "./a", "a//b", "", "manifest.JSON", "a\\b", "a\nb", "WEIGHTS"]
)
def test_a_manifest_names_only_files_below_the_folder(local: Store, tmp_path: Path, name: str) -> None:
    """Such a manifest has the right hash: whoever may write to the store has made the reference too."""
    digests = {"weights": "0" * 64, name: "0" * 64}
    sha256 = sha256_of_json(digests)
    local.write_named(f"folders/{sha256[:2]}/{sha256}/MANIFEST.json", manifest_of(digests))
    local.write_named(f"folders/{sha256[:2]}/{sha256}/weights", b"")
    ref = FolderRef(sha256=sha256, num_files=2, size_bytes=0)
    with pytest.raises(IntegrityError, match=r"names below the folder|a second manifest|differ only in case"):
        local.fetch_folder(ref)


@pytest.mark.parametrize("manifest", [b"[]", b"{", b'{"weights": 1}', b"", b'{"weights": "0"}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(local: Store, tmp_path: Path, manifest: bytes) -> None:
    ref, folder = stored(local, tmp_path)
    (folder / "MANIFEST.json").write_bytes(manifest)
    with pytest.raises(IntegrityError, match="an altered manifest"):
        local.fetch_folder(ref)


@pytest.mark.parametrize("kind", ["link", "dangling link", "link to a folder", "pipe", "names differ by case", "manifest"])
def test_only_regular_files_of_their_own_names_are_taken_in(store: Store, tmp_path: Path, kind: str) -> None:
    source = make_adapter(tmp_path / "adapter")
    if kind == "names differ by case":
        (source / "Weights").write_bytes(b"2")
    elif kind == "manifest":
        (source / "MANIFEST.json").write_text(json.dumps({"weights": "0" * 64}))
    elif kind == "pipe":
        os.mkfifo(source / "pipe")
    else:
        target = {"link": "/etc/hostname", "dangling link": "/no/such/file", "link to a folder": "/etc"}[kind]
        (source / "adapter_config.json").symlink_to(target)
    with pytest.raises(IntegrityError):
        store.add_folder(source)
    assert list(store.walk("folders")) == []


def test_a_damaged_folder_or_file_of_the_same_size_is_made_whole_by_the_next_writer(local: Store, tmp_path: Path) -> None:
    ref, folder = stored(local, tmp_path)
    (folder / "weights").write_bytes(b"2" * 100)
    (folder / "extra").write_bytes(b"")
    assert local.add_folder(tmp_path / "adapter") == ref
    assert (local.fetch_folder(ref) / "weights").read_bytes() == b"1" * 100
    assert [path.name for path in folder.parent.iterdir()] == [ref.sha256], "nothing is left beside it"
    rows = local.write_rows([], kind="messages")
    path = next((tmp_path / "store" / "objects").rglob("*.parquet"))
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    assert local.write_rows([], kind="messages") == rows
    assert local.read_rows(rows) == []


def test_a_source_that_changes_while_it_is_read_is_not_taken_in(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.core.storage import folders

    source = make_adapter(tmp_path / "adapter")
    digest = folders.digest_folder(source)
    (source / "weights").write_bytes(b"2" * 100)
    with pytest.raises(IntegrityError, match="weights"):
        folders.copy_into_place(source, tmp_path / "out", digest, tmp_path / "lock", follow_links=False)
    assert not (tmp_path / "out").exists()


def test_stored_files_are_read_only(local: Store, tmp_path: Path) -> None:
    local.write_rows([], kind="messages")
    local.add_folder(make_adapter(tmp_path / "adapter"))
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != ".lock"]
    assert files
    assert all(path.stat().st_mode & 0o222 == 0 for path in files)


# ----------------------------------------------------------------------------------------------------------------- lineage


def test_a_manifest_edited_by_hand_forges_no_lineage(store: Store) -> None:
    snapshot = store.write_rows([], kind="messages", parents=["e" * 64])
    other = store.write_rows([], kind="messages", passed=["scrubbed"])
    forged = other.model_copy(update={"parents": (snapshot.sha256,), "passed": ("scrubbed", "label_audited")})
    path = Path("objects") / other.sha256[:2] / f"{other.sha256}.json"
    store.write_named(path.as_posix(), forged.model_dump_json().encode())
    assert store.find_dataset(other.sha256) == other


def test_bytes_under_another_hashs_name_are_no_data_set(store: Store) -> None:
    one, other = (store.write_rows([], kind="messages", parents=[letter * 64]) for letter in "ab")
    name = "objects/{0}/{1}.parquet"
    data = store.read_named(name.format(one.sha256[:2], one.sha256))
    assert data is not None
    store.write_named(name.format(other.sha256[:2], other.sha256), data)
    with pytest.raises(IntegrityError, match="bytes with SHA-256"):
        store.find_dataset(other.sha256)
    assert store.find_dataset("0" * 64) is None


# ------------------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_cache_that_somebody_else_may_have_prepared_is_refused(tmp_path: Path, kind: str) -> None:
    store = Store(f"memory://{tmp_path.name}/{kind.replace(' ', '-')}")
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    cache = tmp_path / "cache"
    if kind == "link":
        (tmp_path / "prepared").mkdir()
        cache.symlink_to(tmp_path / "prepared")
    else:
        cache.write_text("")
    with pytest.raises(StoreError, match=f"found a {kind}.*closed to others"):
        store.fetch_folder(ref, cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_another_users_cache_is_refused(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}/other")
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(StoreError, match="user 12345"):
        store.fetch_folder(ref, tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_copy_that_another_user_made_is_fetched_anew_though_it_is_right(tmp_path: Path) -> None:
    """Its owner could change it after it was verified."""
    store = Store(f"memory://{tmp_path.name}/owned")
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    found = store.fetch_folder(ref, tmp_path / "cache")
    os.chown(found / "weights", 12345, 12345)
    assert (store.fetch_folder(ref, tmp_path / "cache") / "weights").stat().st_uid == 0


def test_a_copy_that_was_planted_or_damaged_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    if store.local_path is not None:
        pytest.skip("a local store's folders are used where they lie")
    planted = tmp_path / "cache" / ref.sha256
    (planted / "deep").mkdir(parents=True)
    (tmp_path / "cache").chmod(0o777)
    (planted / "MANIFEST.json").write_text("{}")
    (planted / "adapter_config.json").write_text("{}")
    found = store.fetch_folder(ref, tmp_path / "cache")
    assert found == planted
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700, "others could plant more"
    assert not (planted / "adapter_config.json").exists()
    assert (found / "weights").read_bytes() == b"1" * 100
    (found / "weights").chmod(0o600)
    (found / "weights").write_bytes(b"2" * 100)
    assert (store.fetch_folder(ref, tmp_path / "cache") / "weights").read_bytes() == b"1" * 100


def test_the_cache_lies_in_the_embedded_folder_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    store = Store(f"memory://{tmp_path.name}/private")
    found = store.fetch_folder(store.add_folder(make_adapter(tmp_path / "adapter")))
    assert found.parent == tmp_path / "home" / "folders"
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_a_fetch_that_ends_while_another_one_begins_disturbs_nobody(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of the cache and the look at an entry, the entry gets its final name."""
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*listing(path), path / f".fetching-{'0' * 32}"]))
    assert (store.fetch_folder(ref, None) / "weights").is_file()


def test_many_threads_that_fetch_at_once_all_get_the_folder(store: Store, tmp_path: Path) -> None:
    ref = store.add_folder(make_adapter(tmp_path / "adapter"))
    with ThreadPoolExecutor(12) as pool:
        found = set(pool.map(lambda _: store.fetch_folder(ref, None), range(15)))
    assert len(found) == 1
    assert len([path for path in found.pop().parent.iterdir() if not path.name.startswith(".lock")]) == 1


# -------------------------------------------------------------------------------------------------------------------- disk


def _fill(folder: str, answers: Any) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = Store(Path(folder) / "store")
    for write in (
        lambda: store.write_bytes(b"1" * 5000, ".bin"),
        lambda: store.add_folder(Path(folder) / "big"),
        lambda: store.write_named("dossiers/x", b"1" * 5000),
        lambda: store.keep_named("judge/x", b"1" * 5000),
    ):
        try:
            write()
            answers.send("written")
        except StoreError as error:
            answers.send(str(error))
    answers.send(sorted(path.name for path in (Path(folder) / "store").rglob("*") if path.is_file()))


def test_a_write_that_the_disk_refuses_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "weights").write_bytes(b"1" * 5000)
    context = multiprocessing.get_context("spawn")
    own, end = context.Pipe(duplex=False)
    process = context.Process(target=_fill, args=(str(tmp_path), end))
    process.start()
    told = [own.recv() for _ in range(5)]
    process.join()
    assert all("expected a store that responds" in text for text in told[:4]), told
    assert told[4] == []
