"""Every accepted format becomes the same canonical rows; what cannot is kept with its reason; the source is not touched."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.contracts.preparation import Snapshot
from tasks.core.errors import InputError, MissingDependencyError
from tasks.core.storage import open_store, run_store
from tasks.ingest import SourceConfig, take_snapshot
from tasks.ingest.reading import read_source
from tasks.ingest.snapshot import Ingested, make_snapshot
from tests.support.public_data import FOLDER

GOOD = {"id": "good", "instruction": "Hi", "output": "Hello"}


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8"
    )
    return path


def ingest(path: Path | str, **settings: Any) -> Ingested:
    config = SourceConfig(path=str(path), **settings)
    source = read_source(config.path, encoding=config.encoding, hub_split=config.hub_split)
    return make_snapshot(source, config)


def texts(row: dict[str, Any], field: str = "messages") -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row[field]]


def reasons(result: Ingested) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in result.quarantined_rows}


# ------------------------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize(
    ("record", "settings", "input_format", "messages"),
    [
        (
            {"instruction": "Sort.", "input": "b, a", "output": "a, b"},
            {},
            "alpaca",
            [("user", "Sort.\n\nb, a"), ("assistant", "a, b")],
        ),
        ({"instruction": "Sort.", "input": "", "output": "a"}, {}, "alpaca", [("user", "Sort."), ("assistant", "a")]),
        (
            {"instruction": "Sort.", "context": "b", "response": "a"},
            {},
            "alpaca",
            [("user", "Sort.\n\nb"), ("assistant", "a")],
        ),
        ({"prompt": "1+1", "completion": "2"}, {}, "prompt_completion", [("user", "1+1"), ("assistant", "2")]),
        ({"question": "1+1", "answer": "2"}, {}, "prompt_completion", [("user", "1+1"), ("assistant", "2")]),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
            {"system_prompt": "Be kind."},
            "chat",
            [("system", "Be kind."), ("user", "Hi"), ("assistant", "Ho")],
        ),
        (
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
            {"system_prompt": "Be kind."},
            "chat",
            [("system", "Be brief."), ("user", "Hi")],
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            {},
            "chat",
            [("user", "Hi"), ("assistant", "Ho")],
        ),
        (
            {"text": "Where is it?", "label": "card_arrival"},
            {},
            "classification",
            [("user", "Where is it?"), ("assistant", "card arrival")],
        ),
        (
            {"query": "Where is it?", "category": "card_arrival"},
            {"reply_from_label": "verbatim", "prompt_template": "Intent of {text}?"},
            "classification",
            [("user", "Intent of Where is it??"), ("assistant", "card_arrival")],
        ),
        (
            {"subject": "Router", "description": "It blinks.", "resolution": "Restart it."},
            {},
            "tickets",
            [("user", "Router\n\nIt blinks."), ("assistant", "Restart it.")],
        ),
        (
            {"q": "1+1", "a": "2"},
            {"format": "prompt_completion", "columns": {"prompt": "q", "completion": "a"}},
            "prompt_completion",
            [("user", "1+1"), ("assistant", "2")],
        ),
    ],
)
def test_a_record_becomes_a_conversation(
    tmp_path: Path, record: dict[str, Any], settings: dict[str, Any], input_format: str, messages: list[tuple[str, str]]
) -> None:
    result = ingest(write_lines(tmp_path / "rows.jsonl", record), **settings)
    assert result.input_format == input_format
    assert texts(result.rows[0]) == messages


ASK = {"role": "user", "content": "Hi"}
YES, NO = {"role": "assistant", "content": "Yes"}, {"role": "assistant", "content": "No"}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Yes", "rejected": "No"},
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"prompt": "Hi", "chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "Hi", "chosen": [YES], "rejected": "No"},
    ],
)
def test_a_pair_becomes_a_prompt_and_two_replies(tmp_path: Path, record: dict[str, Any]) -> None:
    result = ingest(write_lines(tmp_path / "rows.jsonl", record))
    assert result.input_format == "preferences"
    found = tuple(texts(result.rows[0], side) for side in ("prompt", "chosen", "rejected"))
    assert found == ([("user", "Hi")], [("assistant", "Yes")], [("assistant", "No")])


def test_the_same_rows_come_out_of_every_container(tmp_path: Path) -> None:
    import datasets

    records = [{"id": f"r{n}", "text": f'Row {n}: "quoted", ünï\nsecond line', "label": "a_b"} for n in range(5)]
    write_lines(tmp_path / "rows.jsonl", *records)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    (tmp_path / "array.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    for name, delimiter in (("comma.csv", ","), ("semicolon.csv", ";"), ("rows.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(records)
    (tmp_path / "utf16.csv").write_text((tmp_path / "comma.csv").read_text(encoding="utf-8"), encoding="utf-16")
    (tmp_path / "bom.jsonl").write_text((tmp_path / "rows.jsonl").read_text(encoding="utf-8"), encoding="utf-8-sig")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    data = datasets.Dataset.from_list(records)
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "splits"))
    expected = [
        {key: value for key, value in row.items() if key != "source"} for row in ingest(tmp_path / "rows.jsonl").rows
    ]
    assert expected[0]["messages"][0]["content"] == records[0]["text"]
    for name in (
        "rows.jsonl.gz",
        "array.json",
        "comma.csv",
        "semicolon.csv",
        "rows.tsv",
        "bom.jsonl",
        "rows.parquet",
        "saved",
        "splits",
    ):
        found = [{key: value for key, value in row.items() if key != "source"} for row in ingest(tmp_path / name).rows]
        assert found == expected, name
    assert len(ingest(tmp_path / "utf16.csv", encoding="utf-16").rows) == 5


def test_class_numbers_of_a_saved_data_set_become_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["card_lost", "card_found"])}
    )
    datasets.Dataset.from_dict({"text": ["Gone!", "Back!"], "label": [0, 1]}, features=features).save_to_disk(
        str(tmp_path / "saved")
    )
    result = ingest(tmp_path / "saved")
    assert [row["label"] for row in result.rows] == ["card_lost", "card_found"]
    assert texts(result.rows[1])[1] == ("assistant", "card found")


def test_columns_beside_the_texts_are_kept(tmp_path: Path) -> None:
    record = {
        **GOOD, "topic": "billing", "anna": "billing", "ben": None, "cleo": "other", "region": "north", "tier": 3,
        "customer_name": "Ada Lovelace", "account": 4711, "note": "She called before.", "made": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    result = ingest(
        write_lines(tmp_path / "rows.jsonl", record),
        label_column="topic",
        annotation_columns=("anna", "ben", "cleo"),
        group_columns=("region", "tier"),
        known_value_columns=("customer_name", "account"),
        context_column="note",
        created_at_column="made",
    )
    row = result.rows[0]
    assert row["label"] == "billing"
    assert row["annotations"] == [{"annotator": "anna", "label": "billing"}, {"annotator": "cleo", "label": "other"}]
    assert row["groups"] == [{"name": "region", "value": "north"}, {"name": "tier", "value": "3"}]
    assert row["known_values"] == ["Ada Lovelace", "4711"]
    assert (row["context"], row["created_at"], row["source"]) == ("She called before.", "2026-01-02T03:04:05Z", "rows.jsonl")


def test_tickets_bring_their_customary_personal_columns(tmp_path: Path) -> None:
    record = {"body": "Help", "reply": "Sure", "customer_name": "Ada", "account_id": "A-1", "category": "misc"}
    row = ingest(write_lines(tmp_path / "rows.jsonl", record)).rows[0]
    assert row["known_values"] == ["Ada", "A-1"]
    assert row["label"] == "misc"


def test_times_and_numbers_of_parquet_are_written_out(tmp_path: Path) -> None:
    table = pa.table(
        {"prompt": ["a"], "completion": ["b"], "id": [7], "created_at": [dt.datetime(2026, 1, 2, 3, 4)], "label": [1]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    row = ingest(tmp_path / "rows.parquet").rows[0]
    assert (row["id"], row["created_at"], row["label"]) == ("7", "2026-01-02T03:04:00", "1")


def test_most_rows_decide_the_format(tmp_path: Path) -> None:
    odd = {"prompt": "a", "chosen": "b", "rejected": "c", "id": "odd"}
    result = ingest(write_lines(tmp_path / "rows.jsonl", odd, GOOD, {**GOOD, "id": "too"}))
    assert result.input_format == "alpaca"
    assert reasons(result) == {"odd": "missing_field"}


# ------------------------------------------------------------------------------------------------------------------ ids


def test_generated_ids_depend_on_content_alone(tmp_path: Path) -> None:
    records = [{"prompt": f"question {n}", "completion": "yes"} for n in range(4)]
    records += records[:2]
    first = [row["id"] for row in ingest(write_lines(tmp_path / "a.jsonl", *records)).rows]
    second = [row["id"] for row in ingest(write_lines(tmp_path / "b.jsonl", *reversed(records))).rows]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 6
    assert first[4] == f"{first[0]}-2"


def test_an_id_with_two_meanings_is_refused_and_a_row_said_twice_is_dropped(tmp_path: Path) -> None:
    twice, again = {**GOOD, "id": "twice"}, {**GOOD, "id": "twice", "output": "Other"}
    result = ingest(write_lines(tmp_path / "rows.jsonl", GOOD, twice, again, {**GOOD, "id": "same"}, {**GOOD, "id": "same"}))
    assert [row["id"] for row in result.rows] == ["good", "same"]
    assert [(r["id"], r["reason"], r["disposition"]) for r in result.quarantined_rows] == [
        ("twice", "duplicate_id", "quarantined"),
        ("twice", "duplicate_id", "quarantined"),
        ("same", "repeated_row", "dropped"),
    ]


def test_an_id_that_may_be_personal_is_replaced(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "rows.jsonl",
        {**GOOD, "id": "ada@example.com"},
        {"id": "bob@example.com", "instruction": 3, "output": "x"},
        GOOD,
    )
    result = ingest(path)
    assert not any("@" in row["id"] for row in (*result.rows, *result.quarantined_rows))
    assert "1 ids" in result.notes[0]


# ------------------------------------------------------------------------------------------------------------- bad records


@pytest.mark.parametrize(
    ("line", "name", "reason"),
    [
        ('{"instruction": "cut o', "line-2", "malformed_json"),
        ("[1, 2]", "line-2", "not_an_object"),
        ("null", "line-2", "not_an_object"),
        ("[" * 60_000, "line-2", "nested_too_deeply"),
        ('{"id": ' + "9" * 5_000 + "}", "line-2", "malformed_json"),
        ({"id": "bad", "instruction": "Hi"}, "bad", "missing_field"),
        ({"id": "bad", "instruction": "Hi", "output": None}, "bad", "missing_field"),
        ({"id": "bad", "instruction": "Hi", "output": 42}, "bad", "not_text"),
        ({"id": "bad", "instruction": {"a": [1]}, "output": "x"}, "bad", "not_text"),
        ({"id": "bad", "instruction": "Hi", "output": "x", "input": ["y"]}, "bad", "not_text"),
        ({"id": "bad", "instruction": "Hi", "output": "\ud800"}, "bad", "lone_surrogate"),
        ({"id": "bad", "instruction": "Hi\x00", "output": "x"}, "bad", "nul_character"),
        ({"id": "bad", "instruction": "Hi", "output": "x", "label": "a\x00"}, "bad", "nul_character"),
        ({"id": "bad", "instruction": "Hi", "output": "x", "label": {"a": 1}}, "bad", "not_text"),
        ({"id": {"a": 1}, "instruction": "Hi", "output": "x"}, "line-2", "not_text"),
    ],
)
def test_a_bad_record_is_kept_with_its_reason_and_its_line(tmp_path: Path, line: Any, name: str, reason: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", GOOD, line)
    result = ingest(path)
    assert reasons(result) == {name: reason}
    assert result.quarantined_rows[0]["content"] == path.read_text(encoding="utf-8").split("\n")[1]
    assert [row["id"] for row in result.rows] == ["good"]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("not a list", "not_a_conversation"),
        ([1], "not_a_conversation"),
        ([{"role": "user"}], "missing_field"),
        ([{"content": "x"}], "missing_field"),
        ([{"role": "user", "content": [{"type": "image"}]}], "image_content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "not_text"),
        ([{"role": 1, "content": "x"}], "not_text"),
    ],
)
def test_a_bad_conversation_is_refused(tmp_path: Path, messages: Any, reason: str) -> None:
    good = {"id": "good", "messages": [ASK, YES]}
    result = ingest(write_lines(tmp_path / "rows.jsonl", good, {"id": "bad", "messages": messages}))
    assert reasons(result) == {"bad": reason}


def test_blank_lines_are_no_records_and_line_ends_are_only_line_feeds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"prompt": "a\xe2\x80\xa8b", "completion": "c"}\r\n\n  \nbroken\n')
    result = ingest(path)
    assert texts(result.rows[0])[0] == ("user", "a\u2028b")
    assert reasons(result) == {"line-5": "malformed_json"}


def test_csv_faults_cost_one_row_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"two\nlines",a\nshort\nlong,a,b\n"x" y,a\n\nfine,a\n')
    result = ingest(path)
    assert [texts(row)[0][1] for row in result.rows] == ["two\nlines", "fine"]
    assert reasons(result) == {
        "line-4": "wrong_number_of_fields",
        "line-5": "wrong_number_of_fields",
        "line-6": "malformed_csv",
    }
    assert [row["content"] for row in result.quarantined_rows] == ["short", "long,a,b", '"x" y,a']


def test_a_megabyte_in_one_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "x" * 1_000_000 + ",a\n")
    assert len(texts(ingest(tmp_path / "rows.csv").rows[0])[0][1]) == 1_000_000


# ---------------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("rows.jsonl", None, "no such file"),
        ("rows.jsonl", b"", "an empty file"),
        ("rows.jsonl", b" \n\n", "an empty file"),
        ("rows.jsonl", b'{"prompt": "caf\xe9", "completion": "x"}\n', r"not utf-8 at byte 15 \(line 1\)"),
        ("rows.csv", "text,label\nh\u00e9,a\n".encode("utf-16-le"), "utf-16-le"),
        ("rows.jsonl", b"not json\nnor this\n", "malformed_json 2; first: line-1, line-2"),
        ("rows.jsonl", b'{"a": 1, "b": "x"}\n', "columns a, b"),
        (
            "rows.jsonl",
            b'{"prompt": 1, "completion": 2}\n',
            "1 records and none usable .not_text in `prompt` 1 .column `prompt`, int",
        ),
        ("rows.json", b'[{"prompt": "a"} {}]', "array|Illegal|Expecting"),
        ("rows.json", b"[" * 100_000, "RecursionError"),
        ("rows.csv", b'text,label\n"never closed,a\nb,c\n', "a quote that is never closed"),
        ("rows.csv", b"text,text\na,b\n", "header"),
        ("rows.csv", b"text,label\n", "0 records|none at all"),
        ("rows.parquet", b"PAR1 not really", "not readable as Parquet"),
        ("rows.parquet", b"neither this", "not readable as Parquet"),
        ("rows.jsonl.gz", b"\x1f\x8b cut short", "not readable as gzip"),
        ("rows.xlsx", b"PK\x03\x04", "not readable as zip"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=found) as raised:
        ingest(tmp_path / name)
    assert raised.value.exit_code == 2


def test_missing_columns_name_what_is_there_and_what_should_be(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", {"query": "a", "intent_name": "b"})
    with pytest.raises(
        InputError, match=r"columns intent_name, query.*classification: text\|sentence\|utterance\|query \+ label"
    ):
        ingest(path)
    with pytest.raises(InputError, match="expected classification: words \\+ topic"):
        ingest(path, format="classification", columns={"text": "words"}, label_column="topic")
    assert len(ingest(path, label_column="intent_name").rows) == 1


@pytest.mark.parametrize(
    ("name", "text", "secrets"),
    [
        ("raw.csv", "card,4111111111111111\nhello,world\n", ["4111", "card"]),
        ("raw.tsv", "Ada Lovelace\tmy knee hurts\nBob\tthanks\n", ["Ada", "knee"]),
        ("raw.CSV", "Grüße aus Köln;0171 2345678\nja;nein\n", ["Köln", "0171"]),
        ("keyed.jsonl", '{"ada@example.org": "hello", "DE89370400440532013000": "x"}\n', ["ada", "DE89"]),
    ],
)
def test_a_row_in_place_of_names_stands_in_no_error(tmp_path: Path, name: str, text: str, secrets: list[str]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as raised:
        ingest(tmp_path / name)
    assert not [secret for secret in secrets if secret in str(raised.value)]


def test_a_folder_that_is_no_data_set_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder"):
        ingest(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        ingest(tmp_path)


def test_a_hub_id_without_internet_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="neither a local file nor a hub data set"):
        ingest("PolyAI/no-such-data-set")


def test_a_saved_data_set_without_the_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"perennial-llm\[ingest\]"):
        ingest(tmp_path)


def test_a_refused_row_goes_by_its_own_id_whatever_the_column(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", {**GOOD, "ref": "r-1"}, {"id": "other", "ref": "r-2", "instruction": "Hi"})
    assert reasons(ingest(path, columns={"id": "ref"})) == {"r-2": "missing_field"}


@pytest.mark.parametrize(
    "bad",
    [{"prompt_template": "no place"}, {"encoding": "utf-99"}, {"columns": {"sound": "x"}}, {"max_rows": 0}, {"pth": "x"}],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SourceConfig(**{"path": "x.jsonl", **bad})


# ----------------------------------------------------------------------------------------------------------------- sampling


def test_a_sample_is_random_repeatable_and_independent_of_order(tmp_path: Path) -> None:
    records = [{"id": f"r{n:03}", "prompt": f"question {n}", "completion": "yes"} for n in range(200)]
    first = ingest(write_lines(tmp_path / "a.jsonl", *records), max_rows=50)
    second = ingest(write_lines(tmp_path / "b.jsonl", *random.Random(1).sample(records, 200)), max_rows=50)
    other = ingest(tmp_path / "a.jsonl", max_rows=50, seed=1)
    drawn = [{row["id"] for row in result.rows} for result in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [row["id"] for row in first.rows] == sorted(drawn[0])
    assert sum(reason == "not_sampled" for reason in reasons(first).values()) == 150
    assert len(ingest(tmp_path / "a.jsonl", max_rows=500).rows) == 200


# ----------------------------------------------------------------------------------------------------------------- the task


def test_the_task_freezes_the_source_and_leaves_it_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", GOOD, {**GOOD, "id": "two"}, "broken")
    before, changed = path.read_bytes(), path.stat().st_mtime_ns
    path.chmod(0o444)
    config = SourceConfig(path=str(path))
    report = take_snapshot.fn(config, str(tmp_path / "store"))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, changed)
    assert isinstance(report, Snapshot)
    assert report.source_sha256 == hashlib.sha256(before).hexdigest()
    assert (report.dataset.parents, report.dataset.passed) == ((report.source_sha256,), ("ingested",))
    assert (report.num_rows_in, report.dataset.num_rows, dict(report.quarantined)) == (3, 2, {"malformed_json": 1})
    store = run_store()
    assert report.quarantine is not None
    assert store.read_rows(report.quarantine)[0]["content"] == "broken"
    store.verify_lineage(report.dataset, descends_from=report.dataset.sha256, passed=["ingested"])
    again = take_snapshot.fn(config, str(tmp_path / "store"))
    assert again.dataset == report.dataset


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["id", "instruction", "output", "input", "label", "context"]), _VALUES), max_size=8
    )
)
def test_whatever_the_values_every_record_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = write_lines(tmp_path_factory.mktemp("any") / "rows.jsonl", GOOD, *records)
    # Named, because records such as {"output": ..., "input": ...} may outvote the good one about the format.
    result = ingest(path, format="alpaca")
    assert len(result.rows) + len(result.quarantined_rows) == 1 + len(records)
    assert len({row["id"] for row in result.rows}) == len(result.rows)
    open_store(path.parent).write_rows(result.rows, kind="messages")
    open_store(path.parent).write_rows(result.quarantined_rows, kind="quarantine")


# --------------------------------------------------------------------------------------------------------------- real data

needs_public = pytest.mark.skipif(not FOLDER.is_dir(), reason="PERENNIAL_BENCH_DATA names no public data")


@needs_public
@pytest.mark.parametrize(
    ("name", "input_format", "num_rows"),
    [
        ("banking77/train.csv", "classification", 10_003),
        ("alpaca1100/instructions.jsonl", "alpaca", 1_100),
        ("alpaca1100/preferences.jsonl", "preferences", 1_100),
    ],
)
def test_real_files_are_read_whole(name: str, input_format: str, num_rows: int) -> None:
    result = ingest(FOLDER / name)
    assert (result.input_format, len(result.rows), result.quarantined_rows) == (input_format, num_rows, [])
