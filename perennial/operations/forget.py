"""`perennial forget`: finds a person in everything that runs have written, and removes the person from it.

Rows of data sets go as a whole, with everything made from them; a value that stands in a page, a record or a table is
blanked. Objects are named by the hash of their bytes, so each that changes leaves a tombstone with the hash of what remains:
references, lineage and the scores of earlier decisions stay valid. A list of keyed hashes keeps the rows from coming back.
Weights cannot be searched: versions that learned from a removed row are marked.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.support.config import RetrainConfig
from tasks.contracts.forgetting import ForgetCertificate, ForgottenObject, ForgottenRows
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ConfigError, InputError, IntegrityError
from tasks.core.forgetting import RECORD, PersonValues, blank_strings, holds_strings, row_hashes, strings_of, value_hash
from tasks.core.rows import Row, iter_texts
from tasks.core.secrets import id_of_key
from tasks.core.storage import Store, sha256_of_json

VERSION_TAG = "perennial.forgotten"
"""Tag of a model version that learned from a row which was forgotten; its value names the certificate."""
_ROWS = ("messages", "preferences")
_SENTENCE_END = re.compile(r"[.!?…。]\s+|\n")
_MIN_TEXT = 40
"""Shorter sentences of a removed row are looked for only by the person's values: others may have written the same."""
_KEPT_COLUMNS = frozenset({"id", "label"})
_WEIGHTS = (".safetensors", ".bin", ".pt", ".png", ".parquet")
_MAX_FILE_BYTES = 200_000_000


@dataclass
class Change:
    """What becomes of one place: ``data`` is what is left of its bytes, None where it is removed as a whole."""

    kind: str
    name: str
    action: str
    num_rows: int = 0
    data: bytes | None = None


@dataclass
class Found:
    """Everything that holds the person; ``rows`` are the removed rows as they came, by id."""

    changes: list[Change] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    datasets: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    named: frozenset[str] = frozenset()
    person: PersonValues = field(default_factory=lambda: PersonValues(()))
    """The values, and the texts of the removed rows."""
    sentences_of_others: set[int] = field(default_factory=set)

    def texts_of_their_own(self) -> Iterator[str]:
        """The long sentences of the removed rows that no other row holds; a system prompt stands in many."""
        for copies in self.rows.values():
            for row in copies:
                yield from (text for text in _sentences(row) if hash(text) not in self.sentences_of_others)


def read_values(text: str) -> list[str]:
    """The values to forget: one a line, empty lines left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def forget_everywhere(
    store: Store,
    client: Any,
    settings: RetrainConfig,
    values: Sequence[str],
    row_ids: Sequence[str],
    *,
    by: str,
    now: datetime,
    apply: bool,
) -> ForgetCertificate:
    """Removes a person from store and registry, or with ``apply`` unset only says what would be done.

    Args:
        store: The store.
        client: A client of MLflow.
        settings: The configuration, for the model's name and the key.
        values: Names, addresses, numbers, in any writing.
        row_ids: Rows that are the person's.
        by: At whose request.
        now: The time of the certificate.
        apply: Whether to change anything.

    Raises:
        ConfigError: There is no key, under which the list of forgotten rows says nothing about anybody, or others were
            forgotten under another one; then nothing has changed.
        InputError: See :func:`find_person`.
        IntegrityError: Something is left afterwards.
    """
    pii, model = settings.prepare.pii, settings.registry.registered_name
    key = pii.load_key()
    if key is None:
        raise ConfigError(
            f"environment variable {pii.key_env}",
            "no key",
            "the scrubber's key: the rows that must not come back are kept as keyed hashes",
            "Make one with `openssl rand -hex 32`, and keep it for every later run.",
        )
    found = find_person(store, values, row_ids)
    learned, notes = versions_that_learned(client, store, model, found.datasets)
    found.notes += notes
    certificate = certificate_of(found, values, key, by, now)
    if apply:
        # First what a command that is cut short could not do again: without the rows nothing tells who learned from them.
        _suppress(store, found, values, key, (pii.key_env, pii.key_block))
        for version in learned:
            client.set_model_version_tag(model, version, VERSION_TAG, certificate.name)
    in_mlflow = clean_tracking(client, found, apply=apply)
    if apply:
        certificate = forget_person(store, found, certificate)
    certificate = certificate.model_copy(
        update={
            "objects": (*certificate.objects, *in_mlflow),
            "marked_versions": tuple(learned),
            "notes": tuple(found.notes),
        }
    )
    if apply:
        store.write_named(f"certificates/{certificate.name}.json", certificate.model_dump_json(indent=2).encode())
        check_nothing_left(store, values, row_ids)
    return certificate


def certificate_of(found: Found, values: Sequence[str], key: bytes, by: str, now: datetime) -> ForgetCertificate:
    """What is to be done, or was, in the store."""
    places = [(change.kind, change.name) for change in found.changes]
    return ForgetCertificate(
        name=sha256_of_json([by, now.isoformat(), places])[:16],
        requested_by=by,
        forgotten_at=now,
        num_values=len(values),
        num_rows=len(found.rows),
        key_id=id_of_key(key),
        objects=tuple(
            ForgottenObject(kind=change.kind, name=change.name, action=change.action, num_rows=change.num_rows)
            for change in found.changes
        ),
    )


def find_person(store: Store, values: Sequence[str], row_ids: Iterable[str] = ()) -> Found:
    """Where a store holds a person, and what would become of it; changes nothing.

    Args:
        store: The store.
        values: Names, addresses, numbers, in any writing.
        row_ids: Rows that are the person's, whatever they hold.

    Raises:
        InputError: Nothing is given, or a value is so short that others hold it by chance.
    """
    named = frozenset(row_ids)
    if not values and not named:
        todo = "Give values, one a line, with --values FILE (or - for the standard input), or rows with --row."
        raise InputError("perennial forget", "neither values nor rows", "one of them", todo)
    person, found = PersonValues(values), Found()
    refs = list(_datasets(store))
    own: dict[str, set[str]] = {}
    for ref in refs:
        if ref.kind in _ROWS:
            rows = store.read_rows(ref)
            hits = {row["id"] for row in rows if row["id"] in named or any(map(person.holds, strings_of(row)))}
            own |= {ref.sha256: hits} if hits else {}
    by_sha = {ref.sha256: ref for ref in refs}
    for ref in refs:
        ids = _inherited(ref, by_sha, own) | named
        _check_dataset(store, ref, ids, person, found)
    found.named = frozenset(found.rows) | named
    found.person = PersonValues([*values, *found.texts_of_their_own()])
    _check_files(store, found)
    return found


def forget_person(store: Store, found: Found, certificate: ForgetCertificate) -> ForgetCertificate:
    """Removes what was found from a store; what was done, with the hashes of what remains.

    Args:
        store: The store.
        found: What :func:`find_person` found.
        certificate: What is to be done (:func:`certificate_of`).
    """
    done = []
    for change, planned in zip(found.changes, certificate.objects, strict=True):
        remaining = None
        if change.data is None:
            store.remove(change.name)
        elif change.kind in ("data set", "file"):
            remaining = store.forget_bytes(change.name, change.data, certificate.name).remaining_sha256
        else:
            store.write_named(change.name, change.data)
        done.append(planned.model_copy(update={"remaining_sha256": remaining}))
    return certificate.model_copy(update={"objects": tuple(done)})


def check_nothing_left(store: Store, values: Sequence[str], row_ids: Iterable[str] = ()) -> None:
    """Searches the store again.

    Raises:
        IntegrityError: It still holds something.
    """
    left = find_person(store, values, row_ids).changes
    if left:
        raise IntegrityError(
            f"{store.uri}/{left[0].name}",
            f"{len(left)} places that still hold the person",
            "none after the removal",
            "A run may have written meanwhile: end it, and give the same command again.",
        )


def _suppress(store: Store, found: Found, values: Sequence[str], key: bytes, key_names: tuple[str, str | None]) -> None:
    """Keeps what was found from coming back; a ConfigError where others were forgotten under another key."""
    signs = PersonValues(values).signs
    rows = {digest for copies in found.rows.values() for row in copies for digest in row_hashes(row, key)}
    new = {value_hash(value, key) for value in signs}

    def change(present: ForgottenRows | None) -> ForgottenRows:
        if present is not None and present.key_id != id_of_key(key):
            raise ConfigError(
                f"environment variable {key_names[0]}",
                f"a key with id {id_of_key(key)}",
                f"the key with id {present.key_id}, under which others were forgotten",
                "Supply that key; the list of forgotten rows can be read under one key only.",
            )
        return ForgottenRows(
            key_env=key_names[0],
            key_block=key_names[1],
            key_id=id_of_key(key),
            values=tuple(sorted(new | set(present.values if present else ()))),
            lengths=tuple(sorted({*map(len, signs), *(present.lengths if present else ())})),
            rows=tuple(sorted(rows | set(present.rows if present else ()))),
        )

    store.update_record(RECORD, ForgottenRows, change)


def _datasets(store: Store) -> Iterator[DatasetRef]:
    for name, _, _ in store.walk("objects"):
        path = Path(name)
        if path.suffix == ".parquet" and (ref := store.find_dataset(path.stem)) is not None:
            yield ref


def _sentences(row: Row) -> Iterator[str]:
    """The long sentences of a row: a page may show a part of a text."""
    for _, text in iter_texts(row):
        yield from (part for part in _SENTENCE_END.split(text) if sum(map(str.isalnum, part)) >= _MIN_TEXT)


def _inherited(ref: DatasetRef, by_sha: Mapping[str, DatasetRef], own: Mapping[str, set[str]]) -> frozenset[str]:
    """The ids of the person's rows in a data set and in all that it was made from."""
    ids: set[str] = set()
    waiting, seen = [ref.sha256], set()
    while waiting:
        sha256 = waiting.pop()
        if sha256 not in seen:
            seen.add(sha256)
            ids |= own.get(sha256, set())
            waiting += by_sha[sha256].parents if sha256 in by_sha else ()
    return frozenset(ids)


def _check_dataset(store: Store, ref: DatasetRef, ids: frozenset[str], person: PersonValues, found: Found) -> None:
    """Adds what becomes of a data set, and the rows that go."""
    table = store.read_table(ref)
    rows, kept, num_changed = table.to_pylist(), [], 0
    for row in rows:
        row_id = str(row.get("id", ""))
        is_theirs = row_id in ids
        if ref.kind in _ROWS and is_theirs:
            found.rows.setdefault(row_id, []).append(row)
            num_changed += 1
            continue
        if ref.kind in _ROWS:
            found.sentences_of_others.update(map(hash, _sentences(row)))
            kept.append(row)
            continue
        changed = _blanked(row, ref.kind, is_theirs, person)
        num_changed += changed != row
        kept.append(changed)
    if not num_changed:
        return
    if ref.kind in _ROWS:
        found.datasets.add(ref.sha256)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), buffer, compression="zstd")
    name = f"objects/{ref.sha256[:2]}/{ref.sha256}.parquet"
    action = f"{num_changed} rows {'removed' if ref.kind in _ROWS else 'blanked'}"
    found.changes.append(Change("data set", name, action, num_changed, buffer.getvalue()))


def _blanked(row: dict[str, Any], kind: str, is_theirs: bool, person: PersonValues) -> dict[str, Any]:
    """A row of any other table without the person: what scores refer to (ids, labels) stays."""
    if kind == "quarantine":
        gone = is_theirs or any(person.holds(str(row[name] or "")) for name in ("content", "id"))
        return {**row, "id": person.blank(row["id"]), "content": None} if gone else row
    if is_theirs:
        row = {
            name: None if name == "fingerprint" or (name not in _KEPT_COLUMNS and _is_text(value)) else value
            for name, value in row.items()
        }
    return {name: blank_strings(value, person) for name, value in row.items()} if holds_strings(row, person) else row


def _is_text(value: object) -> bool:
    return isinstance(value, str) and any(map(str.isspace, value.strip()))


def _check_files(store: Store, found: Found) -> None:
    is_in_work = bool(found.rows)
    for folder in store.folders():
        if folder in ("objects", "tombstones", "certificates"):
            continue
        for name, size, _ in store.walk(folder):
            kind = {"files": "file", "folders": "folder", "work": "work folder"}.get(folder, "record")
            if name.endswith(_WEIGHTS):
                continue
            if size > _MAX_FILE_BYTES:
                found.notes.append(_not_searched(name))
                continue
            data = store.read_named(name) or b""
            left = without_person(name, data, found.named, found.person)
            if left == data:
                continue
            if kind == "folder":
                found.notes.append(f"{name} holds a value; remove its version and prune")
            elif kind == "work folder":
                is_in_work = True
            else:
                found.changes.append(Change(kind, name, "blanked", data=left))
    if is_in_work:
        folders = sorted({"/".join(name.split("/")[:2]) for name, _, _ in store.walk("work")})
        found.changes += [Change("work folder", name, "removed") for name in folders]


def _not_searched(name: str) -> str:
    return f"{name} was not searched: it has more than {_MAX_FILE_BYTES // 10**6} MB"


def without_person(name: str, data: bytes, ids: frozenset[str], person: PersonValues) -> bytes:
    """A file's bytes without the person; the same bytes where it holds nothing or is no text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    if name.endswith(".jsonl"):
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if not person.holds(line) and not _is_of(line, ids)]
        return "".join(kept).encode() if len(kept) < len(lines) else data
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict | list):
        return person.blank(text).encode()
    if holds_strings(document, person):
        return json.dumps(blank_strings(document, person), indent=2, ensure_ascii=False).encode()
    return data


def _is_of(line: str, ids: frozenset[str]) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and any(str(row.get(name)) in ids for name in ("id", "row_id"))


# -- MLflow


def clean_tracking(client: Any, found: Found, *, apply: bool) -> list[ForgottenObject]:
    """The runs' artifacts and tags that hold the person, blanked when ``apply`` is set.

    Parameters and deleted runs cannot be changed; the files of deleted runs lie there until MLflow collects them.
    """
    from tasks.tracking import registry_errors

    with registry_errors("the runs of MLflow"):
        return [touched for run in _runs(client) for touched in _clean_run(client, run, found, apply)]


def _runs(client: Any) -> Iterator[Any]:
    """Every run of every experiment, the deleted ones too."""
    from mlflow.entities import ViewType

    for experiment in client.search_experiments(view_type=ViewType.ALL):
        token: str | None = ""
        while token is not None:
            page = client.search_runs(
                [experiment.experiment_id], run_view_type=ViewType.ALL, max_results=200, page_token=token or None
            )
            yield from page
            token = page.token or None


def _clean_run(client: Any, run: Any, found: Found, apply: bool) -> Iterator[ForgottenObject]:
    run_id, person = run.info.run_id, found.person
    is_deleted = run.info.lifecycle_stage == "deleted"
    apply, action = apply and not is_deleted, "left: remove the deleted run with `mlflow gc`" if is_deleted else "blanked"
    for tag, value in run.data.tags.items():
        if person.holds(str(value)):
            if apply:
                client.set_tag(run_id, tag, person.blank(str(value)))
            yield ForgottenObject(kind="MLflow tag", name=f"{run_id}/{tag}", action=action)
    for parameter, value in run.data.params.items():
        if person.holds(str(value)):
            yield ForgottenObject(kind="MLflow parameter", name=f"{run_id}/{parameter}", action="left: delete the run")
    with tempfile.TemporaryDirectory() as folder:
        for path, size in _artifacts(client, run_id, ""):
            if size > _MAX_FILE_BYTES:
                found.notes.append(_not_searched(f"{run_id}/{path}"))
                continue
            local = Path(client.download_artifacts(run_id, path, folder))
            data = local.read_bytes()
            left = without_person(path, data, found.named, person)
            if left != data:
                if apply:
                    local.write_bytes(left)
                    client.log_artifact(run_id, str(local), str(Path(path).parent) if "/" in path else None)
                yield ForgottenObject(kind="MLflow artifact", name=f"{run_id}/{path}", action=action)


def _artifacts(client: Any, run_id: str, folder: str) -> Iterator[tuple[str, int]]:
    for item in client.list_artifacts(run_id, folder or None):
        if item.is_dir:
            yield from _artifacts(client, run_id, item.path)
        elif not item.path.endswith(_WEIGHTS):
            yield item.path, item.file_size or 0


def versions_that_learned(client: Any, store: Store, model: str, datasets: Iterable[str]) -> tuple[list[str], list[str]]:
    """The versions that learned from one of the data sets, or continue one that did; notes where it is unknown."""
    from tasks.registry.versions import started_from
    from tasks.tracking import registry_errors

    wanted, learned, notes = set(datasets), [], []
    with registry_errors(f"registered model {model}"):
        versions = list(client.search_model_versions(f"name='{model}'"))
    for version in versions:
        run = version.tags.get("perennial.run_name")
        record = store.read_named(f"dossiers/{run}/dossier.json") if run else None
        if record is None:
            notes.append(f"version {version.version} has no dossier, so what it learned from is unknown")
        elif wanted & set(_trained_on(json.loads(record))):
            learned.append(str(version.version))
    for version in versions:  # training that continues a version keeps what that version learned
        start = started_from(version.tags)
        gone = sorted(set(start.versions) - {str(one.version) for one in versions}) if start else []
        if start and set(start.versions) & set(learned) and str(version.version) not in learned:
            learned.append(str(version.version))
        elif gone:
            notes.append(
                f"version {version.version} continues {', '.join(gone)}, which is gone, so what it learned is unknown"
            )
    return learned, notes


def _trained_on(evidence: Mapping[str, Any]) -> Iterator[str]:
    parts = [evidence.get(name) or {} for name in ("split", "preferences", "mixture")]
    for part in parts:
        for name in ("train", "validation", "dataset", "decontamination"):
            ref = part.get(name)
            ref = ref.get("dataset", ref) if isinstance(ref, dict) else None
            if isinstance(ref, dict) and "sha256" in ref:
                yield ref["sha256"]
