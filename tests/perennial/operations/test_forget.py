"""A person who is forgotten is nowhere any more, and everything else is still there."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.support.config import RetrainConfig
from perennial.operations.forget import VERSION_TAG, find_person, forget_everywhere
from perennial.operations.store_check import verify_store
from tasks.contracts.run import RunEvidence
from tasks.core.errors import ConfigError, InputError
from tasks.core.storage import Store, open_store
from tasks.dossier.report_data import lineage_fault
from tasks.ingest import SourceConfig, take_snapshot
from tasks.tracking import connect, experiment_id
from tests.support.evidence import make_evidence
from tests.support.prepared import ticket

NOW = datetime(2026, 7, 1, tzinfo=UTC)
PEOPLE = {
    "en": ("Harriet Blankenship", "harriet.b@corp-mail.example"),
    "de": ("Jürgen Hinterseer", "+49 30 901820"),
    "pl": ("Zbigniew Szczepański", "PESEL 80010112345"),
    "tr": ("Şükrü Yıldırım", "TR33 0006 1005 1978 6457 8413 26"),
}
LONG = "I would like to send the kettle back that came on Monday with a dent in its lid"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    monkeypatch.setenv("PERENNIAL_PII_KEY", "a key")
    (tmp_path / "mlflow").mkdir()
    return connect()


def settings_for(name: str) -> RetrainConfig:
    settings = {"name": name, "examples": {"path": "rows.jsonl"}, "registry": {"model_name": name}}
    return RetrainConfig.model_validate(settings)


def every_text(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file as text, tables with their cells unpacked."""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), ensure_ascii=False, default=str).encode()
            yield path, data.decode(errors="replace")


def in_source(folder: Path, language: str) -> Path:
    """A source of 40 rows, one of them of a person."""
    name, number = PEOPLE[language]
    rows = [{"id": f"row-{place}", "instruction": f"How do I use {place}?", "output": "Turn it."} for place in range(40)]
    rows[7] = {"id": "row-7", "instruction": f"{LONG}. I am {name.upper()}", "output": f"Noted, {number}."}
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("language", PEOPLE)
def test_no_byte_of_a_person_is_left_and_all_else_can_be_read(
    tmp_path: Path, client: Any, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = list(PEOPLE[language])
    folder = tmp_path / "store"
    evidence = evidence_with(folder, values, monkeypatch)
    store = open_store(folder)
    version = published(client, evidence, store, values)
    settings = settings_for(evidence.model_name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def forget(apply: bool) -> Any:
        return forget_everywhere(store, client, settings, values, [], by="the DPO", now=NOW, apply=apply)

    planned = forget(apply=False)
    assert any(LONG in text for _, text in every_text(folder)), "a list alone changes nothing"
    done = forget(apply=True)
    assert [(one.kind, one.name) for one in done.objects] == [(one.kind, one.name) for one in planned.objects]
    assert {one.kind for one in done.objects} >= {"data set", "file", "record", "MLflow artifact", "MLflow tag"}
    assert done.num_rows == 1
    left = [path for path, text in every_text(tmp_path) if any(value in text for value in [*values, LONG])]
    assert left == []

    assert verify_store(store, lambda done, of: None).faults == ()
    assert lineage_fault(store, evidence) is None
    assert evidence.benchmark.arms
    for arm in evidence.benchmark.arms:
        assert store.read_table(arm.examples).num_rows == arm.examples.num_rows, "the scores of earlier gates stay"
    named = {str(folder / one.name) for one in done.objects if not one.kind.startswith("MLflow")}
    changed = {str(path) for path, data in before.items() if not path.is_file() or path.read_bytes() != data}
    assert changed == {name for name in named if Path(name).suffix} | {str(folder / "work/sft-0a1b/rows.txt")}
    tags = client.get_model_version(evidence.model_name, version).tags
    assert tags[VERSION_TAG] == done.name
    assert json.loads(store.read_named(f"certificates/{done.name}.json") or b"")["requested_by"] == "the DPO"
    assert forget(apply=False).objects == (), "again there is nothing to do"


@pytest.mark.parametrize("language", PEOPLE)
def test_a_forgotten_row_does_not_come_back(tmp_path: Path, client: Any, language: str) -> None:
    source, uri = SourceConfig(path=str(in_source(tmp_path, language))), str(tmp_path / "store")
    first = take_snapshot.fn(source, uri)
    store = open_store(uri)
    name = PEOPLE[language][0]
    forget_everywhere(store, client, settings_for("desk"), [name], [], by="x", now=NOW, apply=True)
    again = take_snapshot.fn(source, uri)
    assert (again.dataset.num_rows, again.dropped) == (39, {"forgotten": 1})
    assert again.dataset.sha256 != first.dataset.sha256
    assert all(LONG not in text for _, text in every_text(tmp_path / "store"))
    # Neither under another id, nor in a line that is no row.
    lines = Path(source.path).read_text().splitlines()
    lines[7] = json.dumps({**json.loads(lines[7]), "id": "row-99"})
    Path(source.path).write_text("\n".join([*lines, f'{{"id": "{name}']) + "\n")
    third = take_snapshot.fn(source, uri)
    assert third.dataset.num_rows == 39
    assert all(name not in text for _, text in every_text(tmp_path / "store"))


def test_a_row_is_forgotten_by_its_id(tmp_path: Path, client: Any) -> None:
    source, uri = SourceConfig(path=str(in_source(tmp_path, "en"))), str(tmp_path / "store")
    take_snapshot.fn(source, uri)
    forget_everywhere(open_store(uri), client, settings_for("desk"), [], ["row-7"], by="x", now=NOW, apply=True)
    assert all(LONG not in text for _, text in every_text(tmp_path / "store"))
    assert take_snapshot.fn(source, uri).dropped == {"forgotten": 1}


def test_versions_that_continue_one_that_learned_are_marked_too(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, folder = list(PEOPLE["en"]), tmp_path / "store"
    evidence = evidence_with(folder, values, monkeypatch)
    store = open_store(folder)
    first = published(client, evidence, store, values)
    name, made = evidence.model_name, client.get_model_version(evidence.model_name, first)
    adapter = {"sha256": "a" * 64, "num_files": 2, "size_bytes": 1}

    def continue_(*ancestors: str, version: str) -> str:
        start = json.dumps({"version": version, "adapter": adapter, "ancestors": ancestors})
        tags = {"perennial.started_from": start}
        return str(client.create_model_version(name, made.source, made.run_id, tags=tags).version)

    child = continue_(version=first)
    grandchild, orphan = continue_(first, version="77"), continue_(version="78")
    done = forget_everywhere(store, client, settings_for(name), values, [], by="x", now=NOW, apply=True)
    marked = [one for one in (first, child, grandchild, orphan) if VERSION_TAG in client.get_model_version(name, one).tags]
    assert marked == [first, child, grandchild]
    assert f"version {orphan} continues 78, which is gone, so what it learned is unknown" in done.notes


def test_an_interrupted_command_has_marked_the_versions_that_learned(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, folder = list(PEOPLE["en"]), tmp_path / "store"
    evidence = evidence_with(folder, values, monkeypatch)
    store = open_store(folder)
    version = published(client, evidence, store, values)
    settings, removed = settings_for(evidence.model_name), []
    forget_bytes = Store.forget_bytes

    def forget_two(self: Store, name: str, data: bytes, certificate: str) -> Any:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(name)
        return forget_bytes(self, name, data, certificate)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget_bytes", forget_two)
        with pytest.raises(KeyboardInterrupt):
            forget_everywhere(store, client, settings, values, [], by="x", now=NOW, apply=True)
    assert VERSION_TAG in client.get_model_version(evidence.model_name, version).tags
    forget_everywhere(store, client, settings, values, [], by="x", now=NOW, apply=True)
    assert forget_everywhere(store, client, settings, values, [], by="x", now=NOW, apply=False).objects == ()


def _experiment(client: Any, folder: Path) -> str:
    return str(client.create_experiment("desk", artifact_location=(folder / "artifacts").as_uri()))


def test_another_key_or_none_is_refused(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, uri = SourceConfig(path=str(in_source(tmp_path, "en"))), str(tmp_path / "store")
    take_snapshot.fn(source, uri)
    forget_everywhere(
        open_store(uri), client, settings_for("desk"), ["Harriet Blankenship"], [], by="x", now=NOW, apply=True
    )
    run = client.create_run(_experiment(client, tmp_path), tags={"asked": "by Jo Miller"}).info.run_id
    for key in ("", "another"):
        monkeypatch.setenv("PERENNIAL_PII_KEY", key)
        with pytest.raises(ConfigError, match="under which people were forgotten"):
            take_snapshot.fn(source, uri)
        with pytest.raises(ConfigError, match="key"):
            forget_everywhere(open_store(uri), client, settings_for("desk"), ["Jo Miller"], [], by="x", now=NOW, apply=True)
        assert client.get_run(run).data.tags["asked"] == "by Jo Miller", "nothing has changed"


def test_a_deleted_run_and_a_large_file_of_a_run_are_told(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.operations.forget._MAX_FILE_BYTES", 1_000)
    run = client.create_run(_experiment(client, tmp_path), tags={"asked": "by Jo Miller"}).info.run_id
    client.log_text(run, "Jo Miller", "note.txt")
    client.log_text(run, "x" * 4_000, "large.txt")
    client.delete_run(run)
    done = forget_everywhere(
        open_store(tmp_path / "store"), client, settings_for("desk"), ["Jo Miller"], [], by="x", now=NOW, apply=True
    )
    left = "left: remove the deleted run with `mlflow gc`"
    assert [(one.kind, one.name, one.action) for one in done.objects] == [
        ("MLflow tag", f"{run}/asked", left),
        ("MLflow artifact", f"{run}/note.txt", left),
    ]
    assert [f"{run}/large.txt was not searched" in note for note in done.notes] == [True]


def test_files_beside_the_data_sets_are_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A work folder goes where no row does, one number is a text, and what is too large to be searched is told."""
    store = open_store(tmp_path)
    store.write_named("work/sft-0a1b/rows.txt", b"Harriet Blankenship, 4155550132")
    number = store.write_bytes(b"4155550132", ".txt")
    store.write_named("records/large", b"x" * 4_000)
    monkeypatch.setattr("perennial.operations.forget._MAX_FILE_BYTES", 1_000)
    found = find_person(store, ["415-555-0132"])
    assert [(change.kind, change.action, change.data) for change in found.changes] == [
        ("file", "blanked", b"(forgotten)"),
        ("work folder", "removed", None),
    ]
    assert number.sha256 in found.changes[0].name
    assert ["records/large" in note for note in found.notes] == [True]


@pytest.mark.parametrize("values", [[], ["Ann"], ["Ann Lee", "12"]])
def test_values_that_many_hold_are_refused(tmp_path: Path, values: list[str]) -> None:
    with pytest.raises(InputError):
        find_person(open_store(tmp_path), values)


def evidence_with(folder: Path, values: list[str], monkeypatch: pytest.MonkeyPatch) -> RunEvidence:
    """Evidence in whose data sets, from the snapshot to the rows trained on, one row is a person's."""

    def ticket_of(row_id: str, question: str, answer: str, *more: Any, **columns: Any) -> dict[str, Any]:
        if row_id == "t-40":
            question, answer = f"{LONG}. I am {values[0].upper()}.", f"Noted: {values[1]}"
        return ticket(row_id, question, answer, *more, **columns)

    monkeypatch.setattr("tests.support.evidence.ticket", ticket_of)
    evidence = make_evidence(folder, champion=True)
    assert any(row["id"] == "t-40" for row in open_store(folder).read_rows(evidence.split.train))
    return evidence


def published(client: Any, evidence: RunEvidence, store: Store, values: list[str]) -> str:
    """Pages, queues, records and an MLflow run that repeat a row and its values; the registered version."""
    page = f"<p>{html.escape(LONG)}</p><p>{values[0]}</p>".encode("ascii", "xmlcharrefreplace")
    store.write_bytes(page, ".html")
    store.write_bytes(
        (json.dumps({"row_id": "t-40", "text": "x"}) + "\n" + json.dumps({"row_id": "t-41"}) + "\n").encode(), ".jsonl"
    )
    record = json.loads(evidence.model_dump_json())
    record["settings"]["by"] = f"for {values[0]}"
    folder = f"dossiers/{evidence.run_name}"
    store.write_named(f"{folder}/dossier.json", json.dumps(record).encode())
    store.write_named(f"{folder}/dossier.html", page)
    store.write_named("work/sft-0a1b/rows.txt", LONG.encode())
    run = client.create_run(experiment_id(client, evidence.model_name), tags={"asked": f"by {values[0]}"})
    client.log_text(run.info.run_id, page.decode(), "dossier/dossier.html")
    client.create_registered_model(evidence.model_name)
    tags = {"perennial.run_name": evidence.run_name}
    return str(client.create_model_version(evidence.model_name, "x", run.info.run_id, tags=tags).version)
