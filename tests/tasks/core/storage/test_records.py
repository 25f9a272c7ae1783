"""A record that several change keeps all of their changes, on every kind of store; other storage is refused."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.contracts.run import BusinessPeriod
from tasks.core.errors import IntegrityError, StoreError
from tasks.core.storage import Store
from tasks.core.storage.opening import open_backend


def period(**figures: float) -> BusinessPeriod:
    return BusinessPeriod(period="2026-Q1", figures=figures)


def test_the_first_to_create_a_record_wins_and_the_others_get_it(store: Store) -> None:
    assert store.create_record("deep/er/first", period(a=1)) == period(a=1)
    assert store.create_record("deep/er/first", period(b=2)) == period(a=1)
    assert store.read_record("deep/er/first", BusinessPeriod) == period(a=1)
    assert store.read_record("deep/er/second", BusinessPeriod) is None


def test_a_change_that_came_too_late_is_worked_out_again(store: Store) -> None:
    """Another writer comes between reading and writing, the first two times."""
    seen = []

    def change(known: BusinessPeriod | None) -> BusinessPeriod:
        figures = dict(known.figures) if known else {}
        seen.append(len(figures))
        if len(seen) < 3:
            store.write_record("shared", period(**figures, **{f"other{len(seen)}": 1.0}))
        return period(**figures, mine=1.0)

    assert store.update_record("shared", BusinessPeriod, change) == period(other1=1, other2=1, mine=1)
    assert seen == [0, 1, 2]


def test_a_change_that_changes_nothing_writes_nothing(store: Store) -> None:
    store.create_record("calm", period(a=1))

    def change(known: BusinessPeriod | None) -> BusinessPeriod:
        assert known is not None
        return known

    assert store.update_record("calm", BusinessPeriod, change) == period(a=1)


def test_of_two_that_keep_bytes_under_a_name_both_get_the_first(store: Store) -> None:
    assert store.keep_named("judge/x", b"A") == b"A"
    assert store.keep_named("judge/x", b"B") == b"A"


def test_a_kept_data_set_is_settled_anew_only_when_it_is_gone(store: Store) -> None:
    first, second = (store.write_rows([], kind="messages", parents=[letter * 64]) for letter in "ab")
    assert store.ensure_pointer("answers/x", first) == first
    assert store.ensure_pointer("answers/x", second) == first
    store.remove(f"objects/{first.sha256[:2]}/{first.sha256}")
    assert store.ensure_pointer("answers/x", second) == second


def test_threads_lose_nothing_either(store: Store) -> None:
    barrier = threading.Barrier(6)

    def add(number: int) -> None:
        barrier.wait()
        store.update_record(
            "threads", BusinessPeriod, lambda known: period(**(known.figures if known else {}), **{f"t{number}": 1.0})
        )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    found = store.read_record("threads", BusinessPeriod)
    assert found is not None
    assert len(found.figures) == 6


def test_a_record_that_is_none_is_named_and_not_shown(store: Store) -> None:
    store.write_named("pointers/odd.json", b'{"period": 7, "secret": "hunter2"}')
    with pytest.raises(IntegrityError, match="a record that is no BusinessPeriod") as refused:
        store.read_record("odd", BusinessPeriod)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b", "./x"])
def test_no_name_leads_out_of_the_store(store: Store, name: str) -> None:
    for use in (
        lambda: store.write_named(name, b""),
        lambda: store.keep_named(name, b""),
        lambda: store.read_named(name),
        lambda: store.names_in(name),
        lambda: list(store.walk(name)),
    ):
        with pytest.raises(StoreError, match=re.escape(repr(name))):
            use()


@pytest.mark.parametrize("root", ["gs://bucket/x", "abfs://c/x", "http://host/x", "ftp://host/x", "zip://x"])
def test_storage_without_compare_and_set_is_refused(root: str) -> None:
    with pytest.raises(StoreError, match="storage of the kind"):
        Store(root)


def test_a_server_that_ignores_the_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("moto", "s3fs", "boto3"):
        pytest.importorskip(package, reason=f"{package} is not installed; the extra `dev` brings it")
    import s3fs

    from tests.support.object_store import object_store

    with object_store(deaf=True) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # a kept client goes on with the server that it began with
        try:
            store = Store("s3://bucket/deaf")
            with pytest.raises(StoreError, match="bucket/deaf"):
                store.create_record("x", period())
            assert store.read_record("x", BusinessPeriod) is None
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("kind", ["away", "no bucket", "no credentials"])
def test_object_storage_that_does_not_answer_is_one_clear_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    environment = dict(request.getfixturevalue("bucket"))
    if kind == "away":
        environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    if kind == "no credentials":
        environment = {"AWS_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"], "AWS_EC2_METADATA_DISABLED": "true"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    try:
        store = Store(f"s3://{'no-such-bucket' if kind == 'no bucket' else 'bucket'}/x")
        with pytest.raises(StoreError, match="bucket/x"):
            store.create_record("x", period())
        with pytest.raises(StoreError, match="bucket/x"):
            store.read_record("x", BusinessPeriod)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_write_whose_answer_was_lost_counts_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends a write again when no answer comes; the storage refuses it the second time."""
    backend = open_backend(store.uri)
    if not store.uri.startswith("s3"):
        pytest.skip("only clients of object storage send a write again by themselves")
    fs = backend._fs  # type: ignore[attr-defined]
    send = fs.call_s3

    def twice(method: str, **arguments: object) -> object:
        if method == "put_object":
            send(method, **arguments)
        return send(method, **arguments)

    store.create_record("warm", period())
    monkeypatch.setattr(fs, "call_s3", twice)
    assert store.create_record("n", period(a=1)) == period(a=1)
    changes = []

    def add_one(known: BusinessPeriod | None) -> BusinessPeriod:
        assert known is not None
        changes.append(known)
        return period(a=known.figures["a"] + 1)

    assert store.update_record("n", BusinessPeriod, add_one) == period(a=2)
    assert len(changes) == 1


def test_a_lock_that_cannot_be_had_is_one_clear_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.create_record("x", period(a=1))
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "store" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        store.update_record("x", BusinessPeriod, lambda _: period(a=2))
