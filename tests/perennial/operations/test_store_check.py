"""A whole store is read back: what is missing or altered is named, what merely lies about is not called lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perennial.operations.store_check import StoreReport, verify_store
from tasks.contracts.references import FolderRef
from tasks.core.errors import InputError
from tasks.core.storage import Store, open_store
from tests.support.evidence import make_evidence

FOLDER = FolderRef(sha256="c" * 64, num_files=1, size_bytes=1)


def check(store: Store, *needed: tuple[str, FolderRef, bool]) -> StoreReport:
    return verify_store(store, lambda done, of: None, needed)


@pytest.fixture
def filled(tmp_path: Path) -> Store:
    """A store with data sets, files, folders, pointers and nothing wrong."""
    store = open_store(tmp_path / "store")
    evidence = make_evidence(tmp_path / "store", champion=True)
    store.write_pointer("benchmarks/desk", evidence.examples.frozen)
    return store


def test_a_sound_store_has_no_faults_wherever_it_was_copied(filled: Store, tmp_path: Path) -> None:
    assert check(filled).faults == ()
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copied = check(Store(tmp_path / "copy"))
    assert copied == check(filled)
    assert set(copied.counts) >= {"data set", "file", "folder", "pointer"}


@pytest.mark.parametrize("place", ["typo", "empty", "other"])
def test_a_place_without_a_store_is_not_called_sound(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "objects").mkdir(parents=True)
    (tmp_path / "other" / "objects" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="found nothing; expected a store that a run has written to"):
        check(Store(tmp_path / place))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("pattern", ["objects/*/*.parquet", "files/*/*", "folders/*/*/*"])
def test_one_altered_byte_of_any_kind_is_found(filled: Store, tmp_path: Path, pattern: str) -> None:
    path = sorted((tmp_path / "store").glob(pattern))[0]
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    (fault, *_) = check(filled).faults
    assert path.name.partition(".")[0][:64] in fault.name or path.parent.name in fault.name


def test_what_is_referred_to_and_missing_is_a_fault(filled: Store) -> None:
    frozen = filled.read_pointer("benchmarks/desk")
    assert frozen is not None
    filled.remove(f"objects/{frozen.sha256[:2]}/{frozen.sha256}")
    assert [one.name for one in check(filled).faults] == ["pointers/benchmarks/desk.json"]
    (_, needed) = check(filled, ("desk version 3 (champion)", FOLDER, False)).faults
    assert "desk version 3 (champion) needs it" in needed.what
    carried = check(filled, ("desk version 3 (champion)", FOLDER, True))
    assert len(carried.faults) == 1
    assert [one.severity for one in carried.findings if "desk version 3" in one.what] == ["note"]


def test_what_others_left_is_noted_and_is_no_fault(filled: Store, tmp_path: Path) -> None:
    shard = next((tmp_path / "store" / "objects").iterdir())
    for name in (".DS_Store", "notes.txt", f"{'d' * 64}.parquet.bak"):
        (shard / name).write_text("x")
    (tmp_path / "store" / "folders" / "ee").mkdir(exist_ok=True)
    (tmp_path / "store" / "folders" / "ee" / ("e" * 64)).mkdir()
    (tmp_path / "store" / "folders" / "ee" / ("e" * 64) / "half.bin").write_text("x")
    report = check(filled)
    assert report.faults == ()
    assert {one.name.rpartition("/")[2] for one in report.findings} >= {"notes.txt", f"{'d' * 64}.parquet.bak", "e" * 64}
