"""The store keeps what it is given, finds what was changed, and refuses a chain that does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contracts.references import DatasetRef
from tasks.core.errors import IntegrityError, LineageError, StoreError
from tasks.core.storage import Store, open_store, run_store


def row(name: str) -> dict[str, object]:
    return {"id": name, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def path_of(ref: DatasetRef) -> Path:
    return Path(run_store().uri_of(ref).removeprefix("file://"))


def test_rows_come_back_and_writing_twice_is_the_same_object(store: Store) -> None:
    ref = store.write_rows([row("a")], kind="messages", parents=["f" * 64], passed=["ingested"])
    assert store.write_rows([row("a")], kind="messages", parents=["f" * 64], passed=["ingested"]) == ref
    assert store.read_rows(ref)[0]["messages"][1]["content"] == "Hello"
    assert run_store().uri == store.uri
    assert store.find_dataset(ref.sha256) == ref


def test_equal_rows_with_another_history_are_another_object(store: Store) -> None:
    one = store.write_rows([row("a")], kind="messages", passed=["ingested"])
    other = store.write_rows([row("a")], kind="messages", passed=["ingested", "scrubbed"])
    assert one.sha256 != other.sha256


def test_a_changed_byte_is_found(store: Store) -> None:
    ref = store.write_rows([row("a")], kind="messages")
    data = bytearray(path_of(ref).read_bytes())
    data[10] ^= 1
    path_of(ref).write_bytes(data)
    with pytest.raises(IntegrityError, match="SHA-256"):
        store.read_table(ref)


def test_a_forged_reference_is_found(store: Store) -> None:
    ref = store.write_rows([row("a")], kind="messages")
    with pytest.raises(IntegrityError, match="altered"):
        store.read_table(ref.model_copy(update={"passed": ("scrubbed",)}))


def test_lineage_holds_breaks_and_leads_elsewhere(store: Store) -> None:
    snapshot = store.write_rows([row("a"), row("b")], kind="messages", parents=["e" * 64])
    scrubbed = store.write_rows([row("a")], kind="messages", parents=[snapshot], passed=["scrubbed"])
    store.verify_lineage(scrubbed, descends_from=snapshot.sha256, passed=["scrubbed"])
    with pytest.raises(LineageError, match="label_audited"):
        store.verify_lineage(scrubbed, descends_from=snapshot.sha256, passed=["scrubbed", "label_audited"])
    with pytest.raises(LineageError, match="descendant of snapshot"):
        store.verify_lineage(scrubbed, descends_from="0" * 64, passed=["scrubbed"])
    forged = scrubbed.model_copy(update={"passed": ("scrubbed", "label_audited")})
    with pytest.raises(IntegrityError):
        store.verify_lineage(forged, descends_from=snapshot.sha256, passed=["label_audited"])


def test_a_folder_comes_back_and_a_torn_copy_is_replaced(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep" / "b.txt").write_text("b")
    ref = store.add_folder(source)
    local = store.fetch_folder(ref)
    assert (local / "deep" / "b.txt").read_text() == "b"
    (local / "MANIFEST.json").unlink()
    assert not store.holds(ref)
    assert store.add_folder(source) == ref
    assert store.holds(ref)
    (local / "a.txt").write_text("x")
    with pytest.raises(IntegrityError):
        store.fetch_folder(ref)


def test_a_file_where_the_store_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match=str(tmp_path)):
        open_store(tmp_path / "store").write_bytes(b"x", ".txt")


def test_a_pointer_moves(store: Store) -> None:
    first = store.write_rows([row("a")], kind="messages")
    second = store.write_rows([row("b")], kind="messages")
    assert store.read_pointer("benchmarks/desk") is None
    store.write_pointer("benchmarks/desk", first)
    store.write_pointer("benchmarks/desk", second)
    assert store.read_pointer("benchmarks/desk") == second


def test_a_store_in_object_storage_behaves_alike() -> None:
    store = open_store("memory://bucket/store")
    ref = store.write_rows([row("a")], kind="messages")
    assert store.read_rows(ref)[0]["id"] == "a"
    assert run_store().holds(ref)
